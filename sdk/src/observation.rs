//! Telling the broker what was seen where credentials are used.

use std::collections::BTreeSet;

use daypass_proto::v1;
use daypass_proto::v1::trust_service_client::TrustServiceClient;
use daypass_verify::ids::{CredentialId, Name};
use daypass_verify::scope::{Action, Resource};
use daypass_verify::time::UnixMs;

use crate::client::Client;
use crate::error::Error;
use crate::revocation::timestamp;

/// How many observations one call may bring.
const OBSERVATIONS_MAX: usize = 256;

/// One thing that was seen at a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// The declared target.
    pub target: Name,
    /// What was seen.
    pub kind: v1::ObservationKind,
    /// The credential that it is about.
    pub credential: Option<CredentialId>,
    /// The exception that it is about, where a static secret was used.
    pub exception: Option<Name>,
    /// When, within the last 24 hours; none: now.
    pub at: Option<UnixMs>,
    /// How often.
    pub count: u64,
    /// In words, at most 512 bytes on one line.
    pub detail: String,
    /// What was done.
    pub actions: BTreeSet<Action>,
    /// On what.
    pub resources: BTreeSet<Resource>,
}

impl Observation {
    /// That this was seen at a target, once, and nothing else.
    #[must_use]
    pub fn of(target: Name, kind: v1::ObservationKind) -> Self {
        Self {
            target,
            kind,
            credential: None,
            exception: None,
            at: None,
            count: 1,
            detail: String::new(),
            actions: BTreeSet::new(),
            resources: BTreeSet::new(),
        }
    }
}

impl Client {
    /// Tells what was seen at targets that the caller serves (`served_by`): 256 at most, recorded on return, all or
    /// none. What it is told twice it records twice.
    ///
    /// # Errors
    /// When one of them cannot be, or the broker refuses or does not answer.
    pub async fn observe(&self, seen: &[Observation]) -> Result<(), Error> {
        if seen.is_empty() {
            return Ok(());
        }
        if seen.len() > OBSERVATIONS_MAX {
            let given = seen.len();
            let expected = format!("{given} observations: expected at most {OBSERVATIONS_MAX} in one call");
            return Err(Error::Config(expected));
        }
        let observations = seen.iter().map(message).collect();
        let request = self.proven(v1::ObserveRequest { observations }).await?;
        let answer = TrustServiceClient::new(self.channel()).observe(request).await;
        self.sorted(answer).map(drop)
    }
}

fn message(seen: &Observation) -> v1::Observation {
    v1::Observation {
        target: seen.target.to_string(),
        kind: seen.kind.into(),
        credential_id: seen.credential.map(|id| id.to_string()).unwrap_or_default(),
        exception: seen.exception.as_ref().map(ToString::to_string).unwrap_or_default(),
        at: seen.at.map(timestamp),
        count: seen.count,
        detail: seen.detail.clone(),
        actions: seen.actions.iter().map(ToString::to_string).collect(),
        resources: seen.resources.iter().map(ToString::to_string).collect(),
    }
}
