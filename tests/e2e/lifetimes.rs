//! At most as long as asked, and never past any bound.

use daypass_proto::v1 as pb;
use daypass_tests::harness::{Deployment, issue, task};
use prost_types::Duration;
use tonic::Code;

#[tokio::test]
async fn a_credential_lives_as_long_as_asked_and_never_past_its_ceiling() {
    let deployment = Deployment::start().await;
    let service = deployment.service().await;
    let table = [
        ("the task's default", None, 900, false),
        ("a second", Some(1), 1, false),
        ("a minute", Some(60), 60, false),
        ("the ceiling", Some(3600), 3600, false),
        ("a second over the ceiling", Some(3601), 3600, true),
        ("a year", Some(31_536_000), 3600, true),
        ("the largest number", Some(i64::MAX), 3600, true),
    ];
    for (what, seconds, lives, narrowed) in table {
        let ttl = seconds.map(|seconds| Duration { seconds, nanos: 0 });
        let answer = issue(&service, pb::IssueRequest { ttl, ..task("post-invoices") }).await.unwrap();
        let granted = answer.granted.unwrap();
        let life = granted.expires_at.unwrap().seconds - granted.issued_at.unwrap().seconds;
        assert_eq!(life, lives, "{what}");
        assert_eq!(answer.narrowed.contains(&"ttl".to_owned()), narrowed, "{what}");
        let entry = deployment.issued(&answer.credential_id).await;
        assert_eq!(i64::from(entry.granted.ttl_s.get()), lives, "{what}");
    }
}

#[tokio::test]
async fn a_lifetime_that_is_none_is_refused() {
    let deployment = Deployment::start().await;
    let service = deployment.service().await;
    let table = [
        ("zero", Duration { seconds: 0, nanos: 0 }),
        ("negative", Duration { seconds: -1, nanos: 0 }),
        ("the smallest number", Duration { seconds: i64::MIN, nanos: 0 }),
        ("half a second", Duration { seconds: 0, nanos: 500_000_000 }),
        ("a second and a half", Duration { seconds: 1, nanos: 500_000_000 }),
        ("a second less a nanosecond", Duration { seconds: 1, nanos: -1 }),
    ];
    for (what, ttl) in table {
        let refused =
            issue(&service, pb::IssueRequest { ttl: Some(ttl), ..task("post-invoices") }).await.unwrap_err();
        assert_eq!((refused.code, refused.reason.as_str()), (Code::InvalidArgument, "MALFORMED"), "{what}");
        assert_eq!(refused.fields, ["ttl"], "{what}");
    }
}

#[tokio::test]
async fn a_credential_never_outlives_the_certificate_that_proved_it() {
    let deployment = Deployment::start().await;
    let id = daypass_tests::harness::spiffe_id("prod/billing/nightly");
    let now = daypass_broker::clock::Clock::now(deployment.clock.as_ref());
    let brief =
        deployment.organisation.workloads.issue(&id, now, daypass_verify::time::Seconds::new(120)).unwrap();
    let answer = issue(&deployment.connect(Some(&brief)).await, task("post-invoices")).await.unwrap();
    let expires = answer.granted.unwrap().expires_at.unwrap().seconds;
    assert!(expires <= now.plus_millis(120_000).seconds(), "{expires}");
    assert_eq!(answer.narrowed, ["ttl"]);
}

#[tokio::test]
async fn narrowing_of_a_named_lifetime_can_be_refused() {
    let deployment = Deployment::start().await;
    let ttl = Some(Duration { seconds: 7200, nanos: 0 });
    let wanted = pb::IssueRequest { ttl, refuse_narrowed: true, ..task("post-invoices") };
    let refused = issue(&deployment.service().await, wanted).await.unwrap_err();
    assert_eq!(refused.code, Code::PermissionDenied, "{refused:?}");
}
