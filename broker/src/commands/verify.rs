//! `verify`: a whole store, offline, without a secret: the log's own public key is enough.

use std::path::{Path, PathBuf};

use daypass_broker::config::Config;
use daypass_broker::log::{Anchor, StartError, verify_store};
use daypass_broker::serve::ServeError;
use daypass_broker::store::{Reader, StoreAt};
use daypass_evidence::audit::Report;
use daypass_evidence::entry::{Body, Entry};
use daypass_evidence::note::VerifierKey;

use super::{Failure, print_report};

pub(super) fn run(
    config: Option<PathBuf>,
    store: Option<PathBuf>,
    key: Option<String>,
    anchor: Option<PathBuf>,
    json: bool,
) -> Result<(), Failure> {
    let config = config.as_deref().map(Config::read).transpose()?;
    let configured = config.as_ref().map(super::store::store_at).transpose()?;
    let store = store.map(StoreAt::from).or(configured);
    let anchor = anchor
        .or_else(|| config.as_ref().map(|config| config.store.anchor.clone()).filter(|path| path.exists()));
    let store = store.ok_or_else(|| Failure::Value("name the store with --config or --store".into()))?;
    let report = verified(&store, key.as_deref(), anchor.as_deref())?;
    if json {
        println!("{}", serde_json::to_string(&report).unwrap_or_default());
    } else {
        print_report(&report);
        if key.is_none() {
            println!(
                "the checkpoint was checked with the key that the log itself names: give the one you kept with --key"
            );
        }
    }
    if report.is_clean() { Ok(()) } else { Err(Failure::NotVerified(report.findings.len())) }
}

fn verified(store: &StoreAt, key: Option<&str>, anchor: Option<&Path>) -> Result<Report, Failure> {
    // What is examined is not written.
    let reader = store.reader().map_err(ServeError::from)?;
    let key: VerifierKey = match key {
        Some(text) => text.parse().map_err(|error| Failure::Value(format!("{error}")))?,
        None => named_by_log(reader.as_ref())?,
    };
    let anchor = anchor.map(Anchor::open).transpose().map_err(ServeError::from)?;
    match verify_store(reader.as_ref(), &key, anchor.as_ref()) {
        Ok(started) => Ok(started.report),
        Err(StartError::Refused(report)) => Ok(*report),
        Err(error) => Err(ServeError::from(error).into()),
    }
}

/// The key in the log's first entry.
pub(super) fn named_by_log(reader: &dyn Reader) -> Result<VerifierKey, Failure> {
    let rows = reader.rows(0, 1).map_err(ServeError::from)?;
    let opened = rows.first().and_then(|row| match Entry::read(&row.bytes).ok()?.body {
        Body::LogOpened(opened) => Some(opened),
        _ => None,
    });
    opened.and_then(|opened| opened.key.parse().ok()).ok_or_else(|| {
        Failure::Value("the log's first entry names no key: give the one you kept with --key".into())
    })
}
