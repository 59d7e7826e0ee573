//! A command that is run because a credential was replaced: one run at a time, ten seconds at most, and however often
//! it was called meanwhile, one more.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tracing::{info, warn};

/// How long it may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A command that can be called.
#[derive(Debug)]
pub(crate) struct Hook {
    called: Arc<Notify>,
    task: AbortHandle,
}

impl Drop for Hook {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Hook {
    /// None for an empty command. To be called within a tokio runtime.
    pub(crate) fn new(command: Vec<String>) -> Option<Self> {
        if command.is_empty() {
            return None;
        }
        let called = Arc::new(Notify::new());
        let task = tokio::spawn(run_when_called(command, Arc::clone(&called))).abort_handle();
        Some(Self { called, task })
    }

    /// Has it run, soon.
    pub(crate) fn call(&self) {
        self.called.notify_one();
    }
}

async fn run_when_called(command: Vec<String>, called: Arc<Notify>) {
    loop {
        called.notified().await;
        let shown = command.first().map(String::as_str).unwrap_or_default();
        match run(&command, PATIENCE).await {
            Ok(()) => info!("`{shown}` was run"),
            Err(what) => warn!("`{shown}` {what}"),
        }
    }
}

async fn run(command: &[String], patience: Duration) -> Result<(), String> {
    let mut child = start(command).map_err(|error| format!("cannot be run: {error}"))?;
    match timeout(patience, child.wait()).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(format!("failed: {status}")),
        Ok(Err(error)) => Err(format!("is lost: {error}")),
        Err(_) => {
            end(&child);
            child.wait().await.ok();
            Err(format!("was ended: it took longer than {patience:?}"))
        }
    }
}

fn start(command: &[String]) -> std::io::Result<Child> {
    let (program, arguments) = command.split_first().ok_or(std::io::ErrorKind::InvalidInput)?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).env_remove("NOTIFY_SOCKET");
    // A group of its own: what it has started ends with it.
    command.process_group(0).kill_on_drop(true).spawn()
}

fn end(child: &Child) {
    let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(group) = group {
        kill_process_group(group, Signal::KILL).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_storm_of_calls_is_two_runs_at_most() {
        let folder = tempfile::tempdir().unwrap();
        let lines = folder.path().join("lines");
        let script = format!("sleep 0.3; echo run >> {}", lines.display());
        let hook = Hook::new(vec!["sh".into(), "-c".into(), script]).unwrap();
        for _ in 0..1000 {
            hook.call();
            tokio::task::yield_now().await;
        }
        let count = || std::fs::read_to_string(&lines).unwrap_or_default().lines().count();
        while count() < 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tokio::time::sleep(Duration::from_millis(600)).await;
        assert_eq!(count(), 2);
    }

    #[tokio::test]
    async fn a_command_that_hangs_is_ended_with_all_that_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let late = folder.path().join("late");
        let script = format!("(sleep 0.6; touch {}) & sleep 60", late.display());
        let said = run(&["sh".into(), "-c".into(), script], Duration::from_millis(100)).await.unwrap_err();
        assert!(said.contains("longer than 100ms"), "{said}");
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!late.exists());
    }

    #[tokio::test]
    async fn a_command_that_fails_or_is_not_there_is_told() {
        let said = |text: &[&str]| text.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
        assert!(run(&said(&["/nowhere/it"]), PATIENCE).await.unwrap_err().contains("cannot be run"));
        assert!(run(&said(&["sh", "-c", "exit 3"]), PATIENCE).await.unwrap_err().contains("exit status: 3"));
    }
}
