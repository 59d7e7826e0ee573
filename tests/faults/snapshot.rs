//! One machine that goes on twice: a snapshot that was restored while what it was made of runs on. Disk, anchor and keys
//! agree in both, so neither can see by itself what happened.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use daypass_broker::dev::caller::Caller;
use daypass_broker::limits::Rates;
use daypass_broker::serve::{self, Running, Settings};
use daypass_core::rotation::Order;
use daypass_evidence::entry::{AlarmState, Body, Entry, KeyUse};
use daypass_proto::v1 as pb;
use daypass_tests::harness::{
    Copied, Deployment, NIGHTLY, WitnessServer, eventually, free_port, issue, task, token_of,
};
use futures::future::join_all;

use super::report::stood;

/// How many credentials each continuation issues while the other does.
const ISSUED: usize = 60;

/// Length of the nonce before a sealed key.
const NONCE: usize = 12;

/// A deployment, and a snapshot of all its files.
async fn snapshot() -> (Deployment, Copied) {
    let mut deployment = Deployment::start().await;
    issue(&deployment.service().await, task("post-invoices")).await.unwrap();
    deployment.stop().await;
    deployment.settings.rates = Rates::NONE;
    let copied = deployment.copied();
    (deployment, copied)
}

/// The snapshot on a machine of its own.
async fn restored(deployment: &Deployment, copied: &Copied) -> Running {
    let free = || SocketAddr::from(([127, 0, 0, 1], free_port()));
    let mut settings = Settings {
        store: copied.store.as_path().into(),
        anchor: copied.anchor.clone(),
        emergency: Some(deployment.folder().join("restored-emergency")),
        ..deployment.settings.clone()
    };
    (settings.api.address, settings.web.address, settings.ops) = (free(), free(), free());
    serve::start(settings).await.unwrap()
}

async fn caller(deployment: &Deployment, broker: &Running) -> Caller {
    let certificate = deployment.workload(NIGHTLY);
    Caller::connect(broker.api.port(), &deployment.listener_ca, Some(&certificate)).await.unwrap()
}

async fn ask(caller: &Caller, known: &[u8]) -> Result<pb::IssueResponse, String> {
    let known_checkpoint = known.to_vec().into();
    let answer = issue(caller, pb::IssueRequest { known_checkpoint, ..task("post-invoices") }).await;
    answer.map_err(|refused| refused.reason)
}

/// All that must be drawn once: ids, the first half of signatures (which is the same where a nonce is), key ids and the
/// nonces of sealed keys.
#[derive(Default)]
struct Drawn(BTreeSet<Vec<u8>>);

impl Drawn {
    fn add(&mut self, what: &str, bytes: &[u8]) {
        assert!(self.0.insert(bytes.to_vec()), "{what} was drawn twice: {bytes:?}");
    }

    fn credential(&mut self, answer: &pb::IssueResponse) {
        let (_, signature) = token_of(answer).rsplit_once('.').unwrap();
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        // After the millisecond and the version.
        self.add("the random part of an id", &answer.credential_id.as_bytes()[15..]);
        self.add("a nonce", &signature[..32]);
    }
}

/// Another token key, made now; the keys that a broker has sealed.
async fn rotated(broker: &Running) -> Vec<(Vec<u8>, Vec<u8>)> {
    let order = Order { usage: KeyUse::Token, compromised: None };
    broker.rotation.order(&order, &Default::default()).await.unwrap();
    let keys = broker.readers.run(|reader| reader.keys()).await.unwrap();
    let sealed = keys.into_iter().filter(|key| !key.sealed.is_empty());
    sealed.map(|key| (key.key.to_string().into_bytes(), key.sealed[..NONCE].to_vec())).collect()
}

fn size(broker: &Running) -> u64 {
    broker.desk.log.published().head.size
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_continuations_of_one_snapshot_draw_nothing_twice_and_each_is_stopped_by_who_has_met_the_other() {
    let (mut deployment, copied) = snapshot().await;
    deployment.resume().await.unwrap();
    let restored = restored(&deployment, &copied).await;
    let (here, there) = (deployment.service().await, caller(&deployment, &restored).await);

    let mut drawn = Drawn::default();
    let asked = (0..2 * ISSUED).map(|n| ask(if n % 2 == 0 { &here } else { &there }, &[]));
    let answers = join_all(asked).await;
    answers.iter().for_each(|answer| drawn.credential(answer.as_ref().unwrap()));
    let before: BTreeSet<_> = rotated(deployment.broker()).await.into_iter().collect();
    let after: BTreeSet<_> = rotated(&restored).await.into_iter().collect();
    // What was there before the snapshot is the same in both, less the one that each gave other times.
    assert!(before.intersection(&after).count() >= 2);
    for (key, nonce) in before.symmetric_difference(&after) {
        drawn.add("a sealed key", &[key.as_slice(), nonce].concat());
        drawn.add("the nonce of a sealed key", nonce);
    }

    // A caller that moves from the longer log to the shorter, and one from the shorter to the longer.
    while size(deployment.broker()) <= size(&restored) + 3 {
        ask(&here, &[]).await.unwrap();
    }
    let [longer, shorter] = [&here, &there].map(|caller| ask(caller, &[]));
    let [longer, shorter] = [longer.await, shorter.await].map(|it| it.unwrap().receipt.unwrap().checkpoint);
    assert_eq!(ask(&there, &longer).await.unwrap_err(), "ROLLBACK");
    assert_eq!(ask(&there, &[]).await.unwrap_err(), "ROLLBACK", "and for everybody else");
    ask(&here, &[]).await.expect("nobody has told the other yet");
    assert_eq!(ask(&here, &shorter).await.unwrap_err(), "ROLLBACK");
    assert_eq!(ask(&here, &[]).await.unwrap_err(), "ROLLBACK", "and for everybody else");
    deployment.abandon().await;
    drop(restored.stop("the test is over").await);
    stood(
        "P8",
        "a snapshot restored beside what it was made of: ids, nonces and keys drawn by both",
        drawn.0.len(),
    );
    stood("P4", "a snapshot restored beside what it was made of, and callers that met both", 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_witness_signs_one_continuation_of_a_snapshot_and_the_other_raises_an_alarm() {
    let (mut deployment, copied) = snapshot().await;
    let witness = WitnessServer::start("w.example/1", deployment.log_key.clone()).await;
    deployment.settings.witnesses = witness.settings("w1");
    deployment.resume().await.unwrap();
    let here = deployment.service().await;
    ask(&here, &[]).await.unwrap();
    let issued = size(deployment.broker());
    let witnessed = || async { witness.newest().is_some_and(|it| it.size >= issued) };
    eventually("the witness has signed what one of them has issued", witnessed).await;

    let restored = restored(&deployment, &copied).await;
    let told = || async {
        let rows = restored.readers.run(|reader| reader.rows(0, u32::MAX)).await.unwrap();
        rows.iter().any(|row| match Entry::read(&row.bytes).unwrap().body {
            Body::Alarm(alarm) => {
                alarm.state == AlarmState::Raised && ["ROLLBACK", "SPLIT_VIEW"].contains(&alarm.code.as_str())
            }
            _ => false,
        })
    };
    eventually("the other is told that its log is another", told).await;
    ask(&here, &[]).await.expect("the one that was witnessed goes on");
    deployment.stop().await;
    drop(restored.stop("the test is over").await);
    stood("P4", "a snapshot restored beside what it was made of, and a witness of both", 1);
}
