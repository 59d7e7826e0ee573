//! Issuers: whom we believe must be named exactly, and reachable safely.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use daypass_evidence::entry::ProofUse;
use daypass_verify::certificate::TrustAnchors;
use daypass_verify::ids::Name;
use daypass_verify::jose::Alg;
use daypass_verify::time::Seconds;
use rustls_pki_types::CertificateDer;
use url::Url;

use super::Check;
use super::task::{PROOF_CLAIM, is_proof_claim};
use crate::bundle::object::{Issuer, IssuerKind, KeySource};
use crate::bundle::preset::Preset;

/// A proof that lives longer than a day is a static secret with a date.
const PROOF_TTL_MAX: Seconds = Seconds::new(86_400);

pub(super) fn issuer(check: &mut Check<'_>, name: &Name, it: &Issuer) {
    let subject = ("issuer", name.as_str());
    check.environment(subject, it.environment.as_str());
    match &it.kind {
        IssuerKind::Oidc {
            url,
            keys,
            algs,
            proof_ttl_max_s,
            instance_claim,
            tls_ca,
            required_claims,
            ..
        } => {
            https(check, name, "url", url);
            shared(check, name, it.preset, url);
            if let KeySource::JwksUrl(url) = keys {
                https(check, name, "jwks_url", url);
            }
            for alg in algs.iter().filter(|alg| alg.parse::<Alg>().is_err()) {
                let message = format!(
                    "`{}` is not an accepted algorithm: expected such as `ES256` or `RS256`",
                    alg.escape_debug()
                );
                check.refuse("alg", subject, &format!("algs.{alg}"), &message);
            }
            if *proof_ttl_max_s > PROOF_TTL_MAX {
                let message =
                    format!("`proof_ttl_max` of {proof_ttl_max_s} is over {PROOF_TTL_MAX}: lower it");
                check.refuse("ttl", subject, "proof_ttl_max", &message);
            }
            instance(check, name, it.replay, instance_claim.as_deref());
            anchors(check, name, "tls_ca", tls_ca);
            for claim in required_claims.iter().flatten().filter(|claim| !is_proof_claim(claim)) {
                check.refuse("claim-name", subject, &format!("required_claims.{claim}"), PROOF_CLAIM);
            }
        }
        IssuerKind::Nodes => nodes(check, name),
        IssuerKind::ClientCa { ca, crl_file, .. } => {
            anchors(check, name, "ca", ca);
            if crl_file.is_none() {
                check.warn(
                    "no-crl",
                    subject,
                    "kind",
                    "a client CA without `crl_file`: a stolen certificate works until its own end",
                );
            }
        }
    }
}

/// A certificate of a node says that it is one of this broker's, and not by which declaration.
fn nodes(check: &mut Check<'_>, name: &Name) {
    let declared = check.declared;
    let mut of_kind = declared.issuers.iter().filter(|(_, it)| it.kind == IssuerKind::Nodes);
    let first = of_kind.next().map(|(name, _)| name);
    if let Some(first) = first.filter(|first| *first != name) {
        let message = format!("issuer `{first}` stands for nodes already: expected one of this kind");
        check.refuse("nodes", ("issuer", name.as_str()), "kind", &message);
    }
}

/// Whose proofs are shown again and again must say which instance shows them: else a copy is as good.
fn instance(check: &mut Check<'_>, name: &Name, replay: ProofUse, claim: Option<&str>) {
    let subject = ("issuer", name.as_str());
    if replay == ProofUse::UntilExpiry && claim.is_none() {
        check.refuse("no-instance", subject, "replay", "`replay` is `until_expiry` without `instance_claim`: name the claim that tells one instance from another, such as a pod's uid");
    }
    if claim.is_some_and(|claim| !is_proof_claim(claim)) {
        check.refuse("claim-name", subject, "instance_claim", PROOF_CLAIM);
    }
}

/// Who speaks for everybody's jobs is believed only about those that are named.
fn shared(check: &mut Check<'_>, name: &Name, preset: Option<Preset>, url: &str) {
    let host = Url::parse(url).ok().and_then(|url| url.host_str().map(str::to_owned));
    let expected = host.as_deref().and_then(Preset::of_shared_host);
    if let (None, Some(expected)) = (preset, expected) {
        let message = format!(
            "`url` is that of an issuer that vouches for everybody: expected `preset = \"{expected}\"`, which asks each proof whose it is"
        );
        check.refuse("preset", ("issuer", name.as_str()), "url", &message);
    }
}

fn https(check: &mut Check<'_>, name: &Name, key: &str, text: &str) {
    if let Some(what) = flaw(text) {
        let message =
            format!("`{key}` `{}` {what}: expected `https://` + host + optional path", text.escape_debug());
        check.refuse("issuer-url", ("issuer", name.as_str()), key, &message);
    }
}

/// What is wrong with the URL of an issuer (OpenID Connect Discovery 1.0, section 2; RFC 8414, section 2).
fn flaw(text: &str) -> Option<&'static str> {
    let Ok(url) = Url::parse(text) else { return Some("is no URL") };
    let port = url.port_or_known_default();
    match () {
        () if url.scheme() != "https" => Some("is not https"),
        () if !url.username().is_empty() || url.password().is_some() => Some("names a user"),
        () if url.fragment().is_some() || url.query().is_some() => Some("has a query or a fragment"),
        () if url.host_str().is_none_or(str::is_empty) => Some("has no host"),
        () if port.is_none_or(|port| port != 443 && port < 1024) => Some("has a port that no web server has"),
        () if !is_normal(text, &url) => Some("is not in its normal form"),
        () => None,
    }
}

/// Whether a reader that normalises would see the very same text, but for a `/` after the host.
fn is_normal(text: &str, url: &Url) -> bool {
    let normal = url.as_str();
    text == normal || Some(text) == normal.strip_suffix('/')
}

fn anchors(check: &mut Check<'_>, name: &Name, key: &str, encoded: &[String]) {
    let ders: Result<Vec<_>, _> =
        encoded.iter().map(|it| STANDARD.decode(it).map(CertificateDer::from)).collect();
    let refused = match ders {
        Ok(ders) if ders.is_empty() => return,
        Ok(ders) => TrustAnchors::new(ders).err().map(|error| error.to_string()),
        Err(_) => Some("not base64".to_owned()),
    };
    if let Some(why) = refused {
        let message = format!("`{key}` holds what is no CA certificate ({why}): expected PEM of its roots");
        check.refuse("ca", ("issuer", name.as_str()), key, &message);
    }
}

/// Two issuers of one URL could each vouch for what the other says.
pub(super) fn urls(check: &mut Check<'_>) {
    let declared = check.declared;
    let mut taken: BTreeMap<&str, &Name> = BTreeMap::new();
    for (name, issuer) in &declared.issuers {
        let IssuerKind::Oidc { url, .. } = &issuer.kind else { continue };
        if let Some(first) = taken.insert(url, name) {
            let message =
                format!("`url` is that of issuer `{first}` already: expected one issuer for each URL");
            check.refuse("issuer-url", ("issuer", name.as_str()), "url", &message);
        }
    }
}
