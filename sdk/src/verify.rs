//! Checks what came back before it is handed out. A broker that was taken over, or that is broken, must not be
//! able to make its callers use something they did not ask for.

use daypass_evidence::checkpoint::{Checkpoint, CheckpointError, is_later};
use daypass_evidence::note::VerifierKey;
use daypass_evidence::receipt::{ReceiptError, verify_receipt};
use daypass_evidence::tree::{Hash, ProofError, verify_consistency};
use daypass_proto::v1;
use daypass_verify::certificate::{CertificateError, TrustAnchors};
use daypass_verify::credential::{
    CredentialError, Expected, Presenter, Profile, verify_certificate, verify_node_certificate, verify_token,
};
use daypass_verify::ids::{CredentialId, Digest, TrustDomain};
use daypass_verify::jose::{JoseError, UnverifiedToken};
use daypass_verify::scope::Scope;
use daypass_verify::time::{Seconds, UnixMs};
use rustls_pki_types::CertificateDer;

use crate::credential::{Grant, Receipt};
use crate::kept::Newest;
use crate::published::Published;
use crate::request::{Binding, IssueRequest, Kind};

/// How far the clocks of broker and client may differ.
const LEEWAY: Seconds = Seconds::new(30);

/// What does not hold.
#[derive(Debug, Clone, thiserror::Error)]
pub enum VerifyError {
    /// A part of the answer is missing or malformed.
    #[error("expected `{0}` in the answer, well-formed")]
    Answer(&'static str),
    /// The credential itself is refused.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// It is another one than was asked for, or than the answer says.
    #[error("`{what}` is `{found}`: expected `{expected}`")]
    Differs {
        /// What differs.
        what: &'static str,
        /// As it should be.
        expected: String,
        /// As it is.
        found: String,
    },
    /// The receipt does not prove the entry.
    #[error("the receipt does not hold: {0}")]
    Receipt(#[from] ReceiptError),
    /// A checkpoint is refused.
    #[error("the checkpoint does not hold: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// The log is smaller than it was: entries are lost.
    #[error("the log `{origin}` went back from {kept} to {found} entries; tell those who run the broker")]
    WentBack {
        /// The log.
        origin: String,
        /// The size that is known.
        kept: u64,
        /// The size that was shown.
        found: u64,
    },
    /// The log is not the one that was seen before.
    #[error("the log `{origin}` forked after entry {kept}: {why}; keep both checkpoints and tell an auditor")]
    Forked {
        /// The log.
        origin: String,
        /// The size that is known.
        kept: u64,
        /// How the proof failed.
        why: ProofError,
    },
    /// The checkpoint that is kept was signed by another key.
    #[error("the kept checkpoint `{path}` does not hold: {why}; if the log was begun anew, remove the file")]
    KeptCheckpoint {
        /// Where it is.
        path: String,
        /// What is wrong with it.
        why: CheckpointError,
    },
    /// It was over when it arrived, by this machine's clock.
    #[error(
        "the credential was over at {until} by this machine's clock: compare the clocks, or ask for a longer `ttl`"
    )]
    Over {
        /// The end of its life.
        until: UnixMs,
    },
    /// What the broker publishes cannot be used.
    #[error("`{url}` cannot be used: {why}")]
    Published {
        /// Where it is published.
        url: String,
        /// What is wrong with it.
        why: String,
    },
}

/// Reads what the answer says was granted, and holds it against the request.
pub(crate) fn granted(request: &IssueRequest, answer: &v1::IssueResponse) -> Result<Grant, VerifyError> {
    let grant = read_grant(answer.granted.as_ref().ok_or(VerifyError::Answer("granted"))?)?;
    same("granted.task", &request.task, &grant.task)?;
    if let Some(identity) = &request.identity {
        same("granted.subject", identity, &grant.subject.path())?;
    }
    let asked = &request.scope;
    within(
        "granted.audiences",
        asked.audiences.is_empty() || grant.scope.audiences.is_subset(&asked.audiences),
    )?;
    within("granted.actions", asked.actions.is_empty() || grant.scope.actions.is_subset(&asked.actions))?;
    let covered =
        |it| asked.resources.iter().any(|ceiling| daypass_verify::scope::Resource::is_within(it, ceiling));
    within("granted.resources", asked.resources.is_empty() || grant.scope.resources.iter().all(covered))?;
    let life_ms = grant.expires_at.millis_since(grant.issued_at);
    within("granted.expires_at", request.ttl.is_none_or(|ttl| life_ms <= ttl.millis()))?;
    // A lifetime that was left open was not asked for: a shorter one than the task's default is as good.
    let less = answer.narrowed.iter().find(|it| *it != "ttl" || request.ttl.is_some());
    if let (false, Some(less)) = (request.allow_narrowed, less) {
        return Err(differs("narrowed", &"nothing", less));
    }
    Ok(grant)
}

fn read_grant(wire: &v1::Grant) -> Result<Grant, VerifyError> {
    let scope = Scope {
        audiences: parse_all(&wire.audiences, "granted.audiences")?,
        actions: parse_all(&wire.actions, "granted.actions")?,
        resources: parse_all(&wire.resources, "granted.resources")?,
    };
    Ok(Grant {
        subject: wire.subject.parse().map_err(|_| VerifyError::Answer("granted.subject"))?,
        task: wire.task.parse().map_err(|_| VerifyError::Answer("granted.task"))?,
        scope,
        issued_at: moment(wire.issued_at.as_ref(), "granted.issued_at")?,
        not_before: moment(wire.not_before.as_ref(), "granted.not_before")?,
        expires_at: moment(wire.expires_at.as_ref(), "granted.expires_at")?,
        reach: wire.reach(),
    })
}

fn parse_all<T: std::str::FromStr, C: FromIterator<T>>(
    texts: &[String],
    what: &'static str,
) -> Result<C, VerifyError> {
    texts.iter().map(|text| text.parse()).collect::<Result<C, _>>().map_err(|_| VerifyError::Answer(what))
}

/// A time of the answer.
pub(crate) fn moment(at: Option<&prost_types::Timestamp>, what: &'static str) -> Result<UnixMs, VerifyError> {
    let at = at.ok_or(VerifyError::Answer(what))?;
    Ok(UnixMs::from_seconds(at.seconds).plus_millis(i64::from(at.nanos) / 1_000_000))
}

/// Checks a token against what was granted. `holder` is the certificate that this client showed;
/// given back is the one that the token is bound to.
pub(crate) fn token(
    value: &str,
    id: CredentialId,
    grant: &Grant,
    request: &IssueRequest,
    holder: Digest,
    published: &Published,
    now: UnixMs,
) -> Result<Option<Digest>, VerifyError> {
    let Kind::Token { profile: asked, binding } = &request.kind else {
        return Err(VerifyError::Answer("token"));
    };
    let profile = profile_of(value, *asked)?;
    let keys = match profile {
        Profile::AccessToken => &published.token_keys,
        Profile::JwtSvid => &published.svid_keys,
    };
    let audience = grant.scope.audiences.first().ok_or(VerifyError::Answer("granted.audiences"))?;
    let expected = Expected {
        profile,
        issuer: &published.issuer,
        audience,
        presenter: Presenter::Holder,
        now,
        leeway: LEEWAY,
    };
    let token = verify_token(value, keys, &expected)?;
    same("jti", &id, &token.credential_id)?;
    same("sub", &grant.subject, &token.subject)?;
    same("task", &grant.task, &token.task)?;
    within("scope", token.scope() == grant.scope)?;
    same("exp", &grant.expires_at.floor_second(), &token.expires_at)?;
    match (profile, binding) {
        (Profile::AccessToken, Binding::Certificate) if token.bound != Some(holder) => {
            let found = token.bound.map_or("none".to_owned(), |digest| digest.to_string());
            Err(differs("cnf", &holder, &found))
        }
        _ => Ok(token.bound),
    }
}

fn profile_of(value: &str, asked: Option<Profile>) -> Result<Profile, VerifyError> {
    let token = UnverifiedToken::parse(value).map_err(CredentialError::from)?;
    let is_access_token = token.typ().is_some_and(|typ| typ.eq_ignore_ascii_case("at+jwt"));
    let profile = if is_access_token { Profile::AccessToken } else { Profile::JwtSvid };
    if asked.is_some_and(|asked| asked != profile) {
        return Err(VerifyError::Credential(JoseError::Typ.into()));
    }
    Ok(profile)
}

/// Checks a certificate against what was granted: that of a node, where one was asked for. `key` is the digest of the public
/// key that was sent.
pub(crate) fn certificate(
    chain: &[CertificateDer<'static>],
    (id, node): (CredentialId, bool),
    grant: &Grant,
    key: Digest,
    published: &Published,
    now: UnixMs,
) -> Result<(), VerifyError> {
    let refused = |why: CertificateError| VerifyError::Credential(why.into());
    let anchors = TrustAnchors::new(published.roots.clone()).map_err(refused)?;
    let trust_domain = grant.subject.trust_domain();
    let seen = match node {
        true => verify_node_certificate(chain, &anchors, &trust_domain, now)?,
        false => verify_certificate(chain, &anchors, None, &trust_domain, now)?,
    };
    same("serial number", &id, &seen.credential_id)?;
    same("subject", &grant.subject, &seen.subject)?;
    same("task", &grant.task, &seen.task.identifier)?;
    within("actions", seen.task.actions == grant.scope.actions)?;
    within("resources", seen.task.resources == grant.scope.resources)?;
    within("locations", seen.task.locations.is_subset(&grant.scope.audiences))?;
    same("notAfter", &grant.expires_at.floor_second(), &seen.expires_at)?;
    same("public key", &key, &seen.leaf.spki_digest())
}

/// Checks that the trust domain of the subject is that of the log (`<td>/evidence/<shard>`).
pub(crate) fn trust_domain(grant: &Grant, log: &VerifierKey) -> Result<(), VerifyError> {
    let td = log.name().split('/').next().and_then(|td| td.parse::<TrustDomain>().ok());
    let td = td.ok_or(VerifyError::Answer("receipt.entry.log"))?;
    same("trust domain", &td, &grant.subject.trust_domain())
}

/// Checks a receipt under the log's key.
pub(crate) fn receipt(wire: &v1::Receipt, key: &VerifierKey) -> Result<Receipt, VerifyError> {
    let entry = wire.entry.as_ref().ok_or(VerifyError::Answer("receipt.entry"))?;
    // The log that was trusted, or one that goes on for it under the same key.
    let shard = key.of_shard(&entry.log);
    let key = shard.as_ref().unwrap_or(key);
    same("receipt.entry.log", &key.name(), &entry.log)?;
    let leaf = hash(&wire.leaf_hash, "receipt.leaf_hash")?;
    let inclusion = hashes(&wire.inclusion, "receipt.inclusion")?;
    let checkpoint = verify_receipt(leaf, entry.index, &wire.checkpoint, &inclusion, key)?;
    Ok(Receipt { index: entry.index, leaf, checkpoint, note: wire.checkpoint.to_vec(), inclusion })
}

/// 32 octets.
fn hash(octets: &[u8], what: &'static str) -> Result<Hash, VerifyError> {
    octets.try_into().map_err(|_| VerifyError::Answer(what))
}

/// A path.
pub(crate) fn hashes(all: &[bytes::Bytes], what: &'static str) -> Result<Vec<Hash>, VerifyError> {
    all.iter().map(|octets| hash(octets, what)).collect()
}

/// Checks that `found` is not behind what is known, and is the same where the sizes are. True where a proof of
/// consistency is needed besides.
pub(crate) fn not_behind(kept: &Newest, found: &Checkpoint) -> Result<bool, VerifyError> {
    let known = &kept.checkpoint;
    if is_later(&found.origin, &known.origin) {
        return Ok(false);
    }
    if found.origin != known.origin || found.size < known.size {
        let origin = found.origin.clone();
        return Err(VerifyError::WentBack { origin, kept: known.size, found: found.size });
    }
    if found.size == known.size && found.root != known.root {
        return Err(forked(known, ProofError::Root));
    }
    Ok(found.size > known.size)
}

/// Checks that the log of `found` begins with all that was known.
pub(crate) fn consistent(kept: &Newest, found: &Checkpoint, path: &[Hash]) -> Result<(), VerifyError> {
    let known = &kept.checkpoint;
    verify_consistency(known.size, known.root, found.size, found.root, path).map_err(|why| forked(known, why))
}

fn forked(known: &Checkpoint, why: ProofError) -> VerifyError {
    VerifyError::Forked { origin: known.origin.clone(), kept: known.size, why }
}

fn same(what: &'static str, expected: &dyn ToText, found: &dyn ToText) -> Result<(), VerifyError> {
    let (expected, found) = (expected.to_text(), found.to_text());
    if expected == found { Ok(()) } else { Err(VerifyError::Differs { what, expected, found }) }
}

fn differs(what: &'static str, expected: &dyn ToText, found: &dyn ToText) -> VerifyError {
    VerifyError::Differs { what, expected: expected.to_text(), found: found.to_text() }
}

fn within(what: &'static str, holds: bool) -> Result<(), VerifyError> {
    if holds { Ok(()) } else { Err(differs(what, &"within what was asked and granted", &"more or other")) }
}

/// Values of different types are compared as people would read them.
trait ToText {
    fn to_text(&self) -> String;
}

impl<T: std::fmt::Display> ToText for T {
    fn to_text(&self) -> String {
        self.to_string()
    }
}

#[cfg(test)]
pub(crate) mod tests;
