//! Who is calling.

use daypass_verify::credential::{VerifiedCertificate, VerifiedToken};
use daypass_verify::ids::{CredentialId, Name, SpiffeId};
use daypass_verify::scope::{Action, Resource, Scope};
use daypass_verify::time::UnixMs;

use super::refused::Refused;

/// A caller whose credential was verified: who, for which task, with what scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Under which the broker's log knows the credential.
    pub credential_id: CredentialId,
    /// The workload.
    pub subject: SpiffeId,
    /// What it is doing.
    pub task: Name,
    /// Audiences, actions and resources. Of a certificate, the audiences that are URIs.
    pub scope: Scope,
    /// The end of the credential.
    pub expires_at: UnixMs,
    /// How it was shown.
    pub shown: Shown,
}

/// How a credential was shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// As a token, by whoever has the key that it is bound to.
    BoundToken,
    /// As a token that is bound to nothing.
    BearerToken,
    /// As a certificate, in the handshake.
    Certificate,
}

impl Caller {
    /// Lets the caller do `action` on `resource`. A task without resources limits actions alone; none is for what
    /// has no resource.
    ///
    /// # Errors
    /// When the credential does not reach so far.
    pub fn may(&self, action: &Action, resource: Option<&Resource>) -> Result<(), Refused> {
        let ceilings = &self.scope.resources;
        let reaches = resource
            .is_none_or(|it| ceilings.is_empty() || ceilings.iter().any(|ceiling| it.is_within(ceiling)));
        if self.scope.actions.contains(action) && reaches { Ok(()) } else { Err(Refused::NotAllowed) }
    }

    /// Lets a caller pass that is doing `task`.
    ///
    /// # Errors
    /// When it is doing another.
    pub fn is_doing(&self, task: &Name) -> Result<(), Refused> {
        if self.task == *task { Ok(()) } else { Err(Refused::NotAllowed) }
    }
}

impl From<VerifiedToken> for Caller {
    fn from(token: VerifiedToken) -> Self {
        Self {
            credential_id: token.credential_id,
            scope: token.scope(),
            shown: if token.bound.is_some() { Shown::BoundToken } else { Shown::BearerToken },
            subject: token.subject,
            task: token.task,
            expires_at: token.expires_at,
        }
    }
}

impl From<&VerifiedCertificate> for Caller {
    fn from(certificate: &VerifiedCertificate) -> Self {
        let task = &certificate.task;
        Self {
            credential_id: certificate.credential_id,
            subject: certificate.subject.clone(),
            task: task.identifier.clone(),
            scope: Scope {
                audiences: task.locations.clone(),
                actions: task.actions.clone(),
                resources: task.resources.clone(),
            },
            expires_at: certificate.expires_at,
            shown: Shown::Certificate,
        }
    }
}
