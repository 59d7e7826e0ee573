//! The program that is run with the credentials: started once they are there, told when one was replaced, given the
//! signals that the agent gets. The agent ends as it ends.

use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use crate::config::{Exec, Restart};
use crate::hook::Hook;
use crate::ready::{Board, Ready};
use crate::signals::Signals;

/// How long before the first restart and the last one.
const DELAY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// What exit codes start from where a signal ended the program.
const SIGNALLED: i32 = 128;

/// Runs the program until it is over, and says with which code the agent has to end.
///
/// # Errors
/// When it cannot be started.
pub(crate) async fn run(exec: &Exec, board: &Board, signals: &mut Signals) -> Result<u8, String> {
    tokio::select! {
        () = board.complete() => {}
        () = signals.told_to_end() => return Ok(0),
    }
    let hook = Hook::new(exec.reload.clone());
    let mut delay = DELAY.0;
    loop {
        let began = Instant::now();
        let mut running = Running { child: start(&exec.command)?, told_to_end: false };
        let status = running.until_over(exec, hook.as_ref(), board.follow(), signals).await?;
        let again = match exec.restart {
            Restart::Never => false,
            Restart::OnFailure => !status.success(),
            Restart::Always => true,
        };
        if running.told_to_end || !again {
            return Ok(code(status));
        }
        delay = if began.elapsed() > DELAY.1 { DELAY.0 } else { delay };
        warn!("the program ended ({status}): it is started again in {} s", delay.as_secs());
        tokio::select! {
            () = sleep(delay) => {}
            () = signals.told_to_end() => return Ok(code(status)),
        }
        delay = DELAY.1.min(delay * 2);
    }
}

struct Running {
    child: Child,
    told_to_end: bool,
}

impl Running {
    async fn until_over(
        &mut self,
        exec: &Exec,
        hook: Option<&Hook>,
        mut ready: watch::Receiver<Ready>,
        signals: &mut Signals,
    ) -> Result<ExitStatus, String> {
        let mut arrived = ready.borrow_and_update().arrived;
        loop {
            tokio::select! {
                ended = self.child.wait() => return ended.map_err(|error| format!("the program is lost: {error}")),
                signal = signals.next() => {
                    self.told_to_end |= Signals::ends(signal);
                    self.send(signal);
                }
                Ok(()) = ready.changed() => {
                    let newest = ready.borrow_and_update().arrived;
                    if newest != arrived {
                        arrived = newest;
                        self.reload(exec, hook);
                    }
                }
            }
        }
    }

    fn reload(&self, exec: &Exec, hook: Option<&Hook>) {
        if let Some(signal) = exec.reload_signal {
            self.send(signal);
        }
        if let Some(hook) = hook {
            hook.call();
        }
    }

    fn send(&self, signal: Signal) {
        let child = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(child) = child
            && let Err(error) = kill_process(child, signal)
        {
            warn!("the program did not get signal {}: {error}", signal.as_raw());
        }
    }
}

fn start(command: &[String]) -> Result<Child, String> {
    let (program, arguments) = command.split_first().ok_or("there is no program to start")?;
    let mut command = Command::new(program);
    // A group of its own: a terminal's signals come through the agent alone, and so come once.
    command.args(arguments).env_remove("NOTIFY_SOCKET").process_group(0).kill_on_drop(true);
    let child = command.spawn().map_err(|error| format!("`{program}` cannot be started: {error}"))?;
    info!("`{program}` is started");
    Ok(child)
}

/// As shells say it: the program's own code, or 128 and the signal that ended it.
fn code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| SIGNALLED + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}
