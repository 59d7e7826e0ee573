//! `docs/afternoon.md`, typed as it stands: five ways to use a credential, and what each sees of a revocation and a suspension.

use std::fs::{self, File};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use daypass_tests::harness::postgres::{client, other_user};
use daypass_tests::harness::{free_port, nightly, program};
use rustix::process::{Pid, Signal, kill_process_group};

/// Against an hour that hangs; it takes seconds.
const WITHIN: Duration = Duration::from_secs(300);

/// What is typed before the page's commands: the first mistake ends it, and nothing outlives it.
const FIRST: &str = "set -eu; PIDS=; trap 'exit 1' TERM
trap 'kill $PIDS 2> /dev/null || true; pg_ctl stop -s -D data -m immediate 2> /dev/null || true' EXIT\n";

/// A shell with all that it started, ended with this.
struct Shell(Child);

impl Drop for Shell {
    fn drop(&mut self) {
        let group = Pid::from_raw(i32::try_from(self.0.id()).unwrap()).unwrap();
        let _ = kill_process_group(group, Signal::TERM);
        drop(self.0.wait());
    }
}

/// The page's commands. The first two blocks are about where a reader's programs and files are.
fn commands(page: &str) -> String {
    let mut typed = FIRST.to_owned();
    for block in page.split("\n```sh").skip(3) {
        let (kind, text) = block.split_once('\n').unwrap();
        match kind {
            "" => {}
            " wait" if nightly() => {}
            " wait" => continue,
            other => panic!("a block of an unknown kind: `sh{other}`"),
        }
        let (text, _) = text.split_once("\n```").unwrap();
        typed.push_str(text);
        typed.push('\n');
    }
    typed
}

fn started(folder: &Path, checkout: &Path) -> Shell {
    let page = fs::read_to_string(checkout.join("docs/afternoon.md")).unwrap();
    let script = folder.join("typed.sh");
    fs::write(&script, commands(&page)).unwrap();
    let (out, programs) = (File::create(folder.join("seen")).unwrap(), program("daypass-broker"));
    let programs = programs.parent().unwrap();
    let mut command = Command::new("bash");
    command.arg(&script).current_dir(folder).env_clear().process_group(0);
    command.env("HOME", folder).env("CHECKOUT", checkout).env("PGPORT", free_port().to_string());
    let servers = client("initdb");
    let servers = servers.parent().unwrap().display();
    let path = format!("{0}:{0}/examples:{servers}:/usr/bin:/bin", programs.display());
    command.env("PATH", path).stdout(out.try_clone().unwrap()).stderr(out);
    if let Some((uid, gid)) = other_user() {
        chown(folder, Some(uid), Some(gid)).unwrap();
        command.uid(uid).gid(gid);
    }
    Shell(command.spawn().unwrap())
}

#[test]
fn an_afternoon_goes_as_its_page_tells() {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let folder = tempfile::Builder::new().prefix("daypass-afternoon-").tempdir().unwrap();
    let mut shell = started(folder.path(), checkout);
    let seen = || fs::read_to_string(folder.path().join("seen")).unwrap();
    let began = Instant::now();
    let ended = loop {
        if let Some(ended) = shell.0.try_wait().unwrap() {
            break ended;
        }
        assert!(began.elapsed() < WITHIN, "it does not end: {}", seen());
        std::thread::sleep(Duration::from_millis(50));
    };
    let seen = seen();
    assert!(ended.success(), "{ended}: {seen}");
    let answers = [
        ("service", "401 Unauthorized"),
        ("curl", "401"),
        ("program", "401"),
        ("session", "lost"),
        ("database", "certificate revoked"),
        ("courier", "503"),
    ];
    for (who, answer) in answers {
        let lines = seen.lines().filter(|line| line.starts_with(who) && line.ends_with(answer)).count();
        assert!(lines >= 1, "`{who}` sees no `{answer}`: {seen}");
    }
    for told in ["shop_orders", "ended          5", "SUSPENDED", "exit code 1", "lifted", "every entry holds"]
    {
        assert!(seen.contains(told), "`{told}`: {seen}");
    }
}
