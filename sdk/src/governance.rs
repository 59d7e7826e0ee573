//! What operators do.

use daypass_proto::v1;
use daypass_proto::v1::governance_service_client::GovernanceServiceClient;
use daypass_proto::v1::{KeyUse, Selector};
use daypass_verify::time::UnixMs;

use crate::client::Client;
use crate::error::Error;
use crate::evidence::timestamp;
use crate::verify;

/// An order to put a new key in the place of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotation {
    /// Which of the keys: those for tokens, JWT-SVIDs or certificates.
    pub usage: KeyUse,
    /// The key that others know: unpublished at once, all that it signed revoked. None: an orderly change.
    pub compromised: Option<String>,
    /// In words, for the log.
    pub reason: String,
    /// Say what would happen; change nothing.
    pub validate_only: bool,
}

/// What an order led to, or would.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotated {
    /// The key that signs next, or from now on; none where it is not made yet.
    pub key: Option<String>,
    /// From when it signs.
    pub signs_from: Option<UnixMs>,
    /// The index of the order's entry; none where nothing was written.
    pub entry: Option<u64>,
    /// How many credentials lived that the compromised key signed; none where they were still being found.
    pub live: Option<u64>,
    /// How many of them were ended when the broker answered; it goes on with the rest.
    pub revoked: u64,
}

/// An order that nothing be issued for what is selected.
#[derive(Debug, Clone, PartialEq)]
pub struct Suspension {
    /// What.
    pub selector: Selector,
    /// In words, for the log.
    pub reason: String,
    /// When it lifts itself; none: when somebody does.
    pub until: Option<UnixMs>,
    /// Leave what lives to its own end.
    pub keep_live: bool,
    /// The name of the exercise, where this is one.
    pub drill: Option<String>,
    /// Say what would happen; change nothing.
    pub validate_only: bool,
}

/// What a suspension led to, or would.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspended {
    /// The id by which it is lifted; none where nothing was written.
    pub id: Option<String>,
    /// The index of its entry; none where nothing was written.
    pub entry: Option<u64>,
    /// How many credentials lived.
    pub live: u64,
    /// How many of them were revoked when the broker answered.
    pub revoked: u64,
    /// Whether it goes on with the rest.
    pub goes_on: bool,
    /// The ids of those that lived, 1,000 at most.
    pub credentials: Vec<String>,
}

impl Client {
    /// Suspends something on all brokers, and revokes what lives of it unless told otherwise. An operator's right
    /// (`contain`).
    ///
    /// # Errors
    /// When the broker refuses or does not answer.
    pub async fn suspend(&self, suspension: &Suspension) -> Result<Suspended, Error> {
        let request = self.proven(v1::SuspendRequest {
            selector: Some(suspension.selector.clone()),
            reason: suspension.reason.clone(),
            until: suspension.until.map(timestamp),
            keep_live: suspension.keep_live,
            validate_only: suspension.validate_only,
            drill: suspension.drill.clone().unwrap_or_default(),
        });
        let answer = GovernanceServiceClient::new(self.channel()).suspend(request.await?).await;
        let answer = self.sorted(answer)?.into_inner();
        Ok(Suspended {
            id: Some(answer.suspension).filter(|id| !id.is_empty()),
            entry: answer.entry.map(|entry| entry.index),
            live: answer.live,
            revoked: answer.revoked,
            goes_on: answer.goes_on,
            credentials: answer.credential_ids,
        })
    }

    /// Lifts the suspension with this id; the index of the entry that says so. An operator's right (`contain`).
    ///
    /// # Errors
    /// When the broker refuses or does not answer.
    pub async fn resume(&self, suspension: &str, reason: &str) -> Result<Option<u64>, Error> {
        let request =
            self.proven(v1::ResumeRequest { suspension: suspension.to_owned(), reason: reason.to_owned() });
        let answer = GovernanceServiceClient::new(self.channel()).resume(request.await?).await;
        Ok(self.sorted(answer)?.into_inner().entry.map(|entry| entry.index))
    }

    /// Puts a new key in the place of one. An operator's right (`rotate`).
    ///
    /// # Errors
    /// When the broker refuses or does not answer.
    pub async fn rotate_key(&self, rotation: &Rotation) -> Result<Rotated, Error> {
        let request = self.proven(v1::RotateKeyRequest {
            r#use: rotation.usage.into(),
            compromised_key_id: rotation.compromised.clone().unwrap_or_default(),
            reason: rotation.reason.clone(),
            validate_only: rotation.validate_only,
        });
        let answer = GovernanceServiceClient::new(self.channel()).rotate_key(request.await?).await;
        let answer = self.sorted(answer)?.into_inner();
        Ok(Rotated {
            key: Some(answer.key_id).filter(|key| !key.is_empty()),
            signs_from: verify::moment(answer.signs_from.as_ref(), "signs_from").ok(),
            entry: answer.entry.map(|entry| entry.index),
            live: Some(answer.live).filter(|live| *live > 0 || answer.revoked == 0),
            revoked: answer.revoked,
        })
    }
}
