//! What a revocation does to new connections and to open sessions.

use std::path::Path;
use std::time::Duration;

use daypass_broker::clock::Clock as _;
use daypass_evidence::entry::Observed;

use daypass_verify::time::UnixMs;

use super::ground::{Ground, Stands};
use crate::targets::table::{self, Row};

/// How long an open session may outlive the ending's entry, and a new one that is accepted after it.
pub(super) const GONE_WITHIN_S: f64 = 2.0;

/// The list is signed within 5 s; it has to come here, and a server under load reads it when it can.
const REFUSED_WITHIN_S: f64 = 30.0;

/// Who connects by certificate, what it is, and that nothing else opens the door.
async fn it_connects_without_a_password(ground: &Ground, files: &Path) {
    let shown = ground.psql(files, "SELECT session_user").await;
    assert_eq!((shown.code, shown.stdout.trim()), (Some(0), "billing_nightly"), "{shown:?}");
    let nothing = ground.psql(Path::new("/nowhere"), "SELECT 1").await;
    assert_ne!(nothing.code, Some(0), "without a certificate");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_sessions_end_is_seen_at_the_server_and_in_the_log() {
    let ground = Ground::start(Stands::Beside).await;
    let files = ground.certificate("revoked", "10m").await;
    let other = ground.certificate("other", "10m").await;
    it_connects_without_a_password(&ground, &files).await;
    let (index, id) = ground.issued(&files).await;
    let (session, kept) = (ground.session(&files).await, ground.session(&other).await);
    ground.observed(Observed::Used, index).await;
    let order = ground.revoke(&id, index).await;
    let open = seconds(order, session.ended(&ground).await);
    assert!(open < GONE_WITHIN_S, "the session was there {open} s after the ending's entry");
    let gone = ground
        .server
        .query("postgres", &format!("SELECT 1 FROM pg_stat_ssl WHERE client_serial = {}", serial(&id)));
    assert!(gone.is_empty(), "a second look finds it");
    let observed = ground.observed(Observed::SessionEnded, index).await;
    assert_eq!((observed.method.as_str(), observed.target.as_str()), ("enforcer", "ledger-db"));

    // The server does not know of the revocation: who connects again is let in, and ended.
    let began = ground.deployment.clock.now();
    let new = seconds(began, ground.session(&files).await.ended(&ground).await);
    assert!(new < GONE_WITHIN_S, "a new session was there for {new} s");
    ground.observed(Observed::AcceptedAfterEnd, index).await;
    assert_eq!(ground.sessions(), 1, "the other's session goes on");
    drop(kept);
    for secret in ["PRIVATE", "eyJ"] {
        assert!(!ground.enforcer.said().contains(secret), "{secret} in what the enforcer says");
    }
    table::seen(&Row {
        target: "PostgreSQL, enforcer",
        version: &ground.version(),
        end: "revoked",
        new: "accepted, and ended at once",
        open: "ended",
        seconds: [Some(new), Some(open)],
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_was_away_and_a_right_that_was_missing_are_told_and_then_it_is_enforced_again() {
    let mut ground = Ground::start(Stands::Beside).await;
    let files = ground.certificate("revoked", "10m").await;
    ground.server.sql("postgres", "REVOKE pg_signal_backend FROM daypass_enforcer");
    ground.server.restart();
    ground.enforcer.says("expected `GRANT pg_signal_backend TO daypass_enforcer`").await;
    let (index, id) = ground.issued(&files).await;
    let session = ground.session(&files).await;
    ground.revoke(&id, index).await;
    ground.server.sql("postgres", "GRANT pg_signal_backend TO daypass_enforcer");
    session.ended(&ground).await;
    ground.observed(Observed::SessionEnded, index).await;
    // A superuser's session cannot be ended with these rights: that is said, and nothing is told of its end.
    ground.server.sql("postgres", "ALTER ROLE billing_nightly SUPERUSER");
    let superuser = ground.session(&files).await;
    ground.enforcer.says("has to end and goes on").await;
    assert_eq!(ground.sessions(), 1);
    drop(superuser);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_the_revocation_list_the_server_itself_refuses_who_comes_back() {
    let ground = Ground::start(Stands::WithLists).await;
    let (files, other) =
        (ground.certificate("revoked", "10m").await, ground.certificate("other", "10m").await);
    it_connects_without_a_password(&ground, &files).await;
    let (index, id) = ground.issued(&files).await;
    let session = ground.session(&files).await;
    let order = ground.revoke(&id, index).await;
    let open = seconds(order, session.ended(&ground).await);
    assert!(open < GONE_WITHIN_S, "the session was there {open} s after the ending's entry");
    let refused = async || {
        let tried = ground.psql(&files, "SELECT 1").await;
        tried.code != Some(0) && tried.stderr.contains("certificate revoked")
    };
    while !refused().await {
        let late = seconds(order, ground.deployment.clock.now());
        assert!(late < REFUSED_WITHIN_S, "let in {late} s after the ending's entry");
    }
    let new = seconds(order, ground.deployment.clock.now());
    for _ in 0..3 {
        assert!(refused().await, "refused once, and let in again");
    }
    assert_eq!(ground.psql(&other, "SELECT 1").await.code, Some(0), "another is let in");
    table::seen(&Row {
        target: "PostgreSQL, enforcer and revocation list",
        version: &ground.version(),
        end: "revoked",
        new: "refused",
        open: "ended",
        seconds: [Some(new), Some(open)],
    });
}

/// From one time until another.
pub(super) fn seconds(from: UnixMs, until: UnixMs) -> f64 {
    Duration::from_millis(u64::try_from(until.millis_since(from)).unwrap_or_default()).as_secs_f64()
}

/// The serial number of a credential's certificate, in decimal.
fn serial(id: &str) -> String {
    let id: daypass_verify::ids::CredentialId = id.parse().unwrap();
    u128::from_be_bytes(*id.as_bytes()).to_string()
}
