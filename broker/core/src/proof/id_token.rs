//! OIDC ID tokens: parsed strictly, checked against the declaration of the issuer that they name.

use std::collections::{BTreeMap, BTreeSet};

use daypass_evidence::entry::{ProofKind, ProofUse};
use daypass_verify::ids::{Digest, Name};
use daypass_verify::jose::{JoseError, SignedToken, UnverifiedToken};
use daypass_verify::time::{Seconds, UnixMs};
use serde_json::Value;

use super::matching::Facts;
use super::principal::Principal;
use super::{IssuerKeys, KnownKeys, LEEWAY, ProofError};
use crate::bundle::Bundle;
use crate::bundle::object::{Declared, Issuer, IssuerKind};

/// No declaration makes a proof good for longer than this.
const PROOF_TTL_MAX: Seconds = Seconds::new(86_400);
const INSTANCE_LEN_MAX: usize = 256;
/// Longer claims count as absent: whatever is looked at is recorded, and an entry is small.
const CLAIM_LEN_MAX: usize = 512;

/// What an issuer's declaration says about its tokens.
struct Rules<'a> {
    name: &'a Name,
    issuer: &'a Issuer,
    algs: &'a BTreeSet<String>,
    typs: &'a BTreeSet<String>,
    ttl_max: Seconds,
    instance_claim: Option<&'a str>,
    refuse_key_urls: bool,
}

pub(super) fn verify(
    token: UnverifiedToken,
    bundle: &Bundle,
    known: &KnownKeys,
    our_issuer: &str,
    now: UnixMs,
) -> Result<Principal, ProofError> {
    let declared = bundle.declared();
    let iss = token.unverified_issuer()?.to_owned();
    if iss == our_issuer {
        let why = "a credential of this broker is no proof: show what your own platform issued";
        return Err(ProofError::refused("OWN_CREDENTIAL", why));
    }
    let rules = rules_of(declared, &iss).ok_or(JoseError::BadIssuer)?;
    rules.check_header(&token)?;
    let (digest, signed_digest) = (token.digest(), token.signed_digest());
    let signed = check_signature(token, rules.name, known)?;
    let claimed = rules.check_claims(&signed, bundle, our_issuer, now)?;
    Ok(principal(&rules, claimed, (iss, digest, signed_digest), bundle))
}

// Byte for byte: another spelling of an issuer is another issuer.
fn rules_of<'a>(declared: &'a Declared, iss: &str) -> Option<Rules<'a>> {
    declared.issuers.iter().find_map(|(name, issuer)| match &issuer.kind {
        IssuerKind::Oidc { url, algs, typs, proof_ttl_max_s, instance_claim, refuse_key_urls, .. }
            if url == iss =>
        {
            Some(Rules {
                name,
                issuer,
                algs,
                typs,
                ttl_max: (*proof_ttl_max_s).min(PROOF_TTL_MAX),
                instance_claim: instance_claim.as_deref(),
                refuse_key_urls: *refuse_key_urls,
            })
        }
        _ => None,
    })
}

fn check_signature(
    token: UnverifiedToken,
    issuer: &Name,
    known: &KnownKeys,
) -> Result<SignedToken, ProofError> {
    let IssuerKeys::Jwks(keys) = known.keys(issuer) else {
        return Err(ProofError::KeysUnavailable { issuer: issuer.clone() });
    };
    let Ok(key) = keys.key_for(&token) else {
        return Err(ProofError::UnknownKey { issuer: issuer.clone() });
    };
    token.verify(key).map_err(|error| match error {
        JoseError::BadSignature => ProofError::ReplacedKey { issuer: issuer.clone() },
        other => other.into(),
    })
}

/// What the claims of a signed token say.
struct Claimed {
    subject: String,
    instance: Option<String>,
    claims: BTreeMap<String, String>,
    issued_at: UnixMs,
    expires_at: UnixMs,
}

impl Rules<'_> {
    fn check_header(&self, token: &UnverifiedToken) -> Result<(), ProofError> {
        let alg = token.alg().to_string();
        if !self.algs.contains(&alg) {
            let declared = self.algs.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
            let why =
                format!("`{alg}` is not what this issuer is declared to sign with: expected {declared}");
            return Err(ProofError::refused("ALG_NOT_ALLOWED", why));
        }
        let typ = token.typ().unwrap_or("JWT");
        if !self.typs.contains(typ) {
            return Err(JoseError::Typ.into());
        }
        if self.refuse_key_urls && !token.foreign_key_headers().is_empty() {
            let why = "expected a header without `jku` and `x5u`, as this issuer is declared";
            return Err(ProofError::refused("FOREIGN_KEY_URL", why));
        }
        if token.kid().is_none() {
            return Err(JoseError::UnknownKey.into());
        }
        Ok(())
    }

    fn check_claims(
        &self,
        token: &SignedToken,
        bundle: &Bundle,
        our_issuer: &str,
        now: UnixMs,
    ) -> Result<Claimed, ProofError> {
        // Rules see claims too; a twin of one that they look at spoils the proof as well.
        let mut used = bundle.clauses().used_claims(self.name);
        used.extend(bundle.rules().claims().iter().map(String::as_str));
        token.check_no_twins_of(&used)?;
        if token.single_audience()? != our_issuer {
            return Err(JoseError::BadAudience.into());
        }
        let lifetime = token.lifetime(now, LEEWAY, self.ttl_max)?;
        let claims = scalar_claims(token, &used);
        Ok(Claimed {
            subject: token.subject()?.to_owned(),
            instance: self.instance(&claims)?,
            claims,
            issued_at: lifetime.issued_at,
            expires_at: lifetime.expires_at,
        })
    }

    fn instance(&self, claims: &BTreeMap<String, String>) -> Result<Option<String>, ProofError> {
        let fits = |value: &&String| {
            (1..=INSTANCE_LEN_MAX).contains(&value.len()) && !value.chars().any(char::is_control)
        };
        match self.instance_claim {
            Some(name) => {
                let why = || {
                    format!("expected claim `{name}` to name the instance, in 1 to {INSTANCE_LEN_MAX} bytes")
                };
                let value = claims.get(name).filter(fits);
                value.cloned().map(Some).ok_or_else(|| ProofError::refused("BAD_INSTANCE", why()))
            }
            None if self.issuer.replay == ProofUse::UntilExpiry => {
                let why = "a token that may be shown again must name its instance: declare `instance_claim`";
                Err(ProofError::refused("BAD_INSTANCE", why))
            }
            None => Ok(None),
        }
    }
}

/// Claims that are one value: text, a whole number or a boolean. Others are looked at by nothing. Those of the top
/// level are here, and of those within others the ones that are `used`, by their pointers.
fn scalar_claims(token: &SignedToken, used: &[&str]) -> BTreeMap<String, String> {
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) if number.is_i64() || number.is_u64() => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    };
    let is_pointer = |name: &&str| name.starts_with('/');
    let top = token.claims().iter().map(|(name, value)| (name.as_str(), value));
    let nested = used.iter().copied().filter(is_pointer).filter_map(|name| Some((name, token.claim(name)?)));
    // A name that looks like a pointer is none: it would stand for another claim.
    let all = top.filter(|(name, _)| !is_pointer(name)).chain(nested);
    let named = all.filter_map(|(name, value)| Some((name.to_owned(), text(value)?)));
    named.filter(|(_, value)| value.len() <= CLAIM_LEN_MAX).collect()
}

fn principal(
    rules: &Rules<'_>,
    claimed: Claimed,
    (issuer_id, digest, signed): (String, Digest, Digest),
    bundle: &Bundle,
) -> Principal {
    let facts = Facts {
        issuer: rules.name.clone(),
        kind: ProofKind::IdToken,
        subject: claimed.subject,
        claims: claimed.claims,
        spiffe_id: None,
        dns_names: Vec::new(),
        via: None,
    };
    Principal {
        identities: facts.identities(bundle),
        operators: facts.operators(bundle),
        bundle: bundle.digest(),
        node: None,
        facts,
        issuer_id,
        issuer_disabled: rules.issuer.disabled,
        instance: claimed.instance,
        digest,
        signed,
        issued_at: claimed.issued_at,
        expires_at: claimed.expires_at,
        caps: rules.issuer.proof_caps,
        usage: rules.issuer.replay,
        actor: rules.issuer.actor,
        binding: None,
    }
}
