//! The OAuth endpoints, as any client finds them: the same credentials as over gRPC, spelt as the RFCs spell them.

use daypass_broker::dev::caller::possession;
use daypass_evidence::entry::{Body, ProofKind};
use daypass_proto::v1 as pb;
use daypass_tests::harness::{
    CI, Deployment, EXCHANGE, ID_TOKEN, JWT, NIGHTLY, Web, certificate_digest, claims_of, eventually,
    exchange, issue, task,
};
use futures::future::join_all;
use serde_json::{Value, json};

const DETAIL: &str =
    r#"[{"type":"task","identifier":"post-invoices","actions":["invoice:write"],"resources":["eu/de/*"]}]"#;

#[tokio::test]
async fn an_id_token_is_exchanged_for_a_bound_token_and_the_entry_is_as_over_grpc() {
    let deployment = Deployment::start().await;
    let certificate = possession().unwrap();
    for http2 in [true, false] {
        let web = Web::of(&deployment, Some(&certificate), http2);
        let proof = deployment.organisation.token(CI, NIGHTLY).unwrap();
        let form = [
            ("grant_type", EXCHANGE),
            ("subject_token", &proof),
            ("subject_token_type", ID_TOKEN),
            ("authorization_details", DETAIL),
            ("resource", "https://ledger.example.org"),
        ];
        let said = web.post("/token", &form).await;
        assert_eq!(said.status, 200, "{said:?}");
        let header = |name: &str| said.headers[name].to_str().unwrap().to_owned();
        assert_eq!((header("cache-control"), header("pragma")), ("no-store".into(), "no-cache".into()));
        assert_eq!(header("content-type"), "application/json");
        let granted = json!([{
            "type": "task", "identifier": "post-invoices", "actions": ["invoice:write"],
            "locations": ["https://ledger.example.org"], "resources": ["eu/de/*"],
        }]);
        let expected = json!({
            "access_token": said.token(), "token_type": "Bearer", "expires_in": 900,
            "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
            "scope": "task:post-invoices invoice:write", "authorization_details": granted,
        });
        assert_eq!(said.body, expected);

        let (head, claims) = claims_of(said.token());
        assert_eq!((&head["typ"], &claims["authorization_details"]), (&json!("at+jwt"), &granted));
        assert_eq!(claims["cnf"]["x5t#S256"], certificate_digest(&certificate));
        assert_eq!(claims["client_id"], claims["sub"]);
        let issued = deployment.issued(claims["jti"].as_str().unwrap()).await;
        assert_eq!((issued.proof.kind, issued.identity.name.as_str()), (ProofKind::IdToken, NIGHTLY));
        assert!(issued.client.is_some(), "where it came from");
    }
}

#[tokio::test]
async fn a_client_certificate_is_proof_enough_for_client_credentials() {
    let deployment = Deployment::start().await;
    let web = Web::of(&deployment, Some(&deployment.workload(NIGHTLY)), true);
    let form = [("grant_type", "client_credentials"), ("scope", "task:post-invoices invoice:read")];
    let by_id = [&form[..], &[("client_id", "spiffe://example.org/prod/billing/nightly")]].concat();
    let by_name = [&form[..], &[("client_id", NIGHTLY)]].concat();
    for form in [&form[..], &by_id, &by_name] {
        let said = web.post("/token", form).await;
        assert_eq!(said.status, 200, "{said:?}");
        let (_, claims) = claims_of(said.token());
        assert_eq!(claims["authorization_details"][0]["actions"], json!(["invoice:read"]));
        assert!(claims["cnf"]["x5t#S256"].is_string());
        let issued = deployment.issued(claims["jti"].as_str().unwrap()).await;
        assert_eq!(issued.proof.kind, ProofKind::Certificate);
    }
    let other = [&form[..], &[("client_id", "prod/web/frontend")]].concat();
    assert_eq!(web.post("/token", &other).await.refusal(), (400, "access_denied", "NOT_ALLOWED"));

    let stranger = Web::of(&deployment, Some(&possession().unwrap()), true);
    let refused = stranger.post("/token", &form).await;
    assert_eq!(refused.refusal(), (401, "invalid_client", "PROOF_REFUSED"));
    let nobody = Web::of(&deployment, None, true).post("/token", &form).await;
    assert_eq!(nobody.refusal(), (401, "invalid_client", "PROOF_REFUSED"));
    assert!(nobody.headers.contains_key("www-authenticate"));
}

#[tokio::test]
async fn what_is_asked_for_decides_audience_kind_and_binding_of_a_token() {
    let deployment = Deployment::start().await;
    let web = Web::of(&deployment, None, true);
    let proof = deployment.organisation.token(CI, NIGHTLY).unwrap();
    let test = [("audience", "https://ledger.example.org")];
    let form = [exchange(&proof, "task:read-invoices"), test.to_vec()].concat();
    let (_, claims) = claims_of(web.post("/token", &form).await.token());
    assert_eq!((&claims["aud"], claims.get("cnf")), (&json!("https://ledger.example.org"), None));

    let frontend = deployment.organisation.token("cluster", "prod/web/frontend").unwrap();
    let form = [
        ("grant_type", EXCHANGE),
        ("subject_token", &frontend),
        ("subject_token_type", JWT),
        ("requested_token_type", JWT),
        ("scope", "task:mesh-identity"),
    ];
    let said = Web::of(&deployment, Some(&possession().unwrap()), false).post("/token", &form).await;
    assert_eq!((&said.body["issued_token_type"], &said.body["token_type"]), (&json!(JWT), &json!("N_A")));
    let (head, claims) = claims_of(said.token());
    assert_eq!(
        (&head["typ"], &claims["sub"]),
        (&json!("JWT"), &json!("spiffe://example.org/prod/web/frontend"))
    );
}

#[tokio::test]
async fn a_proof_is_spent_once_whichever_way_it_comes() {
    let deployment = Deployment::start().await;
    let certificate = possession().unwrap();
    let web = Web::of(&deployment, Some(&certificate), true);
    let caller = deployment.connect(Some(&certificate)).await;
    let scope = "task:post-invoices";
    let [one, two, three] = [(); 3].map(|()| deployment.organisation.token(CI, NIGHTLY).unwrap());
    assert_eq!(web.post("/token", &exchange(&one, scope)).await.status, 200);
    let again = web.post("/token", &exchange(&one, scope)).await;
    assert_eq!(again.refusal(), (400, "invalid_request", "PROOF_REPLAYED"));
    let over_grpc = issue(&caller.clone().with_token(one), task("post-invoices")).await.unwrap_err();
    assert_eq!(over_grpc.reason, "PROOF_REPLAYED");

    issue(&caller.with_token(two.clone()), task("post-invoices")).await.unwrap();
    assert_eq!(web.post("/token", &exchange(&two, scope)).await.refusal().2, "PROOF_REPLAYED");

    let form = exchange(&three, scope);
    let shown = join_all((0..64).map(|_| web.post("/token", &form))).await;
    assert_eq!(shown.iter().filter(|said| said.status == 200).count(), 1);
    assert!(shown.iter().all(|said| said.status == 200 || said.refusal().2 == "PROOF_REPLAYED"), "{shown:?}");
}

/// A client, the scope and more that it asks for, and how it is refused.
type Row<'a> = (&'a Web, &'a str, &'a [(&'a str, &'a str)], (u16, &'a str, &'a str));

#[tokio::test]
async fn a_refusal_says_what_grpc_says_and_is_recorded_and_explained() {
    let deployment = Deployment::start().await;
    let certificate = possession().unwrap();
    let web = Web::of(&deployment, Some(&certificate), true);
    let bearer = Web::of(&deployment, None, true);
    let ledger = ("resource", "https://ledger.example.org");
    let rows: &[Row<'_>] = &[
        (&web, "task:deploy-web", &[], (400, "invalid_scope", "TASK_NOT_ALLOWED")),
        (&web, "task:nothing", &[], (400, "invalid_scope", "TASK_NOT_ALLOWED")),
        (&web, "task:post-invoices ledger:drop", &[], (400, "invalid_scope", "ACTION_NOT_ALLOWED")),
        (
            &web,
            "task:post-invoices",
            &[("resource", "https://deploy.example.org")],
            (400, "invalid_target", "AUDIENCE_NOT_ALLOWED"),
        ),
        (&web, "task:read-invoices", &[], (400, "invalid_target", "MALFORMED")),
        (&bearer, "task:post-invoices", &[ledger], (400, "access_denied", "NOT_ALLOWED")),
        (&web, "task:ledger-db", &[], (400, "invalid_scope", "TASK_NOT_ALLOWED")),
    ];
    let proof = deployment.organisation.token(CI, NIGHTLY).unwrap();
    for (web, scope, more, expected) in rows {
        let said = web.post("/token", &[exchange(&proof, scope), more.to_vec()].concat()).await;
        assert_eq!(said.refusal(), *expected, "{scope} {more:?}: {said:?}");
        let id = said.body["request_id"].as_str().unwrap();
        assert_eq!(said.headers["daypass-request-id"], id);
        assert_eq!(said.headers["cache-control"], "no-store");
        assert!(!deployment.explain(id).await.reason.is_empty());
    }
    let refused = deployment.entry("the refusal", |entry| match &entry.body {
        Body::CredentialRefused(refused) if refused.task.as_deref() == Some("deploy-web") => {
            Some(refused.clone())
        }
        _ => None,
    });
    assert_eq!(refused.await.1.reason, "TASK_NOT_ALLOWED");
    assert_eq!(
        web.post("/token", &exchange(&proof, "task:post-invoices")).await.status,
        200,
        "none spent it"
    );
}

const REQUEST: &str = "0199f2c1-aaaa-7bbb-8ccc-dddddddddddd";
const OTHER: &str = "0199f2c1-aaaa-7bbb-8ccc-eeeeeeeeeeee";

/// A request for `post-invoices` by client certificate, with this beside.
fn by_certificate<'a>(beside: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    [&[("grant_type", "client_credentials"), ("scope", "task:post-invoices")], beside].concat()
}

#[tokio::test]
async fn life_run_request_and_renewal_are_named_as_over_grpc_and_recorded() {
    let deployment = Deployment::start().await;
    let web = Web::of(&deployment, Some(&deployment.workload(NIGHTLY)), true);
    let first = issue(&deployment.service().await, task("post-invoices")).await.unwrap();
    let beside = [
        ("ttl", "60"),
        ("run", "JOB-88123"),
        ("request_id", REQUEST),
        ("supersedes", first.credential_id.as_str()),
    ];
    let said = web.post("/token", &by_certificate(&beside)).await;
    assert_eq!((said.status, &said.body["expires_in"]), (200, &json!(60)), "{said:?}");
    assert_eq!(said.headers["daypass-request-id"], REQUEST);
    let (_, claims) = claims_of(said.token());
    let issued = deployment.issued(claims["jti"].as_str().unwrap()).await;
    assert_eq!(issued.asked.run.as_deref(), Some("JOB-88123"));
    assert_eq!(issued.asked.ttl_s.map(|ttl| ttl.get()), Some(60));
    assert_eq!(issued.credential.supersedes, Some(first.receipt.unwrap().entry.unwrap().index));
    assert_eq!(deployment.explain(REQUEST).await.reason, "ISSUED");

    let longer = web.post("/token", &by_certificate(&[("ttl", "99999999999999")])).await;
    let ceiling = longer.body["expires_in"].as_i64().unwrap();
    assert!(ceiling < 86_400, "less was granted, and the answer says how much: {ceiling}");
}

#[tokio::test]
async fn a_request_id_buys_one_token_by_whichever_way_it_comes_again() {
    let deployment = Deployment::start().await;
    let web = Web::of(&deployment, Some(&deployment.workload(NIGHTLY)), true);
    let form = by_certificate(&[("request_id", REQUEST)]);
    assert_eq!(web.post("/token", &form).await.status, 200);
    let again = web.post("/token", &form).await;
    assert_eq!(again.refusal(), (400, "invalid_request", "ALREADY_ISSUED"));
    assert_eq!(
        (again.body["request_id"].as_str(), &again.headers["daypass-request-id"]),
        (Some(REQUEST), &REQUEST.parse().unwrap())
    );

    let service = deployment.service().await;
    let over_grpc = |id: &str| pb::IssueRequest { request_id: id.into(), ..task("post-invoices") };
    assert_eq!(issue(&service, over_grpc(REQUEST)).await.unwrap_err().reason, "ALREADY_ISSUED");
    issue(&service, over_grpc(OTHER)).await.unwrap();
    let said = web.post("/token", &by_certificate(&[("request_id", OTHER)])).await;
    assert_eq!(said.refusal().2, "ALREADY_ISSUED");
}

#[tokio::test]
async fn a_parameter_that_cannot_be_taken_is_named_with_what_was_expected_and_nothing_is_spent() {
    let deployment = Deployment::start().await;
    let web = Web::of(&deployment, Some(&possession().unwrap()), true);
    let proof = deployment.organisation.token(CI, NIGHTLY).unwrap();
    let long = "x".repeat(129);
    let table = [
        ("ttl", "0", "whole number of seconds"),
        ("ttl", "-5", "whole number of seconds"),
        ("ttl", "+5", "whole number of seconds"),
        ("ttl", "5.0", "whole number of seconds"),
        ("ttl", "5m", "whole number of seconds"),
        ("ttl", " 5", "whole number of seconds"),
        ("ttl", "99999999999999999999", "whole number of seconds"),
        ("run", &long, "128 bytes"),
        ("request_id", "job-7", "expected"),
        ("supersedes", "the one before", "expected"),
        ("supersedes", "0199f2c1-0000-7000-8000-000000000000", "leave it empty"),
    ];
    let form = exchange(&proof, "task:post-invoices");
    for (name, value, expected) in table {
        let said = web.post("/token", &[&form[..], &[(name, value)]].concat()).await;
        let reason = if expected == "leave it empty" { "NOT_FOUND" } else { "MALFORMED" };
        assert_eq!(said.refusal(), (400, "invalid_request", reason), "{name}={value}: {said:?}");
        let told = said.body["error_description"].as_str().unwrap();
        assert!(told.contains(&format!("`{name}`")) && told.contains(expected), "{name}={value}: {told}");
    }
    for name in ["ttl", "run", "request_id", "supersedes"] {
        let twice = [&form[..], &[(name, REQUEST), (name, REQUEST)]].concat();
        let said = web.post("/token", &twice).await;
        assert_eq!(said.refusal(), (400, "invalid_request", "MALFORMED"), "{name} twice");
        let told = said.body["error_description"].as_str().unwrap();
        assert!(told.contains(&format!("`{name}`")) && told.contains("once"), "{told}");
    }
    assert_eq!(web.post("/token", &form).await.status, 200, "the proof is still good");
}

#[tokio::test]
async fn one_identity_has_one_rate_by_whichever_way_it_asks() {
    let mut deployment = Deployment::stopped(daypass_broker::dev::organisation::sample()).await;
    deployment.settings.rates.issue_per_s = 1;
    deployment.settings.rates.issue_burst = 2;
    deployment.resume().await.unwrap();
    let web = Web::of(&deployment, Some(&deployment.workload(NIGHTLY)), true);
    let service = deployment.service().await;
    let form = [("grant_type", "client_credentials"), ("scope", "task:nothing")];
    eventually("too fast", || async {
        drop(issue(&service, task("nothing")).await);
        let said = web.post("/token", &form).await;
        said.refusal() == (429, "temporarily_unavailable", "RATE_LIMITED")
            && said.headers.contains_key("retry-after")
    })
    .await;
}

#[tokio::test]
async fn metadata_names_what_is_there() {
    let deployment = Deployment::start().await;
    let web = Web::of(&deployment, None, true);
    let get = |path: String| async move {
        web.client.get(path).send().await.unwrap().json::<Value>().await.unwrap()
    };
    let url = deployment.settings.issuer.as_str();
    let metadata = get(format!("{url}/.well-known/oauth-authorization-server")).await;
    assert_eq!(metadata["grant_types_supported"], json!([EXCHANGE, "client_credentials"]));
    let endpoints = metadata.as_object().unwrap().iter().filter(|(name, _)| name.ends_with("_endpoint"));
    let endpoints: Vec<_> = endpoints.collect();
    assert_eq!(endpoints.len(), metadata["mtls_endpoint_aliases"].as_object().unwrap().len());
    let strangers = Web::of(&deployment, None, false);
    for (name, at) in endpoints {
        let path = at.as_str().unwrap().strip_prefix(url).unwrap();
        let said = strangers.post(path, &[]).await;
        assert!(matches!(said.status, 400 | 401), "{name} is there: {said:?}");
        assert!(metadata[format!("{name}_auth_methods_supported")].is_array(), "{name}");
        assert_eq!(&metadata["mtls_endpoint_aliases"][name], at);
    }
}
