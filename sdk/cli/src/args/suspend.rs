//! What `daypass suspend` and `daypass resume` are told.

use clap::Args as ClapArgs;
use daypass_sdk::{Selected, Selector};
use daypass_verify::time::UnixMs;

/// `suspend`.
#[derive(Debug, ClapArgs)]
pub(crate) struct Suspend {
    #[command(flatten)]
    pub(crate) what: Everything,
    /// Why, in words; it is recorded
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: String,
    /// When it lifts itself: a time, or in how long, `2h` for instance
    #[arg(long, value_name = "TIME", value_parser = super::moment_ahead)]
    pub(crate) until: Option<UnixMs>,
    /// Leave what lives to its own end
    #[arg(long)]
    pub(crate) keep_live: bool,
    /// The name of the exercise, where this is one
    #[arg(long, value_name = "NAME")]
    pub(crate) drill: Option<String>,
    /// Say what would happen, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// What is suspended: exactly one, in either way of saying it.
#[derive(Debug, ClapArgs)]
#[group(required = true, multiple = false)]
pub(crate) struct Everything {
    /// What: `identity=NAME`, `instance=`, `task=`, `target=`, `supplier=`, `issuer=`, `key=`, or `everything`
    #[arg(value_parser = crate::selector::all)]
    selector: Option<Selector>,
    /// The same as `identity=NAME`, as `daypass revoke` has it
    #[arg(long, value_name = "NAME")]
    identity: Option<String>,
    /// As `instance=NAME`
    #[arg(long, value_name = "NAME")]
    instance: Option<String>,
    /// As `task=NAME`
    #[arg(long, value_name = "NAME")]
    task: Option<String>,
    /// As `target=NAME`
    #[arg(long, value_name = "NAME")]
    target: Option<String>,
    /// As `supplier=NAME`
    #[arg(long, value_name = "NAME")]
    supplier: Option<String>,
    /// As `issuer=NAME`
    #[arg(long, value_name = "NAME")]
    issuer: Option<String>,
    /// As `key=KEY`
    #[arg(long, value_name = "KEY")]
    key_id: Option<String>,
}

impl Everything {
    /// What was selected; none where nothing was, which the command line does not let pass.
    pub(crate) fn selector(&self) -> Option<Selector> {
        let named = [
            self.identity.clone().map(Selected::Identity),
            self.instance.clone().map(Selected::Instance),
            self.task.clone().map(Selected::Task),
            self.target.clone().map(Selected::Target),
            self.supplier.clone().map(Selected::Supplier),
            self.issuer.clone().map(Selected::Issuer),
            self.key_id.clone().map(Selected::KeyId),
        ];
        let named = named.into_iter().flatten().next();
        let named = named.map(|what| Selector { what: Some(what), issued_before: None });
        self.selector.clone().or(named)
    }
}

/// `resume`.
#[derive(Debug, ClapArgs)]
pub(crate) struct Resume {
    /// The id that `suspend` printed, or the index of its entry
    #[arg(value_name = "ID")]
    pub(crate) suspension: String,
    /// Why, in words; it is recorded
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: String,
}
