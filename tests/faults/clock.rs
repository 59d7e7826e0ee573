//! The program under a wall clock that jumps, stands still, or is wrong from the start, and after a reboot: libfaketime
//! tells it the time, and the kernel's own namespaces another boot.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use daypass_broker::clock::{Clock as _, SystemClock};
use daypass_broker::emergency::order;
use daypass_evidence::entry::{AlarmState, Body};
use daypass_tests::harness::{Deployment, NIGHTLY, eventually, spiffe_id};
use daypass_verify::time::Seconds;

use super::child::{Child, Files};
use super::load::Client;
use super::report::stood;

/// Where Debian keeps libfaketime: its package is `faketime`.
const LIBRARIES: &str = "/usr/lib";
const LIBRARY: &str = "faketime/libfaketime.so.1";

/// How long a clock that is wrong is watched: sweeps, heartbeats of keys and alarms come once a second.
const WATCHED: Duration = Duration::from_secs(3);

/// How far any entry may lie from the real time: alarms are written at what has passed since the clock was believed.
const TOLD_WITHIN_MS: u64 = 10_000;

/// A wall clock that can be set while a program runs under it.
pub(super) struct FakeClock {
    folder: PathBuf,
    boots: u32,
}

impl FakeClock {
    pub(super) fn new(deployment: &Deployment) -> Self {
        let clock = Self { folder: deployment.folder().to_owned(), boots: 0 };
        clock.set("+0");
        clock
    }

    /// As libfaketime reads it: `+3d`, `-2d`, or a moment at which it stands still.
    pub(super) fn set(&self, to: &str) {
        let new = self.folder.join("faketime.new");
        std::fs::write(&new, format!("{to}\n")).unwrap();
        std::fs::rename(new, self.folder.join("faketime")).unwrap();
    }

    /// It stands still from now on.
    fn freeze(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let moment = std::process::Command::new("date").args(["+%F %T", "-d", &format!("@{now}")]).output();
        self.set(String::from_utf8(moment.unwrap().stdout).unwrap().trim());
    }

    /// What comes before the program's own command.
    fn command(&self) -> Vec<String> {
        let mut line = self.boot();
        line.extend([
            "env".into(),
            format!("LD_PRELOAD={}", library().display()),
            format!("FAKETIME_TIMESTAMP_FILE={}", self.folder.join("faketime").display()),
            "FAKETIME_NO_CACHE=1".into(),
            "FAKETIME_DONT_FAKE_MONOTONIC=1".into(),
        ]);
        line
    }

    /// From the second boot on: a boot id of its own, and a time since boot that begins anew.
    fn boot(&self) -> Vec<String> {
        if self.boots == 0 {
            return Vec::new();
        }
        let id = self.folder.join("boot-id");
        std::fs::write(&id, format!("0199f2c1-0000-4000-8000-{:012}\n", self.boots)).unwrap();
        let since = SystemClock.boot_ms() / 1_000 - 1;
        let mount = format!("mount --bind {} /proc/sys/kernel/random/boot_id && exec \"$@\"", id.display());
        let mut line = vec!["unshare".to_owned()];
        if !rustix::process::geteuid().is_root() {
            line.push("--map-root-user".into());
        }
        line.extend(["--mount", "--time", "--boottime"].map(String::from));
        line.extend([format!("-{since}"), "sh".into(), "-c".into(), mount, "sh".into()]);
        line
    }

    pub(super) async fn start(&self, files: &Files) -> Child {
        let line = self.command();
        Child::start(files, &line.iter().map(String::as_str).collect::<Vec<_>>()).await
    }
}

fn library() -> PathBuf {
    let folders = std::fs::read_dir(LIBRARIES).unwrap().map(|folder| folder.unwrap().path());
    let found = folders.map(|folder| folder.join(LIBRARY)).find(|path| path.exists());
    found
        .expect("libfaketime is missing: install the Debian package `faketime`, or run tests/run, which does")
}

/// A caller whose certificate outlives every jump of these tests.
fn caller(deployment: &Deployment, files: &Files) -> Client {
    let now = SystemClock.now();
    let workloads = &deployment.organisation.workloads;
    let certificate = workloads.issue(&spiffe_id(NIGHTLY), now, Seconds::new(20 * 86_400)).unwrap();
    let mut client = Client::of(deployment, files.api, 60);
    client.certificate = certificate;
    client
}

async fn status(files: &Files) -> String {
    order(&files.socket(), "status").await.unwrap()
}

/// Nothing is issued while the clock is as it is, and the broker says why.
async fn refused(files: &Files, client: &Client) {
    let began = std::time::Instant::now();
    while began.elapsed() < WATCHED {
        let answered = client.answer().await;
        assert!(answered.is_err(), "issued under a clock that is wrong");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let status = status(files).await;
    assert!(!status.contains("clock in doubt: no"), "{status}");
}

fn real_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// No entry says that it was written at another time than it was; how often a CLOCK alarm was raised and cleared, and
/// how many endings there are.
fn told(files: &Files, began_ms: u64) -> (usize, usize, usize) {
    let (mut raised, mut cleared, mut ended) = (0, 0, 0);
    for entry in files.entries() {
        let time = u64::try_from(entry.envelope.time.get()).unwrap();
        let real = began_ms - TOLD_WITHIN_MS..real_ms() + TOLD_WITHIN_MS;
        assert!(real.contains(&time), "an entry says {time}, and was written within {real:?}");
        match entry.body {
            Body::Alarm(alarm) if alarm.code == "CLOCK" => match alarm.state {
                AlarmState::Raised => raised += 1,
                AlarmState::Cleared => cleared += 1,
            },
            Body::CredentialEnded(_) => ended += 1,
            _ => {}
        }
    }
    (raised, cleared, ended)
}

async fn deployed() -> (Deployment, Files, u64) {
    let began = real_ms();
    let deployment = Deployment::stopped(daypass_broker::dev::organisation::sample()).await;
    let files = Files::of(&deployment);
    (deployment, files, began)
}

/// The alarms that were raised are over.
async fn balanced(files: &Files, began: u64) {
    let over = || async { matches!(told(files, began), (raised, cleared, _) if raised == cleared) };
    eventually("no alarm about the clock stands", over).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_jumps_or_stands_still_stops_issuance_and_makes_no_false_entry() {
    let (deployment, files, began) = deployed().await;
    let clock = FakeClock::new(&deployment);
    let child = clock.start(&files).await;
    let client = caller(&deployment, &files);
    let mut held = vec![client.at_last().await];
    let faults = [
        ("clock 3 days ahead while serving", "+3d"),
        ("clock 2 days back while serving", "-2d"),
        ("clock 10 minutes ahead while serving", "+600"),
        ("clock stands still while serving", ""),
    ];
    for (fault, to) in faults {
        if to.is_empty() {
            clock.freeze()
        } else {
            clock.set(to)
        }
        // A clock that stands still is found once it is 2 s behind.
        let found = || async { !status(&files).await.contains("clock in doubt: no") };
        eventually("the broker doubts its clock", found).await;
        refused(&files, &client).await;
        clock.set("+0");
        held.push(client.at_last().await);
        balanced(&files, began).await;
        stood("P11", fault, 1);
    }
    child.stop().await;
    assert_eq!(told(&files, began), (faults.len(), faults.len(), 0));
    files.check(&deployment).unwrap().compare(&held, &[]).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_wrong_at_the_start_is_not_believed() {
    let (deployment, files, began) = deployed().await;
    let clock = FakeClock::new(&deployment);
    let client = caller(&deployment, &files);
    let child = clock.start(&files).await;
    let mut held = vec![client.at_last().await];
    child.stop().await;
    for (fault, to) in [("clock 3 days ahead at the start", "+3d"), ("clock 2 days back at the start", "-2d")]
    {
        clock.set(to);
        let child = clock.start(&files).await;
        refused(&files, &client).await;
        // Stopped and started again, it is believed no more than before.
        child.stop().await;
        let child = clock.start(&files).await;
        refused(&files, &client).await;
        clock.set("+0");
        held.push(client.at_last().await);
        // It was in doubt when the broker last ran: endings wait for somebody's word.
        order(&files.socket(), "clock-ok").await.unwrap();
        balanced(&files, began).await;
        child.stop().await;
        stood("P11", fault, 2);
    }
    assert_eq!(told(&files, began).2, 0);
    files.check(&deployment).unwrap().compare(&held, &[]).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_ahead_after_a_reboot_ends_and_writes_nothing_until_a_second_source_agrees() {
    let (deployment, files, began) = deployed().await;
    let mut clock = FakeClock::new(&deployment);
    let client = caller(&deployment, &files);
    let child = clock.start(&files).await;
    let mut held = vec![client.at_last().await];
    child.stop().await;

    clock.boots = 1;
    clock.set("+3d");
    let child = clock.start(&files).await;
    refused(&files, &client).await;
    assert_eq!(told(&files, began), (1, 0, 0));
    // Set right, it issues again; endings wait for the word of a second source, here an operator's.
    clock.set("+0");
    held.push(client.at_last().await);
    tokio::time::sleep(WATCHED).await;
    assert!(status(&files).await.contains("endings wait"), "{}", status(&files).await);
    assert_eq!(order(&files.socket(), "clock-ok").await.unwrap(), "the clock is believed as it is now\n");
    balanced(&files, began).await;
    child.stop().await;
    files.check(&deployment).unwrap().compare(&held, &[]).unwrap();
    stood("P11", "clock 3 days ahead after a reboot", 1);
}
