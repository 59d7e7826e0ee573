//! Witnesses over HTTP: what they sign is kept and shown, and what they say against us is an alarm.

use std::sync::Arc;
use std::time::Duration;

use daypass_broker::dev::organisation::sample;
use daypass_evidence::checkpoint::Checkpoint;
use daypass_evidence::entry::{Alarm, AlarmState, Body, CheckpointAnchored};
use daypass_evidence::note::{NoteError, VerifierKey};
use daypass_proto::v1 as pb;
use daypass_tests::harness::{Deployment, Manner, WitnessServer, eventually, issue, run, task};
use daypass_verify::ids::Digest;

/// A deployment that asks one witness.
async fn witnessed(manner: Manner) -> (Deployment, Arc<WitnessServer>) {
    let mut deployment = Deployment::stopped(sample()).await;
    let witness = WitnessServer::start("w.example/1", deployment.log_key.clone()).await;
    witness.behave(manner);
    deployment.settings.witnesses = witness.settings("w1");
    deployment.resume().await.unwrap();
    (deployment, witness)
}

async fn alarms(deployment: &Deployment) -> Vec<Alarm> {
    let alarm = |body| match body {
        Body::Alarm(alarm) => Some(*alarm),
        _ => None,
    };
    deployment.entries().await.into_iter().filter_map(|(_, entry)| alarm(entry.body)).collect()
}

async fn anchored(deployment: &Deployment) -> Vec<CheckpointAnchored> {
    let anchored = |body| match body {
        Body::CheckpointAnchored(anchored) => Some(*anchored),
        _ => None,
    };
    deployment.entries().await.into_iter().filter_map(|(_, entry)| anchored(entry.body)).collect()
}

/// The first of a number of cosignatures.
async fn cosigned(deployment: &Deployment, at_least: usize) -> CheckpointAnchored {
    eventually("cosignatures", || async { anchored(deployment).await.len() >= at_least }).await;
    anchored(deployment).await.remove(0)
}

async fn raised(deployment: &Deployment, code: &str) -> Alarm {
    eventually(code, || async { !alarms(deployment).await.is_empty() }).await;
    let mut alarms = alarms(deployment).await;
    assert_eq!(alarms.len(), 1, "one alarm, once: {alarms:?}");
    assert_eq!(alarms[0].code, code);
    alarms.remove(0)
}

async fn object(deployment: &Deployment, digest: Digest) -> Vec<u8> {
    let read = deployment.broker().readers.run(move |reader| reader.object(&digest)).await;
    let bytes = read.unwrap().expect("what an entry names is kept");
    assert_eq!(Digest::of(&bytes), digest);
    bytes
}

async fn published(deployment: &Deployment) -> String {
    let url = format!("{}/checkpoint", deployment.settings.issuer.as_str());
    let ca = deployment.listener_ca.to_str().unwrap();
    run("curl", ["--silent", "--fail", "--noproxy", "*", "--cacert", ca, &url]).await.stdout
}

#[tokio::test]
async fn what_a_witness_signed_is_recorded_kept_and_served() {
    let (deployment, witness) = witnessed(Manner::Honest).await;
    let first = cosigned(&deployment, 2).await;
    assert!(alarms(&deployment).await.is_empty());
    assert_eq!(first.kept, "witness:w1");
    let evidence = first.evidence.unwrap();
    let note = object(&deployment, evidence).await;
    let checkpoint = Checkpoint::open(&note, &deployment.log_key).unwrap();
    assert_eq!((checkpoint.size, Digest::from_bytes(checkpoint.root)), (first.size, first.root));
    let line = note.split_inclusive(|byte| *byte == b'\n').next_back().unwrap();
    let said = witness.key.cosignature(&checkpoint, line).unwrap();
    assert_eq!(first.time_ms.unwrap().get(), i64::try_from(said.time_s).unwrap() * 1000);

    let served = published(&deployment).await;
    let checkpoint = Checkpoint::open(served.as_bytes(), &deployment.log_key).unwrap();
    let lines = served.split_once("\n\n").unwrap().1.split_inclusive('\n').nth(1).unwrap();
    witness.key.cosignature(&checkpoint, lines.as_bytes()).unwrap();
    assert!(!served.contains("stranger.example"), "the signatures of others are not ours to show");
}

#[tokio::test]
async fn the_checkpoint_that_a_witness_signed_can_be_asked_for() {
    let (deployment, witness) = witnessed(Manner::Honest).await;
    cosigned(&deployment, 1).await;
    witness.behave(Manner::Unwell);
    let operator = deployment.operator().await;
    let get = async |size| {
        let request = operator.request(pb::GetCheckpointRequest { size, ..Default::default() }).unwrap();
        operator.evidence().get_checkpoint(request).await.map(|answer| answer.into_inner().checkpoint)
    };
    let signed = eventually_some(|| witness.newest().map(|newest| newest.size)).await;
    let note = get(signed).await.unwrap();
    let checkpoint = Checkpoint::open(&note, &deployment.log_key).unwrap();
    assert_eq!(checkpoint.size, signed);
    assert!(String::from_utf8_lossy(&note).contains("w.example/1"));
    assert!(Checkpoint::open(&get(0).await.unwrap(), &deployment.log_key).unwrap().size > signed);
    assert!(get(1).await.is_err(), "others are not kept");
}

async fn eventually_some<T>(mut found: impl FnMut() -> Option<T>) -> T {
    for _ in 0..200 {
        if let Some(found) = found() {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("nothing came");
}

#[tokio::test]
async fn a_witness_that_knows_another_size_is_given_the_proof_from_there() {
    let (mut deployment, witness) = witnessed(Manner::Honest).await;
    cosigned(&deployment, 1).await;
    let early = witness.newest().unwrap();
    deployment.stop().await;
    issue_some(&mut deployment, &witness, Some(early.clone())).await;
    let again = anchored(&deployment).await.len();
    // A broker that was started again knows nothing of what the witness knows, nor a witness that forgot all.
    for memory in [Some(early), None] {
        witness.remember(memory);
        let enough = anchored(&deployment).await.len() + 1;
        eventually("another cosignature", || async { anchored(&deployment).await.len() > enough }).await;
    }
    assert!(anchored(&deployment).await.len() > again);
    assert!(alarms(&deployment).await.is_empty(), "{:?}", alarms(&deployment).await);
}

async fn issue_some(deployment: &mut Deployment, witness: &WitnessServer, memory: Option<Checkpoint>) {
    witness.remember(memory);
    deployment.resume().await.unwrap();
    issue(&deployment.service().await, task("post-invoices")).await.unwrap();
}

#[tokio::test]
async fn a_silent_witness_is_an_alarm_raised_once_and_cleared_once_and_delays_nobody() {
    for manner in [Manner::Unwell, Manner::Redirects, Manner::Endless] {
        let (deployment, witness) = witnessed(manner).await;
        let alarm = raised(&deployment, "WITNESS_SILENT").await;
        assert_eq!((alarm.state, alarm.raised), (AlarmState::Raised, None), "{manner:?}");
        assert!(alarm.detail.unwrap().contains("witness `w1`"));
        issue(&deployment.service().await, task("post-invoices")).await.unwrap();
        let asked = witness.asked();
        eventually("more questions", || async { witness.asked() > asked + 2 }).await;
        assert_eq!(alarms(&deployment).await.len(), 1, "{manner:?}");

        witness.behave(Manner::Honest);
        eventually("the alarm is cleared", || async { alarms(&deployment).await.len() == 2 }).await;
        let cleared = alarms(&deployment).await.remove(1);
        assert_eq!((cleared.state, cleared.code.as_str()), (AlarmState::Cleared, "WITNESS_SILENT"));
        let at = usize::try_from(cleared.raised.unwrap()).unwrap();
        assert!(
            matches!(&deployment.entries().await[at].1.body, Body::Alarm(raised) if raised.state == AlarmState::Raised)
        );
    }
}

#[tokio::test]
async fn a_witness_that_hangs_keeps_nobody_waiting() {
    let (deployment, _witness) = witnessed(Manner::Hangs).await;
    let service = deployment.service().await;
    let began = std::time::Instant::now();
    for _ in 0..5 {
        issue(&service, task("post-invoices")).await.unwrap();
    }
    assert!(began.elapsed() < Duration::from_secs(5));
    assert!(anchored(&deployment).await.is_empty());
}

#[tokio::test]
async fn a_cosignature_of_another_checkpoint_is_an_alarm_with_its_evidence() {
    let (deployment, witness) = witnessed(Manner::SignsAnother).await;
    let alarm = raised(&deployment, "SPLIT_VIEW").await;
    let detail = alarm.detail.unwrap();
    let digest: Digest = detail.rsplit(' ').next().unwrap().parse().unwrap();
    let kept = object(&deployment, digest).await;
    let another = Checkpoint { origin: deployment.log_key.name().into(), size: 7, root: [7; 32] };
    assert!(witness.key.cosignature(&another, &kept).is_ok(), "what it signed can be shown to others");
    assert!(anchored(&deployment).await.is_empty());
}

#[tokio::test]
async fn a_witness_that_signed_another_tree_of_ours_is_an_alarm() {
    let (deployment, witness) = witnessed(Manner::Honest).await;
    cosigned(&deployment, 1).await;
    let mut other = witness.newest().unwrap();
    other.root[0] ^= 1;
    witness.remember(Some(other));
    raised(&deployment, "SPLIT_VIEW").await;
    issue(&deployment.service().await, task("post-invoices")).await.unwrap();
}

#[tokio::test]
async fn a_witness_that_knows_more_than_the_store_is_an_alarm() {
    let (deployment, _witness) = witnessed(Manner::Claims(1_000_000)).await;
    let alarm = raised(&deployment, "ROLLBACK").await;
    assert!(alarm.detail.unwrap().contains("1000000"));
    // Its word is no checkpoint by our key: whoever answers for a witness cannot stop us.
    issue(&deployment.service().await, task("post-invoices")).await.unwrap();
}

#[tokio::test]
async fn a_witness_that_has_another_log_key_signs_nothing() {
    let mut deployment = Deployment::stopped(sample()).await;
    let other = VerifierKey::new(deployment.log_key.name(), [3; 32]).unwrap();
    let witness = WitnessServer::start("w.example/1", other).await;
    deployment.settings.witnesses = witness.settings("w1");
    deployment.resume().await.unwrap();
    let alarm = raised(&deployment, "WITNESS_SILENT").await;
    assert!(alarm.detail.unwrap().contains("403"));
    let lines = "\u{2014} w.example/1 AAAAAAAAAAAA\n";
    let checkpoint = Checkpoint { origin: "x".into(), size: 1, root: [0; 32] };
    assert_eq!(witness.key.cosignature(&checkpoint, lines.as_bytes()), Err(NoteError::Unsigned));
}
