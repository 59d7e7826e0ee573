//! Nodes: let in by a code that buys one certificate, and found out where there are two of a certificate.

use daypass_broker::dev::caller::{Caller, possession};
use daypass_broker::dev::organisation::sample;
use daypass_broker::dev::workload_ca::WorkloadCertificate;
use daypass_broker::limits::Rates;
use daypass_core::bundle::SourceFile;
use daypass_evidence::entry::{AlarmState, Body, EndedHow, Index, ProofKind};
use daypass_proto::v1 as pb;
use daypass_proto::v1::issue_request::Credential as Wanted;
use daypass_proto::v1::selector::What;
use daypass_tests::harness::{
    Deployment, NIGHTLY, Refused, certificate_of, eventually, issue, sample_with, stores, task,
};
use daypass_verify::ids::Digest;
use futures::future::join_all;
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::PrivatePkcs8KeyDer;

const NODE: &str = "prod/node/db1";
const OTHER: &str = "prod/node/db2";
const MINUTE_MS: i64 = 60_000;

async fn add(deployment: &Deployment, node: &str) -> Result<pb::AddNodeResponse, Refused> {
    let caller = deployment.security().await;
    let wanted = pb::AddNodeRequest { identity: node.into(), ..Default::default() };
    let answered = caller.governance().add_node(caller.request(wanted).unwrap()).await;
    answered.map(tonic::Response::into_inner).map_err(Refused::from)
}

fn request(name: &str, profile: pb::CertificateProfile, key: &KeyPair) -> pb::IssueRequest {
    let csr = CertificateParams::default().serialize_request(key).unwrap();
    let certificate = pb::CertificateParameters { profile: profile.into(), csr: csr.der().to_vec().into() };
    pb::IssueRequest { credential: Some(Wanted::Certificate(certificate)), ..task(name) }
}

fn wanted(key: &KeyPair) -> pb::IssueRequest {
    request("node", pb::CertificateProfile::Node, key)
}

fn fresh() -> KeyPair {
    KeyPair::generate().unwrap()
}

/// What was issued, to be shown with its key.
fn shown(answer: &pb::IssueResponse, key: &KeyPair) -> WorkloadCertificate {
    WorkloadCertificate { chain: certificate_of(answer), key: PrivatePkcs8KeyDer::from(key.serialize_der()) }
}

/// A node that has just been let in, with its certificate.
async fn enrolled(deployment: &Deployment, node: &str) -> WorkloadCertificate {
    let code = add(deployment, node).await.unwrap().code;
    let key = fresh();
    shown(&issue(&deployment.bearer(code).await, wanted(&key)).await.unwrap(), &key)
}

async fn as_node(deployment: &Deployment, certificate: &WorkloadCertificate) -> Caller {
    deployment.connect(Some(certificate)).await
}

async fn renewed(caller: &Caller, key: &KeyPair) -> Result<pb::IssueResponse, Refused> {
    issue(caller, wanted(key)).await
}

/// The sample with another machine.
fn with_another() -> Vec<SourceFile> {
    sample_with("identities/nodes.toml", |text| format!("{text}\n{}", text.replace("node/db1", "node/db2")))
}

#[tokio::test]
async fn a_code_buys_one_certificate_however_often_and_wherever_it_is_shown() {
    for store in stores() {
        let deployment = Deployment::start_unlimited_on(store).await;
        let other = deployment.second().await;
        let added = add(&deployment, NODE).await.unwrap();
        let certificate = possession().unwrap();
        let mut callers = Vec::new();
        for port in [deployment.broker().api.port(), other.api.port()] {
            let caller = Caller::connect(port, &deployment.listener_ca, Some(&certificate)).await.unwrap();
            callers.push(caller.with_token(added.code.clone()));
        }
        let keys: Vec<_> = (0..16).map(|_| fresh()).collect();
        let asked = keys.iter().enumerate().map(|(n, key)| issue(&callers[n % 2], wanted(key)));
        let answers = join_all(asked).await;
        let issued: Vec<_> = answers.iter().filter_map(|answer| answer.as_ref().ok()).collect();
        assert_eq!(issued.len(), 1);
        let refused: Vec<_> =
            answers.iter().filter_map(|it| it.as_ref().err()).map(|it| &*it.reason).collect();
        // Where two write at once, one may be told to come back.
        let known = ["PROOF_REPLAYED", "EVIDENCE_UNAVAILABLE"];
        assert!(refused.iter().all(|reason| known.contains(reason)), "{refused:?}");
        let again = issue(&callers[1], wanted(&fresh())).await.unwrap_err();
        assert_eq!(again.reason, "PROOF_REPLAYED", "{again:?}");
        let record = deployment.issued(&issued[0].credential_id).await;
        assert_eq!(
            (record.proof.kind, record.approval),
            (ProofKind::Enrolment, Some(added.entry.unwrap().index))
        );
        let kept: Vec<_> =
            deployment.entries().await.into_iter().map(|(_, entry)| format!("{entry:?}")).collect();
        let secret = added.code.rsplit('-').next().unwrap();
        assert!(!kept.iter().any(|entry| entry.contains(secret)), "the code itself is in the log");
        let digest = Digest::of(added.code.as_bytes());
        let asked = deployment.entry("the code", |entry| match &entry.body {
            Body::ApprovalRequested(it) => Some((it.code, entry.envelope.by.clone())),
            _ => None,
        });
        let (code, by) = asked.await.1;
        assert_eq!((code, by.unwrap().operator.unwrap().as_str()), (Some(digest), "bob-sec"));
        other.stop("the test stops it").await.unwrap();
    }
}

#[tokio::test]
async fn a_code_is_good_for_fifteen_minutes_for_its_node_and_for_nothing_else() {
    let deployment = Deployment::start_with(with_another(), |_| {}).await;
    let code = add(&deployment, NODE).await.unwrap().code;
    let key = fresh();
    let last = if code.ends_with('0') { "1" } else { "0" };
    let spoiled = format!("{}{last}", &code[..code.len() - 1]);
    let cut = code[..code.len() - 1].to_owned();
    for code in [spoiled, cut, "daypass-node-".into(), code.to_uppercase()] {
        let refused = issue(&deployment.bearer(code).await, wanted(&key)).await.unwrap_err();
        assert_eq!(refused.reason, "PROOF_REFUSED");
    }
    let caller = deployment.bearer(code.clone()).await;
    let svid = request("mesh-identity", pb::CertificateProfile::X509Svid, &key);
    assert_eq!(issue(&caller, svid).await.unwrap_err().reason, "NOT_ALLOWED");
    let other = pb::IssueRequest { identity: OTHER.into(), ..wanted(&key) };
    assert_eq!(issue(&caller, other).await.unwrap_err().reason, "NOT_ALLOWED");
    deployment.clock.advance(15 * MINUTE_MS - 5_000);
    issue(&deployment.bearer(code).await, wanted(&key)).await.unwrap();
    let late = add(&deployment, NODE).await.unwrap().code;
    deployment.clock.advance(15 * MINUTE_MS);
    let refused = issue(&deployment.bearer(late).await, wanted(&key)).await.unwrap_err();
    assert_eq!(refused.reason, "PROOF_REFUSED");
}

#[tokio::test]
async fn only_an_operator_with_the_right_lets_in_what_is_declared_as_a_node() {
    let deployment = Deployment::start().await;
    let wanted = pb::AddNodeRequest { identity: NODE.into(), ..Default::default() };
    for caller in [deployment.operator().await, deployment.service().await] {
        let answered = caller.governance().add_node(caller.request(wanted.clone()).unwrap()).await;
        assert_eq!(Refused::from(answered.unwrap_err()).reason, "NOT_ALLOWED");
    }
    for named in [NIGHTLY, "prod/node/nobody", "", "Prod/Node"] {
        let refused = add(&deployment, named).await.unwrap_err();
        assert_eq!(refused.fields, ["identity"], "{named}: {refused:?}");
    }
    let caller = deployment.security().await;
    let preview = pb::AddNodeRequest { validate_only: true, ..wanted };
    for _ in 0..2 {
        let answered = caller.governance().add_node(caller.request(preview.clone()).unwrap()).await.unwrap();
        let answered = answered.into_inner();
        assert_eq!((answered.code.as_str(), answered.task.as_str(), answered.entry), ("", "node", None));
    }
}

#[tokio::test]
async fn wrong_codes_are_not_looked_at_for_long() {
    let mut deployment = Deployment::stopped(sample()).await;
    deployment.settings.rates = Rates { failed_proofs_per_s: 1, failed_proofs_burst: 4, ..Rates::default() };
    deployment.resume().await.unwrap();
    let code = add(&deployment, NODE).await.unwrap().code;
    let mut reasons = Vec::new();
    for n in 0..8 {
        let guess = format!("{}{n:04x}", &code[..code.len() - 4]);
        reasons.push(issue(&deployment.bearer(guess).await, wanted(&fresh())).await.unwrap_err().reason);
    }
    assert!(reasons.contains(&"RATE_LIMITED".to_owned()), "{reasons:?}");
}

#[tokio::test]
async fn a_node_certificate_proves_its_own_node_and_is_good_for_nothing_else() {
    let deployment = Deployment::start_with(with_another(), |_| {}).await;
    let certificate = enrolled(&deployment, NODE).await;
    let node = as_node(&deployment, &certificate).await;
    let key = fresh();
    let svid = request("mesh-identity", pb::CertificateProfile::X509Svid, &key);
    let answer = issue(&node, svid.clone()).await.unwrap();
    let record = deployment.issued(&answer.credential_id).await;
    assert_eq!((record.proof.kind, record.identity.name.as_str()), (ProofKind::Certificate, NODE));
    let other = pb::IssueRequest { identity: OTHER.into(), ..svid.clone() };
    assert_eq!(issue(&node, other).await.unwrap_err().reason, "NOT_ALLOWED");
    // A credential for work is no proof, that of a node's own work included.
    let worker = as_node(&deployment, &shown(&answer, &key)).await;
    assert_eq!(issue(&worker, svid.clone()).await.unwrap_err().reason, "PROOF_REFUSED");
    // Whoever verifies clients of Daypass or of any other CA takes it for nothing.
    let anchors = daypass_verify::certificate::TrustAnchors::new(vec![deployment.root.clone()]).unwrap();
    let now = daypass_broker::clock::Clock::now(deployment.clock.as_ref());
    let refused = daypass_verify::certificate::verify_client_chain(&certificate.chain, &anchors, None, now);
    assert_eq!(refused, Err(daypass_verify::certificate::CertificateError::ExtendedKeyUsage));
    // What others were given is no node's, however they ask.
    for stranger in [deployment.service().await, deployment.job().await] {
        assert_ne!(issue(&stranger, wanted(&key)).await.unwrap_err().reason, "");
    }
    deployment.clock.advance(12 * 60 * MINUTE_MS + 1_000);
    let late = as_node(&deployment, &certificate).await;
    assert_eq!(issue(&late, svid).await.unwrap_err().reason, "PROOF_REFUSED");
}

#[tokio::test]
async fn a_certificate_that_was_renewed_by_another_key_before_suspends_its_node() {
    for store in stores() {
        let deployment = Deployment::start_on(store).await;
        let first = enrolled(&deployment, NODE).await;
        let (node, key) = (as_node(&deployment, &first).await, fresh());
        let second = renewed(&node, &key).await.unwrap();
        // Whoever never had the answer asks once more for the same key.
        let again = renewed(&node, &key).await.unwrap();
        let supersedes = deployment.issued(&again.credential_id).await.credential.supersedes;
        assert_eq!(deployment.issued(&second.credential_id).await.credential.supersedes, supersedes);
        assert!(supersedes.is_some());
        let holder = as_node(&deployment, &shown(&again, &key)).await;
        let svid = request("mesh-identity", pb::CertificateProfile::X509Svid, &fresh());
        issue(&holder, svid.clone()).await.unwrap();
        assert_eq!(renewed(&holder, &key).await.unwrap_err().reason, "KEY_REFUSED", "no new key");

        // Whoever copied the first one renews it for a key of its own.
        let thief = as_node(&deployment, &first).await;
        assert_eq!(renewed(&thief, &fresh()).await.unwrap_err().reason, "SUSPENDED");
        let suspended = suspended(&deployment).await;
        for caller in [&thief, &holder] {
            let refused = issue(caller, svid.clone()).await.unwrap_err();
            assert!(["SUSPENDED", "PROOF_REFUSED"].contains(&&*refused.reason), "{refused:?}");
        }
        let raised = alarm(&deployment, AlarmState::Raised).await;
        let operator = deployment.operator().await;
        let wanted = pb::ResumeRequest { suspension: suspended.to_string(), reason: "it was found".into() };
        operator.governance().resume(operator.request(wanted).unwrap()).await.unwrap();
        assert!(alarm(&deployment, AlarmState::Cleared).await > raised);
        // What it held is revoked, and both have to be let in anew.
        let gone = || async { renewed(&holder, &fresh()).await.unwrap_err().reason == "PROOF_REFUSED" };
        eventually("what it held is no proof", gone).await;
        let anew = enrolled(&deployment, NODE).await;
        issue(&as_node(&deployment, &anew).await, svid).await.unwrap();
    }
}

async fn suspended(deployment: &Deployment) -> Index {
    let set = deployment.entry("the suspension", |entry| match &entry.body {
        Body::SuspensionSet(set) => Some((set.selector.identity.clone(), set.revokes)),
        _ => None,
    });
    let (index, (identity, revokes)) = set.await;
    assert_eq!((identity.unwrap().as_str(), revokes), (NODE, true));
    index
}

async fn alarm(deployment: &Deployment, state: AlarmState) -> Index {
    let found = deployment.entry("the alarm", |entry| match &entry.body {
        Body::Alarm(alarm) if alarm.code == "NODE_SUPERSEDED" && alarm.state == state => Some(()),
        _ => None,
    });
    found.await.0
}

/// What its agent asks for the unit that saves the ledger.
fn spoken_for(unit: &str, uid: u32, key: &KeyPair) -> pb::IssueRequest {
    let delegation = pb::Delegation { unit: unit.into(), uid, ..Default::default() };
    let profile = pb::CertificateProfile::CommonName;
    pb::IssueRequest { delegation: Some(delegation), ..request("back-up-ledger", profile, key) }
}

#[tokio::test]
async fn a_node_speaks_for_the_workloads_that_are_declared_on_it_and_what_they_hold_ends_with_it() {
    let deployment = Deployment::start().await;
    let node = as_node(&deployment, &enrolled(&deployment, NODE).await).await;
    let key = fresh();
    let backup = spoken_for("ledger-backup.service", 1001, &key);
    let answer = issue(&node, backup.clone()).await.unwrap();
    let record = deployment.issued(&answer.credential_id).await;
    assert_eq!(
        (record.proof.kind, record.identity.name.as_str()),
        (ProofKind::Delegated, "prod/ledger/backup")
    );
    let via = record.proof.via.unwrap();
    assert_eq!(
        (via.node.as_str(), via.unit.as_deref(), via.uid),
        (NODE, Some("ledger-backup.service"), Some(1001))
    );

    for (wrong, reason) in [
        (spoken_for("ledger-backup.service", 0, &key), "NOT_ALLOWED"),
        (spoken_for("nightly.service", 1001, &key), "NOT_ALLOWED"),
        (spoken_for("ledger\nbackup.service", 1001, &key), "MALFORMED"),
        (pb::IssueRequest { delegation: None, ..backup.clone() }, "NOT_ALLOWED"),
    ] {
        assert_eq!(issue(&node, wrong).await.unwrap_err().reason, reason);
    }
    // Neither a job nor the workload itself, with what it was given, speaks for anybody, and an operator learns why.
    let request_id = "0199f2c1-0000-7000-8000-000000000001".to_owned();
    let asked = pb::IssueRequest { request_id: request_id.clone(), ..backup.clone() };
    assert_eq!(issue(&deployment.job().await, asked).await.unwrap_err().reason, "NOT_ALLOWED");
    let reader = deployment.operator().await;
    let wanted = reader.request(pb::ExplainRequest { request_id }).unwrap();
    assert_eq!(reader.evidence().explain(wanted).await.unwrap().into_inner().reason, "NO_NODE");
    let worker = as_node(&deployment, &shown(&answer, &key)).await;
    assert_eq!(issue(&worker, backup.clone()).await.unwrap_err().reason, "PROOF_REFUSED");

    // What it asked for others it may give up for them.
    let one = issue(&node, backup.clone()).await.unwrap().credential_id;
    assert_eq!(revoked(&node, What::CredentialId(one.clone())).await, std::slice::from_ref(&one));
    let by = deployment.entry("its end", |entry| match &entry.body {
        Body::CredentialEnded(ended) if ended.how == EndedHow::Revoked => entry.envelope.by.clone(),
        _ => None,
    });
    assert_eq!(by.await.1.identity.unwrap().as_str(), NODE);
    let all = revoked(&deployment.operator().await, What::Identity(NODE.into())).await;
    assert!(all.contains(&answer.credential_id) && !all.contains(&one), "{all:?}");
}

async fn revoked(caller: &Caller, what: What) -> Vec<String> {
    let selector = Some(pb::Selector { what: Some(what), ..Default::default() });
    let reason = pb::RevocationReason::KeyCompromise.into();
    let wanted = caller.request(pb::RevokeRequest { selector, reason, ..Default::default() }).unwrap();
    caller.credentials().revoke(wanted).await.unwrap().into_inner().credential_ids
}

#[tokio::test]
async fn what_a_suppliers_machine_holds_for_others_ends_with_the_supplier() {
    let files = sample_with("identities/nodes.toml", |text| {
        text.replace("class = \"node\"\n", "class = \"node\"\nsupplier = \"acme\"\n")
    });
    let deployment = Deployment::start_with(files, |_| {}).await;
    let node = as_node(&deployment, &enrolled(&deployment, NODE).await).await;
    let held = issue(&node, spoken_for("ledger-backup.service", 1001, &fresh())).await.unwrap();
    let all = revoked(&deployment.operator().await, What::Supplier("acme".into())).await;
    assert!(all.contains(&held.credential_id), "{all:?}");
}

#[tokio::test]
async fn a_node_asks_no_faster_for_many_instances_than_for_one() {
    let mut deployment = Deployment::stopped(sample()).await;
    deployment.settings.rates = Rates { issue_per_s: 1, issue_burst: 4, ..Rates::NONE };
    deployment.resume().await.unwrap();
    let node = as_node(&deployment, &enrolled(&deployment, NODE).await).await;
    let key = fresh();
    let wanted = (0..40).map(|n| {
        let mut wanted = spoken_for("ledger-backup.service", 1001, &key);
        wanted.delegation.as_mut().unwrap().instance = format!("night-{n}");
        wanted
    });
    let answers = join_all(wanted.map(|wanted| issue(&node, wanted))).await;
    let reasons: Vec<_> = answers.into_iter().filter_map(|it| Some(it.err()?.reason)).collect();
    assert!(reasons.contains(&"RATE_LIMITED".to_owned()), "{reasons:?}");
}
