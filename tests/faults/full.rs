//! A disk that fills, and has room again.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use daypass_broker::dev::caller::Caller;
use daypass_broker::emergency::order;
use daypass_evidence::entry::{AlarmState, Body, EndedHow, SuspensionSet};
use daypass_proto::v1 as pb;
use daypass_tests::harness::{Deployment, SECURITY, STAFF, eventually, left_out, nightly};
use tempfile::TempDir;
use tonic_types::StatusExt as _;

use super::ENDED_WITHIN;
use super::child::{Child, Files};
use super::load::Client;
use super::report::stood;
use crate::simulation::check::Held;

/// A small file system of its own; taken away where it is dropped.
pub(super) struct SmallDisk(TempDir);

impl SmallDisk {
    /// None where this machine does not let us mount one.
    pub(super) fn mount(megabytes: u32) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let size = format!("size={megabytes}m");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "none"]).arg(folder.path()).output();
        let why = match mounted {
            Ok(output) if output.status.success() => return Some(Self(folder)),
            Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
            Err(error) => error.to_string(),
        };
        assert!(!nightly(), "at night nothing is left out, and a tmpfs cannot be mounted here: {why}");
        left_out("a disk that fills (P5)", &format!("a tmpfs cannot be mounted here: {why}"));
        None
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Takes all room but some bytes.
    pub(super) fn fill(&self, but: usize) -> PathBuf {
        let ballast = self.path().join("ballast");
        let mut length = 0;
        let chunk = vec![1; 4096];
        let mut file = std::fs::File::create(&ballast).unwrap();
        while std::io::Write::write_all(&mut file, &chunk).is_ok() {
            length += chunk.len();
        }
        file.set_len(u64::try_from(length.saturating_sub(but)).unwrap()).unwrap();
        ballast
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(self.0.path()).status();
        assert!(
            unmounted.is_ok_and(|status| status.success()),
            "`{}` stays mounted",
            self.0.path().display()
        );
    }
}

/// What a full store must still take: the alarm, the end of a credential, an order of an operator.
async fn must_be_written(deployment: &Deployment, files: &Files) {
    let suspended =
        order(&files.socket(), "suspend identity=prod/billing/other the disk is full").await.unwrap();
    assert!(suspended.starts_with("suspended by entry"), "{suspended}");
    give_up_the_key(deployment, files).await;
    let (raised, _) = alarms(files);
    assert_eq!(raised, 1, "the alarm is in the log while the store is full");
    let halted = order(&files.socket(), "halt while it is full").await.unwrap();
    assert!(halted.starts_with("halted"), "{halted}");
    let written = || async { everything_is_suspended(files) };
    eventually("the halt is in the log of a full store", written).await;
    assert_eq!(order(&files.socket(), "resume").await.unwrap(), "resumed\n");
    let ended = || files.entries().iter().any(|it| matches!(it.body, Body::CredentialEnded(_)));
    let began = Instant::now();
    while !ended() {
        assert!(began.elapsed() < ENDED_WITHIN, "nothing is ended in the log of a full store");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// A compromised key is given up, and all that it signed is revoked.
async fn give_up_the_key(deployment: &Deployment, files: &Files) {
    let used = files.entries().into_iter().rev().find_map(|entry| match entry.body {
        Body::CredentialIssued(issued) => Some(issued.credential.key.to_string()),
        _ => None,
    });
    let token = deployment.organisation.token(STAFF, SECURITY).unwrap();
    let caller = Caller::connect(files.api, &deployment.listener_ca, None).await.unwrap().with_token(token);
    let order = pb::RotateKeyRequest {
        r#use: pb::KeyUse::Token.into(),
        compromised_key_id: used.unwrap(),
        ..Default::default()
    };
    let asked = caller.request(order).unwrap();
    let answer = caller.governance().rotate_key(asked).await.unwrap().into_inner();
    assert!(answer.revoked > 0, "{answer:?}");
    let revoked = |it: &Body| matches!(it, Body::CredentialEnded(ended) if ended.how == EndedHow::Revoked);
    assert!(files.entries().iter().any(|entry| revoked(&entry.body)));
}

fn everything_is_suspended(files: &Files) -> bool {
    let everything = |it: &SuspensionSet| it.selector.everything;
    files.entries().iter().any(|it| matches!(&it.body, Body::SuspensionSet(set) if everything(set)))
}

/// How often STORE_FULL was raised, and how often cleared.
fn alarms(files: &Files) -> (usize, usize) {
    let entries = files.entries();
    let count = |state| {
        let is =
            |body: &Body| matches!(body, Body::Alarm(it) if it.code == "STORE_FULL" && it.state == state);
        entries.iter().filter(|entry| is(&entry.body)).count()
    };
    (count(AlarmState::Raised), count(AlarmState::Cleared))
}

/// Asks until the disk is full, and returns how it was refused.
async fn until_full(client: &Client, held: &mut Vec<Held>) -> tonic::Status {
    for _ in 0..2_000 {
        match client.status().await {
            Ok(received) => held.push(received),
            Err(status) => return status,
        }
    }
    panic!("a full disk stops nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_stops_issuance_and_room_lets_it_go_on_without_a_restart() {
    let Some(disk) = SmallDisk::mount(32) else { return };
    let deployment = Deployment::stopped(daypass_broker::dev::organisation::sample()).await;
    let files = Files::on(&deployment, disk.path());
    let child = Child::start(&files, &[]).await;
    let client = Client::of(&deployment, files.api, 1);
    let mut held = vec![client.at_last().await];
    for round in 0..2 {
        let ballast = disk.fill(64 * 1024);
        let refused = until_full(&client, &mut held).await;
        assert_eq!(refused.code(), tonic::Code::Unavailable, "{refused:?}");
        let details = refused.get_error_details();
        assert_eq!(details.error_info().unwrap().reason, "EVIDENCE_UNAVAILABLE");
        assert!(details.retry_info().unwrap().retry_delay.unwrap() > Duration::ZERO);
        let alarmed = || async { alarms(&files).0 == round + 1 };
        eventually("the alarm is in the log", alarmed).await;
        if round == 0 {
            must_be_written(&deployment, &files).await;
        }
        assert!(client.answer().await.is_err(), "issued on a full disk");
        std::fs::remove_file(ballast).unwrap();
        held.push(client.at_last().await);
        let cleared = || async { alarms(&files) == (round + 1, round + 1) };
        eventually("no alarm stands", cleared).await;
    }
    child.kill();
    files.check(&deployment).unwrap().compare(&held, &[]).unwrap();
    stood("P5", "tmpfs full under load, then room again", 2);
    stood("P5", "orders, alarms, endings and revocations written on a full tmpfs", 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_starts_on_a_full_disk_issues_nothing_until_there_is_room() {
    let Some(disk) = SmallDisk::mount(32) else { return };
    let deployment = Deployment::stopped(daypass_broker::dev::organisation::sample()).await;
    let files = Files::on(&deployment, disk.path());
    // Less than the reserve takes, and enough for what must be written.
    let ballast = disk.fill(4 * 1024 * 1024);
    let child = Child::start(&files, &[]).await;
    let client = Client::of(&deployment, files.api, 300);
    assert_eq!(client.answer().await.err(), Some(tonic::Code::Unavailable));
    let alarmed = || async { alarms(&files) == (1, 0) };
    eventually("the alarm is in the log", alarmed).await;

    // The alarm outlives the broker, and is cleared by the next one where there is room.
    child.kill();
    std::fs::remove_file(ballast).unwrap();
    let child = Child::start(&files, &[]).await;
    let held = [client.at_last().await];
    let cleared = || async { alarms(&files) == (1, 1) };
    eventually("the alarm of the earlier run is over", cleared).await;
    child.stop().await;
    files.check(&deployment).unwrap().compare(&held, &[]).unwrap();
    stood("P5", "start on a full tmpfs", 1);
}
