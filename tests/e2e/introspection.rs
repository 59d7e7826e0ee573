//! Whether a token lives: told to those who serve its target, to its holder and to operators, and to nobody else.

use daypass_broker::clock::Clock as _;
use daypass_broker::dev::caller::{Caller, possession};
use daypass_broker::dev::organisation::sample;
use daypass_core::rotation::Order;
use daypass_evidence::entry::KeyUse;
use daypass_proto::v1 as pb;
use daypass_tests::harness::{
    CI, Deployment, NIGHTLY, OPERATOR, SECURITY, STAFF, Web, claims_of, exchange, issue, task, token_of,
};
use serde_json::{Value, json};

/// What the supplier's connector got for the orders, which the web shop's frontend serves.
async fn orders_token(deployment: &Deployment) -> String {
    let connector = deployment.organisation.token("supplier-idp", "prod/acme/connector").unwrap();
    let caller = deployment.bound(connector).await;
    token_of(&issue(&caller, task("sync-orders")).await.unwrap()).to_owned()
}

async fn over_grpc(caller: &Caller, token: &str) -> Option<Value> {
    let request = caller.request(pb::IntrospectRequest { token: token.into() }).unwrap();
    let said = caller.trust().introspect(request).await.unwrap().into_inner();
    assert_eq!(said.active, !said.claims.is_empty());
    said.active.then(|| serde_json::from_str(&said.claims).unwrap())
}

#[tokio::test]
async fn who_serves_the_target_holds_the_token_or_operates_is_told_and_nobody_else() {
    let deployment = Deployment::start().await;
    let token = orders_token(&deployment).await;
    let (_, claims) = claims_of(&token);
    let web = Web::of(&deployment, None, true);
    let bearer = |issuer: &str, who: &str| deployment.organisation.token(issuer, who).unwrap();
    let mut expected = claims.clone();
    expected["active"] = true.into();
    expected["token_type"] = "Bearer".into();
    for (issuer, who, told) in [
        ("cluster", "prod/web/frontend", true),
        ("supplier-idp", "prod/acme/connector", true),
        (STAFF, OPERATOR, true),
        (CI, NIGHTLY, false),
        (STAFF, "bob-sec", true),
    ] {
        let proof = bearer(issuer, who);
        let said = web.post_by(&proof, "/introspect", &[("token", &token), ("token_type_hint", "x")]).await;
        assert_eq!((said.status, said.headers["cache-control"].as_bytes()), (200, &b"no-store"[..]));
        assert_eq!(said.body, if told { expected.clone() } else { json!({ "active": false }) }, "{who}");
        let found = over_grpc(&deployment.bearer(proof).await, &token).await;
        assert_eq!(found, told.then(|| claims.clone()), "{who} over gRPC");
    }
    let nobody = web.post("/introspect", &[("token", &token)]).await;
    assert_eq!(nobody.refusal(), (401, "invalid_client", "PROOF_REFUSED"));
    let stranger = Web::of(&deployment, Some(&possession().unwrap()), true);
    assert_eq!(stranger.post("/introspect", &[("token", &token)]).await.status, 401);
    let itself = web.post_by(&token, "/introspect", &[("token", &token)]).await;
    assert_eq!(itself.refusal(), (401, "invalid_client", "PROOF_REFUSED"), "what we issue is no proof");
}

#[tokio::test]
async fn asking_spends_nothing_and_needs_a_token_and_no_secret() {
    let deployment = Deployment::start().await;
    let web = Web::of(&deployment, Some(&possession().unwrap()), false);
    let proof = deployment.organisation.token(CI, NIGHTLY).unwrap();
    for _ in 0..2 {
        let said = web.post_by(&proof, "/introspect", &[("token", "x")]).await;
        assert_eq!((said.status, said.body), (200, json!({ "active": false })));
    }
    assert_eq!(
        web.post_by(&proof, "/introspect", &[]).await.refusal(),
        (400, "invalid_request", "MALFORMED")
    );
    let secret = web.post_by(&proof, "/introspect", &[("token", "x"), ("client_secret", "y")]).await;
    assert_eq!(secret.refusal(), (401, "invalid_client", "MALFORMED"));
    assert_eq!(web.post("/token", &exchange(&proof, "task:post-invoices")).await.status, 200);
    let spent = web.post_by(&proof, "/introspect", &[("token", "x")]).await;
    assert_eq!(spent.status, 200, "a spent proof may still read, as over gRPC");
}

#[tokio::test]
async fn a_token_that_is_not_what_was_issued_or_lives_no_more_is_inactive() {
    let deployment = Deployment::start().await;
    let operator = deployment.operator().await;
    let token = orders_token(&deployment).await;
    let respelt = |part: usize| {
        let mut parts: Vec<String> = token.split('.').map(str::to_owned).collect();
        let first = if parts[part].starts_with('A') { "B" } else { "A" };
        parts[part].replace_range(..1, first);
        parts.join(".")
    };
    let foreign = deployment.organisation.token(CI, NIGHTLY).unwrap();
    let cases = [String::new(), "a.b.c".into(), respelt(1), respelt(2), foreign, format!("{token} ")];
    for other in cases {
        assert_eq!(over_grpc(&operator, &other).await, None, "{other}");
    }
    assert!(over_grpc(&operator, &token).await.is_some());
    let life = claims_of(&token).1["exp"].as_i64().unwrap() - deployment.clock.now().seconds();
    deployment.clock.advance(life * 1000);
    assert_eq!(over_grpc(&deployment.operator().await, &token).await, None, "expired");
}

#[tokio::test]
async fn a_token_by_a_compromised_key_is_inactive_at_once() {
    let deployment = Deployment::start().await;
    let operator = deployment.operator().await;
    let token = orders_token(&deployment).await;
    assert!(over_grpc(&operator, &token).await.is_some());
    let key = claims_of(&token).0["kid"].as_str().unwrap().parse().unwrap();
    let order = Order { usage: KeyUse::Token, compromised: Some(key) };
    deployment.broker().rotation.order(&order, &Default::default()).await.unwrap();
    assert_eq!(over_grpc(&operator, &token).await, None);
}

#[tokio::test]
async fn a_token_lives_on_when_the_log_goes_on_in_another() {
    let mut deployment = Deployment::stopped(sample()).await;
    deployment.settings.turns.entries = 100;
    deployment.resume().await.unwrap();
    let before = [orders_token(&deployment).await, orders_token(&deployment).await];
    let service = deployment.service().await;
    for _ in 0..100 {
        // Refused once the log is over.
        drop(issue(&service, task("post-invoices")).await);
    }
    deployment.turn().await;
    let operator = deployment.operator().await;
    for token in before.iter().chain([&orders_token(&deployment).await]) {
        assert_eq!(over_grpc(&operator, token).await, Some(claims_of(token).1));
    }
}

#[tokio::test]
async fn a_token_is_given_up_by_its_holder_or_taken_back_by_an_operator_and_by_nobody_else() {
    let deployment = Deployment::start().await;
    let web = Web::of(&deployment, None, true);
    let proof = |issuer: &str, who: &str| deployment.organisation.token(issuer, who).unwrap();
    let operator = deployment.operator().await;
    let holder = || proof("supplier-idp", "prod/acme/connector");
    for (by, ends) in [
        (proof(CI, NIGHTLY), false),
        (proof("cluster", "prod/web/frontend"), false),
        (holder(), true),
        (proof(STAFF, SECURITY), true),
    ] {
        let token = orders_token(&deployment).await;
        let said =
            web.post_by(&by, "/revoke", &[("token", &token), ("token_type_hint", "access_token")]).await;
        assert_eq!((said.status, &said.body), (200, &json!("")), "it says nothing of others' tokens");
        assert_eq!(over_grpc(&operator, &token).await.is_some(), !ends);
        assert_eq!(
            web.post_by(&holder(), "/revoke", &[("token", &token)]).await.status,
            200,
            "and once more"
        );
        assert_eq!(over_grpc(&operator, &token).await, None);
    }
    for unknown in ["nothing", "a.b.c", &proof(CI, NIGHTLY)] {
        assert_eq!(web.post_by(&holder(), "/revoke", &[("token", unknown)]).await.status, 200, "{unknown}");
    }
    let token = orders_token(&deployment).await;
    let nobody = web.post("/revoke", &[("token", &token)]).await;
    assert_eq!(nobody.refusal(), (401, "invalid_client", "PROOF_REFUSED"));
    assert_eq!(web.post_by(&holder(), "/revoke", &[]).await.refusal(), (400, "invalid_request", "MALFORMED"));
    assert!(over_grpc(&operator, &token).await.is_some());
}
