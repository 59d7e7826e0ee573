//! Orders of operators: every selector, counted first, on any broker of the log.

use std::collections::BTreeMap;

use daypass_broker::dev::caller::Caller;
use daypass_proto::v1 as pb;
use daypass_proto::v1::selector::What;
use daypass_tests::harness::{CI, Deployment, NIGHTLY, claims_of, issue, task, token_of};

use super::{ended, endings, index_of, order, revoke};

async fn operator(deployment: &Deployment) -> Caller {
    // A fresh token each time: an act spends it.
    deployment.operator().await
}

#[tokio::test]
async fn every_selector_ends_what_it_selects_and_nothing_else() {
    let deployment = Deployment::start().await;
    let frontend = deployment.organisation.token("cluster", "prod/web/frontend").unwrap();
    let spared = issue(&deployment.bound(frontend).await, task("mesh-identity")).await.unwrap();
    let supplier = deployment.organisation.token("supplier-idp", "prod/acme/connector").unwrap();
    let suppliers = issue(&deployment.bound(supplier).await, task("sync-orders")).await.unwrap();
    let mut expected = Vec::new();
    let key = claims_of(token_of(&suppliers)).0["kid"].as_str().unwrap().to_owned();
    // The job's proof names an issuer, a run, and so on.
    for (what, by_supplier) in [
        (What::Identity(NIGHTLY.into()), false),
        (What::Task("post-invoices".into()), false),
        (What::Target("ledger".into()), false),
        (What::Issuer(CI.into()), false),
        (What::Instance(String::new()), false),
        (What::Supplier("acme".into()), true),
        (What::KeyId(key.clone()), true),
    ] {
        let issued = match by_supplier {
            true if expected.contains(&index_of(&suppliers)) => {
                issue(&deployment.job().await, task("post-invoices")).await.unwrap()
            }
            true => suppliers.clone(),
            false => issue(&deployment.job().await, task("post-invoices")).await.unwrap(),
        };
        let what = match what {
            What::Instance(_) => {
                What::Instance(deployment.issued(&issued.credential_id).await.proof.instance.unwrap())
            }
            other => other,
        };
        let mut wanted = order(what.clone());
        (wanted.comment, wanted.drill) = ("seen in a paste".into(), "autumn".into());
        let revoked = revoke(&operator(&deployment).await, wanted).await.unwrap();
        assert!(revoked.credential_ids.contains(&issued.credential_id), "{what:?}: {revoked:?}");
        expected.push(index_of(&issued));
        if !matches!(what, What::KeyId(_)) {
            assert_eq!(ended(&deployment).await, expected, "{what:?}");
        }
        let (at, by, entry) = endings(&deployment).await.pop().unwrap();
        assert_eq!(revoked.entry.unwrap().index, at);
        assert_eq!(
            (by.as_deref(), entry.reason.as_deref()),
            (Some("alice-lead"), Some("privilegeWithdrawn"))
        );
        assert_eq!(
            (entry.comment.as_deref(), entry.drill.as_deref()),
            (Some("seen in a paste"), Some("autumn"))
        );
    }
    let gone = ended(&deployment).await;
    let by_its_own_key = claims_of(token_of(&spared)).0["kid"] == key.as_str();
    assert_eq!(gone.contains(&index_of(&spared)), by_its_own_key, "{gone:?}");
    deployment.both_verifiers_agree().await;
}

#[tokio::test]
async fn counting_first_changes_nothing_and_spends_nothing() {
    let deployment = Deployment::start().await;
    let service = deployment.service().await;
    let mut ids = Vec::new();
    for name in ["post-invoices", "post-invoices", "post-invoices"] {
        ids.push(issue(&service, task(name)).await.unwrap().credential_id);
    }
    let operator = operator(&deployment).await;
    let asked = pb::RevokeRequest { validate_only: true, ..order(What::Identity(NIGHTLY.into())) };
    for _ in 0..2 {
        let counted = revoke(&operator, asked.clone()).await.unwrap();
        assert_eq!((counted.count, counted.entry, counted.goes_on), (3, None, false));
        assert_eq!(counted.reach, [("feed".to_owned(), 3)].into());
        let mut named = counted.credential_ids;
        named.sort();
        assert_eq!(named, ids);
    }
    assert!(endings(&deployment).await.is_empty());
    // The same proof is still good for one act, and for no second one.
    assert_eq!(revoke(&operator, order(What::Identity(NIGHTLY.into()))).await.unwrap().count, 3);
    let issued = issue(&service, task("post-invoices")).await.unwrap();
    let again = revoke(&operator, order(What::Identity(NIGHTLY.into()))).await.unwrap_err();
    assert_eq!(again.reason, "PROOF_REPLAYED");
    assert!(!ended(&deployment).await.contains(&index_of(&issued)));
}

#[tokio::test]
async fn only_what_was_issued_before_a_moment_ends_where_one_is_named() {
    let deployment = Deployment::start().await;
    let service = deployment.service().await;
    let early = issue(&service, task("post-invoices")).await.unwrap();
    deployment.clock.advance(5_000);
    let late = issue(&service, task("post-invoices")).await.unwrap();
    let mut wanted = order(What::Identity(NIGHTLY.into()));
    wanted.selector.as_mut().unwrap().issued_before = late.granted.as_ref().unwrap().issued_at;
    let revoked = revoke(&operator(&deployment).await, wanted).await.unwrap();
    assert_eq!(revoked.credential_ids, std::slice::from_ref(&early.credential_id));
    assert_eq!(ended(&deployment).await, [index_of(&early)]);
}

#[tokio::test]
async fn what_one_broker_issued_another_revokes_and_all_know_it() {
    let deployment = Deployment::start().await;
    let other = deployment.second().await;
    let issued = issue(&deployment.service().await, task("post-invoices")).await.unwrap();
    let id = issued.credential_id.parse().unwrap();
    let token = deployment.operator_token();
    let caller = Caller::connect(other.api.port(), &deployment.listener_ca, None).await.unwrap();
    let caller = caller.with_token(token);
    let revoked = revoke(&caller, order(What::CredentialId(issued.credential_id.clone()))).await.unwrap();
    assert_eq!(revoked.count, 1);
    assert!(other.revocation.ledger().get(&id).is_some(), "known to whoever acknowledged it, at once");
    daypass_tests::harness::eventually("known to the one that issued it", || async {
        deployment.broker().revocation.ledger().get(&id).is_some()
    })
    .await;
    other.stop("the test is over").await.unwrap();
}

#[tokio::test]
async fn a_start_knows_what_was_revoked_before_it_and_forgets_what_is_over() {
    let mut deployment = Deployment::start().await;
    let issued = issue(&deployment.service().await, task("post-invoices")).await.unwrap();
    let id = issued.credential_id.parse().unwrap();
    revoke(&operator(&deployment).await, order(What::Identity(NIGHTLY.into()))).await.unwrap();
    deployment.stop().await;
    deployment.resume().await.unwrap();
    let ledger = std::sync::Arc::clone(deployment.broker().revocation.ledger());
    daypass_tests::harness::eventually("it was read", || async { ledger.get(&id).is_some() }).await;
    let subject: daypass_verify::ids::SpiffeId = issued.granted.unwrap().subject.parse().unwrap();
    let cut_offs = ledger.cut_offs(&deployment.broker().desk);
    assert_eq!(cut_offs.identities.keys().collect::<Vec<_>>(), [&subject]);
    deployment.clock.advance(16 * 60_000);
    daypass_tests::harness::eventually("it is over", || async { ledger.get(&id).is_none() }).await;
}

#[tokio::test]
async fn more_than_one_entry_can_name_is_revoked_by_one_order() {
    use futures::StreamExt as _;
    const ISSUED: usize = 1_050;
    let deployment = Deployment::start_unlimited_on(None).await;
    let service = deployment.service().await;
    let asked = (0..ISSUED).map(|_| issue(&service, task("post-invoices")));
    let answers: Vec<_> = futures::stream::iter(asked).buffer_unordered(32).collect().await;
    assert!(answers.iter().all(Result::is_ok));
    let revoked = revoke(&operator(&deployment).await, order(What::Identity(NIGHTLY.into()))).await.unwrap();
    assert!(revoked.goes_on || (revoked.count == ISSUED as u64 && revoked.credential_ids.len() == 1_000));
    daypass_tests::harness::eventually("all ended", || async { ended(&deployment).await.len() == ISSUED })
        .await;
    let found = endings(&deployment).await;
    let first = found[0].0;
    assert_eq!(found[0].2.ordered, None);
    assert!(found.len() > 1 && found[1..].iter().all(|(.., ended)| ended.ordered == Some(first)));
    let mut once: BTreeMap<u64, u32> = BTreeMap::new();
    for index in ended(&deployment).await {
        *once.entry(index).or_default() += 1;
    }
    assert!(once.len() == ISSUED && once.values().all(|times| *times == 1));
}
