//! `strace` beside a running broker: counts its system calls, or spoils one of them.

use std::collections::{BTreeSet, HashMap};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::child::{Child, Files};

/// What changes a file, or promises that it will stay.
pub(super) const WRITES: &str = "pwrite64,write,fsync,fdatasync,ftruncate";

/// How long `strace` may take to let go.
const DETACHES_WITHIN: Duration = Duration::from_secs(10);

/// Attached until it is detached; the broker goes on.
pub(super) struct Tracer(std::process::Child);

impl Tracer {
    /// Writes down what the broker does to its files; `into` gets one line a call.
    pub(super) fn recording(child: &Child, files: &Files, into: &Path) -> Self {
        Self::attach(child, &files.durable(), &["-e".into(), format!("trace={WRITES}")], into)
    }

    /// Spoils one call, of each thread that makes it: `fault` is what `strace` calls it.
    pub(super) fn spoiling(child: &Child, place: &Place, fault: &str, into: &Path) -> Self {
        let trace = format!("trace={}", place.call);
        let inject = format!("inject={}:{fault}:when={}", place.call, place.nth);
        Self::attach(
            child,
            std::slice::from_ref(&place.file),
            &["-e".into(), trace, "-e".into(), inject],
            into,
        )
    }

    fn attach(child: &Child, files: &[PathBuf], arguments: &[String], into: &Path) -> Self {
        let paths = files.iter().flat_map(|path| [Path::new("-P"), path]);
        let mut tracer = Command::new("strace")
            .args(["-f", "-y", "-p", &child.id().to_string(), "-o"])
            .arg(into)
            .args(arguments)
            .args(paths)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("`strace` could not be run: {error}"));
        let mut said = BufReader::new(tracer.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains(" attached") {
            line.clear();
            assert!(said.read_line(&mut line).unwrap() > 0, "`strace` could not attach: {line}");
        }
        // What else it says is of no interest, but a full pipe would stop it.
        thread::spawn(move || said.lines().for_each(drop));
        Self(tracer)
    }

    /// Lets the broker alone, and waits until it is.
    pub(super) fn detach(mut self) {
        let id = rustix::process::Pid::from_child(&self.0);
        // It is gone already where the broker is.
        let _ = rustix::process::kill_process(id, rustix::process::Signal::INT);
        let began = Instant::now();
        while self.0.try_wait().unwrap().is_none() && began.elapsed() < DETACHES_WITHIN {
            thread::sleep(Duration::from_millis(5));
        }
        // Seldom it waits for ever for a thread that stopped as it was killed: without a tracer that dies too.
        let _ = self.0.kill();
        self.0.wait().unwrap();
    }
}

/// One call of an issuance: the first, second and so on of its kind that a thread makes to a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    call: String,
    pub(super) file: PathBuf,
    nth: usize,
}

impl Place {
    /// The `nth` such call of a thread.
    pub(super) fn nth(call: &str, file: PathBuf, nth: usize) -> Self {
        Self { call: call.into(), file, nth }
    }

    pub(super) fn is_sync(&self) -> bool {
        self.call.ends_with("sync")
    }
}

/// The places of what `strace` wrote down.
pub(super) fn places(trace: &Path) -> BTreeSet<Place> {
    let text = std::fs::read_to_string(trace).unwrap();
    let mut counts: HashMap<(&str, &str, &str), usize> = HashMap::new();
    let mut found = BTreeSet::new();
    for line in text.lines() {
        let (thread, rest) = line.split_once(' ').unwrap();
        let Some((call, arguments)) = rest.trim_start().split_once('(') else { continue };
        let Some((_, named)) = arguments.split_once('<').filter(|_| WRITES.split(',').any(|it| it == call))
        else {
            continue;
        };
        let (file, _) = named.split_once('>').unwrap();
        let nth = counts.entry((thread, call, file)).or_default();
        *nth += 1;
        found.insert(Place { call: call.into(), file: file.into(), nth: *nth });
    }
    found
}

/// Whether the call that was to be spoilt was made.
pub(super) fn was_spoilt(trace: &Path) -> bool {
    std::fs::read_to_string(trace).unwrap().contains("(INJECTED)")
}
