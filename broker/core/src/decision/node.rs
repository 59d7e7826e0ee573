//! Node certificates: who gets one, and that a code buys nothing else.

use daypass_evidence::entry::Profile;

use super::{Decision, Outward, Why};
use crate::proof::NodeProof;
use crate::request::Form;

impl Decision<'_> {
    /// A node certificate is for a node that proved itself as one. It renews its own with a key that nobody had before:
    /// else whoever copied the old key had the new one too.
    pub(super) fn check_node(&self, profile: Profile) -> Result<(), Why> {
        let refuse = |inner, clause| Err(Why::new(inner, Outward::NotAllowed, clause));
        match (profile, self.principal.node()) {
            (Profile::Node, Some(NodeProof::Code(_))) => Ok(()),
            (Profile::Node, Some(NodeProof::Certificate(_))) => self.check_fresh_key(),
            (Profile::Node, None) => {
                refuse("NO_NODE", "a node certificate is for a node that was let in by a code")
            }
            (_, Some(NodeProof::Code(_))) => {
                refuse("CODE_BUYS_NODE", "a code buys a node certificate and nothing else")
            }
            _ => Ok(()),
        }
    }

    /// A node that asks for a workload was taken for that workload before this: whoever was not is none.
    pub(super) fn check_spoken_for(&self) -> Result<(), Why> {
        if !self.request.for_workload || self.principal.via().is_some() {
            return Ok(());
        }
        let clause = "`delegation` is for a node that proves itself by its certificate: leave it out";
        Err(Why::new("NO_NODE", Outward::NotAllowed, clause))
    }

    fn check_fresh_key(&self) -> Result<(), Why> {
        let Form::Certificate { key, .. } = &self.request.form else { return Ok(()) };
        let shown = self.principal.bound_certificate().map(|it| it.key);
        if shown != Some(key.spki_digest()) {
            return Ok(());
        }
        let clause = "the certificate is renewed for its own key: make a new key";
        Err(Why::new("KEY_REUSED", Outward::KeyRefused, clause))
    }
}
