//! What others' programs make of what is issued: they know nothing of Daypass.

use std::path::{Path, PathBuf};

use daypass_broker::dev::caller::Caller;
use daypass_proto::v1 as pb;
use daypass_proto::v1::issue_request::Credential as Wanted;
use daypass_tests::harness::{
    Deployment, Output, certificate_of, issue, program, python, run, run_with, task, token_of,
};
use rcgen::{CertificateParams, KeyPair};

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("stock").join(name)
}

async fn check_token(deployment: &Deployment, token: &str, audience: &str) -> Output {
    check_token_by(deployment, token, audience, "ES256").await
}

/// What PyJWT and joserfc say of a token that they expect to be signed by `alg`.
pub(crate) async fn check_token_by(
    deployment: &Deployment,
    token: &str,
    audience: &str,
    alg: &str,
) -> Output {
    let issuer = deployment.settings.issuer.as_str();
    let (script, ca) = (script("verify_token.py"), deployment.listener_ca.to_str().unwrap());
    let arguments = [script.to_str().unwrap(), issuer, audience, ca, alg];
    run_with(python(), arguments, token.as_bytes()).await
}

#[tokio::test]
async fn pyjwt_and_joserfc_verify_a_token_by_the_published_keys() {
    let deployment = Deployment::start().await;
    let answer = issue(&deployment.job().await, task("post-invoices")).await.unwrap();
    let token = token_of(&answer);
    let checked = check_token(&deployment, token, "https://ledger.example.org").await;
    assert_eq!(checked.code, Some(0), "{}", checked.stderr);
    let claims: serde_json::Value = serde_json::from_str(&checked.stdout).unwrap();
    assert_eq!(claims["jti"], answer.credential_id);

    assert_ne!(
        check_token(&deployment, token, "https://other.example.org").await.code,
        Some(0),
        "another audience"
    );
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let (head, claims) = signed.split_once('.').unwrap();
    let first = if claims.starts_with('e') { 'f' } else { 'e' };
    let changed = format!("{head}.{first}{}.{signature}", &claims[1..]);
    assert_ne!(
        check_token(&deployment, &changed, "https://ledger.example.org").await.code,
        Some(0),
        "changed claims"
    );
}

/// Leaf, issuing CA and root of a certificate for `name`, each as a PEM file in the deployment's folder.
async fn certificate(deployment: &Deployment, caller: &Caller, name: &str) -> [String; 3] {
    let csr = CertificateParams::default().serialize_request(&KeyPair::generate().unwrap()).unwrap();
    let wanted = pb::CertificateParameters { csr: csr.der().to_vec().into(), ..Default::default() };
    let credential = Some(Wanted::Certificate(wanted));
    let wanted = pb::IssueRequest { credential, ..task(name) };
    let chain = certificate_of(&issue(caller, wanted).await.unwrap());
    let write = |part: &str, der: &[u8]| {
        let path = deployment.folder().join(format!("{name}-{part}"));
        std::fs::write(&path, pem::encode(&pem::Pem::new("CERTIFICATE", der))).unwrap();
        path.to_str().unwrap().to_owned()
    };
    [write("leaf.pem", &chain[0]), write("ca.pem", &chain[1]), write("root.pem", &deployment.root)]
}

#[tokio::test]
async fn openssl_verifies_a_certificate_for_clients_alone() {
    let deployment = Deployment::start().await;
    let frontend = deployment.organisation.token("cluster", "prod/web/frontend").unwrap();
    let svid = certificate(&deployment, &deployment.bound(frontend).await, "mesh-identity").await;
    let common_name = certificate(&deployment, &deployment.service().await, "ledger-db").await;
    for files in [svid, common_name] {
        check_certificate(&deployment, files).await;
    }
}

async fn check_certificate(deployment: &Deployment, [leaf, ca, root]: [String; 3]) {
    let verify = |purpose: &'static str, roots: String| {
        let (leaf, ca) = (leaf.clone(), ca.clone());
        async move {
            let arguments =
                ["verify", "-x509_strict", "-purpose", purpose, "-CAfile", &roots, "-untrusted", &ca, &leaf];
            run("openssl", arguments).await
        }
    };
    let verified = verify("sslclient", root.clone()).await;
    assert_eq!(verified.code, Some(0), "{}{}", verified.stdout, verified.stderr);
    assert_ne!(verify("smimesign", root).await.code, Some(0), "for another purpose");
    let others = deployment.listener_ca.to_str().unwrap().to_owned();
    assert_ne!(verify("sslclient", others).await.code, Some(0), "under another root");
}

#[tokio::test]
async fn openssl_reaches_the_listeners_over_tls_1_3_alone() {
    let deployment = Deployment::start().await;
    let ca = deployment.listener_ca.to_str().unwrap().to_owned();
    for port in [deployment.broker().api.port(), deployment.broker().web.port()] {
        let connect = |version: &'static str| {
            let (at, ca) = (format!("127.0.0.1:{port}"), ca.clone());
            async move {
                let verified = ["-verify_return_error", "-verify_ip", "127.0.0.1", "-alpn", "h2"];
                let arguments = ["s_client", "-connect", &at, "-CAfile", &ca, version];
                run("openssl", arguments.into_iter().chain(verified)).await
            }
        };
        let reached = connect("-tls1_3").await;
        assert_eq!(reached.code, Some(0), "{}", reached.stderr);
        assert!(reached.stdout.contains("ALPN protocol: h2"), "{}", reached.stdout);
        assert_ne!(connect("-tls1_2").await.code, Some(0), "TLS 1.2");
    }
}

#[tokio::test]
async fn a_few_lines_of_python_recompute_the_root_of_the_log() {
    let deployment = Deployment::start().await;
    let service = deployment.service().await;
    for _ in 0..5 {
        issue(&service, task("post-invoices")).await.unwrap();
    }
    let profile = deployment.operators_profile();
    let daypass = |arguments: &'static [&'static str]| {
        let common = ["--config".to_owned(), profile.to_str().unwrap().to_owned()];
        let arguments: Vec<String> =
            common.into_iter().chain(arguments.iter().map(ToString::to_string)).collect();
        async move { run(program("daypass"), arguments).await }
    };
    let checkpoint = daypass(&["log", "checkpoint"]).await;
    let entries = daypass(&["log", "--format", "ndjson"]).await;
    assert_eq!(
        (checkpoint.code, entries.code),
        (Some(0), Some(0)),
        "{}{}",
        checkpoint.stderr,
        entries.stderr
    );
    let write = |name: &str, text: &str| {
        let path = deployment.folder().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (note, lines) = (write("checkpoint", &checkpoint.stdout), write("entries.ndjson", &entries.stdout));
    let merkle = script("merkle.py").to_str().unwrap().to_owned();
    let computed = run("python3", [&merkle, &lines, &note]).await;
    assert_eq!(computed.code, Some(0), "{}", computed.stderr);

    let spoiled =
        write("spoiled.ndjson", &entries.stdout.replacen("\"broker\":\"b1\"", "\"broker\":\"b2\"", 1));
    assert_eq!(run("python3", [&merkle, &spoiled, &note]).await.code, Some(1), "one letter changed");

    let vkey = deployment.log_key.to_string();
    let signature = script("note.py").to_str().unwrap().to_owned();
    let signed = run(python(), [&signature, &note, &vkey]).await;
    assert_eq!(signed.code, Some(0), "{}", signed.stderr);
    let size = checkpoint.stdout.lines().nth(1).unwrap();
    let forged =
        write("forged", &checkpoint.stdout.replacen(&format!("\n{size}\n"), &format!("\n{size}0\n"), 1));
    assert_ne!(run(python(), [&signature, &forged, &vkey]).await.code, Some(0), "another size");
}
