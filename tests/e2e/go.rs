//! What the libraries of Go's checksum database make of our checkpoints and proofs.

use std::path::PathBuf;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use daypass_broker::dev::caller::Caller;
use daypass_proto::v1 as pb;
use daypass_proto::v1::get_proof_request::Of;
use daypass_tests::harness::{Deployment, issue, left_out, run_with, task};
use serde_json::{Value, json};

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/stock/go");

/// The verifier, built; nothing where this machine has no Go or cannot fetch its library.
fn built(folder: &std::path::Path) -> Option<PathBuf> {
    let what = "Go's checksum database libraries";
    let go = |arguments: &[&str]| Command::new("go").args(arguments).current_dir(SOURCE).output();
    match go(&["mod", "download"]) {
        Err(error) => left_out(what, &format!("`go` could not be run: {error}")),
        Ok(fetched) if !fetched.status.success() => {
            left_out(what, &String::from_utf8_lossy(&fetched.stderr));
        }
        Ok(_) => {
            let program = folder.join("stock");
            let made = go(&["build", "-o", program.to_str().unwrap(), "."]).unwrap();
            assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
            return Some(program);
        }
    }
    None
}

async fn proof(operator: &Caller, of: Of, size: u64) -> pb::GetProofResponse {
    let request = operator.request(pb::GetProofRequest { of: Some(of), size, ..Default::default() }).unwrap();
    operator.evidence().get_proof(request).await.unwrap().into_inner()
}

fn encoded(hashes: &[prost::bytes::Bytes]) -> Value {
    hashes.iter().map(|hash| STANDARD.encode(hash)).collect()
}

/// An older and the newest checkpoint, what lies between them, and each entry with its proof.
async fn exported(deployment: &Deployment) -> Value {
    let operator = deployment.operator().await;
    let request = operator.request(pb::GetCheckpointRequest::default()).unwrap();
    let older = operator.evidence().get_checkpoint(request).await.unwrap().into_inner().checkpoint;
    let text = String::from_utf8(older.to_vec()).unwrap();
    let size: u64 = text.lines().nth(1).unwrap().parse().unwrap();
    for _ in 0..5 {
        issue(&deployment.service().await, task("post-invoices")).await.unwrap();
    }
    let consistency = proof(&operator, Of::FirstSize(size), 0).await;
    let newer = String::from_utf8(consistency.checkpoint.to_vec()).unwrap();
    let newest: u64 = newer.lines().nth(1).unwrap().parse().unwrap();
    let rows = deployment.broker().readers.run(|reader| reader.rows(0, u32::MAX)).await.unwrap();
    let mut entries = Vec::new();
    for row in rows.into_iter().filter(|row| row.index < newest) {
        let inclusion = proof(&operator, Of::Index(row.index), newest).await;
        entries.push(json!({ "index": row.index, "bytes": STANDARD.encode(&row.bytes),
            "inclusion": encoded(&inclusion.hashes) }));
    }
    json!({ "key": deployment.log_key.to_string(), "older": text, "newer": newer,
        "consistency": encoded(&consistency.hashes), "entries": entries })
}

#[tokio::test]
async fn the_libraries_of_gos_checksum_database_verify_checkpoints_and_proofs() {
    let deployment = Deployment::start().await;
    let Some(program) = built(deployment.folder()) else { return };
    let log = exported(&deployment).await;
    let verify = async |log: Value| run_with(&program, [""; 0], log.to_string().as_bytes()).await;
    let verified = verify(log.clone()).await;
    assert_eq!(verified.code, Some(0), "{}", verified.stderr);

    let other = STANDARD.encode([7; 32]);
    let spoiled = [
        ("/entries/3/bytes", json!(STANDARD.encode("{}"))),
        ("/entries/3/index", json!(4)),
        ("/entries/3/inclusion/0", json!(other)),
        ("/consistency/0", json!(other)),
        ("/newer", log["older"].clone()),
        ("/older", json!(log["older"].as_str().unwrap().replacen('\n', "\n1", 1))),
    ];
    for (what, value) in spoiled {
        let mut changed = log.clone();
        *changed.pointer_mut(what).unwrap() = value;
        assert_eq!(verify(changed).await.code, Some(1), "{what}");
    }
}
