//! Stock OAuth clients, unchanged and from their registries: they know nothing of Daypass.

use std::path::Path;

use daypass_broker::dev::organisation::sample;
use daypass_broker::dev::workload_ca::WorkloadCertificate;
use daypass_core::bundle::SourceFile;
use daypass_tests::harness::{
    CI, Deployment, NIGHTLY, claims_of, in_pem, node, python, run, run_with, spiffe_id,
};
use serde_json::{Value, json};

const LEDGER: &str = "https://ledger.example.org";

/// Who keeps the ledger, and may ask whether what it is shown still lives.
const LEDGER_API: &str = "prod/ledger/api";

/// The sample organisation with a service behind the ledger.
fn with_ledger() -> Vec<SourceFile> {
    let mut files = sample();
    let targets = files.iter_mut().find(|file| file.path == "targets.toml").unwrap();
    let with = format!("[target.ledger]\nserved_by = [\"{LEDGER_API}\"]\n");
    targets.text = targets.text.replacen("[target.ledger]\n", &with, 1);
    let text = format!(
        r#"[identity."{LEDGER_API}"]
        class = "service"
        privilege = "low"
        purpose = "keeps the ledger"
        business_owner = "finance"
        technical_owner = "platform"
        environment = "prod"
        expires = 2027-11-30
        review_every = "90d"
        proofs = [{{ issuer = "workloads", spiffe_id = "spiffe://example.org/{LEDGER_API}" }}]
        "#
    );
    files.push(SourceFile { path: "identities/ledger.toml".into(), text });
    files
}

fn pem(certificate: &WorkloadCertificate) -> Value {
    let (cert, key) = in_pem(certificate);
    json!({ "cert": cert, "key": key })
}

async fn by_node(deployment: &Deployment, script: &str) -> Value {
    let (workload, serving) = (deployment.workload(NIGHTLY), deployment.workload(LEDGER_API));
    let given = json!({
        "issuer": deployment.settings.issuer.as_str(),
        "ca": std::fs::read_to_string(&deployment.listener_ca).unwrap(),
        "audience": LEDGER,
        "clientId": spiffe_id(NIGHTLY), "servingId": spiffe_id(LEDGER_API),
        "subjectToken": deployment.organisation.token(CI, NIGHTLY).unwrap(),
        "workload": pem(&workload), "serving": pem(&serving),
    });
    let scripts = node(deployment.folder());
    let script = scripts.join(script);
    let said = run_with("node", [script.to_str().unwrap()], given.to_string().as_bytes()).await;
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    serde_json::from_str(&said.stdout).unwrap()
}

#[tokio::test]
async fn oauth4webapi_discovers_exchanges_validates_introspects_and_revokes() {
    let deployment = Deployment::start_with(with_ledger(), |_| {}).await;
    let said = by_node(&deployment, "oauth4webapi.mjs").await;
    let issuer = deployment.settings.issuer.as_str();
    assert_eq!(said["issuers"], json!([issuer, issuer]));
    assert_eq!((&said["asked"], &said["again"]), (&json!("invalid_scope"), &json!("invalid_request")));
    let token = said["exchanged"]["access_token"].as_str().unwrap();
    assert_eq!(said["claims"], claims_of(token).1, "it validated what was issued (RFC 9068)");
    assert_ne!(said["elsewhere"], "not refused");
    let bound = claims_of(said["bound"]["access_token"].as_str().unwrap()).1;
    assert!(bound["cnf"]["x5t#S256"].is_string());
    check_introspected(&said["alive"], &bound);
    assert_eq!(said["garbage"], json!({ "active": false }));
    assert_eq!(said["after"], json!({ "active": false }), "given up");
}

#[tokio::test]
async fn openid_client_discovers_exchanges_introspects_and_revokes() {
    let deployment = Deployment::start_with(with_ledger(), |_| {}).await;
    let said = by_node(&deployment, "openid_client.mjs").await;
    assert_eq!(said["issuer"], deployment.settings.issuer.as_str());
    assert_eq!(claims_of(said["exchanged"]["access_token"].as_str().unwrap()).1["aud"], LEDGER);
    assert_eq!(said["again"], "invalid_request");
    check_introspected(&said["alive"], &claims_of(said["bound"]["access_token"].as_str().unwrap()).1);
    assert_eq!(said["after"], json!({ "active": false }), "given up");
}

/// The claims of the token, and two members of RFC 7662's.
fn check_introspected(said: &Value, claims: &Value) {
    let mut expected = claims.clone();
    expected["active"] = true.into();
    expected["token_type"] = "Bearer".into();
    assert_eq!(said, &expected);
}

#[tokio::test]
async fn an_identity_pool_of_google_auth_gets_a_token() {
    let deployment = Deployment::start().await;
    let proof = deployment.folder().join("id-token");
    std::fs::write(&proof, deployment.organisation.token(CI, NIGHTLY).unwrap()).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("stock/google_identity_pool.py");
    let [script, ca, proof] =
        [&script, &deployment.listener_ca, &proof].map(|path| path.to_str().unwrap().to_owned());
    let issuer = deployment.settings.issuer.as_str();
    let said = run(python(), [&script, issuer, &ca, &proof, LEDGER, "task:read-invoices"]).await;
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    let claims = claims_of(said.stdout.trim_end()).1;
    assert_eq!((&claims["aud"], &claims["sub"]), (&json!(LEDGER), &json!(spiffe_id(NIGHTLY))));
}

/// The examples of `docs/oauth.md`, one after the other, in one folder.
#[tokio::test]
async fn the_page_for_oauth_clients_runs_as_it_stands() {
    let deployment = Deployment::start_with(with_ledger(), |_| {}).await;
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/oauth.md");
    let page = std::fs::read_to_string(page).unwrap();
    let examples: Vec<&str> =
        page.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert_eq!(examples.len(), 5, "the examples that are checked here");
    let folder = deployment.folder().join("page");
    std::fs::create_dir(&folder).unwrap();
    let (cert, key) = in_pem(&deployment.workload(NIGHTLY));
    std::fs::write(folder.join("cert.pem"), cert).unwrap();
    std::fs::write(folder.join("key.pem"), key).unwrap();
    let mut said = Vec::new();
    for example in examples {
        std::fs::write(folder.join("id-token"), deployment.organisation.token(CI, NIGHTLY).unwrap()).unwrap();
        let settings = format!(
            "set -eu; cd {}; ISSUER={}; CA={}; ID_TOKEN_FILE=id-token; CERT=cert.pem; KEY=key.pem\n",
            folder.display(),
            deployment.settings.issuer.as_str(),
            deployment.listener_ca.display()
        );
        let ended = run("sh", ["-c", &format!("{settings}{example}")]).await;
        assert_eq!(ended.code, Some(0), "{example}{}", ended.stderr);
        let answer: Value = serde_json::from_str(&ended.stdout).unwrap_or_default();
        if let Some(token) = answer["access_token"].as_str() {
            std::fs::write(folder.join("token"), token).unwrap();
        }
        said.push(answer);
    }
    let scopes: Vec<_> = said[..3].iter().map(|it| it["scope"].as_str().unwrap_or_default()).collect();
    let all = "task:post-invoices invoice:read invoice:write";
    assert_eq!(scopes, ["task:read-invoices invoice:read", all, all], "{said:?}");
    assert_eq!(said[3]["active"], true, "{said:?}");
    assert_eq!(said[4], Value::Null, "nothing is said of what is given up");
}
