//! What a credential is bound to, so that a copy of it is of no use.

use daypass_evidence::entry::{Profile, ProofKind, ProofUse, Reach};
use daypass_verify::ids::Digest;

use super::resolve::Destination;
use super::{Decision, Outward, Why};
use crate::proof::Binding;
use crate::request::{Bind, Form};

/// What a credential is bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bound {
    /// Nothing: whoever has it may use it.
    Nothing,
    /// The certificate of the caller's connection.
    Certificate(Binding),
    /// The key in the certificate that is issued.
    Key(Digest),
}

impl Decision<'_> {
    /// What the credential is bound to; none for a bearer token.
    pub(super) fn binding(&self, destination: &Destination<'_>, profile: Profile) -> Result<Bound, Why> {
        let bind = match &self.request.form {
            Form::Certificate { key, .. } => return Ok(Bound::Key(key.spki_digest())),
            Form::Token { bind, .. } => *bind,
        };
        if profile == Profile::JwtSvid {
            return self.check_replayable(destination, Bound::Nothing);
        }
        let bound = match (bind, self.principal.bound_certificate()) {
            (Bind::Auto | Bind::Certificate, Some(binding)) => Bound::Certificate(*binding),
            (Bind::Certificate, None) => {
                let clause = "the connection has no client certificate to bind the token to";
                return Err(Why::malformed("token.certificate", clause));
            }
            (Bind::Auto | Bind::Bearer, _) if destination.task.bearer => Bound::Nothing,
            _ => {
                let clause = format!(
                    "task `{}` permits no bearer tokens: connect with a client certificate",
                    destination.task_named.name
                );
                return Err(Why::new("BEARER_NOT_ALLOWED", Outward::NotAllowed, clause));
            }
        };
        self.check_replayable(destination, bound)
    }

    // A token that is shown again and again may be stolen: what it buys must be bound, or within reach.
    fn check_replayable(&self, destination: &Destination<'_>, bound: Bound) -> Result<Bound, Why> {
        let replayable =
            self.principal.kind() == ProofKind::IdToken && self.principal.usage() == ProofUse::UntilExpiry;
        if replayable && bound == Bound::Nothing && destination.target.reach == Reach::None {
            let clause = "a proof that may be shown again buys only what is bound, or can be revoked";
            return Err(Why::new("REPLAYABLE_UNBOUND", Outward::NotAllowed, clause));
        }
        Ok(bound)
    }
}
