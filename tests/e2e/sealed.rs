//! An agent that is started again while the broker is away: with `[sealed]` it gives out what is still valid, and without it
//! nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use daypass_sdk::{Clock as _, SystemClock};
use daypass_tests::harness::{Agent, Deployment, claims_of, eventually, free_port, program, run};
use daypass_verify::time::UnixMs;
use serde_json::Value;
use spiffe::WorkloadApiClient;

const TASK: &str = "mesh-identity";

async fn deployment() -> Deployment {
    let mut made = Deployment::stopped(daypass_broker::dev::organisation::sample()).await;
    made.settings.api.address.set_port(free_port());
    made.resume().await.unwrap();
    made
}

/// The shop's frontend: its token at one socket, its certificate at another.
struct Frontend {
    config: PathBuf,
    tokens: PathBuf,
    workload: PathBuf,
}

impl Frontend {
    fn of(deployment: &Deployment, name: &str, ttl: &str, sealed: bool) -> Self {
        let at = |part: &str| deployment.folder().join(format!("{name}-{part}"));
        let (proof, key, tokens, workload) = (at("pod"), at("key"), at("tokens.sock"), at("workload.sock"));
        fs::write(&proof, deployment.organisation.token("cluster", "prod/web/frontend").unwrap()).unwrap();
        fs::write(&key, [7; 32]).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o400)).unwrap();
        let credential = |called: &str, kind: &str| {
            format!("[[credential]]\ntask = {TASK:?}\nname = {called:?}\nkind = {kind:?}\nttl = {ttl:?}\n")
        };
        let mut rest = format!(
            "level = \"debug\"\n{}{}[[socket]]\npath = {tokens:?}\nserves = \"token\"\n\
             [[socket]]\npath = {workload:?}\nserves = \"workload-api\"\n",
            credential("mesh", "x509-svid"),
            credential("mesh-token", "jwt-svid"),
        );
        if sealed {
            rest += &format!("[sealed]\ndir = {:?}\nkey_file = {key:?}\n", at("sealed"));
        }
        let config = deployment.agent_config_with(name, &format!("id_token_file = {proof:?}"), &rest);
        Self { config, tokens, workload }
    }

    async fn start(&self) -> Agent {
        // What an agent that was killed left is not yet the socket of this one.
        drop(fs::remove_file(&self.workload));
        let agent = Agent::start(&self.config, &[]);
        eventually("the sockets", || async { self.workload.exists() }).await;
        agent
    }

    /// The token, where one is given within so many seconds. An agent that has none waits ten for its broker.
    async fn token_within(&self, patience_s: u8) -> Option<Value> {
        let (socket, patience) = (self.tokens.to_str().unwrap(), patience_s.to_string());
        let line = ["-s", "-m", &patience, "--unix-socket", socket, "http://agent/token?task=mesh-token"];
        let answer: Value = serde_json::from_str(&run("curl", line).await.stdout).unwrap_or_default();
        if answer.get("access_token").is_none() {
            eprintln!("no token: {answer}");
            return None;
        }
        Some(answer)
    }

    async fn token(&self) -> Option<Value> {
        self.token_within(20).await
    }

    async fn certificate(&self) -> Vec<u8> {
        let client =
            WorkloadApiClient::connect_to(format!("unix:{}", self.workload.display())).await.unwrap();
        let context = client.fetch_x509_context().await.unwrap();
        assert_eq!(context.bundle_set().len(), 1);
        context.default_svid().unwrap().leaf().as_bytes().to_vec()
    }
}

fn id_of(token: &Value) -> String {
    claims_of(token["access_token"].as_str().unwrap()).1["jti"].as_str().unwrap().to_owned()
}

fn sealed_files(config: &Path) -> usize {
    let folder = config.with_file_name("kept-sealed");
    let names = fs::read_dir(folder).unwrap().map(|it| it.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(".sealed")).count()
}

#[tokio::test]
async fn what_was_sealed_is_given_out_after_a_restart_to_its_end_and_never_after() {
    let mut deployment = deployment().await;
    let kept = Frontend::of(&deployment, "kept", "15s", true);
    let agent = kept.start().await;
    kept.token().await.unwrap();
    kept.certificate().await;
    deployment.stop().await;
    let (token, certificate) = (kept.token().await.unwrap(), kept.certificate().await);
    agent.says(&format!("`mesh-token` is sealed: {}", id_of(&token))).await;
    drop(agent);
    let agent = kept.start().await;
    let until = UnixMs::parse(token["expires_at"].as_str().unwrap()).unwrap();
    let again = kept.token().await.expect("nothing is given out after the restart");
    assert_eq!(again["access_token"], token["access_token"]);
    assert_eq!(kept.certificate().await, certificate);
    let mut gone = false;
    while !gone {
        let given = kept.token_within(1).await;
        gone = given.is_none();
        assert!(gone || SystemClock.now() < until, "it is given out after its end");
    }
    agent.says("`mesh-token` has ended, and there is no other").await;
    eventually("nothing stays sealed", || async { sealed_files(&kept.config) == 0 }).await;
    drop(agent);
    let agent = kept.start().await;
    assert!(kept.token_within(1).await.is_none());
    deployment.resume().await.unwrap();
    eventually("another one", || async { kept.token_within(1).await.is_some() }).await;
    assert!(!agent.said().contains("eyJ") && !agent.said().contains("PRIVATE"));
}

#[tokio::test]
async fn without_a_place_to_seal_a_restart_gives_out_nothing_and_with_one_it_is_a_renewal() {
    let mut deployment = deployment().await;
    let (kept, bare) =
        (Frontend::of(&deployment, "kept", "2m", true), Frontend::of(&deployment, "bare", "2m", false));
    let agents = (kept.start().await, bare.start().await);
    let (token, _) = (kept.token().await.unwrap(), bare.token().await.unwrap());
    agents.0.says(&format!("`mesh-token` is sealed: {}", id_of(&token))).await;
    deployment.stop().await;
    drop(agents);
    let agents = (kept.start().await, bare.start().await);
    let (given, nothing) = tokio::join!(kept.token(), bare.token());
    assert_eq!(given.unwrap()["access_token"], token["access_token"]);
    assert_eq!(nothing, None);
    deployment.resume().await.unwrap();
    eventually("a renewal", || async { id_of(&kept.token().await.unwrap()) != id_of(&token) }).await;
    let newest = id_of(&kept.token().await.unwrap());
    assert!(deployment.issued(&newest).await.credential.supersedes.is_some(), "it is no renewal");
    drop(agents);
}

#[tokio::test]
async fn a_key_for_sealing_that_others_may_read_is_an_error_of_the_configuration() {
    let deployment = deployment().await;
    let kept = Frontend::of(&deployment, "kept", "2m", true);
    let key = kept.config.with_file_name("kept-key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let config = kept.config.to_str().unwrap();
    for arguments in [&["check", "--config", config][..], &["--config", config]] {
        let refused = run(program("daypass-agent"), arguments).await;
        assert_eq!(refused.code, Some(2), "{refused:?}");
        assert!(
            refused.stderr.contains("`key_file`") && refused.stderr.contains("0600"),
            "{}",
            refused.stderr
        );
    }
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&key, [8; 31]).unwrap();
    let agent = kept.start().await;
    agent.says("nothing is sealed, and nothing that was is used").await;
    kept.token().await.expect("an agent without a usable key serves as without `[sealed]`");
}
