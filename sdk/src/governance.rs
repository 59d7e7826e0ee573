//! What operators do.

use daypass_proto::v1;
use daypass_proto::v1::KeyUse;
use daypass_proto::v1::governance_service_client::GovernanceServiceClient;
use daypass_verify::time::UnixMs;

use crate::client::Client;
use crate::error::Error;
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

impl Client {
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
