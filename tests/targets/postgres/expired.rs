//! What expiry does, with nobody to ask: the line to the broker is cut before it comes.

use daypass_broker::clock::Clock as _;
use daypass_evidence::entry::Observed;
use daypass_verify::time::UnixMs;

use super::ground::{Ground, Stands, not_after};
use super::revoked::{GONE_WITHIN_S, seconds};
use crate::targets::table::{self, Row};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_session_ends_with_its_certificate_while_the_broker_is_away_and_is_told_of_afterwards() {
    let mut ground = Ground::start(Stands::Beside).await;
    let files = ground.certificate("brief", "12s").await;
    let (index, _) = ground.issued(&files).await;
    let session = ground.session(&files).await;
    ground.observed(Observed::Used, index).await;
    let until = not_after(&files);
    ground.line.cut();
    ground.enforcer.says("the broker tells of no endings, what is known is enforced").await;
    assert!(ground.deployment.clock.now() < until, "the machine was too slow for this test");
    let open = seconds(until, session.ended(&ground).await);
    assert!(open < GONE_WITHIN_S, "the session was there {open} s after its certificate");
    let refused = ground.psql(&files, "SELECT 1").await;
    assert!(refused.code != Some(0) && refused.stderr.contains("certificate expired"), "{refused:?}");
    ground.line.mend().await;
    let observed = ground.observed(Observed::SessionEnded, index).await;
    let late = seconds(until, observed.at_ms);
    assert!(late < GONE_WITHIN_S && observed.at_ms >= UnixMs::new(until.get()), "seen {late} s after");
    table::seen(&Row {
        target: "PostgreSQL, enforcer",
        version: &ground.version(),
        end: "expired, the broker away",
        new: "refused",
        open: "ended",
        seconds: [None, Some(open)],
    });
}
