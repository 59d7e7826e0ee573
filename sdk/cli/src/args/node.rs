//! What `daypass node` is told.

use clap::Subcommand;
use daypass_verify::ids::IdentityName;

/// `node`.
#[derive(Debug, Subcommand)]
pub(crate) enum Node {
    /// Make a one-time code, good for fifteen minutes, by which the agent on the machine gets its node certificate
    Add {
        /// A declared identity of class `node`
        identity: IdentityName,
    },
}
