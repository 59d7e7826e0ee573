//! Keys that change because somebody says so, and keys that others know.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use daypass_broker::clock::Clock as _;
use daypass_broker::dev::caller::Caller;
use daypass_broker::log::{Attached, Ends};
use daypass_broker::store::{Live, SealedKey};
use daypass_core::rotation::Lifetimes;
use daypass_evidence::entry::{
    Body, CredentialEnded, EndedHow, Index, KeyChanged, KeyState, KeyUse, NewEntry, Reach,
};
use daypass_proto::v1 as pb;
use daypass_proto::v1::issue_request::Credential as Wanted;
use daypass_tests::harness::{
    Deployment, Refused, SECURITY, STAFF, claims_of, eventually, issue, program, run, task, token_of,
};
use daypass_verify::time::Seconds;
use futures::StreamExt as _;
use rcgen::{CertificateParams, KeyPair};
use serde_json::Value;

const TOKEN: i32 = pb::KeyUse::Token as i32;
const CA: i32 = pb::KeyUse::Ca as i32;

fn order(usage: i32, compromised: &str) -> pb::RotateKeyRequest {
    pb::RotateKeyRequest {
        r#use: usage,
        compromised_key_id: compromised.into(),
        reason: "a laptop was stolen".into(),
        validate_only: false,
    }
}

async fn rotate(caller: &Caller, order: pb::RotateKeyRequest) -> Result<pb::RotateKeyResponse, Refused> {
    let answered = caller.governance().rotate_key(caller.request(order).unwrap()).await;
    answered.map(tonic::Response::into_inner).map_err(Refused::from)
}

/// Issues a token, and says which key signed it, and where that is recorded.
async fn token(caller: &Caller) -> (String, Index) {
    let answer = issue(caller, task("post-invoices")).await.unwrap();
    let kid = claims_of(token_of(&answer)).0["kid"].as_str().unwrap().to_owned();
    (kid, answer.receipt.unwrap().entry.unwrap().index)
}

async fn certificate(caller: &Caller) -> Index {
    let csr = CertificateParams::default().serialize_request(&KeyPair::generate().unwrap()).unwrap();
    let wanted = pb::CertificateParameters { csr: csr.der().to_vec().into(), ..Default::default() };
    let wanted = pb::IssueRequest { credential: Some(Wanted::Certificate(wanted)), ..task("ledger-db") };
    issue(caller, wanted).await.unwrap().receipt.unwrap().entry.unwrap().index
}

/// The key of a use that signs now.
fn signing(deployment: &Deployment, usage: KeyUse) -> KeyChanged {
    let state = deployment.broker().log().state();
    state.signing_key(usage, deployment.clock.now()).unwrap().clone()
}

/// The kids at `path` of a broker.
async fn published(web: SocketAddr, deployment: &Deployment, path: &str) -> BTreeSet<String> {
    let url = format!("https://127.0.0.1:{}{path}", web.port());
    let ca = deployment.listener_ca.to_str().unwrap();
    let fetched = run("curl", ["--silent", "--fail", "--noproxy", "*", "--cacert", ca, &url]).await;
    let document: Value = serde_json::from_str(&fetched.stdout).unwrap();
    let keys = document["keys"].as_array().unwrap();
    keys.iter().filter_map(|key| Some(key["kid"].as_str()?.to_owned())).collect()
}

/// What was revoked, by which entries.
async fn revoked(deployment: &Deployment) -> Vec<(Option<String>, CredentialEnded)> {
    let entries = deployment.entries().await.into_iter();
    let revoked = entries.filter_map(|(_, entry)| match entry.body {
        Body::CredentialEnded(ended) if ended.how == EndedHow::Revoked => {
            let by = entry.envelope.by.and_then(|by| by.operator).map(|name| name.to_string());
            Some((by, *ended))
        }
        _ => None,
    });
    revoked.collect()
}

#[tokio::test]
async fn a_compromised_key_is_gone_on_all_brokers_and_all_that_it_signed_is_ended() {
    let mut deployment = Deployment::start().await;
    let other = deployment.second().await;
    let service = deployment.service().await;
    let mut signed = BTreeSet::new();
    let (kid, first) = token(&service).await;
    signed.insert(first);
    for _ in 0..20 {
        signed.insert(token(&service).await.1);
    }
    let spared = certificate(&service).await;

    let dry = pb::RotateKeyRequest { validate_only: true, ..order(TOKEN, &kid) };
    let preview = rotate(&deployment.security().await, dry).await.unwrap();
    assert_eq!((preview.live, preview.revoked, preview.entry), (21, 0, None));
    assert!(published(deployment.broker().web, &deployment, "/jwks").await.contains(&kid), "still");

    let rotated = rotate(&deployment.security().await, order(TOKEN, &kid)).await.unwrap();
    assert_eq!((rotated.live, rotated.revoked), (21, 21));
    let ordered = rotated.entry.unwrap().index;
    let found = revoked(&deployment).await;
    let named: Vec<Index> = found.iter().flat_map(|(_, ended)| ended.ended.clone()).collect();
    assert_eq!(named, signed.iter().copied().collect::<Vec<_>>(), "each once, and not {spared}");
    for (by, ended) in &found {
        assert_eq!(by.as_deref(), Some(SECURITY));
        assert_eq!(ended.ordered, Some(ordered));
        assert_eq!(ended.selector.as_ref().unwrap().key.as_ref().unwrap().as_str(), kid);
        assert_eq!(ended.reason.as_deref(), Some("keyCompromise"));
        assert_eq!(ended.comment.as_deref(), Some("a laptop was stolen"));
        assert_eq!(ended.reach.values().sum::<u64>(), ended.ended.len() as u64);
    }

    for broker in [deployment.broker(), &other] {
        let gone = || async { !published(broker.web, &deployment, "/jwks").await.contains(&kid) };
        eventually("the key is unpublished", gone).await;
        assert!(broker.desk.keyring.describe(&kid.parse().unwrap()).is_err(), "nothing is left to sign with");
    }
    assert_eq!(token(&service).await.0, rotated.key_id, "the next key signs at once");
    let again = rotate(&deployment.security().await, order(TOKEN, &kid)).await.unwrap_err();
    assert_eq!(again.reason, "NOT_FOUND", "{}", again.message);
    deployment.both_verifiers_agree().await;
    other.stop("the test stops it").await.unwrap();
    deployment.stop().await;
    let report = deployment.copied().open().unwrap().started.report;
    assert!(report.is_clean() && report.ended_revoked == 21, "{report:?}");
}

#[tokio::test]
async fn a_compromised_ca_issues_nothing_more_and_its_certificates_are_ended() {
    let deployment = Deployment::start().await;
    let service = deployment.service().await;
    let (before, spared) = (certificate(&service).await, token(&service).await.1);
    let stolen = signing(&deployment, KeyUse::Ca);
    let rotated = rotate(&deployment.security().await, order(CA, stolen.key.as_str())).await.unwrap();
    assert_eq!(rotated.revoked, 1);
    let found = revoked(&deployment).await;
    assert_eq!(found[0].1.ended, [before], "and not {spared}");
    let after = certificate(&service).await;
    let issued = deployment.entries().await.into_iter().find_map(|(index, entry)| match entry.body {
        Body::CredentialIssued(issued) if index == after => Some(issued.credential.key.clone()),
        _ => None,
    });
    assert_eq!(issued.unwrap().as_str(), rotated.key_id);
    deployment.both_verifiers_agree().await;
}

#[tokio::test]
async fn an_orderly_change_is_published_ahead_and_ends_nothing() {
    let brief = Lifetimes { ahead: Seconds::new(60), ..Lifetimes::default() };
    let deployment = Deployment::start_rotating(brief).await;
    let service = deployment.service().await;
    let (old, _) = token(&service).await;
    let rotated = rotate(&deployment.security().await, order(TOKEN, "")).await.unwrap();
    let next = rotated.key_id;
    assert_ne!(next, old);
    let shown = || async { published(deployment.broker().web, &deployment, "/jwks").await };
    let expected: BTreeSet<_> = [old.clone(), next.clone()].into();
    eventually("both are published", || async { shown().await == expected }).await;
    assert_eq!(token(&service).await.0, old, "nobody need know the next one yet");
    deployment.clock.advance(63_000);
    assert_eq!(token(&service).await.0, next);
    assert_eq!(revoked(&deployment).await, []);
    assert!(shown().await.contains(&old), "what it signed still lives");
}

#[tokio::test]
async fn only_who_may_rotate_does_and_a_proof_buys_one_order() {
    let deployment = Deployment::start().await;
    let changes = || async {
        let entries = deployment.entries().await.into_iter();
        let of_keys =
            entries.filter(|(_, it)| matches!(it.body, Body::KeyChanged(_) | Body::StatementSigned(_)));
        of_keys.count()
    };
    let key = signing(&deployment, KeyUse::Token).key.to_string();
    for stranger in [deployment.operator().await, deployment.service().await] {
        for validate_only in [true, false] {
            let asked = pb::RotateKeyRequest { validate_only, ..order(TOKEN, &key) };
            assert_eq!(rotate(&stranger, asked).await.unwrap_err().reason, "NOT_ALLOWED");
        }
    }
    let proof = deployment.organisation.token(STAFF, SECURITY).unwrap();
    let security = deployment.bearer(proof).await;
    for (asked, reason) in [
        (order(0, ""), "MALFORMED"),
        (order(pb::KeyUse::Evidence as i32, ""), "MALFORMED"),
        (order(TOKEN, "nothing"), "MALFORMED"),
        (order(CA, &key), "NOT_FOUND"),
        (pb::RotateKeyRequest { reason: "x".repeat(513), ..order(TOKEN, "") }, "MALFORMED"),
    ] {
        assert_eq!(rotate(&security, asked).await.unwrap_err().reason, reason);
    }
    let dry = pb::RotateKeyRequest { validate_only: true, ..order(CA, "") };
    rotate(&security, dry.clone()).await.unwrap();
    rotate(&security, dry).await.unwrap();
    assert!(revoked(&deployment).await.is_empty());
    rotate(&security, order(CA, "")).await.unwrap();
    // The broker takes steps of its own after an order: only what comes after them could be a trace.
    let mut before = 0;
    while before != changes().await {
        before = changes().await;
        tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
    }
    for usage in [CA, TOKEN] {
        assert_eq!(rotate(&security, order(usage, "")).await.unwrap_err().reason, "PROOF_REPLAYED");
    }
    assert_eq!(changes().await, before, "an order that is refused changes no key");
    for (reason, says) in
        [("ROLE_MISSING", "`rotate KEY_USE_TOKEN`"), ("ORDER_REFUSED", "`rotate KEY_USE_CA`")]
    {
        let (_, refused) = deployment
            .entry("what was refused is evidence", |entry| match &entry.body {
                Body::CredentialRefused(refused) if refused.reason == reason => Some((**refused).clone()),
                _ => None,
            })
            .await;
        assert!(refused.clause.contains(says) && refused.task.is_none(), "{refused:?}");
    }
}

/// Writes what a broker writes first when it is told of a compromise, and ends one of what the key signed: as far as one
/// came that was killed then.
async fn killed_half_way(deployment: &Deployment, key: &KeyChanged, done: Index) -> Index {
    let desk = &deployment.broker().desk;
    let (now, until) = (desk.clock.now(), deployment.entries().await);
    let exp = until.iter().find_map(|(index, entry)| match &entry.body {
        Body::CredentialIssued(issued) if *index == done => Some(issued.credential.exp_ms),
        _ => None,
    });
    let gone =
        KeyChanged { state: KeyState::Compromised, sign_until_ms: now, publish_until_ms: now, ..key.clone() };
    let sealed = SealedKey { key: key.key.clone(), sealed: Vec::new(), certificate: None };
    let entry = |body| NewEntry { id: desk.ids.draw(now).unwrap(), request: None, by: None, body };
    let attached = Attached { keys: vec![sealed], ..Attached::default() };
    let ordered = desk.log.append(vec![entry(gone.into())], attached).await.unwrap()[0].index;
    let ended = CredentialEnded {
        how: EndedHow::Revoked,
        ended: Vec::new(),
        log: None,
        through_ms: None,
        selector: None,
        reason: Some("keyCompromise".into()),
        comment: None,
        drill: None,
        ordered: Some(ordered),
        reach: Default::default(),
    };
    let live = vec![(Live { exp: exp.unwrap(), index: done }, Reach::Feed)];
    let ends = Some(Box::new(Ends { entry: entry(ended.into()), live }));
    desk.log.append(Vec::new(), Attached { ends, ..Attached::default() }).await.unwrap();
    ordered
}

#[tokio::test]
async fn what_a_killed_broker_did_not_end_is_ended_by_the_next_start_and_nothing_twice() {
    let mut deployment = Deployment::start().await;
    let service = deployment.service().await;
    let mut signed = Vec::new();
    for _ in 0..5 {
        signed.push(token(&service).await.1);
    }
    let key = signing(&deployment, KeyUse::Token);
    let ordered = killed_half_way(&deployment, &key, signed[0]).await;
    deployment.stop().await;
    deployment.clock.advance(11_000);
    deployment.resume().await.unwrap();
    eventually("all are ended", || async {
        let all = revoked(&deployment).await.into_iter();
        all.flat_map(|(_, ended)| ended.ended).count() == signed.len()
    })
    .await;
    let found = revoked(&deployment).await;
    assert_eq!(found[0].1.ended, [signed[0]]);
    assert_eq!((found[1].0.as_deref(), found[1].1.ordered), (None, Some(ordered)));
    assert_eq!(found[1].1.ended, signed[1..]);
    token(&deployment.service().await).await;
    deployment.both_verifiers_agree().await;
}

#[tokio::test]
async fn an_operator_rotates_by_the_command_line_after_a_dry_run() {
    let deployment = Deployment::start().await;
    let (kid, _) = token(&deployment.service().await).await;
    let daypass = |arguments: Vec<String>| {
        let profile = deployment.profile_of(SECURITY).display().to_string();
        async move {
            let common = ["--config".to_owned(), profile, "--format".into(), "json".into(), "rotate".into()];
            run(program("daypass"), common.into_iter().chain(arguments)).await
        }
    };
    let stolen = ["token", "--compromised", &kid, "--reason", "a laptop was stolen"].map(String::from);
    let dry = daypass([stolen.as_slice(), &["--dry-run".into()]].concat()).await;
    assert_eq!(dry.code, Some(0), "{}", dry.stderr);
    let said: Value = serde_json::from_str(&dry.stdout).unwrap();
    assert_eq!((&said["would_end"], &said["entry"]), (&"1".into(), &Value::Null), "{said}");
    let done = daypass(stolen.to_vec()).await;
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    let said: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(said["ended"], "1", "{said}");
    assert_eq!(token(&deployment.service().await).await.0, said["signs"]);
    let gone = daypass(stolen.to_vec()).await;
    assert_eq!(gone.code, Some(1), "{}", gone.stdout);
    assert!(gone.stderr.contains(&kid), "{}", gone.stderr);
}

#[tokio::test]
async fn more_than_one_entry_can_name_is_ended_by_several() {
    const ISSUED: usize = 1_100;
    let mut deployment = Deployment::stopped(daypass_broker::dev::organisation::sample()).await;
    deployment.settings.rates.issue_per_s = 100_000;
    deployment.settings.rates.issue_burst = 100_000;
    deployment.resume().await.unwrap();
    let service = deployment.service().await;
    let (kid, _) = token(&service).await;
    let asked = (1..ISSUED).map(|_| token(&service));
    let answers: Vec<_> = futures::stream::iter(asked).buffer_unordered(32).collect().await;
    assert!(answers.iter().all(|(signed_by, _)| *signed_by == kid));
    let rotated = rotate(&deployment.security().await, order(TOKEN, &kid)).await.unwrap();
    eventually("all are ended", || async {
        let all = revoked(&deployment).await.into_iter();
        all.flat_map(|(_, ended)| ended.ended).collect::<BTreeSet<_>>().len() == ISSUED
    })
    .await;
    let found = revoked(&deployment).await;
    assert!(found.len() >= 2 && found.iter().all(|(_, ended)| ended.ended.len() <= Ends::MOST));
    assert_eq!(found.iter().map(|(_, ended)| ended.ended.len()).sum::<usize>(), ISSUED, "each once");
    assert!(found.iter().all(|(_, ended)| ended.ordered == rotated.entry.as_ref().map(|entry| entry.index)));
    deployment.both_verifiers_agree().await;
}

#[tokio::test]
async fn two_brokers_that_go_on_for_a_third_end_everything_once() {
    let deployment = Deployment::start().await;
    let other = deployment.second().await;
    let service = deployment.service().await;
    let mut signed = Vec::new();
    for _ in 0..40 {
        signed.push(token(&service).await.1);
    }
    let key = signing(&deployment, KeyUse::Token);
    killed_half_way(&deployment, &key, signed[0]).await;
    deployment.clock.advance(11_000);
    eventually("all are ended", || async {
        let all = revoked(&deployment).await.into_iter();
        all.flat_map(|(_, ended)| ended.ended).count() >= signed.len()
    })
    .await;
    tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
    let mut named: Vec<Index> =
        revoked(&deployment).await.into_iter().flat_map(|(_, ended)| ended.ended).collect();
    named.sort_unstable();
    assert_eq!(named, signed);
    deployment.both_verifiers_agree().await;
    other.stop("the test stops it").await.unwrap();
}
