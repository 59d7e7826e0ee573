//! Single runs of the agent, restarts, and to whom files belong.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use daypass_evidence::entry::{Body, EndedHow, Entry};
use daypass_tests::harness::{Agent, Deployment, eventually, left_out, program, run};

const TOKEN: &str = "[[credential]]\ntask = \"post-invoices\"\n";

fn to(out: &Path) -> String {
    format!("files = {{ dir = {out:?} }}\n")
}

async fn oneshot(config: &Path, command: &[&str]) -> daypass_tests::harness::Output {
    let mut arguments = vec!["oneshot", "--config", config.to_str().unwrap()];
    if !command.is_empty() {
        arguments.push("--");
    }
    arguments.extend(command);
    run(program("daypass-agent"), arguments).await
}

#[tokio::test]
async fn one_run_has_its_credential_and_leaves_none() {
    let deployment = Deployment::start().await;
    let out = deployment.folder().join("out");
    let config = deployment.agent_config("once", &format!("{TOKEN}{}", to(&out)));
    let script = format!("test -s {out:?}/token || exit 4; exit 5");
    let ended = oneshot(&config, &["sh", "-c", &script]).await;
    assert_eq!(ended.code, Some(5), "{}", ended.stderr);
    assert!(fs::read(out.join("token")).is_err(), "it is taken away");
    assert!(ended.stderr.contains("is revoked"), "what becomes of it is said:\n{}", ended.stderr);
    let ends =
        |entry: &Entry| matches!(&entry.body, Body::CredentialEnded(it) if it.how == EndedHow::Revoked);
    assert!(deployment.entries().await.iter().any(|(_, entry)| ends(entry)), "and it is in the log");
    let ended = oneshot(&config, &["sh", "-c", "kill -TERM $$"]).await;
    assert_eq!(ended.code, Some(128 + 15), "as shells say it");
    assert_eq!(oneshot(&config, &[]).await.code, Some(0));
    assert!(out.join("token").exists(), "without a command it stays");
}

#[tokio::test]
async fn one_run_that_gets_nothing_runs_nothing_and_says_why() {
    let mut deployment = Deployment::start().await;
    let ran = deployment.folder().join("ran");
    let command = ["touch", ran.to_str().unwrap()];
    let refused = deployment
        .agent_config("refused", "[[credential]]\ntask = \"deploy-web\"\nfiles = { dir = \"o\" }\n");
    let ended = oneshot(&refused, &command).await;
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("TASK_NOT_ALLOWED"), "{}", ended.stderr);
    let unreached =
        deployment.agent_config("unreached", &format!("{TOKEN}{}", to(&deployment.folder().join("u"))));
    deployment.stop().await;
    let ended = oneshot(&unreached, &command).await;
    assert_eq!(ended.code, Some(3), "{}", ended.stderr);
    assert!(!ran.exists());
}

#[tokio::test]
async fn a_new_agent_leaves_what_it_finds_until_its_end_while_the_broker_is_away() {
    let mut deployment = Deployment::start().await;
    let out = deployment.folder().join("out");
    let config = deployment.agent_config("found", &format!("{TOKEN}ttl = \"12s\"\n{}", to(&out)));
    let agent = Agent::start(&config, &[]);
    eventually("a token", || async { out.join("token").exists() }).await;
    let token = fs::read(out.join("token")).unwrap();
    deployment.stop().await;
    drop(agent);
    let agent = Agent::start(&config, &[]);
    agent.says("could not be fetched").await;
    assert_eq!(fs::read(out.join("token")).unwrap(), token, "what is valid is still there");
    eventually("its end", || async { !out.join("token").exists() }).await;
}

#[tokio::test]
async fn files_belong_to_whom_the_configuration_names() {
    if !rustix::process::geteuid().is_root() {
        left_out("files of another user", "only root can give them away");
        return;
    }
    let deployment = Deployment::start().await;
    let out = deployment.folder().join("out");
    let files = format!("files = {{ dir = {out:?}, uid = 65534, gid = 65534 }}\n");
    let config = deployment.agent_config("owner", &format!("{TOKEN}{files}"));
    assert_eq!(oneshot(&config, &[]).await.code, Some(0));
    let found = fs::metadata(out.join("token")).unwrap();
    assert_eq!((found.uid(), found.gid(), found.mode() & 0o7777), (65534, 65534, 0o600));
    let folder: PathBuf = fs::canonicalize(out.join("current")).unwrap();
    for path in [&out, &folder] {
        let found = fs::metadata(path).unwrap();
        assert_eq!((found.uid(), found.mode() & 0o777), (0, 0o755), "its owner cannot change what is there");
    }
}

#[tokio::test]
async fn ten_thousand_calls_of_one_process_are_held_back_and_hurt_no_other() {
    let deployment = Deployment::start().await;
    let socket = deployment.folder().join("tokens.sock");
    let rest = format!("{TOKEN}[[socket]]\npath = {socket:?}\nserves = \"token\"\n");
    let agent = Agent::start(&deployment.agent_config("storm", &rest), &[]);
    eventually("the socket", || async { socket.exists() }).await;
    let at = socket.to_str().unwrap();
    let storm =
        ["-s", "-o", "/dev/null", "-w", "%{http_code}\n", "--unix-socket", at, "http://agent/[1-10000]"];
    let storm = run("curl", storm).await;
    let held_back = storm.stdout.lines().filter(|status| *status == "429").count();
    assert!(held_back > 1_000, "{held_back} of {}", storm.stdout.lines().count());
    let other = run(
        "curl",
        [
            "-s",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "--unix-socket",
            at,
            "http://agent/token?task=post-invoices",
        ],
    )
    .await;
    assert_eq!(other.stdout, "200", "{}", agent.said());
}
