//! What the sample organisation's rules and ceilings mean for a caller.

use daypass_broker::dev::organisation::sample;
use daypass_core::bundle::SourceFile;
use daypass_proto::v1 as pb;
use daypass_tests::harness::{CI, Deployment, NIGHTLY, OPERATOR, Refused, STAFF, issue, task};
use tonic::Code;

/// The sample with `text` after the line `after` of the file `path`.
fn with(path: &str, after: &str, text: &str) -> Vec<SourceFile> {
    let mut files = sample();
    let file = files.iter_mut().find(|file| file.path == path).unwrap();
    assert!(file.text.contains(after), "{path} has `{after}`");
    file.text = file.text.replacen(after, &format!("{after}\n{text}"), 1);
    files
}

#[tokio::test]
async fn what_is_disabled_gets_nothing_and_operators_see_why() {
    let rows = [
        ("issuers/issuers.toml", "[issuer.ci]", "ISSUER_DISABLED"),
        ("identities/billing.toml", "[identity.\"prod/billing/nightly\"]", "IDENTITY_DISABLED"),
    ];
    for (path, section, inner) in rows {
        let deployment = Deployment::start_with(with(path, section, "disabled = true"), |_| {}).await;
        let token = deployment.organisation.token(CI, NIGHTLY).unwrap();
        let refused = issue(&deployment.bound(token).await, task("post-invoices")).await.unwrap_err();
        assert_eq!(
            (refused.code, refused.reason.as_str()),
            (Code::PermissionDenied, "NOT_ALLOWED"),
            "{inner}"
        );
        assert_eq!(deployment.explain(&refused.request_id).await.reason, inner);
    }
}

#[tokio::test]
async fn what_is_disabled_reads_nothing_of_the_log() {
    let rows = [
        ("issuers/issuers.toml", "[issuer.staff]"),
        ("issuers/issuers.toml", "[issuer.ci]"),
        ("identities/billing.toml", "[identity.\"prod/billing/nightly\"]"),
    ];
    for (path, section) in rows {
        let deployment = Deployment::start_with(with(path, section, "disabled = true"), |_| {}).await;
        let caller =
            if section.contains("staff") { deployment.operator().await } else { deployment.job().await };
        let credential_id = "0199f2c1-0000-7000-8000-000000000000".to_owned();
        let wanted = pb::ListEntriesRequest { credential_id, ..Default::default() };
        let refused = caller.evidence().list_entries(caller.request(wanted).unwrap()).await.unwrap_err();
        assert_eq!(Refused::from(refused).reason, "NOT_ALLOWED", "{section}");
    }
}

#[tokio::test]
async fn a_person_never_does_a_workloads_task() {
    let clause = "  { issuer = \"staff\", subject = \"p-1042\" },";
    let files = with("identities/billing.toml", "proofs = [", clause);
    let deployment = Deployment::start_with(files, |_| {}).await;
    let token = deployment.organisation.token(STAFF, "bob-sec").unwrap();
    let refused = issue(&deployment.bound(token).await, task("post-invoices")).await.unwrap_err();
    assert_eq!(refused.reason, "NOT_ALLOWED");
    let explained = deployment.explain(&refused.request_id).await;
    assert!(explained.rules.contains(&"base/no-person".to_owned()), "{explained:?}");
}

#[tokio::test]
async fn an_operator_gets_no_credential_for_being_one() {
    let deployment = Deployment::start().await;
    let token = deployment.organisation.token(STAFF, OPERATOR).unwrap();
    let refused = issue(&deployment.bound(token).await, task("post-invoices")).await.unwrap_err();
    assert_eq!((refused.code, refused.reason.as_str()), (Code::PermissionDenied, "NOT_ALLOWED"));
}

#[tokio::test]
async fn who_owns_the_test_cluster_cannot_vouch_for_production() {
    let clause = "  { issuer = \"cluster-test\", subject = \"system:serviceaccount:billing:prod\" },";
    let files = with("identities/billing.toml", "proofs = [", clause);
    let deployment = Deployment::start_with(files, |_| {}).await;
    let forge = deployment.forge("cluster-test", "test/billing/nightly");
    let token = forge.with(|_, claims| {
        claims.insert("sub".into(), "system:serviceaccount:billing:prod".into());
    });
    let refused = issue(&deployment.bound(token).await, task("post-invoices")).await.unwrap_err();
    let explained = deployment.explain(&refused.request_id).await;
    assert!(explained.rules.contains(&"base/issuer-of-own-environment".to_owned()), "{explained:?}");
}

#[tokio::test]
async fn test_gets_what_is_in_test() {
    let deployment = Deployment::start().await;
    let rows = [("https://ledger.test.example.org", true), ("https://ledger.example.org", false)];
    for (audience, allowed) in rows {
        let token = deployment.organisation.token("cluster-test", "test/billing/nightly").unwrap();
        let wanted = pb::IssueRequest { audiences: vec![audience.into()], ..task("read-invoices") };
        assert_eq!(issue(&deployment.bound(token).await, wanted).await.is_ok(), allowed, "{audience}");
    }
    let both = ["https://ledger.example.org", "https://ledger.test.example.org"].map(String::from).to_vec();
    let wanted = pb::IssueRequest { audiences: both, ..task("read-invoices") };
    let refused = issue(&deployment.service().await, wanted).await.unwrap_err();
    assert_eq!(refused.reason, "MALFORMED", "a request is for one target");
}

#[tokio::test]
async fn a_supplier_stays_within_its_contract() {
    let deployment = Deployment::start().await;
    let connector = || async {
        deployment.bound(deployment.organisation.token("supplier-idp", "prod/acme/connector").unwrap()).await
    };
    let ttl = Some(prost_types::Duration { seconds: 3600, nanos: 0 });
    let wanted = pb::IssueRequest { ttl, ..task("sync-orders") };
    let answer = issue(&connector().await, wanted).await.unwrap();
    let granted = answer.granted.unwrap();
    assert_eq!(granted.resources, ["acme/*"]);
    let life = granted.expires_at.unwrap().seconds - granted.issued_at.unwrap().seconds;
    assert!(life <= 15 * 60, "{life}");
    let wanted = pb::IssueRequest { resources: vec!["other/*".into()], ..task("sync-orders") };
    let refused = issue(&connector().await, wanted).await.unwrap_err();
    assert_eq!(refused.reason, "RESOURCE_NOT_ALLOWED");
    let refused = issue(&connector().await, task("post-invoices")).await.unwrap_err();
    assert_eq!(refused.reason, "TASK_NOT_ALLOWED");
}

#[tokio::test]
async fn what_is_privileged_is_bound_and_brief() {
    let deployment = Deployment::start().await;
    let token = || deployment.organisation.token(CI, "prod/deploy/web").unwrap();
    assert!(issue(&deployment.bearer(token()).await, task("deploy-web")).await.is_err(), "unbound");
    let ttl = Some(prost_types::Duration { seconds: 3600, nanos: 0 });
    let wanted = pb::IssueRequest { ttl, ..task("deploy-web") };
    let granted = issue(&deployment.bound(token()).await, wanted).await.unwrap().granted.unwrap();
    assert_eq!(granted.reach(), pb::Reach::None);
    let life = granted.expires_at.unwrap().seconds - granted.issued_at.unwrap().seconds;
    assert!(life <= 600, "nothing could call it back: {life}");
}

#[tokio::test]
async fn a_claim_that_the_task_copies_is_the_proofs_own() {
    let deployment = Deployment::start().await;
    let forge = deployment.forge(CI, "prod/deploy/web");
    let token = forge.with(|_, claims| drop(claims.insert("run_id".into(), "88123".into())));
    let answer = issue(&deployment.bound(token).await, task("deploy-web")).await.unwrap();
    let (_, claims) = daypass_tests::harness::claims_of(daypass_tests::harness::token_of(&answer));
    assert_eq!(claims["run"], "88123");
    let issued = deployment.issued(&answer.credential_id).await;
    assert_eq!(issued.proof.instance.as_deref(), Some("88123"));
}

#[tokio::test]
async fn a_token_whose_claims_fit_another_repository_is_nobodys() {
    let deployment = Deployment::start().await;
    let forge = deployment.forge(CI, NIGHTLY);
    let rows = [
        ("another repository", "repository_id", serde_json::json!("43")),
        ("a number where a text is declared", "repository_id", serde_json::json!(["42"])),
        ("a pull request", "event", serde_json::json!("pull_request")),
        ("no event", "event", serde_json::Value::Null),
        ("another branch", "sub", serde_json::json!("project:42:ref:mainly")),
        ("another project with our end", "sub", serde_json::json!("project:142:ref:main")),
        ("in capitals", "sub", serde_json::json!("PROJECT:42:ref:main")),
    ];
    for (what, claim, value) in rows {
        let token = forge.with(|_, claims| drop(claims.insert(claim.into(), value)));
        let refused = issue(&deployment.bound(token).await, task("post-invoices")).await.unwrap_err();
        assert_eq!(
            (refused.code, refused.reason.as_str()),
            (Code::PermissionDenied, "NOT_ALLOWED"),
            "{what}"
        );
    }
}
