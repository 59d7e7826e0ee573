//! A machine with the real programs: let in by a code, asked for its workloads, renewed, started again.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use daypass_broker::dev::organisation::sample;
use daypass_core::bundle::SourceFile;
use daypass_evidence::entry::{Body, CredentialIssued, Profile, ProofKind};
use daypass_tests::harness::{
    Agent, Deployment, SECURITY, eventually, free_port, program, run, run_with, sample_with,
};

const NODE: &str = "prod/node/db1";

async fn deployment_of(files: Vec<SourceFile>) -> Deployment {
    let mut made = Deployment::stopped(files).await;
    made.settings.api.address.set_port(free_port());
    made.resume().await.unwrap();
    made
}

/// What `daypass node add` prints.
async fn code(deployment: &Deployment) -> String {
    let profile = deployment.profile_of(SECURITY);
    let arguments = ["--config", profile.to_str().unwrap(), "--format", "json", "node", "add", NODE];
    let said = run(program("daypass"), arguments).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    let said: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
    said["code"].as_str().unwrap().to_owned()
}

fn config(deployment: &Deployment) -> (PathBuf, PathBuf, PathBuf) {
    let at = |name: &str| deployment.folder().join(name);
    let (kept, code, out) = (at("node"), at("code"), at("out"));
    let rest = format!(
        "[node]\ndir = {kept:?}\ncode_file = {code:?}\n[[credential]]\ntask = \"mesh-identity\"\nkind = \"x509-svid\"\nfiles = {{ dir = {out:?} }}"
    );
    (deployment.agent_config_with("node", "", &rest), kept, out)
}

fn id_of(certificate: &Path) -> Option<String> {
    let text = fs::read_to_string(certificate).ok()?;
    let leaf = pem::parse_many(text).unwrap().into_iter().find(|it| it.tag() == "CERTIFICATE")?;
    let (id, _) = daypass_verify::credential::unverified_certificate(leaf.contents())?;
    Some(id.to_string())
}

async fn certificates_of_nodes(deployment: &Deployment) -> Vec<(u64, CredentialIssued)> {
    let entries = deployment.entries().await.into_iter();
    let issued = entries.filter_map(|(index, entry)| match entry.body {
        Body::CredentialIssued(it) if it.credential.profile == Profile::Node => Some((index, *it)),
        _ => None,
    });
    issued.collect()
}

#[tokio::test]
async fn a_machine_is_let_in_by_a_code_renews_by_itself_and_starts_again_without_one() {
    let deployment =
        deployment_of(sample_with("tasks.toml", |text| text.replace("ttl = \"12h\"", "ttl = \"20s\""))).await;
    let (config, kept, out) = config(&deployment);
    let path = deployment.folder().join("code");
    fs::write(&path, code(&deployment).await + "\n").unwrap();
    let agent = Agent::start(&config, &[]);
    eventually("a certificate for work", || async { out.join("tls.crt").exists() }).await;
    assert!(!path.exists(), "a code that is spent is worth nothing");
    let certificate = kept.join("node.pem");
    for (path, mode) in [(&certificate, 0o600), (&kept, 0o700)] {
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o7777, mode, "{path:?}");
    }
    let first = id_of(&certificate).unwrap();
    let renewed = || async { id_of(&certificate).is_some_and(|id| id != first) };
    for _ in 0..3 {
        if renewed().await {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    }
    eventually("the node's next certificate", renewed).await;
    agent.says("the proof has changed: it is used from now on").await;
    drop(agent);
    fs::remove_dir_all(&out).unwrap();
    let agent = Agent::start(&config, &[]);
    eventually("a certificate for work after a restart", || async { out.join("tls.crt").exists() }).await;
    assert!(!agent.said().contains("PRIVATE KEY") && !agent.said().contains("daypass-node-"));

    let issued = certificates_of_nodes(&deployment).await;
    let kinds: Vec<_> = issued.iter().map(|(_, it)| it.proof.kind).collect();
    assert_eq!(kinds.first(), Some(&ProofKind::Enrolment));
    assert!(kinds.len() > 1 && kinds[1..].iter().all(|kind| *kind == ProofKind::Certificate), "{kinds:?}");
    for pair in issued.windows(2) {
        assert_eq!(pair[1].1.credential.supersedes, Some(pair[0].0), "each renews the one before");
        assert_ne!(pair[1].1.credential.holder_key, pair[0].1.credential.holder_key, "for a new key");
    }
}

#[tokio::test]
async fn without_certificate_and_code_an_agent_says_what_it_needs_and_enrol_takes_one() {
    let deployment = deployment_of(sample()).await;
    let (config, kept, _) = config(&deployment);
    let agent = program("daypass-agent");
    let refused = run(&agent, ["--config", config.to_str().unwrap()]).await;
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.stderr.contains("daypass node add"), "{refused:?}");
    let arguments = ["enrol", "--config", config.to_str().unwrap()];
    let code = code(&deployment).await;
    let enrolled = run_with(&agent, arguments, code.as_bytes()).await;
    assert_eq!(enrolled.code, Some(0), "{enrolled:?}");
    let first = id_of(&kept.join("node.pem")).unwrap();
    let refused = run_with(&agent, arguments, code.as_bytes()).await;
    assert_eq!(refused.code, Some(1), "a code is taken twice: {refused:?}");
    assert_eq!(id_of(&kept.join("node.pem")), Some(first));
    let once = run(&agent, ["oneshot", "--config", config.to_str().unwrap()]).await;
    assert_eq!(once.code, Some(0), "{once:?}");
}

#[tokio::test]
async fn an_agent_that_slept_for_longer_than_a_life_has_another_credential_soon_after() {
    let deployment = deployment_of(sample()).await;
    let out = deployment.folder().join("slept");
    let config = deployment.agent_config(
        "slept",
        &format!("[[credential]]\ntask = \"ledger-db\"\nkind = \"certificate\"\nttl = \"5s\"\nfiles = {{ dir = {out:?} }}"),
    );
    let agent = Agent::start(&config, &[]);
    eventually("a certificate", || async { out.join("tls.crt").exists() }).await;
    agent.signal(rustix::process::Signal::STOP);
    let before = id_of(&out.join("tls.crt")).unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(7)).await;
    assert_eq!(id_of(&out.join("tls.crt")), Some(before.clone()), "it does not sleep");
    agent.signal(rustix::process::Signal::CONT);
    let another = || async { id_of(&out.join("tls.crt")).is_some_and(|id| id != before) };
    eventually("another one", another).await;
    let kept = fs::read_to_string(out.join("credential.json")).unwrap();
    assert!(kept.contains(&id_of(&out.join("tls.crt")).unwrap()), "the names belong together: {kept}");
}

#[tokio::test]
async fn a_machine_that_is_let_in_serves_a_workload_that_proves_nothing_itself() {
    let uid = rustix::process::getuid().as_raw();
    let declared = "unit = \"ledger-backup.service\", uid = 1001";
    let files = sample_with("identities/ledger.toml", |text| text.replace(declared, &format!("uid = {uid}")));
    let deployment = deployment_of(files).await;
    let at = |name: &str| deployment.folder().join(name);
    let (node, code_file, out) = (at("node"), at("code"), at("backup"));
    let rest = |uid: u32| {
        format!(
            "[node]\ndir = {node:?}\ncode_file = {code_file:?}\n[[credential]]\ntask = \"back-up-ledger\"\nkind = \"common-name\"\nworkload = {{ uid = {uid}, instance = \"night-7\" }}\nfiles = {{ dir = {out:?}, uid = {uid} }}"
        )
    };
    fs::write(&code_file, code(&deployment).await + "\n").unwrap();
    let config = deployment.agent_config_with("node", "", &rest(uid));
    let agent = Agent::start(&config, &[]);
    eventually("the workload's certificate", || async { out.join("tls.crt").exists() }).await;
    drop(agent);
    let id = id_of(&out.join("tls.crt")).unwrap();
    let record = deployment.issued(&id).await;
    assert_eq!(
        (record.identity.name.as_str(), record.proof.instance.as_deref()),
        ("prod/ledger/backup", Some("night-7"))
    );
    let via = record.proof.via.unwrap();
    assert_eq!((record.proof.kind, via.node.as_str(), via.uid), (ProofKind::Delegated, NODE, Some(uid)));

    let profile = deployment.profile_of(SECURITY);
    let certificate = out.join("tls.crt");
    let arguments = ["--config", profile.to_str().unwrap(), "inspect", certificate.to_str().unwrap()];
    let told = run(program("daypass"), arguments).await;
    assert!(told.code == Some(0) && told.stdout.contains(&format!("{NODE}, uid {uid}")), "{told:?}");

    let other = deployment.agent_config_with("other", "", &rest(uid + 1));
    let refused = run(program("daypass-agent"), ["oneshot", "--config", other.to_str().unwrap()]).await;
    assert_ne!(refused.code, Some(0));
    assert!(refused.stderr.contains("NOT_ALLOWED"), "{refused:?}");
}
