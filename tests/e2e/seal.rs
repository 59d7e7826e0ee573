//! Entries that left the database: read, proven and verified as if they had not.

use std::path::PathBuf;
use std::time::Duration;

use daypass_broker::dev::organisation::sample;
use daypass_broker::log::Attached;
use daypass_broker::seal::SealSettings;
use daypass_broker::store::StoreAt;
use daypass_evidence::entry::{BrokerStopped, NewEntry};
use daypass_evidence::receipt::verify_receipt;
use daypass_evidence::tree::leaf_hash;
use daypass_proto::v1 as pb;
use daypass_proto::v1::get_proof_request::Of;
use daypass_tests::harness::{Deployment, Output, eventually, issue, program, run, task};

/// A deployment that seals 256 entries as soon as there are so many.
async fn sealing() -> Deployment {
    let mut deployment = Deployment::stopped(sample()).await;
    let at = Box::new(deployment.settings.store.clone());
    deployment.settings.store = StoreAt::Sealed { at, folder: deployment.folder().join("sealed") };
    deployment.settings.seal = SealSettings { entries: 256, every: Duration::from_millis(50) };
    deployment.resume().await.unwrap();
    deployment
}

async fn grow(deployment: &Deployment, entries: usize) {
    let desk = &deployment.broker().desk;
    let entry = || NewEntry {
        id: desk.ids.draw(desk.clock.now()).unwrap(),
        request: None,
        by: None,
        body: BrokerStopped { reason: "a leaf among others".into() }.into(),
    };
    desk.log.append((0..entries).map(|_| entry()).collect(), Attached::default()).await.unwrap();
}

async fn sealed(deployment: &Deployment, until: u64) {
    let readers = &deployment.broker().readers;
    let is_sealed = || async { readers.run(|reader| reader.sealed_until()).await.unwrap() >= until };
    eventually("entries are sealed", is_sealed).await;
}

fn bundle(deployment: &Deployment) -> PathBuf {
    let shards = std::fs::read_dir(deployment.folder().join("sealed")).unwrap();
    shards.last().unwrap().unwrap().path().join("tile/entries/000")
}

async fn verify(deployment: &Deployment, more: &[&str]) -> Output {
    let key = deployment.log_key.to_string();
    let store = deployment.settings.store.file().unwrap().to_str().unwrap();
    let arguments = ["verify", "--store", store, "--key", &key];
    run(program("daypass-broker"), arguments.into_iter().chain(more.iter().copied())).await
}

#[tokio::test]
async fn sealed_entries_are_listed_and_proven_over_the_api_and_at_the_next_start() {
    let mut deployment = sealing().await;
    let first = issue(&deployment.service().await, task("post-invoices")).await.unwrap();
    let before = deployment.entries().await;
    grow(&deployment, 600).await;
    sealed(&deployment, 512).await;
    for round in ["sealed while it served", "started on sealed entries"] {
        assert_eq!(deployment.entries().await[..before.len()], before, "{round}");
        let operator = deployment.operator().await;
        let wanted = pb::ListEntriesRequest {
            credential_id: first.credential_id.clone(),
            limit: 1,
            ..Default::default()
        };
        let request = operator.request(wanted).unwrap();
        let mut listed = operator.evidence().list_entries(request).await.unwrap().into_inner();
        let found = listed.message().await.unwrap().unwrap();
        let index = found.r#ref.unwrap().index;
        assert!(index < 256, "{round}");
        let of = Some(Of::Index(index));
        let request = operator.request(pb::GetProofRequest { of, ..Default::default() }).unwrap();
        let proof = operator.evidence().get_proof(request).await.unwrap().into_inner();
        let path: Vec<[u8; 32]> = proof.hashes.iter().map(|hash| hash.as_ref().try_into().unwrap()).collect();
        verify_receipt(leaf_hash(&found.entry), index, &proof.checkpoint, &path, &deployment.log_key)
            .unwrap();
        issue(&deployment.service().await, task("post-invoices")).await.unwrap();
        deployment.stop().await;
        deployment.resume().await.unwrap();
    }
}

#[tokio::test]
async fn a_sealed_log_is_verified_offline_with_its_files() {
    let mut deployment = sealing().await;
    grow(&deployment, 300).await;
    sealed(&deployment, 256).await;
    deployment.stop().await;
    let folder = deployment.folder().join("sealed");
    let with = ["--sealed", folder.to_str().unwrap()];
    let clean = verify(&deployment, &with).await;
    assert!(clean.stdout.contains("verified: no finding"), "{clean:?}");
    let without = verify(&deployment, &[]).await;
    assert!(
        without.code != Some(0) && without.stderr.contains("entries below 256 are sealed"),
        "{without:?}"
    );

    let path = bundle(&deployment);
    let mut content = std::fs::read(&path).unwrap();
    let at = content.windows(4).position(|window| window == b"leaf").unwrap();
    content[at] ^= 1;
    std::fs::write(&path, content).unwrap();
    let changed = verify(&deployment, &with).await;
    assert!(changed.code != Some(0) && changed.stdout.contains("LEAF_MISMATCH"), "{changed:?}");
    assert!(deployment.resume().await.is_err(), "nothing is signed on it");
}

#[tokio::test]
async fn a_broker_without_the_folder_of_sealed_entries_does_not_start() {
    let mut deployment = sealing().await;
    grow(&deployment, 300).await;
    sealed(&deployment, 256).await;
    deployment.stop().await;
    let StoreAt::Sealed { at, .. } = deployment.settings.store.clone() else { panic!("it seals") };
    deployment.settings.store = *at;
    let refused = deployment.resume().await.unwrap_err().to_string();
    assert!(refused.contains("entries below 256 are sealed"), "{refused}");
}
