//! `daypass log`: the entries, their verification, and the newest checkpoint.

mod verify;

use daypass_sdk::{Client, EntryFilter, LogEntry};
use daypass_verify::time::UnixMs;
use serde_json::{Value, json};

use crate::args::{Connection, List, Log, LogCommand};
use crate::failure::Failure;
use crate::output::{Output, printable};
use crate::profile::{self, Profile};

pub(crate) async fn run(log: &Log, connection: &Connection, out: &Output) -> Result<(), Failure> {
    match &log.command {
        None => list(&log.list, &profile::load(connection)?, out).await,
        Some(LogCommand::Checkpoint { log }) => {
            checkpoint(log.as_deref(), &profile::load(connection)?, out).await
        }
        Some(LogCommand::Verify { file, checkpoint, log_key }) => {
            let wanted = verify::Wanted { checkpoint: checkpoint.as_deref(), log_key: log_key.as_deref() };
            verify::run(file.as_deref(), wanted, connection, out).await
        }
    }
}

async fn checkpoint(log: Option<&str>, profile: &Profile, out: &Output) -> Result<(), Failure> {
    let client = Client::new(profile.config()?)?;
    let (checkpoint, note) = match log {
        Some(log) => client.checkpoint_of(log).await?,
        None => client.checkpoint().await?,
    };
    let text = String::from_utf8_lossy(&note);
    match out.is_json() {
        true => out.json(&json!({ "origin": checkpoint.origin, "size": checkpoint.size, "note": text })),
        false => out.line(text.trim_end_matches('\n')),
    }
}

async fn list(list: &List, profile: &Profile, out: &Output) -> Result<(), Failure> {
    let mut entries = Client::new(profile.config()?)?.entries(filter(list)).await?;
    while let Some(entry) = entries.next().await? {
        print(&entry, out)?;
    }
    Ok(())
}

fn filter(list: &List) -> EntryFilter {
    EntryFilter {
        log: list.log.clone(),
        start: list.start,
        limit: list.limit,
        follow: list.follow,
        kinds: list.kind.clone(),
        identity: list.identity.as_ref().map(ToString::to_string),
        credential_id: list.credential.clone(),
        request_id: list.request.clone(),
        since: list.since,
        until: list.until,
    }
}

fn print(entry: &LogEntry, out: &Output) -> Result<(), Failure> {
    if out.is_ndjson() {
        return out.bytes(&entry.bytes);
    }
    let value: Value = serde_json::from_slice(&entry.bytes).unwrap_or_default();
    match out.is_json() {
        true => out.line(&json!({ "index": entry.index, "entry": value }).to_string()),
        false => out.line(&row(entry.index, &value)),
    }
}

/// One entry on one line: position, time, kind, and what it is about.
fn row(index: u64, entry: &Value) -> String {
    let time = entry.get("time").and_then(Value::as_i64).map(|ms| UnixMs::new(ms).to_string());
    let kind = entry.get("kind").and_then(Value::as_str).unwrap_or("?");
    let about: Vec<&str> = ABOUT.iter().filter_map(|at| entry.pointer(at)?.as_str()).collect();
    let line = format!("{index:>8}  {:<24}  {kind:<20}  {}", time.unwrap_or_default(), about.join(" "));
    printable(line.trim_end())
}

/// What tells entries apart at a glance, over all kinds.
const ABOUT: &[&str] = &[
    "/type",
    "/name",
    "/change",
    "/use",
    "/how",
    "/code",
    "/state",
    "/what",
    "/identity/name",
    "/task/name",
    "/task",
    "/target/name",
    "/reason",
    "/mode",
    "/origin",
    "/where",
    "/digest",
    "/by/operator",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_fits_on_one_line() {
        let issued = json!({ "kind": "credential.issued", "time": 1_795_316_400_123_i64,
            "identity": { "name": "prod/billing/nightly", "at": 3 }, "task": { "name": "post-invoices", "at": 4 } });
        assert_eq!(
            row(41, &issued),
            "      41  2026-11-22T03:00:00.123Z  credential.issued     prod/billing/nightly post-invoices"
        );
        let hostile = json!({ "kind": "alarm", "code": "X\u{1b}[2J\nY" });
        assert_eq!(row(1, &hostile).lines().count(), 1);
        assert!(!row(1, &hostile).contains('\u{1b}'));
        assert!(row(2, &Value::Null).contains('?'));
    }
}
