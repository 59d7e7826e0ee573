//! A broker whose clock cannot be trusted issues nothing, and goes on when it can.

use daypass_broker::clock::ClockTrust;
use daypass_evidence::entry::{AlarmState, Body};
use daypass_proto::v1 as pb;
use daypass_tests::harness::{Deployment, eventually, issue, task};
use prost_types::Duration;
use tonic::Code;

#[tokio::test]
async fn a_clock_that_went_back_stops_issuance_until_it_is_right_again() {
    let mut deployment = Deployment::start().await;
    let service = deployment.service().await;
    // Past the moment from which its keys sign.
    deployment.clock.advance(60_000);
    issue(&service, task("post-invoices")).await.unwrap();
    deployment.clock.advance(-10_000);
    let refused = issue(&service, task("post-invoices")).await.unwrap_err();
    assert_eq!((refused.code, refused.reason.as_str()), (Code::Unavailable, "CLOCK"));
    deployment.clock.advance(10_000);
    issue(&service, task("post-invoices")).await.unwrap();
    deployment.stop().await;
    assert!(deployment.copied().open().unwrap().started.report.is_clean());
}

#[tokio::test]
async fn the_time_of_entries_never_goes_back() {
    let deployment = Deployment::start().await;
    let service = deployment.service().await;
    // Past the moment from which its keys sign.
    deployment.clock.advance(60_000);
    for step in [0, -1_000, 500, -1_200, 2_000] {
        deployment.clock.advance(step);
        issue(&service, task("post-invoices")).await.unwrap();
    }
    let times: Vec<_> =
        deployment.entries().await.into_iter().map(|(_, entry)| entry.envelope.time).collect();
    assert!(times.is_sorted(), "{times:?}");
}

/// The alarms about the clock: raised, cleared.
async fn clock_alarms(deployment: &Deployment) -> (usize, usize) {
    let entries = deployment.entries().await;
    let count = |state| {
        let is = |body: &Body| matches!(body, Body::Alarm(it) if it.code == "CLOCK" && it.state == state);
        entries.iter().filter(|(_, entry)| is(&entry.body)).count()
    };
    (count(AlarmState::Raised), count(AlarmState::Cleared))
}

async fn endings(deployment: &Deployment) -> usize {
    let entries = deployment.entries().await;
    entries.iter().filter(|(_, entry)| matches!(entry.body, Body::CredentialEnded(_))).count()
}

/// A deployment whose one credential is over, and whose machine boots again before anything ended it.
async fn rebooted_three_days_ahead() -> Deployment {
    let mut deployment = Deployment::start().await;
    let ttl = Some(Duration { seconds: 60, nanos: 0 });
    let wanted = pb::IssueRequest { ttl, ..task("post-invoices") };
    issue(&deployment.service().await, wanted).await.unwrap();
    deployment.stop().await;
    deployment.clock.reboot();
    deployment.clock.advance(3 * 86_400_000);
    deployment.resume().await.unwrap();
    deployment
}

#[tokio::test]
async fn endings_are_held_after_a_reboot_until_a_second_source_agrees_with_the_clock() {
    let mut deployment = rebooted_three_days_ahead().await;
    tokio::time::sleep(std::time::Duration::from_millis(2_500)).await;
    assert_eq!(endings(&deployment).await, 0);
    assert_eq!(clock_alarms(&deployment).await, (1, 0));

    // What holds them outlives a restart, and the log verifies meanwhile, long after the end of the credential.
    deployment.stop().await;
    assert_eq!(deployment.copied().open().unwrap().started.report.findings, []);
    deployment.resume().await.unwrap();
    deployment.clock.reboot();
    deployment.stop().await;
    deployment.resume().await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
    assert_eq!(endings(&deployment).await, 0);

    deployment.clock.synchronise(true);
    eventually("it is ended", || async { endings(&deployment).await == 1 }).await;
    let balanced = || async {
        let (raised, cleared) = clock_alarms(&deployment).await;
        raised == cleared
    };
    eventually("no alarm stands", balanced).await;
    deployment.stop().await;
    assert_eq!(deployment.copied().open().unwrap().started.report.findings, []);
}

#[tokio::test]
async fn a_clock_that_is_far_ahead_after_a_reboot_writes_nothing_until_a_second_source_agrees() {
    let mut deployment = Deployment::start().await;
    issue(&deployment.service().await, task("post-invoices")).await.unwrap();
    deployment.stop().await;
    let newest = deployment.newest_time();
    deployment.clock.reboot();
    deployment.clock.step(20 * 60_000);
    deployment.resume().await.unwrap();
    let refused = issue(&deployment.service().await, task("post-invoices")).await.unwrap_err();
    assert_eq!((refused.code, refused.reason.as_str()), (Code::Unavailable, "CLOCK"));
    let alarmed = || async { clock_alarms(&deployment).await == (1, 0) };
    eventually("the alarm is in the log", alarmed).await;
    let (_, entry) = deployment.entries().await.pop().unwrap();
    assert!(entry.envelope.time.millis_since(newest) < 30_000, "at a time that the clock did not tell");

    // It was right: the machine was off for as long. Or else it is set right, and no entry stands in the future.
    deployment.clock.step(-19 * 60_000);
    issue(&deployment.service().await, task("post-invoices")).await.unwrap();
    assert_eq!(endings(&deployment).await, 0);
    deployment.clock.synchronise(true);
    let cleared = || async { clock_alarms(&deployment).await.0 == clock_alarms(&deployment).await.1 };
    eventually("no alarm stands", cleared).await;
    deployment.stop().await;
    assert_eq!(deployment.copied().open().unwrap().started.report.findings, []);
}

#[tokio::test]
async fn a_clock_that_stands_still_stops_issuance() {
    let deployment = Deployment::start().await;
    let service = deployment.service().await;
    issue(&service, task("post-invoices")).await.unwrap();
    // An hour passes, and the wall clock tells none of it.
    deployment.clock.advance(3_600_000);
    deployment.clock.step(-3_600_000);
    let refused = issue(&service, task("post-invoices")).await.unwrap_err();
    assert_eq!((refused.code, refused.reason.as_str()), (Code::Unavailable, "CLOCK"));
    let alarmed = || async { clock_alarms(&deployment).await == (1, 0) };
    eventually("the alarm is in the log", alarmed).await;
}

#[tokio::test]
async fn a_clock_that_is_trusted_for_itself_ends_what_is_over_after_a_reboot() {
    let mut deployment = Deployment::start().await;
    deployment.settings.clock_trust = ClockTrust::Own;
    let ttl = Some(Duration { seconds: 60, nanos: 0 });
    let wanted = pb::IssueRequest { ttl, ..task("post-invoices") };
    issue(&deployment.service().await, wanted).await.unwrap();
    deployment.stop().await;
    deployment.clock.reboot();
    deployment.clock.advance(600_000);
    deployment.resume().await.unwrap();
    eventually("it is ended", || async { endings(&deployment).await == 1 }).await;
    assert_eq!(clock_alarms(&deployment).await, (0, 0));
}

#[tokio::test]
async fn a_clock_that_was_set_ahead_within_one_boot_stops_issuance_even_over_a_restart() {
    let mut deployment = Deployment::start().await;
    let service = deployment.service().await;
    // Past the moment from which its keys sign.
    deployment.clock.advance(60_000);
    issue(&service, task("post-invoices")).await.unwrap();
    let newest = deployment.entries().await.last().unwrap().1.envelope.time;
    deployment.clock.step(3 * 86_400_000);
    let refused = issue(&service, task("post-invoices")).await.unwrap_err();
    assert!(["CLOCK", "PROOF_REFUSED"].contains(&refused.reason.as_str()), "{refused:?}");
    let alarmed = || async { clock_alarms(&deployment).await == (1, 0) };
    eventually("the alarm is in the log", alarmed).await;
    let (_, entry) = deployment.entries().await.pop().unwrap();
    assert!(entry.envelope.time.millis_since(newest) < 30_000, "at a time that the clock did not tell");

    // A restart does not make it believe, and what is said of it meanwhile lies before what comes after.
    deployment.stop().await;
    deployment.resume().await.unwrap();
    issue(&deployment.service().await, task("post-invoices")).await.unwrap_err();
    let (_, entry) = deployment.entries().await.pop().unwrap();
    assert!(entry.envelope.time.millis_since(newest) < 60_000, "at a time that the clock did not tell");

    // Kept by a time service, it is believed again, and what was due is ended.
    deployment.clock.step(-3 * 86_400_000);
    deployment.stop().await;
    deployment.resume().await.unwrap();
    issue(&deployment.service().await, task("post-invoices")).await.unwrap();
    deployment.clock.step(60_000);
    deployment.clock.synchronise(true);
    let cleared = || async {
        let (raised, cleared) = clock_alarms(&deployment).await;
        raised == cleared
    };
    eventually("no alarm stands", cleared).await;
    issue(&deployment.service().await, task("post-invoices")).await.unwrap();
}
