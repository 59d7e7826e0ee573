//! One proof, one task, one credential.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use daypass_broker::dev::caller::possession;
use daypass_proto::v1 as pb;
use daypass_proto::v1::issue_request::Credential as Wanted;
use daypass_proto::v1::token_parameters::Confirmation;
use daypass_tests::harness::{CI, Deployment, NIGHTLY, claims_of, issue, task, token_of};
use daypass_verify::ids::Digest;
use serde_json::json;
use tonic::Code;

#[tokio::test]
async fn a_proven_workload_gets_a_token_that_says_what_it_may_do() {
    let deployment = Deployment::start().await;
    for caller in [deployment.job().await, deployment.service().await] {
        let answer = issue(&caller, task("post-invoices")).await.unwrap();
        let (header, claims) = claims_of(token_of(&answer));
        assert_eq!((&header["typ"], &header["alg"]), (&json!("at+jwt"), &json!("ES256")));
        assert_eq!(claims["iss"], deployment.settings.issuer.as_str());
        assert_eq!(claims["sub"], "spiffe://example.org/prod/billing/nightly");
        assert_eq!(claims["client_id"], claims["sub"]);
        assert_eq!(claims["aud"], "https://ledger.example.org");
        assert_eq!(claims["jti"], answer.credential_id);
        assert_eq!(claims["tenant"], "example");
        let details = json!([{
            "type": "task", "identifier": "post-invoices", "actions": ["invoice:read", "invoice:write"],
            "locations": ["https://ledger.example.org"], "resources": ["eu/*", "us/*"],
        }]);
        assert_eq!(claims["authorization_details"], details);
        assert_eq!(answer.narrowed, Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_token_is_bound_to_the_certificate_beside_its_proof() {
    let deployment = Deployment::start().await;
    let certificates = [possession().unwrap(), deployment.workload(NIGHTLY)];
    let tokens = [Some(deployment.organisation.token(CI, NIGHTLY).unwrap()), None];
    for (certificate, token) in certificates.iter().zip(tokens) {
        let caller = deployment.connect(Some(certificate)).await;
        let caller = token.into_iter().fold(caller, |caller, token| caller.with_token(token));
        let answer = issue(&caller, task("post-invoices")).await.unwrap();
        let thumbprint = URL_SAFE_NO_PAD.encode(Digest::of(&certificate.chain[0]).as_bytes());
        assert_eq!(claims_of(token_of(&answer)).1["cnf"], json!({ "x5t#S256": thumbprint }));
    }
}

#[tokio::test]
async fn an_unbound_token_is_given_only_where_the_task_allows_it() {
    let deployment = Deployment::start().await;
    let bearer = |name: &str| {
        let confirmation = Some(Confirmation::Certificate(false));
        let token = pb::TokenParameters { confirmation, ..Default::default() };
        pb::IssueRequest { credential: Some(Wanted::Token(token)), ..task(name) }
    };
    let table = [
        ("no certificate", false, task("post-invoices"), Err("NOT_ALLOWED")),
        ("no certificate", false, bearer("post-invoices"), Err("NOT_ALLOWED")),
        ("a certificate, and asked for unbound", true, bearer("post-invoices"), Err("NOT_ALLOWED")),
        ("no certificate", false, task("read-invoices"), Ok(false)),
        ("a certificate, and asked for unbound", true, bearer("read-invoices"), Ok(false)),
        ("a certificate", true, task("read-invoices"), Ok(true)),
    ];
    for (has, certificate, mut wanted, expected) in table {
        if wanted.task == "read-invoices" {
            wanted.audiences = vec!["https://ledger.example.org".into()];
        }
        let token = deployment.organisation.token(CI, NIGHTLY).unwrap();
        let caller = if certificate { deployment.bound(token).await } else { deployment.bearer(token).await };
        let name = wanted.task.clone();
        let answer = issue(&caller, wanted).await;
        let bound = answer.as_ref().map(|answer| claims_of(token_of(answer)).1.get("cnf").is_some());
        assert_eq!(bound.map_err(|refused| refused.reason.as_str()), expected, "{name}, {has}");
    }
}

#[tokio::test]
async fn a_jwt_svid_is_for_one_audience_and_no_access_token() {
    let deployment = Deployment::start().await;
    let token = deployment.organisation.token("cluster", "prod/web/frontend").unwrap();
    let profile = pb::TokenProfile::JwtSvid.into();
    let svid = Wanted::Token(pb::TokenParameters { profile, ..Default::default() });
    let wanted = pb::IssueRequest { credential: Some(svid), ..task("mesh-identity") };
    let answer = issue(&deployment.bound(token).await, wanted).await.unwrap();
    let (header, claims) = claims_of(token_of(&answer));
    assert_ne!(header["typ"], "at+jwt");
    assert_eq!(claims["sub"], "spiffe://example.org/prod/web/frontend");
    assert!(claims["aud"] == "mesh.example.org" || claims["aud"] == json!(["mesh.example.org"]), "{claims}");
    assert!(claims.get("cnf").is_none(), "a JWT-SVID is bearer by its standard");
    let Some(pb::issue_response::Credential::Token(token)) = answer.credential else { panic!("a token") };
    assert_eq!(token.r#type, "N_A");
}

#[tokio::test]
async fn less_is_granted_than_was_asked_and_the_answer_says_where() {
    let deployment = Deployment::start().await;
    let service = deployment.service().await;
    let asked = pb::IssueRequest {
        actions: vec!["invoice:read".into(), "invoice:delete".into()],
        resources: vec!["eu/de/*".into(), "cn/*".into()],
        ..task("post-invoices")
    };
    let answer = issue(&service, asked.clone()).await.unwrap();
    let granted = answer.granted.unwrap();
    assert_eq!((granted.actions, granted.resources), (vec!["invoice:read".into()], vec!["eu/de/*".into()]));
    let narrowed: BTreeSet<String> = answer.narrowed.into_iter().collect();
    assert_eq!(narrowed, ["actions", "resources"].map(String::from).into());

    let all_or_nothing = pb::IssueRequest { refuse_narrowed: true, ..asked };
    let refused = issue(&service, all_or_nothing).await.unwrap_err();
    assert_eq!(refused.code, Code::PermissionDenied, "{refused:?}");
}

#[tokio::test]
async fn what_a_prefix_covers_is_not_said_twice() {
    let deployment = Deployment::start().await;
    let asked = pb::IssueRequest { resources: vec!["eu/*".into(), "eu/de".into()], ..task("post-invoices") };
    let granted = issue(&deployment.service().await, asked).await.unwrap().granted.unwrap();
    assert_eq!(granted.resources, ["eu/*"]);
}

#[tokio::test]
async fn a_renewal_names_the_credential_that_it_renews() {
    let deployment = Deployment::start().await;
    let service = deployment.service().await;
    let first = issue(&service, task("post-invoices")).await.unwrap();
    let renewal = |id: &str| pb::IssueRequest { supersedes: id.into(), ..task("post-invoices") };
    let second = issue(&service, renewal(&first.credential_id)).await.unwrap();
    let issued = deployment.issued(&second.credential_id).await;
    assert_eq!(issued.credential.supersedes, Some(first.receipt.unwrap().entry.unwrap().index));

    let frontend = deployment.organisation.token("cluster", "prod/web/frontend").unwrap();
    let others = issue(&deployment.bound(frontend).await, task("mesh-identity")).await.unwrap();
    let table = [
        ("another identity's", others.credential_id.as_str(), "NOT_FOUND"),
        ("one that was never issued", "0199f2c1-0000-7000-8000-000000000000", "NOT_FOUND"),
        ("not an id", "first", "MALFORMED"),
    ];
    for (what, id, reason) in table {
        assert_eq!(issue(&service, renewal(id)).await.unwrap_err().reason, reason, "{what}");
    }
}

#[tokio::test]
async fn what_the_caller_calls_its_run_and_its_request_is_recorded() {
    let deployment = Deployment::start().await;
    let request_id = "0199f2c1-aaaa-7bbb-8ccc-dddddddddddd";
    let wanted =
        pb::IssueRequest { run: "JOB-88123".into(), request_id: request_id.into(), ..task("post-invoices") };
    let answer = issue(&deployment.job().await, wanted).await.unwrap();
    let issued = deployment.issued(&answer.credential_id).await;
    assert_eq!(issued.asked.run.as_deref(), Some("JOB-88123"));
    let explained = deployment.explain(request_id).await;
    assert_eq!((explained.source.as_str(), explained.reason.as_str()), ("log", "ISSUED"));
}
