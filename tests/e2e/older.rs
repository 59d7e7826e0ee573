//! What is asked of a log that is closed: its entries, proofs and checkpoint; and what callers still hold of it.

use daypass_broker::keyring::{Kek, open_evidence_key};
use daypass_broker::log::evidence_key_entry;
use daypass_evidence::checkpoint::Checkpoint;
use daypass_evidence::entry::{Body, Entry};
use daypass_evidence::tree::leaf_hash;
use daypass_proto::v1 as pb;
use daypass_proto::v1::get_proof_request::Of;
use daypass_sdk::EntryFilter;
use daypass_tests::harness::{Deployment, Output, issue, program, run, task, token_of};
use prost::bytes::Bytes;

use super::shards::{closing_at, grow};

/// A deployment whose log was closed and goes on in another, with what was issued before.
async fn turned() -> (Deployment, pb::IssueResponse) {
    let mut deployment = closing_at(150).await;
    let before = issue(&deployment.service().await, task("post-invoices")).await.unwrap();
    grow(&deployment, 120).await;
    deployment.turn().await;
    (deployment, before)
}

async fn daypass(profile: &std::path::Path, arguments: &[&str]) -> Output {
    let config = ["--config", profile.to_str().unwrap()];
    run(program("daypass"), config.into_iter().chain(arguments.iter().copied())).await
}

#[tokio::test]
async fn a_holder_is_told_all_of_a_credential_that_the_log_before_issued() {
    let (deployment, before) = turned().await;
    let at = before.receipt.as_ref().unwrap().entry.clone().unwrap();
    deployment.clock.advance(3_600_000);
    let ended = |entry: &Entry| match &entry.body {
        Body::CredentialEnded(ended) => (ended.log.as_ref() == Some(&at.log)).then_some(()),
        _ => None,
    };
    deployment.entry("its end", ended).await;
    let client = deployment.sdk();
    let filter = EntryFilter { credential_id: Some(before.credential_id.clone()), ..Default::default() };
    let mut entries = client.entries(filter).await.unwrap();
    let mut told = Vec::new();
    while let Some(logged) = entries.next().await.unwrap() {
        told.push((Entry::read(&logged.bytes).unwrap().envelope.kind, logged));
    }
    let kinds: Vec<_> = told.iter().map(|(kind, logged)| (kind.as_str(), logged.log == at.log)).collect();
    assert_eq!(
        kinds,
        [("credential.issued", true), ("credential.settled", true), ("credential.ended", false)]
    );
    let issuance = &told[0].1;
    assert_eq!(issuance.index, at.index);
    // Whoever knows the newer log already asks for a proof in the older one.
    client.checkpoint().await.unwrap();
    let leaf = leaf_hash(&issuance.bytes);
    let proven = client.prove_inclusion_in(&at.log, leaf, at.index).await.unwrap();
    assert_eq!(proven.origin, at.log);
    assert!(client.prove_inclusion(leaf, at.index).await.is_err(), "it is not in the newest");

    let file = deployment.folder().join("token");
    std::fs::write(&file, token_of(&before)).unwrap();
    let inspected = daypass(&deployment.services_profile(), &["inspect", file.to_str().unwrap()]).await;
    assert!(inspected.stdout.contains(&format!("entries of {}", at.log)), "{inspected:?}");
    assert!(inspected.stdout.contains("expired, as entry"), "{inspected:?}");
}

#[tokio::test]
async fn an_operator_reads_each_log_by_its_name() {
    let (deployment, before) = turned().await;
    let old = before.receipt.unwrap().entry.unwrap().log;
    let operator = deployment.operator().await;
    let asked = pb::GetCheckpointRequest { log: old.clone(), size: 0 };
    let note = operator.evidence().get_checkpoint(operator.request(asked).unwrap()).await.unwrap();
    let last = Checkpoint::open_shard(&note.into_inner().checkpoint, &deployment.log_key).unwrap();
    assert_eq!(last.origin, old);
    let of = Some(Of::FirstSize(last.size - 1));
    let asked = pb::GetProofRequest { log: old.clone(), of, size: last.size };
    let proof = operator.evidence().get_proof(operator.request(asked).unwrap()).await.unwrap().into_inner();
    assert!(!proof.hashes.is_empty());
    let asked = pb::ListEntriesRequest { log: old.clone(), follow: true, ..Default::default() };
    let listed = operator.evidence().list_entries(operator.request(asked).unwrap()).await.unwrap();
    let mut listed = listed.into_inner();
    let mut kinds = Vec::new();
    while let Some(response) = listed.message().await.unwrap() {
        assert_eq!(response.r#ref.unwrap().log, old);
        kinds.push(Entry::read(&response.entry).unwrap().envelope.kind);
    }
    assert_eq!((kinds.len() as u64, kinds.last().unwrap().as_str()), (last.size, "log.closed"));
    let asked = pb::GetCheckpointRequest { log: format!("{old}-99"), size: 0 };
    let refused = operator.evidence().get_checkpoint(operator.request(asked).unwrap()).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::NotFound);
}

fn knowing(note: impl Into<Bytes>) -> pb::IssueRequest {
    pb::IssueRequest { known_checkpoint: note.into(), ..task("post-invoices") }
}

/// A checkpoint signed by the deployment's own key.
fn signed(deployment: &Deployment, checkpoint: &Checkpoint) -> Vec<u8> {
    let reader = deployment.settings.store.reader().unwrap();
    let entry = evidence_key_entry(reader.as_ref()).unwrap().unwrap();
    let kek = Kek::read(&deployment.settings.kek).unwrap();
    let key = open_evidence_key(&reader.keys().unwrap(), &entry, &kek).unwrap();
    checkpoint.sign(&key).unwrap().into_bytes()
}

#[tokio::test]
async fn what_a_caller_holds_of_a_closed_log_is_held_against_it() {
    let (mut deployment, before) = turned().await;
    let note = before.receipt.unwrap().checkpoint;
    let known = Checkpoint::open_shard(&note, &deployment.log_key).unwrap();
    let last = deployment.settings.store.shard(0).unwrap().head().unwrap().unwrap();
    for held in [note.to_vec(), last.checkpoint.clone()] {
        for _ in 0..2 {
            issue(&deployment.job().await, knowing(held.clone())).await.expect("it is of our log");
        }
    }
    let earlier = Checkpoint { origin: "example.org/evidence/1999h1".into(), ..known.clone() };
    let refused = issue(&deployment.job().await, knowing(signed(&deployment, &earlier))).await.unwrap_err();
    assert_eq!(refused.reason, "MALFORMED", "nobody keeps it, and nothing contradicts it");
    issue(&deployment.job().await, task("post-invoices")).await.expect("and nothing stops");
    let root = [7; 32];
    for (size, what) in [(known.size, "another branch"), (last.size, "another end"), (last.size + 9, "more")]
    {
        let fork = Checkpoint { size, root, origin: last.origin.clone() };
        let note = signed(&deployment, &fork);
        let refused = issue(&deployment.job().await, knowing(note)).await.unwrap_err();
        assert_eq!(refused.reason, "ROLLBACK", "{what}");
        deployment.abandon().await;
        deployment.resume().await.unwrap();
    }
}

#[tokio::test]
async fn an_operator_is_told_why_by_a_log_that_is_closed() {
    let mut deployment = closing_at(150).await;
    let request_id = "0199f2c1-0000-7000-8000-000000000001".to_owned();
    let wanted = pb::IssueRequest { request_id: request_id.clone(), ..task("post-invoices") };
    issue(&deployment.service().await, wanted).await.unwrap();
    let denied = issue(&deployment.service().await, task("deploy-web")).await.unwrap_err();
    let refused = |entry: &Entry| matches!(entry.body, Body::CredentialRefused(_)).then_some(());
    deployment.entry("the refusal", refused).await;
    for _ in 0..2 {
        grow(&deployment, 150).await;
        deployment.turn().await;
    }
    for (id, reason) in [(request_id, "ISSUED"), (denied.request_id, "TASK_NOT_ALLOWED")] {
        let explained = deployment.explain(&id).await;
        assert_eq!((explained.source.as_str(), explained.reason.as_str()), ("log", reason), "{explained:?}");
    }
}

#[tokio::test]
async fn both_logs_are_fetched_by_the_program_and_verified_together_by_whoever_has_python() {
    let (deployment, before) = turned().await;
    let old = before.receipt.unwrap().entry.unwrap().log;
    let newest = format!("{old}-2");
    let operator = deployment.operators_profile();
    let mut arguments = vec![concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/verifier/verify.py").to_owned()];
    for (at, log) in [&old, &newest].into_iter().enumerate() {
        for (what, command) in
            [("note", vec!["log", "checkpoint"]), ("ndjson", vec!["log", "--format", "ndjson"])]
        {
            let said = daypass(&operator, &[&command[..], &["--log", log]].concat()).await;
            assert_eq!(said.code, Some(0), "{said:?}");
            let file = deployment.folder().join(format!("{at}.{what}"));
            std::fs::write(&file, said.stdout).unwrap();
            arguments.insert(1 + 2 * at, file.display().to_string());
        }
    }
    arguments.push(deployment.log_key.to_string());
    let verified = run("python3", &arguments).await;
    assert_eq!(verified.code, Some(0), "{verified:?}");
}
