//! `daypass log verify`: every entry hashed again, held against each other and against a signed checkpoint.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;

use daypass_evidence::audit::{Audit, Report};
use daypass_evidence::canonical::MAX_ENTRY;
use daypass_evidence::checkpoint::Checkpoint;
use daypass_evidence::note::VerifierKey;
use daypass_sdk::{Client, EntryFilter};
use serde_json::json;

use crate::args::Connection;
use crate::failure::Failure;
use crate::output::{Output, Sheet};
use crate::profile;

/// What the log is held against.
pub(super) struct Wanted<'a> {
    pub(super) checkpoint: Option<&'a Path>,
    pub(super) log_key: Option<&'a str>,
}

/// What was verified, and as far as where.
struct Verified {
    report: Report,
    checkpoint: Option<Checkpoint>,
}

pub(super) async fn run(
    file: Option<&Path>,
    wanted: Wanted<'_>,
    connection: &Connection,
    out: &Output,
) -> Result<(), Failure> {
    let (key, connection) = log_key(wanted.log_key, connection)?;
    let kept = wanted.checkpoint.map(|path| read_checkpoint(path, key.as_ref(), &connection)).transpose()?;
    let verified = match file {
        Some(path) => of_file(path, kept)?,
        None => served(key, kept, &connection).await?,
    };
    show(&verified, out)?;
    if verified.report.is_clean() {
        return Ok(());
    }
    Err(Failure::Verification(format!("the log does not hold: {} finding(s)", count(&verified.report))))
}

/// The key of the log. `--key` names a client's key elsewhere; a verifier key looks like no file's name.
fn log_key(
    named: Option<&str>,
    connection: &Connection,
) -> Result<(Option<VerifierKey>, Connection), Failure> {
    let mut connection = connection.clone();
    if let Some(text) = named {
        let key = text.parse().map_err(|why| Failure::Usage(format!("`--log-key`: {why}")))?;
        return Ok((Some(key), connection));
    }
    let from_key = connection.key.as_ref().and_then(|key| key.to_str()?.parse().ok());
    if from_key.is_some() {
        connection.key = None;
    }
    Ok((from_key, connection))
}

fn read_checkpoint(
    path: &Path,
    key: Option<&VerifierKey>,
    connection: &Connection,
) -> Result<Checkpoint, Failure> {
    let shown = path.display();
    let note =
        std::fs::read(path).map_err(|error| Failure::Usage(format!("cannot read `{shown}`: {error}")))?;
    let key = match key {
        Some(key) => key.clone(),
        None => profile::load(connection)?.log_key()?.ok_or_else(|| {
            Failure::Usage("no key of the log: give `--key VKEY` beside `--checkpoint`".into())
        })?,
    };
    Checkpoint::open(&note, &key)
        .map_err(|why| Failure::Verification(format!("the checkpoint `{shown}`: {why}")))
}

/// The lines of a file.
fn of_file(path: &Path, kept: Option<Checkpoint>) -> Result<Verified, Failure> {
    let refuse = |error| Failure::Usage(format!("cannot read `{}`: {error}", path.display()));
    let mut audit = Audit::new();
    if let Some(checkpoint) = &kept {
        audit.expect(checkpoint.clone());
    }
    let mut lines = BufReader::new(File::open(path).map_err(refuse)?);
    let longest = u64::try_from(MAX_ENTRY).unwrap_or(u64::MAX).saturating_add(2);
    let mut line = Vec::new();
    while lines.by_ref().take(longest).read_until(b'\n', &mut line).map_err(refuse)? > 0 {
        audit.entry(line.strip_suffix(b"\n").unwrap_or(&line));
        line.clear();
    }
    Ok(Verified { report: audit.finish(None), checkpoint: kept })
}

/// All that the broker serves, up to its newest checkpoint.
async fn served(
    key: Option<VerifierKey>,
    kept: Option<Checkpoint>,
    connection: &Connection,
) -> Result<Verified, Failure> {
    let mut config = profile::load(connection)?.config()?;
    config.log_key = key.or(config.log_key);
    let client = Client::new(config)?;
    let (checkpoint, _) = client.checkpoint().await?;
    let mut audit = Audit::new();
    if let Some(kept) = kept {
        audit.expect(kept);
    }
    let mut entries =
        client.entries(EntryFilter { limit: Some(checkpoint.size), ..EntryFilter::default() }).await?;
    let mut read = 0;
    while read < checkpoint.size {
        let Some(entry) = entries.next().await? else { break };
        audit.entry(&entry.bytes);
        read += 1;
    }
    Ok(Verified { report: audit.finish(Some(&checkpoint)), checkpoint: Some(checkpoint) })
}

fn count(report: &Report) -> u64 {
    u64::try_from(report.findings.len()).unwrap_or(u64::MAX).saturating_add(report.findings_omitted)
}

fn show(verified: &Verified, out: &Output) -> Result<(), Failure> {
    let report = &verified.report;
    if out.is_json() {
        return out.json(&json!({
            "log": report.origin, "entries": report.size,
            "root": data_encoding::BASE64.encode(&report.root),
            "last": report.last_time.map(|at| at.to_string()),
            "counts_by_kind": report.counts_by_kind,
            "issued": report.issued, "expired": report.ended_expired, "revoked": report.ended_revoked,
            "void": report.void, "live": report.live,
            "checkpoint": verified.checkpoint.as_ref().map(|it| it.size),
            "findings": report.findings, "findings_omitted": report.findings_omitted,
        }));
    }
    for finding in &report.findings {
        out.line(&finding.to_string())?;
    }
    out.sheet(&sheet(verified))
}

fn sheet(verified: &Verified) -> Sheet {
    let report = &verified.report;
    let mut sheet = Sheet::default();
    sheet.row("log", report.origin.as_deref().unwrap_or("unknown: its first entry is missing"));
    sheet.row("entries", report.size);
    sheet.row("root", data_encoding::BASE64.encode(&report.root));
    sheet.row("last entry", report.last_time.map(|at| at.to_string()).unwrap_or_default());
    sheet.row("credentials", credentials(report));
    sheet.row("checkpoint", against(verified));
    sheet.row(
        "verdict",
        match count(report) {
            0 => "every entry holds".to_owned(),
            n => format!("does not hold: {n} finding(s)"),
        },
    );
    sheet
}

fn credentials(report: &Report) -> String {
    let Report { issued, ended_expired, ended_revoked, void, live, .. } = report;
    format!("{issued} issued: {ended_expired} expired, {ended_revoked} revoked, {void} void, {live} live")
}

/// How far a checkpoint vouches for the log: what lies behind it could be cut without a trace.
fn against(Verified { report, checkpoint }: &Verified) -> String {
    match checkpoint {
        None => "none was given: a cut tail cannot be seen".into(),
        Some(checkpoint) if checkpoint.size < report.size => format!(
            "covers the first {} entries: a cut after the last of the other {} could not be seen",
            checkpoint.size,
            report.size - checkpoint.size
        ),
        Some(checkpoint) => format!("covers {} entries", checkpoint.size),
    }
}

#[cfg(test)]
mod tests {
    use daypass_evidence::tree::{Frontier, leaf_hash};
    use ring::rand::SystemRandom;
    use ring::signature::Ed25519KeyPair;

    use super::*;
    use crate::args::Format;

    const ORIGIN: &str = "example.org/evidence/2027h1";

    /// A file of two golden entries, a checkpoint over the first `size` of them, and the log's key.
    struct Fixture {
        directory: tempfile::TempDir,
        key: String,
    }

    fn entries() -> [Vec<u8>; 2] {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../broker/evidence/golden");
        ["log.opened.v1.json", "key.changed.v1.json"].map(|name| {
            let bytes = std::fs::read(golden.join(name)).unwrap();
            bytes.strip_suffix(b"\n").map(<[u8]>::to_vec).unwrap_or(bytes)
        })
    }

    fn fixture(size: usize) -> Fixture {
        let directory = tempfile::tempdir().unwrap();
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let key = Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap();
        let mut frontier = Frontier::empty();
        entries().iter().take(size).for_each(|entry| frontier.append(leaf_hash(entry)));
        let origin = serde_json::from_slice::<serde_json::Value>(&entries()[0]).unwrap()["origin"].clone();
        let origin = origin.as_str().unwrap_or(ORIGIN).to_owned();
        let checkpoint = Checkpoint { origin, size: frontier.size(), root: frontier.root() };
        std::fs::write(directory.path().join("checkpoint"), checkpoint.sign(&key).unwrap()).unwrap();
        let key = VerifierKey::of(&checkpoint.origin, &key).unwrap().to_string();
        Fixture { directory, key }
    }

    impl Fixture {
        fn verify(&self, lines: &[Vec<u8>], with_checkpoint: bool) -> Verified {
            let file = self.directory.path().join("log");
            std::fs::write(&file, [lines.join(&b'\n'), b"\n".to_vec()].concat()).unwrap();
            let key = self.key.parse().unwrap();
            let path = self.directory.path().join("checkpoint");
            let kept =
                with_checkpoint.then(|| read_checkpoint(&path, Some(&key), &Connection::default()).unwrap());
            of_file(&file, kept).unwrap()
        }
    }

    /// The codes that a cut or changed file adds to those that two entries alone have anyway.
    fn roots_differ(verified: &Verified) -> bool {
        let codes = ["ROOT_MISMATCH", "TRUNCATED", "SPLIT_VIEW", "MALFORMED"];
        verified.report.findings.iter().any(|finding| codes.contains(&finding.code.as_str()))
    }

    #[test]
    fn a_changed_a_swapped_and_a_cut_log_are_found() {
        let fixture = fixture(2);
        let [first, second] = entries();
        assert!(!roots_differ(&fixture.verify(&[first.clone(), second.clone()], true)));
        assert!(roots_differ(&fixture.verify(&[second.clone(), first.clone()], true)));
        assert!(roots_differ(&fixture.verify(std::slice::from_ref(&first), true)));
        let changed = String::from_utf8(second).unwrap().replacen("1", "2", 1).into_bytes();
        assert!(roots_differ(&fixture.verify(&[first, changed], true)));
    }

    #[test]
    fn without_a_checkpoint_it_is_said_that_a_cut_cannot_be_seen() {
        let fixture = fixture(1);
        let alone = fixture.verify(&entries()[..1], false);
        assert!(against(&alone).contains("a cut tail cannot be seen"));
        let beyond = fixture.verify(&entries(), true);
        assert!(against(&beyond).starts_with("covers the first 1 entries"));
        assert_eq!(against(&fixture.verify(&entries()[..1], true)), "covers 1 entries");
    }

    #[tokio::test]
    async fn a_log_that_does_not_hold_ends_with_exit_code_4() {
        let fixture = fixture(2);
        fixture.verify(&entries()[..1], true);
        let file = fixture.directory.path().join("log");
        let path = fixture.directory.path().join("checkpoint");
        let connection = Connection { key: Some(fixture.key.clone().into()), ..Connection::default() };
        let wanted = Wanted { checkpoint: Some(&path), log_key: None };
        let out = Output::new(Format::Json);
        let failure = run(Some(&file), wanted, &connection, &out).await.unwrap_err();
        assert_eq!(failure.exit_code(), 4);
        let other = self::fixture(2).key;
        let wanted = Wanted { checkpoint: Some(&path), log_key: Some(&other) };
        assert_eq!(run(Some(&file), wanted, &Connection::default(), &out).await.unwrap_err().exit_code(), 4);
    }

    #[test]
    fn a_verifier_key_is_told_from_the_name_of_a_file() {
        let vkey = fixture(1).key;
        let named = |key: &str| Connection { key: Some(key.into()), ..Connection::default() };
        let (key, left) = log_key(None, &named(&vkey)).unwrap();
        assert!(key.is_some() && left.key.is_none());
        let (key, left) = log_key(None, &named("tls.key")).unwrap();
        assert!(key.is_none() && left.key.is_some());
        assert!(log_key(Some("tls.key"), &Connection::default()).is_err());
    }
}
