//! The agent beside a workload, with a whole broker: what workloads find in their files and at their sockets.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use daypass_evidence::entry::Body;
use daypass_tests::harness::{Agent, Deployment, eventually, free_port, run};
use x509_parser::prelude::FromDer as _;

/// A deployment whose broker comes back at the same address.
async fn deployment() -> Deployment {
    let mut made = Deployment::stopped(daypass_broker::dev::organisation::sample()).await;
    made.settings.api.address.set_port(free_port());
    made.resume().await.unwrap();
    made
}

fn current(directory: &Path) -> Option<PathBuf> {
    fs::read_link(directory.join("current")).ok()
}

/// Whether certificate and key in `folder` belong together.
fn is_pair(folder: &Path) -> bool {
    let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
    let leaf = pem::parse_many(read("tls.crt")).unwrap().remove(0);
    let key = rcgen::KeyPair::from_pem(&read("tls.key")).unwrap();
    let (_, leaf) = x509_parser::certificate::X509Certificate::from_der(leaf.contents()).unwrap();
    rcgen::PublicKeyData::der_bytes(&key) == &*leaf.public_key().subject_public_key.data
}

#[tokio::test]
async fn files_are_kept_fresh_and_are_absent_once_they_would_be_over() {
    let mut deployment = deployment().await;
    let out = deployment.folder().join("out");
    let config = deployment.agent_config(
        "files",
        &format!(
            "[[credential]]\ntask = \"ledger-db\"\nkind = \"certificate\"\nttl = \"8s\"\nfiles = {{ dir = {out:?} }}"
        ),
    );
    let agent = Agent::start(&config, &[]);
    eventually("the first certificate", || async { out.join("tls.crt").exists() }).await;
    let first = current(&out).unwrap();
    assert!(is_pair(&out.join(&first)));
    for name in ["tls.crt", "tls.key", "tls.pem", "ca.crt", "credential.json"] {
        let mode = fs::metadata(out.join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600, "{name}");
    }
    eventually("the second certificate", || async { current(&out).is_some_and(|now| now != first) }).await;
    assert!(is_pair(&out.join(current(&out).unwrap())));
    deployment.stop().await;
    eventually("the end of the last one", || async { !out.join("tls.key").exists() }).await;
    agent.says("has ended, and there is no other").await;
    deployment.resume().await.unwrap();
    eventually("another one", || async { out.join("tls.key").exists() }).await;
    let entries = deployment.entries().await;
    let renewals = entries.iter().filter(|(_, entry)| match &entry.body {
        Body::CredentialIssued(issued) => issued.credential.supersedes.is_some(),
        _ => false,
    });
    assert!(renewals.count() > 0, "no renewal names the one before");
    assert_eq!(agent.said().matches("PRIVATE").count(), 0);
}

#[tokio::test]
async fn a_proof_is_read_again_when_it_was_replaced() {
    let deployment = deployment().await;
    let out = deployment.folder().join("out");
    let config = deployment.agent_config(
        "proof",
        &format!("[[credential]]\ntask = \"post-invoices\"\nfiles = {{ dir = {out:?} }}"),
    );
    let agent = Agent::start(&config, &[]);
    eventually("a token", || async { out.join("token").exists() }).await;
    let (first, bound) = (current(&out), confirmation(&out));
    deployment.agent_proof("proof");
    agent.says("the proof has changed: it is used").await;
    eventually("a token that is bound to it", || async { current(&out) != first }).await;
    assert_ne!(confirmation(&out), bound);
    assert!(!out.join("holder.pem").exists(), "the agent's own key is given to nobody");
}

/// What the token is bound to.
fn confirmation(out: &Path) -> String {
    let token = fs::read_to_string(out.join("token")).unwrap();
    daypass_tests::harness::claims_of(&token).1["cnf"].to_string()
}

#[tokio::test]
async fn a_configuration_that_cannot_be_is_refused_with_all_that_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("agent.toml");
    fs::write(&config, "brokr = \"https://b\"\n[[credential]]\ntask = \"post-invoices\"\nkind = \"tokn\"\n")
        .unwrap();
    let agent = daypass_tests::harness::program("daypass-agent");
    for arguments in [vec!["check", "--config"], vec!["--config"]] {
        let mut arguments = arguments;
        arguments.push(config.to_str().unwrap());
        let refused = run(&agent, arguments).await;
        assert_eq!(refused.code, Some(2), "{refused:?}");
        for expected in
            [":1: `brokr`", "did you mean `broker`", ":4: credential `post-invoices`: `kind`", "`token`?"]
        {
            assert!(refused.stderr.contains(expected), "{}: expected {expected}", refused.stderr);
        }
    }
}

const TOKEN: &str = "[[credential]]\ntask = \"post-invoices\"\n";

async fn curl(socket: &Path, path: &str, more: &[&str]) -> (String, serde_json::Value) {
    let url = format!("http://agent{path}");
    let mut arguments =
        vec!["-s", "-S", "-w", "\n%{http_code}", "--unix-socket", socket.to_str().unwrap(), &url];
    arguments.extend(more);
    let answered = run("curl", arguments).await;
    let (body, status) = answered.stdout.rsplit_once('\n').unwrap();
    let body = serde_json::from_str(body).unwrap_or_else(|_| serde_json::Value::String(body.into()));
    (status.to_owned(), body)
}

#[tokio::test]
async fn curl_fetches_a_live_token_at_a_socket_and_nothing_else() {
    let mut deployment = deployment().await;
    let socket = deployment.folder().join("tokens.sock");
    let ci = deployment.folder().join("ci.token");
    fs::write(
        &ci,
        deployment.organisation.token(daypass_tests::harness::CI, daypass_tests::harness::NIGHTLY).unwrap(),
    )
    .unwrap();
    let rest = format!("{TOKEN}ttl = \"6s\"\n[[socket]]\npath = {socket:?}\nserves = \"token\"\n");
    let config = deployment.agent_config_with("token", &format!("id_token_file = {ci:?}"), &rest);
    let agent = Agent::start(&config, &[]);
    eventually("the socket", || async { socket.exists() }).await;
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    let (status, answer) = curl(&socket, "/token?task=post-invoices", &[]).await;
    assert_eq!((status.as_str(), answer["token_type"].as_str()), ("200", Some("Bearer")), "{answer}");
    assert!(answer["expires_in"].as_i64().unwrap() <= 6);
    let (_, text) = curl(&socket, "/token?task=post-invoices", &["-H", "accept: text/plain"]).await;
    assert_eq!(text.as_str().unwrap(), answer["access_token"].as_str().unwrap());
    let (status, holder) = curl(&socket, "/holder?task=post-invoices", &[]).await;
    assert!(status == "200" && holder.as_str().unwrap().contains("BEGIN CERTIFICATE"));
    for (path, more, expected) in [
        ("/token?task=ledger-db", &[][..], ("404", "invalid_target")),
        ("/token", &[], ("400", "invalid_request")),
        ("/token?task=a&task=b", &[], ("400", "invalid_request")),
        ("/token?task=post-invoices", &["-X", "POST"], ("405", "invalid_request")),
        ("/", &[], ("404", "not_found")),
    ] {
        let (status, answer) = curl(&socket, path, more).await;
        assert_eq!((status.as_str(), answer["error"].as_str().unwrap()), expected, "{path}");
    }
    deployment.stop().await;
    let gone = || async { curl(&socket, "/token?task=post-invoices", &["-m", "1"]).await.0 != "200" };
    eventually("nothing is given once it would be over", gone).await;
    assert_eq!(agent.said().matches("eyJ").count(), 0, "no token in the log");
    agent.signal(rustix::process::Signal::TERM);
    assert_eq!(agent.ended().await, Some(0));
    assert!(!socket.exists());
}

#[tokio::test]
async fn a_socket_is_for_those_who_are_named() {
    let deployment = deployment().await;
    let at = |name: &str| deployment.folder().join(name);
    let section =
        |name: &str, who: &str| format!("[[socket]]\npath = {:?}\nserves = \"token\"\n{who}\n", at(name));
    let own = rustix::process::geteuid().as_raw();
    let rest = format!(
        "{TOKEN}{}{}{}",
        section("others", &format!("uids = [{}]", own + 1)),
        section("group", &format!("uids = [{own}]\ngids = [{}]", own + 77)),
        section("unit", "units = [\"billing.service\"]"),
    );
    let config = deployment.agent_config("named", &rest);
    let _agent = Agent::start(&config, &[]);
    for (name, expected) in [("others", "`uids`"), ("group", "`gids`"), ("unit", "`units`")] {
        eventually("the socket", || async { at(name).exists() }).await;
        let (status, answer) = curl(&at(name), "/token?task=post-invoices", &[]).await;
        assert_eq!((status.as_str(), answer["error"].as_str()), ("403", Some("access_denied")), "{name}");
        assert!(answer["error_description"].as_str().unwrap().contains(expected), "{answer}");
    }
    let second = Agent::start(&config, &[]);
    assert_eq!(second.ended().await, Some(1), "a socket that is listened on is not taken away");
}

#[tokio::test]
async fn a_legacy_program_runs_with_its_files_and_is_told_of_new_ones() {
    let deployment = deployment().await;
    let (out, heard) = (deployment.folder().join("out"), deployment.folder().join("heard"));
    let script = format!(
        "trap 'echo reload >> {heard:?}' HUP; trap 'echo end >> {heard:?}; exit 7' TERM\n\
         test -s {out:?}/tls.key && echo begin >> {heard:?}; env >> {heard:?}.env; while :; do sleep 0.05; done"
    );
    let rest = format!(
        "[[credential]]\ntask = \"ledger-db\"\nkind = \"certificate\"\nttl = \"4s\"\nfiles = {{ dir = {out:?} }}\n\
         [exec]\ncommand = [\"bash\", \"-c\", {script:?}]\nreload_signal = \"SIGHUP\"\n"
    );
    let agent = Agent::start(&deployment.agent_config("exec", &rest), &[]);
    let heard_is = |what: &'static str| {
        let heard = heard.clone();
        move || {
            let text = fs::read_to_string(&heard).unwrap_or_default();
            async move { text.contains(what) }
        }
    };
    eventually("the program begins", heard_is("begin")).await;
    eventually("it is told", heard_is("reload")).await;
    let environment = fs::read_to_string(heard.with_extension("env")).unwrap();
    assert!(!environment.contains("eyJ") && !environment.contains("PRIVATE"), "{environment}");
    agent.signal(rustix::process::Signal::TERM);
    assert_eq!(agent.ended().await, Some(7), "as the program ended");
    assert!(heard_is("end")().await);
    assert!(!out.join("tls.key").exists(), "whoever it was for is gone");
}

#[tokio::test]
async fn a_program_that_fails_is_started_again_and_its_code_is_passed_on() {
    let deployment = deployment().await;
    let runs = deployment.folder().join("runs");
    let script = format!("echo run >> {runs:?}; test $(wc -l < {runs:?}) -ge 2 && exit 0; exit 9");
    let config = |name: &str, restart: &str| {
        let out = deployment.folder().join(name);
        let rest = format!(
            "{TOKEN}files = {{ dir = {out:?} }}\n[exec]\ncommand = [\"bash\", \"-c\", {script:?}]\nrestart = {restart:?}\n"
        );
        deployment.agent_config(name, &rest)
    };
    assert_eq!(Agent::start(&config("never", "never"), &[]).ended().await, Some(9));
    fs::remove_file(&runs).unwrap();
    assert_eq!(Agent::start(&config("again", "on-failure"), &[]).ended().await, Some(0));
    assert_eq!(fs::read_to_string(&runs).unwrap().lines().count(), 2);
}
