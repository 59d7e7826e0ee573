//! A proof that buys once, and a broker that is killed between its record and its answer.

use std::path::Path;
use std::time::Duration;

use daypass_broker::dev::caller::{Caller, possession};
use daypass_evidence::entry::{Body, Entry, ProofUse};
use daypass_tests::harness::{Answer, CI, Deployment, NIGHTLY, Refused, issue, task};
use tonic::Status;

use super::child::Child;
use super::report::stood;
use super::sweep::{Case, some};
use super::tracer::Place;

/// How often a broker is asked that has only just started.
const ASKED: usize = 100;
const PAUSE: Duration = Duration::from_millis(100);

/// How many kills may miss what lies between a record and its answer.
const KILLS_MOST: usize = 30;

/// A job's token, which its issuer lets buy once.
pub(super) fn job(deployment: &Deployment) -> String {
    deployment.organisation.token(CI, NIGHTLY).unwrap()
}

/// Shows a job's token once, with a fresh certificate to which the credential is bound.
pub(super) async fn show(ca: &Path, port: u16, token: &str) -> Answer {
    let connected = Caller::connect(port, ca, Some(&possession().unwrap())).await;
    let caller = connected.map_err(|error| Refused::from(Status::aborted(error.to_string())))?;
    issue(&caller.with_token(token.to_owned()), task("post-invoices")).await
}

/// The same until it is bought with, or refused as a replay: a broker that has just started knows no keys yet.
pub(super) async fn show_at_last(ca: &Path, port: u16, token: &str) -> Answer {
    let mut last = None;
    for _ in 0..ASKED {
        match show(ca, port, token).await {
            Err(refused) if refused.reason != "PROOF_REPLAYED" => last = Some(refused),
            answer => return answer,
        }
        tokio::time::sleep(PAUSE).await;
    }
    panic!("a proof is neither taken nor called a replay: {last:?}");
}

/// How many credentials were recorded for proofs that buy once.
pub(super) fn bought(entries: &[Entry]) -> usize {
    let once =
        |it: &&Entry| matches!(&it.body, Body::CredentialIssued(it) if it.proof.usage == ProofUse::Once);
    entries.iter().filter(once).count()
}

/// What became of proofs that were shown to a broker that was killed, and then again.
#[derive(Default)]
pub(super) struct Replays {
    pub(super) unanswered: usize,
    pub(super) unrecorded: usize,
}

impl Replays {
    /// `first` is what the killed broker answered, `recorded` how many credentials the log then had for the proof, and
    /// `again` what the next one said.
    pub(super) fn check(&mut self, first: &Answer, recorded: usize, again: &Answer) {
        assert!(recorded <= 1, "one proof was recorded {recorded} times");
        assert!(recorded == 1 || first.is_err(), "a credential was handed out without a record");
        match again {
            Ok(_) => assert!(recorded == 0, "a proof that bought a credential buys another"),
            Err(refused) => assert!(recorded == 1, "a proof that bought nothing is refused: {refused:?}"),
        }
        self.unanswered += usize::from(recorded == 1 && first.is_err());
        self.unrecorded += usize::from(recorded == 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proof_that_was_recorded_buys_no_more_wherever_the_broker_was_killed() {
    let case = Case::new().await;
    let (deployment, files) = (&case.deployment, &case.files);
    let ca = &deployment.listener_ca;
    let mut child = Child::start(files, &[]).await;
    // From here on it knows the keys of the issuer.
    show_at_last(ca, files.api, &job(deployment)).await.unwrap();
    let places = case.places(&child).await;
    let (mut replays, mut kills, [.., anchor]) = (Replays::default(), 0, files.durable());
    // Before it is recorded, and after: the anchor is written between the commit and the answer.
    let after = Place::nth("pwrite64", anchor, 1);
    let mut wanted: Vec<&Place> = some(&places, 6);
    wanted.push(&after);
    while let Some(place) = wanted.pop() {
        let (token, before) = (job(deployment), bought(&files.entries()));
        let first = case.spoil_while(&child, place, "signal=KILL", show(ca, files.api, &token)).await;
        kills += usize::from(child.is_gone());
        child.kill();
        child = Child::start(files, &[]).await;
        let recorded = bought(&files.entries()) - before;
        replays.check(&first, recorded, &show_at_last(ca, files.api, &token).await);
        assert_eq!(bought(&files.entries()) - before, 1, "one credential a proof");
        // What else is written now and then comes first: then the kill was not between record and answer.
        if replays.unanswered == 0 && wanted.is_empty() {
            assert!(kills < KILLS_MOST, "no kill fell between a record and its answer");
            wanted.push(&after);
        }
    }
    assert!(replays.unrecorded > 0, "no kill fell before a record");
    child.stop().await;
    files.check(deployment).unwrap();
    stood("P7", "SIGKILL at a write or sync of an issuance, and its proof shown again", kills);
    stood("P7", "SIGKILL between record and answer, and the proof shown again", replays.unanswered);
}
