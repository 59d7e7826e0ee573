//! What is sealed of a credential: all of it, the key that its token is bound to, and when it was sealed by both clocks.
//!
//! Two secrets, each after its length in 4 octets, and then the rest as JSON: secrets are copied nowhere on the way.

use std::sync::Arc;
use std::time::Duration;

use daypass_evidence::checkpoint::Checkpoint;
use daypass_evidence::tree::Hash;
use daypass_sdk::{Credential, Grant, Kind, Reach, Receipt, Secret};
use daypass_verify::ids::{CredentialId, Digest, IdentityName, Name, SpiffeId};
use daypass_verify::scope::Scope;
use daypass_verify::time::UnixMs;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{Asked, Resumed, Unfit};
use crate::keep::Fresh;

/// A moment by both clocks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Moment {
    pub(super) wall: UnixMs,
    pub(super) boot_ms: i64,
    /// Which run of the machine `boot_ms` is of.
    pub(super) boot_id: Option<String>,
}

impl Moment {
    /// How much time has passed since, at least; none where no clock can tell.
    fn age_ms(&self, now: &Self) -> Option<i64> {
        let by_wall = now.wall.millis_since(self.wall);
        let same_boot = self.boot_id.is_some() && self.boot_id == now.boot_id;
        let by_boot = now.boot_ms.saturating_sub(self.boot_ms);
        let age = if same_boot { by_boot.max(by_wall) } else { by_wall };
        (age >= 0).then_some(age)
    }
}

#[derive(Serialize, Deserialize)]
struct Description {
    id: CredentialId,
    public: Public,
    subject: SpiffeId,
    task: Name,
    scope: Scope,
    issued_at: UnixMs,
    not_before: UnixMs,
    expires_at: UnixMs,
    reach: i32,
    narrowed: Vec<String>,
    renew_after: UnixMs,
    index: u64,
    leaf: Hash,
    origin: String,
    size: u64,
    root: Hash,
    note: String,
    inclusion: Vec<Hash>,
    request_id: Option<String>,
    sealed: Moment,
}

/// What is no secret of a token, or of a certificate.
#[derive(Serialize, Deserialize)]
enum Public {
    Token { kind: String, bound: Option<Digest> },
    Certificate { chain: String, roots: String },
}

/// All that is to be sealed.
pub(super) fn write(fresh: &Fresh, sealed: Moment) -> Result<Zeroizing<Vec<u8>>, Unfit> {
    let credential = &fresh.credential;
    let secret = match &credential.secret {
        Secret::Token { value, .. } => value.expose_secret(),
        Secret::Certificate { key, .. } => key.as_ref().map(|key| key.expose_secret()).unwrap_or_default(),
    };
    let holder = fresh.holder.as_ref().map(|holder| holder.expose_secret()).unwrap_or_default();
    let description = serde_json::to_vec(&describe(credential, sealed)).map_err(|_| Unfit::Damaged)?;
    let len = 8 + secret.len() + holder.len() + description.len();
    let mut content = Zeroizing::new(Vec::with_capacity(len));
    for part in [secret, holder] {
        let len = u32::try_from(part.len()).map_err(|_| Unfit::Damaged)?;
        content.extend_from_slice(&len.to_be_bytes());
        content.extend_from_slice(part.as_bytes());
    }
    content.extend_from_slice(&description);
    Ok(content)
}

fn describe(credential: &Credential, sealed: Moment) -> Description {
    let Credential { granted, receipt, .. } = credential;
    let public = match &credential.secret {
        Secret::Token { kind, bound, .. } => Public::Token { kind: kind.clone(), bound: *bound },
        Secret::Certificate { .. } => {
            let (chain, roots) = credential.secret.certificate_pem().unwrap_or_default();
            Public::Certificate { chain, roots }
        }
    };
    Description {
        id: credential.id,
        public,
        subject: granted.subject.clone(),
        task: granted.task.clone(),
        scope: granted.scope.clone(),
        issued_at: granted.issued_at,
        not_before: granted.not_before,
        expires_at: granted.expires_at,
        reach: granted.reach.into(),
        narrowed: credential.narrowed.clone(),
        renew_after: credential.renew_after,
        index: receipt.index,
        leaf: receipt.leaf,
        origin: receipt.checkpoint.origin.clone(),
        size: receipt.checkpoint.size,
        root: receipt.checkpoint.root,
        note: String::from_utf8_lossy(&receipt.note).into_owned(),
        inclusion: receipt.inclusion.clone(),
        request_id: credential.request_id.clone(),
        sealed,
    }
}

/// What was sealed, where it is what is asked for now and lives.
///
/// # Errors
/// Why it cannot be used.
pub(super) fn read(content: &[u8], asked: &Asked, now: &Moment) -> Result<Resumed, Unfit> {
    let (secret, rest) = take(content).ok_or(Unfit::Damaged)?;
    let (holder, description) = take(rest).ok_or(Unfit::Damaged)?;
    let description: Description = serde_json::from_slice(description).map_err(|_| Unfit::Damaged)?;
    let age_ms = description.sealed.age_ms(now).ok_or(Unfit::Clock)?;
    // By a clock that was behind there seemed to be more left than it ever had.
    let whole_ms = description.expires_at.millis_since(description.issued_at);
    let left_then_ms = description.expires_at.millis_since(description.sealed.wall).min(whole_ms);
    let left_ms = left_then_ms.saturating_sub(age_ms);
    let (secret, holder) = (SecretString::from(secret), (!holder.is_empty()).then(|| holder.into()));
    let credential = restore(description, secret)?;
    check(&credential, holder.as_ref(), asked)?;
    let margin_ms = credential.granted.expires_at.millis_since(credential.granted.handed_out_until());
    if left_ms <= margin_ms {
        return Err(Unfit::Over);
    }
    let left = Duration::from_millis(left_ms.unsigned_abs());
    Ok(Resumed { fresh: Fresh { credential: Arc::new(credential), holder }, left })
}

fn take(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (len, rest) = bytes.split_first_chunk::<4>()?;
    let (part, rest) = rest.split_at_checked(u32::from_be_bytes(*len).try_into().ok()?)?;
    Some((std::str::from_utf8(part).ok()?, rest))
}

fn restore(it: Description, secret: SecretString) -> Result<Credential, Unfit> {
    let certificates = |pem: &str| {
        let all = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>();
        all.map_err(|_| Unfit::Damaged)
    };
    let secret = match it.public {
        Public::Token { kind, bound } => Secret::Token { value: secret, kind, bound },
        Public::Certificate { chain, roots } => {
            let key = (!secret.expose_secret().is_empty()).then_some(secret);
            Secret::Certificate { chain: certificates(&chain)?, roots: certificates(&roots)?, key }
        }
    };
    let granted = Grant {
        subject: it.subject,
        task: it.task,
        scope: it.scope,
        issued_at: it.issued_at,
        not_before: it.not_before,
        expires_at: it.expires_at,
        reach: Reach::try_from(it.reach).map_err(|_| Unfit::Damaged)?,
    };
    let checkpoint = Checkpoint { origin: it.origin, size: it.size, root: it.root };
    let (note, inclusion) = (it.note.into_bytes(), it.inclusion);
    let receipt = Receipt { index: it.index, leaf: it.leaf, checkpoint, note, inclusion };
    let (narrowed, renew_after) = (it.narrowed, it.renew_after);
    Ok(Credential { id: it.id, secret, granted, narrowed, renew_after, receipt, request_id: it.request_id })
}

/// Whether it is what the configuration asks for now, and whether somebody here has the key that it is bound to.
fn check(credential: &Credential, holder: Option<&SecretString>, asked: &Asked) -> Result<(), Unfit> {
    let (granted, request) = (&credential.granted, &asked.request);
    let is_kind = match (&credential.secret, &request.kind) {
        (Secret::Token { .. }, Kind::Token { .. }) => true,
        (Secret::Certificate { key, .. }, Kind::Certificate { .. }) => key.is_some(),
        _ => false,
    };
    let is_whose = |it: &IdentityName| it.spiffe_id(&granted.subject.trust_domain()) == granted.subject;
    if !is_kind || granted.task != request.task || !request.identity.as_ref().is_none_or(is_whose) {
        return Err(Unfit::AnotherRequest);
    }
    match &credential.secret {
        Secret::Token { bound: Some(bound), .. } if holder.is_none() && *bound != asked.holder => {
            Err(Unfit::AnotherHolder)
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_that_passed_is_told_by_whichever_clock_shows_more() {
        let at = |wall, boot_ms, boot: &str| Moment {
            wall: UnixMs::new(wall),
            boot_ms,
            boot_id: (!boot.is_empty()).then(|| boot.to_owned()),
        };
        let sealed = at(1_000, 500, "a");
        for (now, expected) in [
            (at(1_010, 510, "a"), Some(10)),
            (at(1_010, 590, "a"), Some(90)),
            (at(1_090, 510, "a"), Some(90)),
            (at(900, 510, "a"), Some(10)),
            (at(1_010, 3, "b"), Some(10)),
            (at(990, 3, "b"), None),
            (at(990, 600, ""), None),
        ] {
            assert_eq!(sealed.age_ms(&now), expected, "{now:?}");
        }
    }
}
