//! `daypass node`: lets a machine in.

use daypass_sdk::Client;
use secrecy::ExposeSecret as _;

use crate::args::Node;
use crate::failure::Failure;
use crate::output::{Output, Sheet};
use crate::profile::Profile;

pub(crate) async fn run(node: &Node, profile: &Profile, out: &Output) -> Result<(), Failure> {
    let Node::Add { identity } = node;
    let added = Client::new(profile.config()?)?.add_node(identity).await?;
    let mut sheet = Sheet::default();
    sheet.row("code", added.code.expose_secret());
    sheet.row("until", added.until);
    sheet.row("task", &added.task);
    if let Some(entry) = added.entry {
        sheet.row("entry", entry);
    }
    out.sheet(&sheet)
}
