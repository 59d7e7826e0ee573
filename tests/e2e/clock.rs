//! A broker whose clock cannot be trusted issues nothing, and goes on when it can.

use daypass_tests::harness::{Deployment, issue, task};
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
