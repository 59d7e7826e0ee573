//! What must not be lost, or believed, where a log goes on in the next one.

use std::time::Duration;

use daypass_broker::clock::Clock as _;
use daypass_broker::dev::caller::Caller;
use daypass_broker::emergency::order;
use daypass_broker::log::{Attached, Unsettled, Voided};
use daypass_broker::serve::{self, Running};
use daypass_broker::store::{Live, base};
use daypass_evidence::entry::{
    AlarmState, Body, CredentialEnded, CredentialSettled, EndedHow, Entry, Index, KeyChanged, KeyState,
    KeyUse, NewEntry,
};
use daypass_proto::v1 as pb;
use daypass_tests::harness::{Deployment, NIGHTLY, issue, task};

use super::shards::{assert_whole, closing_at, endings, grow, shards};

fn origin(deployment: &Deployment) -> String {
    deployment.broker().log().state().origin().unwrap().to_owned()
}

/// Refuses that any log of the store be closed.
fn refuse_to_close(deployment: &Deployment, refuse: bool) {
    let sql = match refuse {
        true => "CREATE TRIGGER refused BEFORE INSERT ON closed BEGIN SELECT RAISE(ABORT, 'not now'); END",
        false => "DROP TRIGGER refused",
    };
    let store = rusqlite::Connection::open(deployment.store()).unwrap();
    store.busy_timeout(Duration::from_secs(10)).unwrap();
    store.execute_batch(sql).unwrap();
}

fn alarm(state: AlarmState) -> impl Fn(&Entry) -> Option<()> {
    move |entry| match &entry.body {
        Body::Alarm(alarm) if alarm.code == "LOG_NOT_CLOSED" && alarm.state == state => Some(()),
        _ => None,
    }
}

#[tokio::test]
async fn a_log_that_cannot_be_closed_goes_on_and_is_an_alarm_until_it_can() {
    let mut deployment = closing_at(150).await;
    refuse_to_close(&deployment, true);
    let old = origin(&deployment);
    grow(&deployment, 120).await;
    deployment.entry("that it could not be closed", alarm(AlarmState::Raised)).await;
    issue(&deployment.service().await, task("post-invoices")).await.unwrap();
    assert_eq!((origin(&deployment), deployment.broker().log().over().is_cancelled()), (old, false));
    refuse_to_close(&deployment, false);
    deployment.turn().await;
    issue(&deployment.service().await, task("post-invoices")).await.unwrap();
    deployment.stop().await;
    let config = deployment.config_file();
    assert_eq!(assert_whole(&deployment, &config, &[]).await, 2);
}

#[tokio::test]
async fn a_log_that_was_found_to_be_changed_is_not_left_behind() {
    let deployment = closing_at(150).await;
    deployment.broker().log().stop_issuing("an entry was changed");
    grow(&deployment, 120).await;
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert!(!deployment.broker().log().over().is_cancelled(), "the next log would issue again");
}

/// Has `broker` issue until it holds what became of one credential, which is taken from it; and where that was issued.
async fn unsettled(deployment: &Deployment, broker: &Running) -> (Unsettled, Index) {
    let certificate = deployment.workload(NIGHTLY);
    let caller = Caller::connect(broker.api.port(), &deployment.listener_ca, Some(&certificate));
    let caller = caller.await.unwrap();
    loop {
        let issued = issue(&caller, task("post-invoices")).await.unwrap();
        let left = broker.log().settlements().leave();
        if !left.is_empty() {
            return (left, issued.receipt.unwrap().entry.unwrap().index);
        }
    }
}

/// What a log says became of credentials of the one before it.
fn settled_later(entries: &[Entry], log: &str) -> CredentialSettled {
    let mut all = CredentialSettled::default();
    for entry in entries {
        if let Body::CredentialSettled(settled) = &entry.body
            && settled.log.as_deref() == Some(log)
        {
            all.released.extend(settled.released.iter().cloned());
            all.void.extend(settled.void.iter().cloned());
        }
    }
    all
}

#[tokio::test]
async fn what_became_of_credentials_is_not_lost_where_another_broker_closes_the_log() {
    let mut deployment = closing_at(150).await;
    let old = origin(&deployment);
    let settings = deployment.second_settings();
    let other = serve::start(settings.clone()).await.unwrap();
    let (released, first) = unsettled(&deployment, &other).await;
    // Of another nobody knows yet that it never left.
    let (forgotten, never_left) = unsettled(&deployment, &other).await;
    drop(forgotten);
    grow(&deployment, 120).await;
    other.over().await;
    other.log().settlements().take_over(released);
    let before = deployment.settings.store.shard(0).unwrap();
    let row = before.rows(never_left, 1).unwrap().remove(0);
    let Body::CredentialIssued(issued) = Entry::read(&row.bytes).unwrap().body else { panic!("{row:?}") };
    let live = Live { exp: issued.credential.exp_ms, index: base(0) + never_left };
    other.log().settlements().void(Voided { live, reason: "the caller was gone".into() });
    let left = other.turn().await;
    deployment.turn().await;
    let other = serve::start_next(&settings, left).await.unwrap();
    let told = |entry: &Entry| match &entry.body {
        Body::CredentialSettled(settled) if !settled.void.is_empty() => settled.log.clone(),
        _ => None,
    };
    assert_eq!(deployment.entry("what became of it", told).await.1, old);
    other.stop("the test stops it").await.unwrap();
    deployment.stop().await;
    let logs = shards(&deployment.settings.store);
    let settled = settled_later(&logs[1].0, &old);
    assert!(settled.released.iter().any(|(index, ..)| *index == first), "{settled:?}");
    assert_eq!(settled.void, [(never_left, "the caller was gone".to_owned())]);
    assert_eq!(endings(&logs)[&(old, never_left)], 1);
    assert!(!deployment.settings.store.reader().unwrap().live_after(None, 999).unwrap().contains(&live));
    let config = deployment.config_file();
    assert_eq!(assert_whole(&deployment, &config, &[]).await, 2);
}

fn revoked(entry: &Entry) -> Option<CredentialEnded> {
    match &entry.body {
        Body::CredentialEnded(ended) if ended.how == EndedHow::Revoked => Some(ended.as_ref().clone()),
        _ => None,
    }
}

fn token_key(deployment: &Deployment) -> KeyChanged {
    let state = deployment.broker().log().state();
    state.signing_key(KeyUse::Token, deployment.clock.now()).unwrap().clone()
}

#[tokio::test]
async fn what_a_compromised_key_signed_in_the_log_before_is_ended_in_this_one() {
    let mut deployment = closing_at(150).await;
    let old = origin(&deployment);
    let before = issue(&deployment.service().await, task("post-invoices")).await.unwrap();
    grow(&deployment, 120).await;
    deployment.turn().await;
    let after = issue(&deployment.service().await, task("post-invoices")).await.unwrap();
    let order = pb::RotateKeyRequest {
        r#use: pb::KeyUse::Token as i32,
        compromised_key_id: token_key(&deployment).key.to_string(),
        reason: "a laptop was stolen".into(),
        validate_only: false,
    };
    let caller = deployment.security().await;
    let rotated = caller.governance().rotate_key(caller.request(order).unwrap()).await.unwrap().into_inner();
    assert_eq!((rotated.live, rotated.revoked), (2, 2));
    let ended: Vec<_> = deployment.entries().await.iter().filter_map(|(_, entry)| revoked(entry)).collect();
    let index = |answer: pb::IssueResponse| answer.receipt.unwrap().entry.unwrap().index;
    let named: Vec<_> = ended.iter().map(|it| (it.log.clone(), it.ended.clone())).collect();
    assert_eq!(named, [(Some(old), vec![index(before)]), (None, vec![index(after)])]);
    deployment.stop().await;
    let config = deployment.config_file();
    assert_eq!(assert_whole(&deployment, &config, &[]).await, 2);
}

#[tokio::test]
async fn an_order_that_was_not_finished_when_the_log_was_closed_is_finished_in_the_next() {
    let mut deployment = closing_at(150).await;
    let old = origin(&deployment);
    let before = issue(&deployment.service().await, task("post-invoices")).await.unwrap();
    let now = deployment.clock.now();
    let stolen = KeyChanged { state: KeyState::Compromised, publish_until_ms: now, ..token_key(&deployment) };
    let desk = &deployment.broker().desk;
    let entry =
        NewEntry { id: desk.ids.draw(now).unwrap(), request: None, by: None, body: stolen.clone().into() };
    desk.log.append(vec![entry], Attached::default()).await.unwrap();
    grow(&deployment, 120).await;
    deployment.turn().await;
    assert_eq!(deployment.broker().log().state().keys()[&stolen.key].state, KeyState::Compromised);
    deployment.clock.advance(11_000);
    let (_, ended) = deployment.entry("its end", revoked).await;
    assert_eq!(ended.log, Some(old));
    assert_eq!(ended.ended, [before.receipt.unwrap().entry.unwrap().index]);
}

#[tokio::test]
async fn an_emergency_order_counts_what_the_log_before_issued_of_what_it_names_and_nothing_else() {
    let mut deployment = closing_at(150).await;
    issue(&deployment.service().await, task("post-invoices")).await.unwrap();
    // Whatever lies at the same index of the newer log is something else.
    let other = deployment.organisation.token("cluster", "prod/web/frontend").unwrap();
    issue(&deployment.bound(other).await, task("mesh-identity")).await.unwrap();
    grow(&deployment, 120).await;
    deployment.turn().await;
    issue(&deployment.service().await, task("post-invoices")).await.unwrap();
    let socket = deployment.settings.emergency.clone().unwrap();
    let named = format!("identity={NIGHTLY}");
    order(&socket, &format!("suspend {named} a laptop was stolen")).await.unwrap();
    let (_, live) = deployment
        .entry("the suspension", |entry| match &entry.body {
            Body::SuspensionSet(set) => Some(set.live),
            _ => None,
        })
        .await;
    assert_eq!(live, 2);
}
