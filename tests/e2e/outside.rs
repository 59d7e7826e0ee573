//! What anyone sees from outside: the published documents, health, and the program `daypass`.

use daypass_evidence::checkpoint::Checkpoint;
use daypass_tests::harness::{Deployment, Output, claims_of, issue, program, run, task, token_of};
use serde_json::Value;

async fn curl(deployment: &Deployment, path: &str, more: &[&str]) -> Output {
    let url = format!("{}{path}", deployment.settings.issuer.as_str());
    let ca = deployment.listener_ca.to_str().unwrap();
    let common = ["--silent", "--show-error", "--noproxy", "*", "--cacert", ca, &url];
    run("curl", common.into_iter().chain(more.iter().copied())).await
}

async fn document(deployment: &Deployment, path: &str) -> Value {
    let fetched = curl(deployment, path, &["--fail"]).await;
    assert_eq!(fetched.code, Some(0), "{path}: {}", fetched.stderr);
    serde_json::from_str(&fetched.stdout).unwrap()
}

#[tokio::test]
async fn what_a_receiver_needs_is_published() {
    let deployment = Deployment::start().await;
    let issuer = deployment.settings.issuer.as_str();
    let metadata = document(&deployment, "/.well-known/openid-configuration").await;
    assert_eq!(metadata["issuer"], issuer);
    assert_eq!(metadata["jwks_uri"], format!("{issuer}/jwks"));
    assert_eq!(document(&deployment, "/.well-known/oauth-authorization-server").await, metadata);

    let answer = issue(&deployment.job().await, task("post-invoices")).await.unwrap();
    let kid = claims_of(token_of(&answer)).0["kid"].clone();
    let keys = document(&deployment, "/jwks").await;
    let named = keys["keys"].as_array().unwrap().iter().filter(|key| key["kid"] == kid).count();
    assert_eq!(named, 1);
    assert!(!keys.to_string().contains("\"d\""), "no private member");

    let bundle = document(&deployment, "/bundle").await;
    let uses: Vec<&str> =
        bundle["keys"].as_array().unwrap().iter().filter_map(|key| key["use"].as_str()).collect();
    assert!(uses.contains(&"x509-svid") && uses.contains(&"jwt-svid"), "{uses:?}");

    let note = curl(&deployment, "/checkpoint", &["--fail"]).await.stdout;
    Checkpoint::open(note.as_bytes(), &deployment.log_key).unwrap();
}

#[tokio::test]
async fn no_header_of_a_caller_has_a_say_in_what_is_published() {
    let deployment = Deployment::start().await;
    let plain = document(&deployment, "/.well-known/openid-configuration").await;
    for header in
        ["x-forwarded-host: evil.example", "x-forwarded-proto: http", "forwarded: host=evil.example"]
    {
        let fetched =
            curl(&deployment, "/.well-known/openid-configuration", &["--fail", "--header", header]).await;
        assert_eq!(serde_json::from_str::<Value>(&fetched.stdout).unwrap(), plain, "{header}");
    }
    let status = ["--output", "/dev/null", "--write-out", "%{http_code}", "--header", "host: evil.example"];
    assert_eq!(curl(&deployment, "/.well-known/openid-configuration", &status).await.stdout, "421");
}

#[tokio::test]
async fn entries_are_never_public() {
    let deployment = Deployment::start().await;
    let status = ["--output", "/dev/null", "--write-out", "%{http_code}"];
    for path in [
        "/",
        "/entries",
        "/tile/entries/000",
        "/tile/entries/000.p/1",
        "/metrics",
        "/healthz",
        "/../etc/passwd",
    ] {
        assert_eq!(curl(&deployment, path, &status).await.stdout, "404", "{path}");
    }
}

#[tokio::test]
async fn health_is_told_to_all_and_readiness_and_metrics_to_this_machine() {
    let deployment = Deployment::start().await;
    assert!(deployment.sdk().is_serving().await.unwrap());
    issue(&deployment.service().await, task("post-invoices")).await.unwrap();
    let at = deployment.broker().ops.port();
    let get = |path: &'static str| async move {
        run("curl", ["--silent", "--fail", "--noproxy", "*", &format!("http://127.0.0.1:{at}{path}")]).await
    };
    assert_eq!(get("/healthz").await.code, Some(0));
    assert_eq!(serde_json::from_str::<Value>(&get("/readyz").await.stdout).unwrap()["ready"], true);
    assert!(get("/metrics").await.stdout.contains("daypass_issue_total"));
}

#[tokio::test]
async fn without_a_bundle_a_broker_is_not_ready() {
    let mut deployment = Deployment::without_bundle().await;
    deployment.resume().await.unwrap();
    let at = deployment.broker().ops.port();
    let ready = run("curl", ["--silent", "--noproxy", "*", &format!("http://127.0.0.1:{at}/readyz")]).await;
    let ready: Value = serde_json::from_str(&ready.stdout).unwrap();
    assert_eq!(
        (&ready["ready"], &ready["reasons"][0]["part"]),
        (&Value::Bool(false), &Value::from("bundle"))
    );
    let refused = issue(&deployment.service().await, task("post-invoices")).await.unwrap_err();
    assert_eq!((refused.code, refused.reason.as_str()), (tonic::Code::Unavailable, "HALTED"));
}

async fn daypass(config: &std::path::Path, arguments: &[&str]) -> Output {
    let config = ["--config", config.to_str().unwrap()];
    run(program("daypass"), config.into_iter().chain(arguments.iter().copied())).await
}

#[tokio::test]
async fn the_program_gets_a_token_and_prints_nothing_else() {
    let deployment = Deployment::start().await;
    let profile = deployment.services_profile();
    let got = daypass(&profile, &["get", "post-invoices"]).await;
    assert_eq!(got.code, Some(0), "{}", got.stderr);
    let (_, claims) = claims_of(got.stdout.trim_end());
    assert_eq!(claims["sub"], "spiffe://example.org/prod/billing/nightly");
    assert_eq!(got.stdout.lines().count(), 1);
}

#[tokio::test]
async fn the_program_gets_a_certificate_whose_key_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let deployment = Deployment::start().await;
    let out = deployment.folder().join("ledger-db");
    let got =
        daypass(&deployment.services_profile(), &["get", "ledger-db", "--out", out.to_str().unwrap()]).await;
    assert_eq!(got.code, Some(0), "{}", got.stderr);
    let mode = std::fs::metadata(out.join("tls.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let path = |name: &str| out.join(name).to_str().unwrap().to_owned();
    let (ca, chain) = (path("ca.crt"), path("tls.crt"));
    let verified =
        run("openssl", ["verify", "-purpose", "sslclient", "-CAfile", &ca, "-untrusted", &chain, &chain])
            .await;
    assert_eq!(verified.code, Some(0), "{}", verified.stderr);
}

#[tokio::test]
async fn the_program_says_by_its_exit_code_how_it_went() {
    let mut deployment = Deployment::start().await;
    let (service, operator) = (deployment.services_profile(), deployment.operators_profile());
    let refused = daypass(&service, &["get", "deploy-web"]).await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("TASK_NOT_ALLOWED"), "{}", refused.stderr);
    assert_eq!(daypass(&service, &["get", "Post Invoices"]).await.code, Some(2));
    let verified = daypass(&operator, &["log", "verify"]).await;
    assert_eq!(verified.code, Some(0), "{verified:?}");
    deployment.stop().await;
    assert_eq!(daypass(&service, &["get", "post-invoices"]).await.code, Some(3));
}

#[tokio::test]
async fn the_program_shows_what_a_credential_is_and_why_there_was_none() {
    let deployment = Deployment::start().await;
    let (service, operator) = (deployment.services_profile(), deployment.operators_profile());
    let token = daypass(&service, &["get", "post-invoices"]).await.stdout;
    let (_, claims) = claims_of(token.trim_end());
    let file = deployment.folder().join("token");
    std::fs::write(&file, token).unwrap();
    let inspected = daypass(&service, &["inspect", file.to_str().unwrap()]).await;
    assert_eq!(inspected.code, Some(0), "{}", inspected.stderr);
    assert!(inspected.stdout.contains(claims["jti"].as_str().unwrap()), "{}", inspected.stdout);

    let refused = issue(&deployment.service().await, task("deploy-web")).await.unwrap_err();
    let explained = daypass(&operator, &["explain", &refused.request_id]).await;
    assert_eq!(explained.code, Some(0), "{}", explained.stderr);
    assert!(explained.stdout.contains("TASK_NOT_ALLOWED"), "{}", explained.stdout);
    let hidden = daypass(&service, &["explain", &refused.request_id]).await;
    assert_eq!(hidden.code, Some(1), "{hidden:?}");

    let listed = daypass(&operator, &["log", "--format", "json", "--kind", "credential.issued"]).await;
    let first: Value = serde_json::from_str(listed.stdout.lines().next().unwrap()).unwrap();
    assert_eq!(first["entry"]["id"], claims["jti"]);
}
