//! The agent's files (P16): killed at each step of a replacement, on a disk that fills, over many lives.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use daypass_broker::dev::organisation::sample;
use daypass_tests::harness::{Agent, Deployment, eventually, free_port};

use super::full::SmallDisk;

const NAMES: [&str; 5] = ["ca.crt", "credential.json", "tls.crt", "tls.key", "tls.pem"];
/// What changes something in a directory, and how often a replacement of a certificate does it at least.
const STEPS: [(&str, usize); 6] = [
    ("mkdir,mkdirat", 1),
    ("symlink,symlinkat", 1),
    ("rename,renameat,renameat2", 1),
    ("fchmod", 6),
    ("fsync", 7),
    ("unlink,unlinkat", 6),
];

async fn deployment() -> Deployment {
    let mut made = Deployment::stopped(sample()).await;
    made.settings.api.address.set_port(free_port());
    made.resume().await.unwrap();
    made
}

fn certificate(out: &Path, ttl: &str) -> String {
    format!(
        "[[credential]]\ntask = \"ledger-db\"\nkind = \"certificate\"\nttl = {ttl:?}\nfiles = {{ dir = {out:?} }}\n"
    )
}

/// What is there: all names of one credential, its key that of its certificate and nobody else's to read, or none.
pub(super) fn check_whole(out: &Path, when: &str) {
    // Looked up once, so that a replacement in between cannot mix two.
    let Ok(folder) = fs::canonicalize(out.join("current")) else { return };
    let read = |name: &str| fs::read_to_string(folder.join(name));
    let [Ok(roots), Ok(description), Ok(chain), Ok(key), Ok(both)] = NAMES.map(read) else {
        let now = fs::canonicalize(out.join("current")).ok();
        assert_ne!(now, Some(folder), "{when}: a name is missing");
        return;
    };
    for name in NAMES {
        if let Ok(found) = fs::metadata(folder.join(name)) {
            assert_eq!(found.permissions().mode() & 0o7777, 0o600, "{when}: {name}");
        }
    }
    let pair = rcgen::KeyPair::from_pem(&key).unwrap();
    let leaf = pem::parse_many(&chain).unwrap().remove(0);
    let (_, leaf) = x509_parser::parse_x509_certificate(leaf.contents()).unwrap();
    assert_eq!(rcgen::PublicKeyData::der_bytes(&pair), &*leaf.public_key().subject_public_key.data, "{when}");
    assert_eq!(both, chain + &key, "{when}");
    assert!(roots.contains("BEGIN CERTIFICATE") && description.contains("expires_at"), "{when}");
}

#[tokio::test]
async fn an_agent_that_is_killed_at_any_step_leaves_the_old_files_or_the_new_ones() {
    let deployment = deployment().await;
    let out = deployment.folder().join("out");
    let config = deployment.agent_config("killed", &certificate(&out, "10m"));
    let trace = deployment.folder().join("trace");
    assert_eq!(Agent::start(&config, &["oneshot"]).ended().await, Some(0));
    check_whole(&out, "at first");
    let mut killed = 0;
    for (calls, least) in STEPS {
        for when in 1.. {
            let inject = format!("inject={calls}:signal=KILL:when={when}");
            let strace = ["strace", "-f", "-qq", "-o", trace.to_str().unwrap(), "-e", &inject];
            let strace: Vec<&str> = strace.into_iter().collect();
            let code = Agent::start_as(&strace, &config, &["oneshot"]).ended().await;
            check_whole(&out, &inject);
            if code == Some(0) {
                assert!(when > least, "`{calls}` is called {} times only", when - 1);
                break;
            }
            killed += 1;
        }
    }
    assert!(killed >= 22, "killed {killed} times");
    assert_eq!(Agent::start(&config, &["oneshot"]).ended().await, Some(0));
    let left = fs::read_dir(&out).unwrap().map(|it| it.unwrap().file_name().into_string().unwrap());
    let folders = left.filter(|name| name.starts_with('.')).count();
    assert_eq!(folders, 1, "what the killed ones left is gone");
}

#[tokio::test]
async fn a_full_disk_keeps_the_old_files_until_their_end_and_takes_the_new_ones_later() {
    let deployment = deployment().await;
    let Some(disk) = SmallDisk::mount(1) else { return };
    let out = disk.path().join("out");
    let agent = Agent::start(&deployment.agent_config("full", &certificate(&out, "6s")), &[]);
    eventually("the first certificate", || async { out.join("tls.key").exists() }).await;
    let ballast = disk.fill(4096);
    agent.says("could not be written").await;
    check_whole(&out, "on a full disk");
    let absent = || async {
        check_whole(&out, "on a full disk");
        !out.join("tls.key").exists()
    };
    eventually("the end of the old one", absent).await;
    fs::remove_file(ballast).unwrap();
    eventually("a new one", || async { out.join("tls.key").exists() }).await;
    check_whole(&out, "with room again");
}
