//! RSA keys that operators bring, for receivers that take RS256 and nothing else.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use daypass_broker::dev::organisation::sample;
use daypass_core::bundle::SourceFile;
use daypass_evidence::entry::{Body, KeyChanged, KeyState};
use daypass_proto::v1 as pb;
use daypass_tests::harness::{
    Deployment, Output, claims_of, eventually, issue, program, run, task, token_of,
};
use daypass_verify::time::Seconds;
use serde_json::Value;

use super::stock::check_token_by;

const AUDIENCE: &str = "https://ledger.example.org";

/// The sample organisation, where the ledger takes RS256 alone.
fn ledger_takes_rs256() -> Vec<SourceFile> {
    let mut files = sample();
    let tasks = files.iter_mut().find(|file| file.path == "tasks.toml").unwrap();
    let at = "[task.post-invoices]\n";
    assert!(tasks.text.contains(at));
    tasks.text = tasks.text.replace(at, &format!("{at}alg = \"RS256\"\n"));
    files
}

/// A deployment whose keys need be known for six seconds before they sign.
async fn deployment() -> Deployment {
    let mut deployment = Deployment::stopped(ledger_takes_rs256()).await;
    deployment.settings.lifetimes.ahead = Seconds::new(6);
    deployment.resume().await.unwrap();
    deployment
}

async fn openssl(arguments: &[&str]) {
    let made = run("openssl", arguments).await;
    assert_eq!(made.code, Some(0), "{}", made.stderr);
}

/// A new RSA key in the form that is taken.
async fn rsa(folder: &Path, name: &str, bits: u32, more: &[&str]) -> PathBuf {
    let path = folder.join(name);
    let bits = format!("rsa_keygen_bits:{bits}");
    let out = path.to_str().unwrap();
    openssl(&[&["genpkey", "-algorithm", "RSA", "-pkeyopt", &bits, "-out", out], more].concat()).await;
    owners_alone(&path);
    path
}

fn owners_alone(path: &Path) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// `daypass-broker import-key` beside the broker that serves.
async fn import(deployment: &Deployment, key: &Path, more: &[&str]) -> Output {
    let config = deployment.config_file();
    let text = std::fs::read_to_string(&config).unwrap().replace("[keys]\n", "[keys]\nahead_s = 6\n");
    std::fs::write(&config, text).unwrap();
    let common = ["import-key", "--config", config.to_str().unwrap(), "--key", key.to_str().unwrap()];
    run(program("daypass-broker"), common.into_iter().chain(more.iter().copied())).await
}

async fn imported(deployment: &Deployment) -> Vec<KeyChanged> {
    let entries = deployment.entries().await.into_iter();
    let imported = entries.filter_map(|(_, entry)| match entry.body {
        Body::KeyChanged(key) if key.origin == "imported" => Some(*key),
        _ => None,
    });
    imported.collect()
}

#[tokio::test]
async fn a_task_that_needs_rs256_gets_tokens_that_pyjwt_verifies_by_the_published_key() {
    let deployment = deployment().await;
    let service = deployment.service().await;
    let refused = issue(&service, task("post-invoices")).await.unwrap_err();
    assert_eq!(refused.reason, "HALTED", "nobody brought a key yet: {refused:?}");
    let missing =
        || async { deployment.broker().log().state().alarms().any(|(_, it)| it.code == "KEY_MISSING") };
    eventually("operators are told", missing).await;

    let file = rsa(deployment.folder(), "rsa.pem", 2048, &[]).await;
    let dry = import(&deployment, &file, &["--dry-run"]).await;
    assert_eq!(dry.code, Some(0), "{}", dry.stderr);
    assert_eq!(imported(&deployment).await, [], "{}", dry.stdout);
    let done = import(&deployment, &file, &["--days", "90"]).await;
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    let [key] = imported(&deployment).await.try_into().unwrap();
    eventually("it is not missed any more", || async { !missing().await }).await;
    assert!(done.stdout.contains(key.key.as_str()), "{}", done.stdout);
    assert_eq!((key.alg.as_str(), key.state), ("RS256", KeyState::Prepared));
    assert_eq!(key.sign_until_ms.millis_since(key.sign_from_ms), 90 * 86_400_000);
    assert!(key.sign_from_ms.millis_since(key.publish_from_ms) > 6_000, "published before it signs");

    let url = format!("{}/jwks", deployment.settings.issuer.as_str());
    let ca = deployment.listener_ca.to_str().unwrap();
    let shown = || async {
        let fetched = run("curl", ["--silent", "--noproxy", "*", "--cacert", ca, &url]).await;
        let keys: Value = serde_json::from_str(&fetched.stdout).unwrap();
        let keys = keys["keys"].as_array().unwrap().clone();
        keys.into_iter().find(|jwk| jwk["kid"] == key.key.as_str())
    };
    eventually("it is published", || async { shown().await.is_some() }).await;
    let jwk = shown().await.unwrap();
    assert_eq!((&jwk["alg"], &jwk["kty"], &jwk["use"]), (&"RS256".into(), &"RSA".into(), &"sig".into()));
    assert!(jwk.get("d").is_none());
    assert!(issue(&service, task("post-invoices")).await.is_err(), "not everybody can know it yet");

    tokio::time::sleep(Duration::from_secs(8)).await;
    let answer = issue(&service, task("post-invoices")).await.unwrap();
    let token = token_of(&answer);
    let (header, _) = claims_of(token);
    assert_eq!((&header["alg"], &header["kid"]), (&"RS256".into(), &key.key.as_str().into()));
    let checked = check_token_by(&deployment, token, AUDIENCE, "RS256").await;
    assert_eq!(checked.code, Some(0), "{}", checked.stderr);
    let confused = check_token_by(&deployment, token, AUDIENCE, "ES256").await;
    assert_ne!(confused.code, Some(0), "another algorithm");
    let (signed, _) = token.rsplit_once('.').unwrap();
    let forged = format!("{signed}.{}", "A".repeat(342));
    assert_ne!(check_token_by(&deployment, &forged, AUDIENCE, "RS256").await.code, Some(0), "no signature");
    deployment.sdk().issue(daypass_sdk::IssueRequest::token("post-invoices".parse().unwrap())).await.unwrap();

    // Others are signed as before, and a second import takes over from the first.
    let other =
        issue(&service, pb::IssueRequest { audiences: vec![AUDIENCE.into()], ..task("read-invoices") });
    assert_eq!(claims_of(token_of(&other.await.unwrap())).0["alg"], "ES256");
    let again = import(&deployment, &file, &[]).await;
    assert_eq!(again.code, Some(1), "{}", again.stdout);
    assert!(again.stderr.contains("is in the log already"), "{}", again.stderr);
    let second = rsa(deployment.folder(), "second.pem", 3072, &[]).await;
    let done = import(&deployment, &second, &[]).await;
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    let all = imported(&deployment).await;
    let (next, first) = (&all[1], &all[2]);
    assert_eq!((&first.key, first.sign_until_ms), (&key.key, next.sign_from_ms));
}

#[tokio::test]
async fn a_key_that_is_weak_or_in_another_form_is_refused_with_what_to_do() {
    let deployment = deployment().await;
    let folder = deployment.folder();
    let at = |name: &str| folder.join(name);
    let good = rsa(folder, "good.pem", 2048, &[]).await;
    let good = good.to_str().unwrap();
    let exponent = ["-pkeyopt", "rsa_keygen_pubexp:3"];
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    openssl(&["rsa", "-in", good, "-traditional", "-out", &text(&at("pkcs1"))]).await;
    openssl(&["pkcs8", "-topk8", "-in", good, "-passout", "pass:x", "-out", &text(&at("encrypted"))]).await;
    openssl(&["pkey", "-in", good, "-pubout", "-out", &text(&at("public"))]).await;
    openssl(&["pkcs8", "-topk8", "-nocrypt", "-in", good, "-outform", "DER", "-out", &text(&at("der"))])
        .await;
    let curve = ["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out"];
    openssl(&[&curve[..], &[&text(&at("curve"))]].concat()).await;
    std::fs::write(at("nothing"), "nothing").unwrap();
    std::fs::copy(good, at("open")).unwrap();
    let before = deployment.acts().await;
    let mut refused = vec![
        (rsa(folder, "1024", 1024, &[]).await, "2048 to 4096 bits"),
        (rsa(folder, "exponent", 2048, &exponent).await, "exponent 65537"),
        (at("absent"), "could not be read"),
    ];
    for (name, said) in [
        ("pkcs1", "openssl pkcs8 -topk8"),
        ("encrypted", "openssl pkcs8 -topk8"),
        ("public", "no private key in PEM"),
        ("der", "no private key in PEM"),
        ("curve", "no RSA key"),
        ("nothing", "no private key in PEM"),
    ] {
        owners_alone(&at(name));
        refused.push((at(name), said));
    }
    std::fs::set_permissions(at("open"), std::fs::Permissions::from_mode(0o640)).unwrap();
    refused.push((at("open"), "chmod 600"));
    for (path, said) in refused {
        let answered = import(&deployment, &path, &[]).await;
        assert_eq!(answered.code, Some(1), "{path:?}: {}", answered.stdout);
        assert!(answered.stderr.contains(said), "{path:?}: {}", answered.stderr);
    }
    let written = &deployment.entries().await[before..];
    assert!(!written.iter().any(|(_, entry)| matches!(entry.body, Body::KeyChanged(_))));
}
