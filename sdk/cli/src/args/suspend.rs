//! What `daypass suspend` and `daypass resume` are told.

use clap::Args as ClapArgs;
use daypass_verify::time::UnixMs;

/// `suspend`.
#[derive(Debug, ClapArgs)]
pub(crate) struct Suspend {
    /// What: `identity=NAME`, `instance=`, `task=`, `target=`, `supplier=`, `issuer=`, `key=`, or `everything`
    #[arg(value_parser = crate::selector::all)]
    pub(crate) selector: daypass_sdk::Selector,
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
