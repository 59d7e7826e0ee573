//! Revoking: who may, what ends, that it ends once, and what is told of it.

mod by;
mod lists;
mod orders;
mod races;
mod watch;

use std::net::SocketAddr;

use daypass_broker::dev::caller::Caller;
use daypass_broker::serve::{self, Running, Settings};
use daypass_evidence::entry::{Body, CredentialEnded, EndedHow, Index};
use daypass_proto::v1 as pb;
use daypass_proto::v1::selector::What;
use daypass_tests::harness::{Deployment, Refused, free_port, program, run};

/// An order with a reason.
fn order(what: What) -> pb::RevokeRequest {
    let selector = Some(pb::Selector { what: Some(what), issued_before: None });
    let reason = pb::RevocationReason::PrivilegeWithdrawn.into();
    pb::RevokeRequest { selector, reason, ..Default::default() }
}

async fn revoke(caller: &Caller, order: pb::RevokeRequest) -> Result<pb::RevokeResponse, Refused> {
    let answered = caller.credentials().revoke(caller.request(order).unwrap()).await;
    answered.map(tonic::Response::into_inner).map_err(Refused::from)
}

/// What was revoked: by which entries, on whose word.
async fn endings(deployment: &Deployment) -> Vec<(Index, Option<String>, CredentialEnded)> {
    let entries = deployment.entries().await.into_iter();
    let revoked = entries.filter_map(|(index, entry)| match entry.body {
        Body::CredentialEnded(ended) if ended.how == EndedHow::Revoked => {
            let by = entry.envelope.by.map(|by| {
                by.operator.map(|it| it.to_string()).or(by.identity.map(|it| it.to_string())).unwrap()
            });
            Some((index, by, *ended))
        }
        _ => None,
    });
    revoked.collect()
}

/// The issuances that were revoked, in the order of their endings.
async fn ended(deployment: &Deployment) -> Vec<Index> {
    endings(deployment).await.into_iter().flat_map(|(.., ended)| ended.ended).collect()
}

fn index_of(answer: &pb::IssueResponse) -> Index {
    answer.receipt.as_ref().unwrap().entry.as_ref().unwrap().index
}

/// Another broker on the same log.
async fn second(deployment: &Deployment) -> Running {
    let free = || SocketAddr::from(([127, 0, 0, 1], free_port()));
    let mut settings = Settings {
        broker: "b2".parse().unwrap(),
        anchor: deployment.folder().join("anchor2"),
        emergency: Some(deployment.folder().join("emergency2")),
        ..deployment.settings.clone()
    };
    (settings.api.address, settings.web.address) = (free(), free());
    serve::start(settings).await.unwrap()
}

/// Both verifiers find nothing in the log as it is.
async fn both_verifiers_agree(deployment: &Deployment) {
    let read = |reader: &dyn daypass_broker::store::Reader| Ok((reader.head()?, reader.rows(0, u32::MAX)?));
    let (head, rows) = deployment.broker().readers.run(read).await.unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = deployment.folder().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let lines: Vec<u8> = rows.iter().flat_map(|row| [row.bytes.as_slice(), b"\n"].concat()).collect();
    let (entries, note) = (write("log.ndjson", &lines), write("log.note", &head.unwrap().checkpoint));
    let key = deployment.log_key.to_string();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/verifier/verify.py");
    let theirs = run("python3", [script, &entries, &note, &key]).await;
    assert_eq!(theirs.code, Some(0), "{}{}", theirs.stdout, theirs.stderr);
    let arguments = ["log", "verify", &entries, "--checkpoint", &note, "--log-key", &key];
    let ours = run(program("daypass"), arguments).await;
    assert_eq!(ours.code, Some(0), "{}{}", ours.stdout, ours.stderr);
}
