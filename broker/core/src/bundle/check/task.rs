//! Tasks and targets: what a credential may say, and for how long.

use std::collections::{BTreeMap, BTreeSet};

use daypass_evidence::entry::{CredentialType, Profile, Reach};
use daypass_verify::ids::Name;
use daypass_verify::pointer;
use daypass_verify::scope::Audience;
use daypass_verify::time::Seconds;

use super::Check;
use crate::bundle::object::{ClaimSource, Target, Task};
use crate::state::RS256;

/// How long a token may live at most.
const TOKEN_TTL_MAX: Seconds = Seconds::new(3600);
/// How long a certificate may live at most.
const CERTIFICATE_TTL_MAX: Seconds = Seconds::new(86_400);
/// How long anything may live that no revocation reaches.
const UNREACHED_TTL_MAX: Seconds = Seconds::new(900);
/// RFC 5280, appendix A.1: `ub-common-name`.
const COMMON_NAME_LEN_MAX: usize = 64;

/// Claims that Daypass sets itself, or that a receiver gives a meaning of its own (RFC 7519, 7800, 8693, 9068,
/// 9396; the token status list).
const RESERVED_CLAIMS: [&str; 20] = [
    "iss",
    "sub",
    "aud",
    "exp",
    "nbf",
    "iat",
    "jti",
    "cnf",
    "client_id",
    "scope",
    "authorization_details",
    "act",
    "may_act",
    "acr",
    "amr",
    "auth_time",
    "azp",
    "nonce",
    "status",
    "typ",
];

pub(super) fn task(check: &mut Check<'_>, name: &Name, it: &Task) {
    let subject = ("task", name.as_str());
    for target in &it.targets {
        check.refer(subject, &format!("targets.{target}"), "target", target.as_str());
    }
    scope(check, name, it);
    credentials(check, name, it);
    ttl(check, name, it);
    claims(check, name, it);
    if let Some(approval) = &it.approval {
        for role in &approval.roles {
            super::workload::role(check, subject, "approval.roles", role.as_str());
        }
        if approval.n == 0 {
            check.refuse("approval", subject, "approval.n", "`approval.n` is 0: expected 1 or more");
        }
    }
}

fn scope(check: &mut Check<'_>, name: &Name, it: &Task) {
    let declared = check.declared;
    let targets: Vec<_> = it.targets.iter().filter_map(|target| declared.targets.get(target)).collect();
    if targets.len() < it.targets.len() {
        return;
    }
    for audience in &it.scope.audiences {
        if !targets.iter().any(|target| target.audiences.contains(audience)) {
            let message = format!(
                "audience `{audience}` belongs to none of its targets: add it to the target it names, or add that target"
            );
            check.refuse(
                "foreign-audience",
                ("task", name.as_str()),
                &format!("audiences.{audience}"),
                &message,
            );
        }
    }
}

fn credentials(check: &mut Check<'_>, name: &Name, it: &Task) {
    let subject = ("task", name.as_str());
    if !it.kinds.contains(&it.profile) {
        let message =
            format!("`profile` is `{}`, which is not among `kinds`: add it there", it.profile.as_str());
        check.refuse("profile", subject, "profile", &message);
    }
    if it.kinds.contains(&Profile::Node) && it.kinds.len() > 1 {
        let message = "kind `node` beside others: expected a task of its own, a node certificate is good for nothing else";
        check.refuse("node", subject, "kinds", message);
    }
    if it.kinds.contains(&Profile::Node) && it.revoke_on_renew {
        let message = "kind `node` with `revoke_on_renew`: remove it, a renewed node certificate must still be known when it is shown again";
        check.refuse("node", subject, "revoke_on_renew", message);
    }
    let makes = |made: CredentialType| it.kinds.iter().any(|kind| kind.credential_type() == made);
    if makes(CredentialType::X509) && it.targets.len() > 1 {
        check.refuse(
            "certificate-targets",
            subject,
            "targets",
            "certificates for more than one target: expected exactly one, a certificate names no audience",
        );
    }
    if makes(CredentialType::Jwt) && it.scope.audiences.is_empty() {
        check.refuse(
            "no-audience",
            subject,
            "audiences",
            "tokens without `audiences`: name those that may take them",
        );
    }
    match (&it.common_name, it.kinds.contains(&Profile::CommonName)) {
        (None, true) => check.refuse("common-name", subject, "kinds", "kind `common-name` without `common_name`: say which role or user it stands for"),
        (Some(_), false) => check.refuse("common-name", subject, "common_name", "`common_name` without the kind `common-name`: add it to `kinds`, or remove the name"),
        (Some(text), true) if !is_common_name(text) => check.refuse("common-name", subject, "common_name", "`common_name` is no role or user name: expected 1 to 64 of letters, digits, `.`, `_`, `@` and `-`"),
        _ => {}
    }
    for host in it.dns_names.iter().filter(|host| !is_host(host)) {
        let message = format!("`{}` is no DNS name in lower case, without wildcard", host.escape_debug());
        check.refuse("dns-name", subject, &format!("dns_names.{host}"), &message);
    }
    match it.alg.as_str() {
        "ES256" => {}
        RS256 if !makes(CredentialType::X509) => {}
        RS256 => check.refuse(
            "alg",
            subject,
            "alg",
            "`alg` is `RS256` where certificates are issued too: expected `ES256`, or a task of its own for the tokens",
        ),
        _ => check.refuse(
            "alg",
            subject,
            "alg",
            "`alg` is none that signs here: expected `ES256`, or `RS256` for tokens that are signed by an imported key",
        ),
    }
}

/// What can stand in a subject CN without being read as something else: no wildcard, no separator.
fn is_common_name(text: &str) -> bool {
    (1..=COMMON_NAME_LEN_MAX).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'@' | b'-'))
}

/// A host name as RFC 1123, section 2.1, has it, in lower case.
pub(super) fn is_host(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

fn ttl(check: &mut Check<'_>, name: &Name, it: &Task) {
    let subject = ("task", name.as_str());
    if it.ttl_s > it.ttl_max_s {
        let message = format!("`ttl` of {} is over `ttl_max` of {}: lower it", it.ttl_s, it.ttl_max_s);
        check.refuse("ttl", subject, "ttl", &message);
    }
    let declared = check.declared;
    let unreached = it
        .targets
        .iter()
        .any(|target| declared.targets.get(target).is_some_and(|target| target.reach == Reach::None));
    let token = it.kinds.iter().any(|kind| kind.credential_type() == CredentialType::Jwt);
    let (limit, because) = match (unreached, token) {
        (true, _) => (UNREACHED_TTL_MAX, "no revocation reaches its target"),
        (false, true) => (TOKEN_TTL_MAX, "it is done with tokens"),
        (false, false) => (CERTIFICATE_TTL_MAX, "it is done with certificates"),
    };
    if it.ttl_max_s > limit {
        let message =
            format!("`ttl_max` of {} is over {limit}, the most that is possible as {because}", it.ttl_max_s);
        check.refuse("ttl", subject, "ttl_max", &message);
    }
}

fn claims(check: &mut Check<'_>, name: &Name, it: &Task) {
    let subject = ("task", name.as_str());
    for (claim, source) in &it.claims {
        let key = format!("claims.{claim}");
        if RESERVED_CLAIMS.contains(&claim.as_str()) {
            let message = format!("claim `{claim}` is reserved: choose another name");
            check.refuse("reserved-claim", subject, &key, &message);
        }
        let copied = match source {
            ClaimSource::Proof(copied) => copied.as_str(),
            ClaimSource::Constant(_) => claim,
        };
        if !is_claim(claim) || !is_proof_claim(copied) {
            check.refuse("claim-name", subject, &key, PROOF_CLAIM);
        }
    }
}

/// A claim's name that entries and rules can hold without quoting.
fn is_claim(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(is_claim_byte) && !name.starts_with('/')
}

/// The name of a claim of a proof: plain, or the pointer to one within others.
pub(super) fn is_proof_claim(name: &str) -> bool {
    let is_pointer = || {
        name.len() <= 128
            && name.starts_with('/')
            && name.bytes().all(|b| b == b'~' || is_claim_byte(b))
            && pointer::path(name).is_some()
    };
    is_claim(name) || is_pointer()
}

fn is_claim_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b':' | b'/')
}

/// What is said of a name that is neither.
pub(super) const PROOF_CLAIM: &str = "a claim's name is 1 to 64 letters, digits and `_`, `-`, `.`, `:`, `/`, or for a claim within others a pointer such as `/kubernetes.io/pod/uid` (RFC 6901)";

pub(super) fn target(check: &mut Check<'_>, name: &Name, it: &Target) {
    let subject = ("target", name.as_str());
    check.environment(subject, it.environment.as_str());
    for identity in &it.served_by {
        check.refer(subject, "served_by", "identity", identity.as_str());
    }
}

/// An audience belongs to exactly one target: else what is meant for one could be shown to the other.
pub(super) fn audiences(check: &mut Check<'_>) {
    let declared = check.declared;
    let mut owners: BTreeMap<&Audience, BTreeSet<&Name>> = BTreeMap::new();
    for (name, target) in &declared.targets {
        for audience in &target.audiences {
            owners.entry(audience).or_default().insert(name);
        }
    }
    for (audience, targets) in owners {
        let mut targets = targets.into_iter();
        let first = targets.next();
        for other in targets {
            let first = first.map(Name::as_str).unwrap_or_default();
            let message = format!(
                "audience `{audience}` belongs to target `{first}` already: expected one target for each audience"
            );
            check.refuse(
                "shared-audience",
                ("target", other.as_str()),
                &format!("audiences.{audience}"),
                &message,
            );
        }
    }
}
