//! `import-key`: a key that somebody brings, into the store and the log.

use std::path::Path;

use daypass_broker::config::Config;
use daypass_broker::keyring::Brought;
use daypass_broker::serve::open_keys;
use daypass_evidence::entry::KeyUse;
use daypass_verify::time::Seconds;

use super::{Failure, settings};
use crate::args::ImportUse;

const DAY_S: u32 = 86_400;

pub(super) async fn run(
    config: &Path,
    key: &Path,
    usage: ImportUse,
    days: u32,
    dry_run: bool,
) -> Result<(), Failure> {
    let brought = Brought::read(key)?;
    let settings = settings(&Config::read(config)?)?;
    let usage = match usage {
        ImportUse::Token => KeyUse::Token,
        ImportUse::Svid => KeyUse::Svid,
    };
    let life = Seconds::new(days.saturating_mul(DAY_S));
    let changed = open_keys(&settings)?.import(brought, usage, life, dry_run).await?;
    println!("key        {}", changed.key);
    println!("published  {} to {}", changed.publish_from_ms, changed.publish_until_ms);
    println!("signs      {} to {}", changed.sign_from_ms, changed.sign_until_ms);
    if dry_run {
        println!("nothing was written");
    } else {
        println!("sealed in the store: keep the file apart, or destroy it");
    }
    Ok(())
}
