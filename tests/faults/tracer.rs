//! `strace` beside a running broker: counts its system calls, or spoils one of them.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use super::child::{Child, Files};

/// What changes a file, or promises that it will stay.
pub(super) const WRITES: &str = "pwrite64,write,fsync,fdatasync,ftruncate";

/// Attached until it is detached; the broker goes on.
pub(super) struct Tracer(std::process::Child);

impl Tracer {
    /// Counts what the broker does to its files; `into` gets one line a call.
    pub(super) fn counting(child: &Child, files: &Files, into: &Path) -> Self {
        Self::attach(child, files, &["-o".into(), into.display().to_string(), "-e".into(), trace()])
    }

    /// Spoils each thread's `nth` of these calls: `fault` is what `strace` calls it.
    pub(super) fn spoiling(child: &Child, files: &Files, fault: &str, nth: usize) -> Self {
        let inject = format!("inject={WRITES}:{fault}:when={nth}");
        let quiet = ["-o", "/dev/null"].map(String::from).to_vec();
        Self::attach(child, files, &[quiet, vec!["-e".into(), trace(), "-e".into(), inject]].concat())
    }

    fn attach(child: &Child, files: &Files, arguments: &[String]) -> Self {
        let paths = files.durable().into_iter().flat_map(|path| [PathBuf::from("-P"), path]);
        let mut tracer = Command::new("strace")
            .args(["-f", "-p", &child.id().to_string()])
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
        self.0.wait().unwrap();
    }
}

fn trace() -> String {
    format!("trace={WRITES}")
}
