//! An enforcer on another machine: over TLS, with a certificate that is a credential like any other.

use std::fs;

use daypass_broker::dev::organisation::sample;
use daypass_core::bundle::SourceFile;
use daypass_evidence::entry::{Body, Observed};
use daypass_tests::harness::{Agent, edited, eventually, program, run};
use daypass_verify::ids::CredentialId;

use super::ground::{Ground, Stands};
use super::revoked::{GONE_WITHIN_S, seconds};

const WATCHER: &str = "daypass_enforcer";
/// How long its certificates live: it is over within the test.
const TTL_S: u32 = 15;

/// The sample organisation with the task of an enforcer that shows a certificate, as docs/targets/postgresql.md has it.
fn with_a_watcher() -> Vec<SourceFile> {
    let mut files = sample();
    let mut edit = |name: &str, edit: &dyn Fn(&str) -> String| edited(&mut files, name, edit);
    let page =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/targets/postgresql.md")).unwrap();
    let task = page.split("```toml\n").find(|block| block.starts_with("[task.watch-ledger-db]")).unwrap();
    let task = task.split("```").next().unwrap();
    edit("tasks.toml", &|text| format!("{text}\n{task}"));
    edit("identities/ledger.toml", &|text| {
        text.replace("\"serve-ledger-db\"", "\"serve-ledger-db\", \"watch-ledger-db\"")
    });
    edit("permits.cedar", &|text| {
        let both =
            "resource\n)\nwhen { resource in [Task::\"serve-ledger-db\", Task::\"watch-ledger-db\"] };";
        text.replace("resource == Task::\"serve-ledger-db\"\n);", both)
    });
    files
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_enforcer_on_another_machine_ends_sessions_over_tls_and_stays_while_its_own_certificates_are_renewed()
 {
    let ground = Ground::start_with(with_a_watcher(), Stands::Apart(TTL_S)).await;
    let watcher = || ground.serials_of(WATCHER).into_iter().filter(|it| !it.is_empty()).max();
    let first = watcher().expect("it shows a certificate");
    for name in ["first", "after a renewal"] {
        let files = ground.certificate(&name.replace(' ', "-"), "10m").await;
        let (index, id) = ground.issued(&files).await;
        let session = ground.session(&files).await;
        ground.observed(Observed::Used, index).await;
        let order = ground.revoke(&id, index).await;
        let open = seconds(order, session.ended(&ground).await);
        assert!(open < GONE_WITHIN_S, "{name}: the session was there {open} s after the ending's entry");
        ground.observed(Observed::SessionEnded, index).await;
        // The first certificate is over by its own time when nobody shows it any more: a renewal comes before.
        eventually("another certificate is shown", || async { watcher().is_some_and(|it| it > first) }).await;
        eventually("the former session is left", || async { ground.serials_of(WATCHER).len() == 1 }).await;
    }
    let said = ground.enforcer.said();
    for strange in ["cannot be asked", "has to end and goes on", &format!("of `{WATCHER}` is ended")] {
        assert!(!said.contains(strange), "{strange}: {said}");
    }
    let own = CredentialId::from_bytes(first.parse::<u128>().unwrap().to_be_bytes()).unwrap();
    let used = ground.deployment.entry("the enforcer's own use", |entry| match &entry.body {
        Body::CredentialIssued(_) if entry.envelope.id == own => Some(()),
        _ => None,
    });
    let (index, ()) = used.await;
    ground.observed(Observed::Used, index).await;

    // Whoever ends all that there is at the target ends the enforcer's own too: the others first.
    let files = ground.certificate("contained", "10m").await;
    let sessions = [ground.session(&files).await, ground.session(&files).await];
    ground.observed(Observed::Used, ground.issued(&files).await.0).await;
    let profile = ground.deployment.operators_profile();
    let order = [
        "--config",
        profile.to_str().unwrap(),
        "revoke",
        "--target",
        "ledger-db",
        "--reason",
        "key-compromise",
    ];
    let revoked = run(program("daypass"), order).await;
    assert_eq!(revoked.code, Some(0), "{revoked:?}");
    for session in sessions {
        session.ended(&ground).await;
    }
    ground.enforcer.says("our own certificate has ended").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_cannot_prove_who_it_is_is_shown_nothing_and_no_session_is_touched() {
    let ground = Ground::start_with(with_a_watcher(), Stands::Apart(600)).await;
    let config = fs::read_to_string(ground.deployment.folder().join("enforcer.toml")).unwrap();
    let stranger = ground.deployment.folder().join("stranger.pem");
    fs::write(&stranger, rcgen::generate_simple_self_signed(["x.example".into()]).unwrap().cert.pem())
        .unwrap();
    let ca = config.lines().find(|line| line.starts_with("ca = ") && line.contains("server/ca.crt")).unwrap();
    for (name, from, to, expected) in [
        ("name", "host=ledger-db.example.org", "host=other.example.org", "not valid for name"),
        ("root", ca, &format!("ca = {stranger:?}"), "invalid peer certificate"),
    ] {
        assert!(config.contains(from), "{from}");
        let path = ground.deployment.folder().join(format!("{name}.toml"));
        fs::write(&path, config.replace(from, to)).unwrap();
        let agent = Agent::start(&path, &[]);
        agent.says("the database cannot be asked").await;
        assert!(agent.said().contains(expected), "{}", agent.said());
    }
    assert_eq!(ground.serials_of(WATCHER).len(), 1, "that of the one which was told the truth");
}
