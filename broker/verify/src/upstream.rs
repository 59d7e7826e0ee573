//! The path from our issuing CA to a root that is somebody else's: whoever trusts that root must be able to take what our
//! CA issues (RFC 5280, sections 4.2.1 and 6.1; SPIFFE X509-SVID, section 3).

use rustls_pki_types::CertificateDer;
use serde_json::Value;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::X509Certificate;

use crate::chain::{CHAIN_LEN_MAX, INTERMEDIATES_MAX, parse, validity};
use crate::ids::{Digest, KeyId, TrustDomain};
use crate::key::{KeyKind, RawKey};
use crate::thumbprint::public_jwk;
use crate::time::{Seconds, UnixMs};

/// How long a CA must live at least for its installation to be worth while.
const LIFE_LEAST: Seconds = Seconds::new(3_600);

/// Why a chain is refused: which of its certificates, from 0 for ours, and what was expected of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("certificate {at} of the chain (0 is the issuing CA's own) is refused: {why}")]
pub struct UpstreamError {
    /// Which.
    pub at: usize,
    /// What was expected.
    pub why: String,
}

/// A chain that holds.
#[derive(Debug, Clone)]
pub struct UpstreamPath {
    /// The certificates below the root: ours first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The root.
    pub root: Authority,
    /// The digest of our key (SPKI).
    pub public: Digest,
    /// When the first of them ends.
    pub not_after: UnixMs,
}

/// What a certificate says of its own key.
#[derive(Debug, Clone)]
pub struct Authority {
    /// The certificate.
    pub certificate: CertificateDer<'static>,
    /// The id of its key.
    pub key: KeyId,
    /// The algorithm that such keys sign with.
    pub alg: &'static str,
    /// The digest of its key (SPKI).
    pub public: Digest,
    /// From when it is valid.
    pub not_before: UnixMs,
    /// Until when it is valid.
    pub not_after: UnixMs,
}

/// Checks a chain from the certificate of an issuing CA of ours, the first, to its root, the last.
///
/// # Errors
/// With the first certificate that is not as it must be.
pub fn check_upstream(
    ders: &[CertificateDer<'static>],
    trust_domain: &TrustDomain,
    now: UnixMs,
) -> Result<UpstreamPath, UpstreamError> {
    let refuse = |at, why: &str| UpstreamError { at, why: why.to_owned() };
    let len: usize = ders.iter().map(|der| der.len()).sum();
    if len > CHAIN_LEN_MAX || ders.len() > INTERMEDIATES_MAX + 2 {
        return Err(refuse(0, "expected at most 64 KiB, and six certificates below the root"));
    }
    let parsed: Result<Vec<_>, _> = ders
        .iter()
        .enumerate()
        .map(|(at, der)| parse(der).map_err(|error| refuse(at, &error.to_string())))
        .collect();
    let parsed = parsed?;
    let ([ours, .., root], [_, .., root_der]) = (parsed.as_slice(), ders) else {
        return Err(refuse(0, "expected it and those above it up to the root, in this order"));
    };
    for (at, certificate) in parsed.iter().enumerate() {
        let issuer = parsed.get(at + 1).unwrap_or(certificate);
        check_one(at, certificate, issuer, now).map_err(|why| refuse(at, why))?;
        if at + 1 < parsed.len() {
            check_below_root(certificate).map_err(|why| refuse(at, why))?;
        }
        check_names(certificate, trust_domain).map_err(|why| refuse(at, why))?;
    }
    check_ours(ours).map_err(|why| refuse(0, why))?;
    let not_after = parsed.iter().map(|it| validity(it).1).min().unwrap_or_default();
    if not_after < now.plus(LIFE_LEAST) {
        return Err(refuse(0, "expected a chain that is valid for an hour from now at least"));
    }
    let root = described(root_der, root).map_err(|why| refuse(ders.len() - 1, why))?;
    let chain = ders.get(..ders.len() - 1).unwrap_or_default().to_vec();
    Ok(UpstreamPath { chain, root, public: Digest::of(ours.public_key().raw), not_after })
}

/// The public JWK of the key in a certificate (RFC 7517), with its thumbprint as `kid` and without an algorithm.
#[must_use]
pub fn certificate_jwk(der: &[u8], use_: &str) -> Option<Value> {
    let parsed = parse(der).ok()?;
    let raw = RawKey::from_spki(parsed.public_key()).ok()?;
    Some(public_jwk(&raw, use_).1)
}

fn described(der: &CertificateDer<'static>, root: &X509Certificate<'_>) -> Result<Authority, &'static str> {
    let raw = RawKey::from_spki(root.public_key()).map_err(|_| ACCEPTED_KEY)?;
    let (not_before, not_after) = validity(root);
    Ok(Authority {
        certificate: der.clone(),
        key: public_jwk(&raw, "x509-svid").0,
        alg: raw.kind().default_alg().as_str(),
        public: Digest::of(root.public_key().raw),
        not_before,
        not_after,
    })
}

const ACCEPTED_KEY: &str = "expected a key on P-256 or P-384, an Ed25519 key, or RSA of 2048 to 4096 bits";

type Checked = Result<(), &'static str>;

fn expect(holds: bool, why: &'static str) -> Checked {
    if holds { Ok(()) } else { Err(why) }
}

/// What holds for every CA on the path; `below` is how many CAs lie between it and a leaf.
fn check_one(below: usize, it: &X509Certificate<'_>, issuer: &X509Certificate<'_>, now: UnixMs) -> Checked {
    let constraints = it.basic_constraints().ok().flatten();
    expect(constraints.as_ref().is_some_and(|it| it.value.ca), "expected the certificate of a CA")?;
    let room = constraints.and_then(|it| it.value.path_len_constraint);
    let fits = room.is_none_or(|len| usize::try_from(len).is_ok_and(|len| below <= len));
    expect(fits, "expected a path length that leaves room for the CAs below it")?;
    let usage = it.key_usage().ok().flatten();
    expect(usage.is_none_or(|it| it.value.key_cert_sign()), "expected the key usage `keyCertSign`")?;
    RawKey::from_spki(it.public_key()).map_err(|_| ACCEPTED_KEY)?;
    let (from, until) = validity(it);
    expect(from <= now && now < until, "expected it to be valid now")?;
    expect(
        it.issuer().as_raw() == issuer.subject().as_raw(),
        "expected the subject of the next certificate as its issuer, and of the last its own",
    )?;
    expect(
        it.verify_signature(Some(issuer.public_key())).is_ok(),
        "expected a signature by the key of the next certificate, and of the last by its own",
    )?;
    let known =
        |extension: &ParsedExtension<'_>| !matches!(extension, ParsedExtension::UnsupportedExtension { .. });
    let mut critical = it.iter_extensions().filter(|extension| extension.critical);
    expect(critical.all(|it| known(it.parsed_extension())), "has a critical extension that is not known here")
}

/// A root's usage and names are its own; those of the CAs below it bind what is issued.
fn check_below_root(it: &X509Certificate<'_>) -> Checked {
    expect(it.key_usage().ok().flatten().is_some(), "expected the key usage `keyCertSign`")?;
    let Some(extended) = it.extended_key_usage().ok().flatten() else { return Ok(()) };
    let both = extended.value.any || (extended.value.client_auth && extended.value.server_auth);
    expect(both, "expected no extended key usage, or `clientAuth` and `serverAuth`: what it issues has both")
}

/// No verifier that is known checks a constraint on URIs: under one it would refuse every SPIFFE ID.
fn check_names(it: &X509Certificate<'_>, trust_domain: &TrustDomain) -> Checked {
    if let Some(constraints) = it.name_constraints().ok().flatten() {
        let trees = [&constraints.value.permitted_subtrees, &constraints.value.excluded_subtrees];
        let mut trees = trees.into_iter().flatten().flatten();
        let of_uris = trees.any(|tree| matches!(tree.base, GeneralName::URI(_)));
        expect(
            !of_uris,
            "expected no name constraint on URIs: verifiers would refuse every SPIFFE ID below it",
        )?;
    }
    let names = it.subject_alternative_name().ok().flatten();
    let mut names = names.iter().flat_map(|it| &it.value.general_names);
    let own = format!("spiffe://{trust_domain}");
    let foreign = |name: &GeneralName<'_>| matches!(name, GeneralName::URI(uri) if uri.starts_with("spiffe:") && *uri != own);
    expect(!names.any(foreign), "expected no SPIFFE ID, or that of this trust domain")
}

/// What leaves are checked against when they are issued.
fn check_ours(it: &X509Certificate<'_>) -> Checked {
    let raw = RawKey::from_spki(it.public_key()).map_err(|_| ACCEPTED_KEY)?;
    expect(raw.kind() == KeyKind::P256, "expected the key that was requested")?;
    expect(it.subject().iter().next().is_some(), "expected a subject")?;
    let id = it
        .iter_extensions()
        .any(|it| matches!(it.parsed_extension(), ParsedExtension::SubjectKeyIdentifier(_)));
    expect(id, "expected a subject key identifier")
}
