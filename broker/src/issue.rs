//! The straight line: decide, record, sign, seal. In that order, and the types allow no other.

use std::sync::Arc;
use std::time::Duration;

use daypass_core::decision::{Denial, Grant, decide};
use daypass_core::draft::{Assembled, Draft, DraftError};
use daypass_core::proof::Principal;
use daypass_core::request::Request;
use daypass_core::state::phase;
use daypass_evidence::checkpoint::Checkpoint;
use daypass_evidence::entry::KeyState;
use daypass_verify::ids::{CredentialId, Digest, KeyId};

use crate::clock::Clock;
use crate::ids::{Ids, RandomnessFailed};
use crate::keyring::Keyring;
use crate::log::{Log, Place, RecordError, Recorded, Recording, Voided};
use crate::signer::{SignError, Signature, Signer};

/// How often a draft is decided again when the state moved under it.
const DECIDE_AGAIN: u32 = 8;

/// How long a key that is not open yet is waited for, each time.
const KEY_WAIT: Duration = Duration::from_millis(50);

/// What issuing needs.
#[derive(Clone)]
pub struct Desk {
    /// Where it is recorded.
    pub log: Log,
    /// What signs it.
    pub signer: Signer,
    /// The public parts of the keys.
    pub keyring: Arc<Keyring>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Where ids come from.
    pub ids: Arc<Ids>,
    /// Our issuer URL.
    pub issuer: Arc<str>,
}

/// A credential, recorded and signed: there is no other way to one.
#[derive(Debug)]
pub struct Credential {
    assembled: Assembled,
    granted: Grant,
    place: Place,
}

/// Why no credential was issued.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// It was decided so.
    #[error("{}", .0.clause)]
    Denied(Box<Denial>),
    /// It was not recorded.
    #[error(transparent)]
    NotRecorded(#[from] RecordError),
    /// It could not be drafted as the rules for credentials ask.
    #[error(transparent)]
    NotDrafted(#[from] DraftError),
    /// It was recorded but not signed, and is void.
    #[error(transparent)]
    NotSigned(#[from] SignError),
    /// No id could be drawn.
    #[error(transparent)]
    NoId(#[from] RandomnessFailed),
}

/// Issues one credential for `request`, on the proof that made `principal`.
///
/// # Errors
/// When it was refused, or nothing could be recorded or signed; [`Refusal`] says which.
pub async fn issue(
    desk: &Desk,
    principal: &Principal,
    request: &Request,
    known: Option<Checkpoint>,
) -> Result<Credential, Refusal> {
    for attempt in 1..=DECIDE_AGAIN {
        let arriving = desk.log.arriving();
        let published = desk.log.published();
        // Entry times never go back: behind another broker's clock, what is granted begins when it is recorded.
        let now = desk.clock.now().max(published.head.time);
        let id = desk.ids.draw(now)?;
        let grant = decide(principal, request, &published.state, id, now)
            .map_err(Box::new)
            .map_err(Refusal::Denied)?;
        let key = match desk.keyring.describe(grant.key()) {
            Ok(key) => key,
            Err(error) if attempt == DECIDE_AGAIN => return Err(error.into()),
            // Another broker made it a moment ago: this one opens it as soon as it looks.
            Err(_) => {
                drop(arriving);
                tokio::time::sleep(KEY_WAIT).await;
                continue;
            }
        };
        let draft = Draft::new(grant, &key, &desk.issuer)?;
        match desk.log.record(arriving, draft, known.clone()).await? {
            Recording::Stale => continue,
            Recording::Recorded(delivery) => {
                return delivery.take().ok_or_else(gone).and_then(|recorded| sign_and_seal(desk, recorded));
            }
        }
    }
    Err(RecordError::Overloaded.into())
}

fn gone() -> Refusal {
    RecordError::Unavailable("the record was taken before".into()).into()
}

/// Recorded, so it may be signed; signed, so it may leave. Either it leaves, or it is void.
fn sign_and_seal(desk: &Desk, recorded: Recorded<Draft>) -> Result<Credential, Refusal> {
    let live = recorded.place().live(recorded.what().exp());
    let signed = check_halt_and_phase(desk, &recorded).and_then(|()| Ok(desk.signer.sign(&recorded)?));
    match signed.and_then(|signature| Ok(recorded.seal(signature)?)) {
        Ok(credential) => {
            let released_at = desk.clock.now().max(credential.place.time);
            desk.log.settlements().released((live.index, credential.digest(), released_at));
            Ok(credential)
        }
        Err(refusal) => {
            desk.log.settlements().void(Voided { live, reason: refusal.to_string() });
            Err(refusal)
        }
    }
}

fn check_halt_and_phase(desk: &Desk, recorded: &Recorded<Draft>) -> Result<(), Refusal> {
    desk.log.halt().check_recorded()?;
    Ok(check_phase(desk, recorded.what().key())?)
}

/// A key signs drafts that name it for ten seconds after it takes no more, and never once it is compromised.
fn check_phase(desk: &Desk, key: &KeyId) -> Result<(), SignError> {
    let published = desk.log.published();
    let now = desk.clock.now().max(published.head.time);
    match published.state.keys().get(key).map(|changed| phase(changed, now)) {
        Some(KeyState::Active | KeyState::Draining) => Ok(()),
        _ => Err(SignError::OutOfTime(key.clone())),
    }
}

impl Recorded<Draft> {
    /// Assembles the credential from what was recorded and its signature.
    ///
    /// # Errors
    /// When the signature has not the form that the credential needs.
    pub fn seal(self, signature: Signature) -> Result<Credential, DraftError> {
        let (draft, place) = self.into_parts();
        let (granted, assembled) = draft.assemble(signature.as_bytes())?;
        Ok(Credential { assembled, granted, place })
    }
}

impl Credential {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> CredentialId {
        self.granted.id()
    }

    /// The token or the certificate.
    #[must_use]
    pub fn assembled(&self) -> &Assembled {
        &self.assembled
    }

    /// What was granted.
    #[must_use]
    pub fn granted(&self) -> &Grant {
        &self.granted
    }

    /// Where it is recorded.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// SHA-256 of the whole token or DER certificate.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(self.assembled.as_bytes())
    }
}
