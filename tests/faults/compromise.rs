//! A broker that is killed while it ends what a compromised key signed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use daypass_broker::dev::caller::Caller;
use daypass_broker::store::Reader;
use daypass_evidence::entry::{Body, EndedHow, Entry, Index, KeyState};
use daypass_proto::v1 as pb;
use daypass_tests::harness::{Deployment, SECURITY, STAFF};
use daypass_verify::ids::KeyId;

use super::child::{Child, Files};
use super::load::Load;
use super::report::stood;
use crate::simulation::op::Random;

const KILLS: usize = 4;
const ISSUED: usize = 150;

/// Another look, ten seconds after the order, and what a start takes.
const FINISHED_WITHIN: Duration = Duration::from_secs(25);

/// What entries say of credentials and of their keys.
#[derive(Default)]
struct Told {
    by_key: BTreeMap<KeyId, BTreeSet<Index>>,
    compromised: BTreeSet<KeyId>,
    revoked: Vec<Index>,
    newest: Option<KeyId>,
}

impl Told {
    fn by(entries: &[Entry]) -> Self {
        let mut told = Self::default();
        for (index, entry) in (0..).zip(entries) {
            match &entry.body {
                Body::CredentialIssued(issued) => {
                    told.newest = Some(issued.credential.key.clone());
                    told.by_key.entry(issued.credential.key.clone()).or_default().insert(index);
                }
                Body::KeyChanged(key) if key.state == KeyState::Compromised => {
                    told.compromised.insert(key.key.clone());
                }
                Body::CredentialEnded(ended) if ended.how == EndedHow::Revoked => {
                    told.revoked.extend(&ended.ended);
                }
                _ => {}
            }
        }
        told
    }

    /// What a compromised key signed and no entry has ended.
    fn left(&self) -> usize {
        let ended: BTreeSet<Index> = self.revoked.iter().copied().collect();
        let signed = self.compromised.iter().filter_map(|key| self.by_key.get(key));
        signed.map(|of| of.difference(&ended).count()).sum()
    }
}

/// Orders that `key` be given up, and kills the broker once the log grows for it, or a little later.
async fn order_and_kill(deployment: &Deployment, files: &Files, child: Child, key: &KeyId, later: Duration) {
    let token = deployment.organisation.token(STAFF, SECURITY).unwrap();
    let caller = Caller::connect(files.api, &deployment.listener_ca, None).await.unwrap().with_token(token);
    let order = pb::RotateKeyRequest {
        r#use: pb::KeyUse::Token.into(),
        compromised_key_id: key.to_string(),
        ..Default::default()
    };
    let reader = files.reader();
    let size = |reader: &dyn Reader| reader.head().unwrap().unwrap().size;
    let before = size(reader.as_ref());
    let asked = caller.request(order).unwrap();
    let asking = tokio::spawn(async move { caller.governance().rotate_key(asked).await.map(drop) });
    let began = Instant::now();
    while size(reader.as_ref()) == before && began.elapsed() < Duration::from_secs(5) {
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
    tokio::time::sleep(later).await;
    child.kill();
    drop(asking.await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_compromised_key_signed_is_ended_once_wherever_the_broker_is_killed() {
    let deployment = Deployment::stopped(daypass_broker::dev::organisation::sample()).await;
    let files = Files::of(&deployment);
    let (mut random, mut half_way) = (Random::new(3), 0);
    for kill in 0..KILLS {
        let child = Child::start(&files, &[]).await;
        let load = Load::start(&deployment, files.api, 4, 900);
        load.wait_for(ISSUED).await;
        load.stop().await;
        let key = Told::by(&files.entries()).newest.unwrap();
        let later = Duration::from_micros(random.below(3_000) as u64);
        order_and_kill(&deployment, &files, child, &key, later).await;
        files.check(&deployment).unwrap_or_else(|failure| panic!("kill {kill}: {failure}"));
        half_way += usize::from(Told::by(&files.entries()).left() > 0);
    }
    assert!(half_way > 0, "no kill fell between an order and the last of its endings");

    let child = Child::start(&files, &[]).await;
    let began = Instant::now();
    let mut told = Told::by(&files.entries());
    while told.left() > 0 {
        assert!(began.elapsed() < FINISHED_WITHIN, "{} are left alive", told.left());
        tokio::time::sleep(Duration::from_millis(200)).await;
        told = Told::by(&files.entries());
    }
    child.stop().await;
    files.check(&deployment).unwrap();
    let once: BTreeSet<Index> = told.revoked.iter().copied().collect();
    assert_eq!(once.len(), told.revoked.len(), "nothing is ended twice");
    assert!(!told.compromised.is_empty() && once.len() >= ISSUED);
    stood("P2", "SIGKILL between the compromise of a key and the last ending of what it signed", half_way);
}
