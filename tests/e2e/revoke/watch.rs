//! What those who verify and those who serve a target are told as it happens, and what they tell.

use daypass_broker::dev::caller::Caller;
use daypass_broker::dev::organisation::sample;
use daypass_core::bundle::SourceFile;
use daypass_evidence::entry::{Body, Observed};
use daypass_proto::v1 as pb;
use daypass_proto::v1::selector::What;
use daypass_proto::v1::trust_service_client::TrustServiceClient;
use daypass_proto::v1::watch_endings_response::Event;
use daypass_tests::harness::{Deployment, NIGHTLY, OPERATOR, Refused, eventually, issue, program, run, task};
use daypass_verify::jwks::KeySet;
use serde_json::Value;
use tonic::Streaming;
use tonic::transport::Channel;

use super::{index_of, order, revoke};

/// The sample organisation, whose ledger is served by the nightly run, so that one caller can be both.
fn serving() -> Vec<SourceFile> {
    let mut files = sample();
    let targets = files.iter_mut().find(|file| file.path.ends_with("targets.toml")).unwrap();
    let table = targets.text.find("[target.ledger]\n").unwrap() + "[target.ledger]\n".len();
    let end = targets.text[table..].find("\n[").unwrap() + table;
    let kept: Vec<&str> =
        targets.text[table..end].lines().filter(|line| !line.starts_with("served_by")).collect();
    let kept = format!("served_by = [\"{NIGHTLY}\"]\n{}", kept.join("\n"));
    targets.text.replace_range(table..end, &kept);
    files
}

fn trust(caller: &Caller) -> TrustServiceClient<Channel> {
    TrustServiceClient::new(caller.channel())
}

async fn watch(
    caller: &Caller,
    target: &str,
    cursor: &str,
) -> Result<Streaming<pb::WatchEndingsResponse>, Refused> {
    let request = pb::WatchEndingsRequest { target: target.into(), cursor: cursor.into() };
    let answer = trust(caller).watch_endings(caller.request(request).unwrap()).await;
    answer.map(tonic::Response::into_inner).map_err(Refused::from)
}

async fn next(stream: &mut Streaming<pb::WatchEndingsResponse>) -> (Event, String) {
    let waited = std::time::Duration::from_secs(20);
    loop {
        let event = tokio::time::timeout(waited, stream.message()).await.expect("an event in time");
        let event = event.unwrap().expect("the stream goes on");
        match event.event.unwrap() {
            Event::Heartbeat(_) => {}
            told => return (told, event.cursor),
        }
    }
}

#[tokio::test]
async fn whoever_watches_trust_has_all_of_it_at_once_and_again_at_each_change() {
    let deployment = Deployment::start().await;
    let service = deployment.service().await;
    let asked = service.request(pb::GetTrustRequest {}).unwrap();
    let got = trust(&service).get_trust(asked).await.unwrap().into_inner().trust.unwrap();
    assert_eq!(got.authorities, [deployment.root.to_vec()]);
    assert_eq!(got.log_keys, [deployment.log_key.to_string()]);
    assert!(KeySet::parse_bundle(got.jwks.as_bytes()).unwrap().0.len() >= 2);
    let uses: Value = serde_json::from_str(&got.jwks).unwrap();
    let uses: Vec<&str> =
        uses["keys"].as_array().unwrap().iter().map(|key| key["use"].as_str().unwrap()).collect();
    for usage in ["sig", "jwt-svid", "x509-svid"] {
        assert!(uses.contains(&usage), "{uses:?}");
    }
    let asked = service.request(pb::WatchTrustRequest {}).unwrap();
    let mut stream = trust(&service).watch_trust(asked).await.unwrap().into_inner();
    let issued = issue(&service, task("post-invoices")).await.unwrap();
    let mut last = stream.message().await.unwrap().unwrap().trust.unwrap();
    assert_eq!((&last.authorities, &last.log_keys), (&got.authorities, &got.log_keys));
    revoke(&service, order(What::CredentialId(issued.credential_id.clone()))).await.unwrap();
    // Each message is the whole: the one with the revocation has everything else too.
    let listed = |trust: &pb::TrustBundle| {
        let part = trust.revocations.split('.').nth(1).unwrap_or_default();
        let claims =
            base64::Engine::decode(&base64::prelude::BASE64_URL_SAFE_NO_PAD, part).unwrap_or_default();
        String::from_utf8(claims).unwrap().contains(&issued.credential_id)
    };
    while !listed(&last) {
        let waited = std::time::Duration::from_secs(20);
        let message = tokio::time::timeout(waited, stream.message()).await.expect("a change in time");
        let trust = message.unwrap().unwrap().trust.unwrap();
        assert!(trust.sequence >= last.sequence && !trust.jwks.is_empty());
        last = trust;
    }
    assert!(!last.crl.is_empty() && last.authorities == got.authorities);
}

#[tokio::test]
async fn who_serves_a_target_learns_what_lives_and_each_that_ends_and_goes_on_from_its_cursor() {
    let mut deployment = Deployment::start_with(serving(), |_| {}).await;
    let service = deployment.service().await;
    let first = issue(&service, task("post-invoices")).await.unwrap();
    let elsewhere = deployment.organisation.token("cluster", "prod/web/frontend").unwrap();
    issue(&deployment.bound(elsewhere).await, task("mesh-identity")).await.unwrap();
    let mut stream = watch(&service, "ledger", "").await.unwrap();
    let (event, _) = next(&mut stream).await;
    let Event::Live(live) = event else { panic!("{event:?}") };
    assert_eq!(live.credential_id, first.credential_id);
    let (event, synced) = next(&mut stream).await;
    assert_eq!(event, Event::Synced(pb::Synced { live: 1 }));
    let second_one = issue(&service, task("post-invoices")).await.unwrap();
    let (event, _) = next(&mut stream).await;
    assert!(
        matches!(&event, Event::Live(live) if live.credential_id == second_one.credential_id),
        "{event:?}"
    );
    revoke(&service, order(What::CredentialId(first.credential_id.clone()))).await.unwrap();
    let (event, cursor) = next(&mut stream).await;
    let Event::Ended(ended) = event else { panic!("{event:?}") };
    assert_eq!(
        (ended.credential_id.as_str(), ended.how()),
        (first.credential_id.as_str(), pb::EndingKind::Revoked)
    );
    drop(stream);

    // Over a restart, and on another broker: what came meanwhile, once, and nothing that was told before.
    deployment.stop().await;
    deployment.resume().await.unwrap();
    let service = deployment.service().await;
    let third = issue(&service, task("post-invoices")).await.unwrap();
    revoke(&service, order(What::CredentialId(second_one.credential_id.clone()))).await.unwrap();
    let other = deployment.second().await;
    let workload = deployment.workload(NIGHTLY);
    let there = Caller::connect(other.api.port(), &deployment.listener_ca, Some(&workload)).await.unwrap();
    for (caller, from, expected) in [(&service, &cursor, 2), (&there, &cursor, 2), (&there, &synced, 4)] {
        let mut stream = watch(caller, "ledger", from).await.unwrap();
        let mut told = Vec::new();
        loop {
            match next(&mut stream).await.0 {
                Event::Synced(synced) => break assert_eq!(synced.live, 1),
                Event::Live(live) => told.push((live.credential_id, "live")),
                Event::Ended(ended) => told.push((ended.credential_id, "ended")),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(told.len(), expected, "{told:?}");
        let last = [(third.credential_id.clone(), "live"), (second_one.credential_id.clone(), "ended")];
        assert_eq!(told[expected - 2..], last);
    }
    // A cursor of another log begins with what lives.
    let mut anew = watch(&service, "ledger", "example.org/evidence/before@7").await.unwrap();
    assert!(matches!(next(&mut anew).await.0, Event::Live(_)));
    for (caller, target, cursor, reason) in [
        (&service, "mesh", "", "NOT_ALLOWED"),
        (&service, "nowhere", "", "NOT_ALLOWED"),
        (&service, "", "", "MALFORMED"),
        (&service, "ledger", "7", "MALFORMED"),
        (&service, "ledger", "x@y", "MALFORMED"),
    ] {
        assert_eq!(watch(caller, target, cursor).await.unwrap_err().reason, reason, "{target} {cursor}");
    }
    assert!(watch(&deployment.operator().await, "mesh", "").await.is_ok(), "operators may watch all");
    other.stop("the test is over").await.unwrap();
}

#[tokio::test]
async fn what_was_seen_at_a_target_is_held_to_what_was_issued_and_recorded() {
    let deployment = Deployment::start_with(serving(), |_| {}).await;
    let service = deployment.service().await;
    let issued = issue(&service, task("post-invoices")).await.unwrap();
    let elsewhere = deployment.organisation.token("cluster", "prod/web/frontend").unwrap();
    let others = issue(&deployment.bound(elsewhere).await, task("mesh-identity")).await.unwrap();
    let seen = |kind: pb::ObservationKind| pb::Observation {
        target: "ledger".into(),
        kind: kind.into(),
        credential_id: issued.credential_id.clone(),
        count: 3,
        detail: "POST /invoices".into(),
        actions: vec!["invoice:write".into()],
        resources: vec!["eu/de".into()],
        ..Default::default()
    };
    let observe = async |caller: &Caller, observations: Vec<pb::Observation>| {
        let request = caller.request(pb::ObserveRequest { observations }).unwrap();
        let answer = trust(caller).observe(request).await;
        answer.map(tonic::Response::into_inner).map_err(Refused::from)
    };
    let used = pb::ObservationKind::Used;
    let answer = observe(&service, vec![seen(used), seen(pb::ObservationKind::SessionEnded)]).await.unwrap();
    let (at, observed) = deployment
        .entry("the observation", |entry| match &entry.body {
            Body::AccessObserved(observed) if observed.what == Observed::Used => Some((**observed).clone()),
            _ => None,
        })
        .await;
    assert_eq!(answer.entry.unwrap().index, at);
    assert_eq!((observed.credential, observed.count), (Some(index_of(&issued)), 3));
    let ahead = prost_types::Timestamp { seconds: 4_000_000_000, nanos: 0 };
    for (wrong, reason) in [
        (
            pb::Observation {
                target: "mesh".into(),
                credential_id: others.credential_id.clone(),
                ..seen(used)
            },
            "NOT_ALLOWED",
        ),
        (pb::Observation { credential_id: others.credential_id.clone(), ..seen(used) }, "MALFORMED"),
        (
            pb::Observation { credential_id: "0199f2c1-0000-7000-8000-000000000000".into(), ..seen(used) },
            "MALFORMED",
        ),
        (pb::Observation { credential_id: String::new(), ..seen(used) }, "MALFORMED"),
        (pb::Observation { exception: "nothing".into(), ..seen(used) }, "MALFORMED"),
        (pb::Observation { at: Some(ahead), ..seen(used) }, "MALFORMED"),
        (pb::Observation { kind: 0, ..seen(used) }, "MALFORMED"),
        (pb::Observation { detail: "a\nb".into(), ..seen(used) }, "MALFORMED"),
        (pb::Observation { actions: vec!["Not An Action".into()], ..seen(used) }, "MALFORMED"),
    ] {
        let refused = observe(&service, vec![seen(used), wrong.clone()]).await.unwrap_err();
        assert_eq!(refused.reason, reason, "{wrong:?}: {refused:?}");
    }
    assert_eq!(observe(&service, Vec::new()).await.unwrap_err().reason, "MALFORMED");
    assert_eq!(observe(&service, vec![seen(used); 257]).await.unwrap_err().reason, "MALFORMED");
    assert_eq!(
        observe(&deployment.operator().await, vec![seen(used)]).await.unwrap_err().reason,
        "NOT_ALLOWED"
    );
    let count = deployment.entries().await.into_iter();
    assert_eq!(count.filter(|(_, entry)| matches!(entry.body, Body::AccessObserved(_))).count(), 2);
    deployment.both_verifiers_agree().await;
}

#[tokio::test]
async fn an_operator_revokes_by_the_command_line_after_a_dry_run() {
    let deployment = Deployment::start().await;
    let issued = issue(&deployment.service().await, task("post-invoices")).await.unwrap();
    let daypass = |format: &str, arguments: &[&str]| {
        let profile = deployment.profile_of(OPERATOR).display().to_string();
        let common = ["--config", &profile, "--format", format, "revoke"].map(String::from).to_vec();
        let all: Vec<String> =
            common.into_iter().chain(arguments.iter().map(|it| (*it).to_owned())).collect();
        run(program("daypass"), all)
    };
    let all =
        ["--identity", NIGHTLY, "--reason", "privilege-withdrawn", "--comment", "INC-7", "--drill", "autumn"];
    let dry = daypass("json", &[all.as_slice(), &["--dry-run"]].concat()).await;
    assert_eq!(dry.code, Some(0), "{}", dry.stderr);
    let said: Value = serde_json::from_str(&dry.stdout).unwrap();
    assert_eq!(
        (&said["would_end"], &said["told_by_feed"], &said["entry"]),
        (&"1".into(), &"1".into(), &Value::Null)
    );
    assert_eq!(said["credentials"], issued.credential_id);
    let done = daypass("json", &all).await;
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    let said: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(said["ended"], "1", "{said}");
    let again = daypass("table", &[&issued.credential_id, "--reason", "superseded"]).await;
    assert_eq!(again.code, Some(0), "{}", again.stderr);
    assert!(again.stdout.contains("nothing of it lives"), "{}", again.stdout);
    let unknown = daypass("table", &["0199f2c1-0000-7000-8000-000000000000", "--reason", "superseded"]).await;
    assert_eq!(unknown.code, Some(1), "{}", unknown.stdout);
    assert!(unknown.stderr.contains("NOT_FOUND"), "{}", unknown.stderr);
    eventually("one entry was written", || async { super::endings(&deployment).await.len() == 1 }).await;
}

#[tokio::test]
async fn a_client_revokes_and_watches_by_the_library() {
    use daypass_sdk::{Revocation, RevocationReason, Selection};
    let deployment = Deployment::start_with(serving(), |_| {}).await;
    let client = deployment.sdk();
    let issued = issue(&deployment.service().await, task("post-invoices")).await.unwrap();
    let mut endings = client.watch_endings(&"ledger".parse().unwrap(), "").await.unwrap();
    let mut trust = client.watch_trust().await.unwrap();
    assert_eq!(trust.next().await.unwrap().unwrap().log_keys, [deployment.log_key.to_string()]);
    let id = Selection::Credential(issued.credential_id.parse().unwrap());
    let revoked = client.revoke_selected(&Revocation::of(id, RevocationReason::KeyCompromise)).await.unwrap();
    assert_eq!((revoked.count, revoked.named), (1, vec![issued.credential_id.parse().unwrap()]));
    loop {
        let event = endings.next().await.unwrap().unwrap();
        if let Some(Event::Ended(ended)) = event.event {
            break assert_eq!(ended.credential_id, issued.credential_id);
        }
    }
}
