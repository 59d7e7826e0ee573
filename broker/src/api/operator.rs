//! Acts of operators: who may order what, and the trace of what was refused.

use daypass_core::decision::{Denial, Outward, Why};
use daypass_verify::ids::Name;

use super::{Api, Caller, Outgoing, standing};

impl Api {
    /// The operator that a caller is, where it has the role that `order` needs. Whoever has not leaves a trace.
    ///
    /// # Errors
    /// When it has not.
    pub(crate) fn operator(&self, caller: &Caller, role: &str, order: &str) -> Result<Name, Outgoing> {
        let (state, now) = (self.desk.log.state(), self.desk.clock.now());
        let found =
            state.bundle().and_then(|bundle| standing::operator(&caller.principal, role, bundle, now));
        found.cloned().ok_or_else(|| {
            self.leave_trace(caller, "ROLE_MISSING", &format!("`{order}` needs the role `{role}`"));
            Outgoing::new(Outward::NotAllowed, format!("this is an operator's right (`{role}`)"))
        })
    }

    /// An order that was refused is evidence, as a request for a credential that was is.
    pub(crate) fn leave_trace(&self, caller: &Caller, inner: &'static str, clause: &str) {
        let (state, now) = (self.desk.log.state(), self.desk.clock.now());
        let why = Why::new(inner, Outward::NotAllowed, clause);
        let denial = Denial::of_order(why, &caller.principal, caller.client.clone(), &state, now);
        self.refusals.denied(caller.request, denial, false);
    }
}
