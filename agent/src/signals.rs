//! The signals that the agent gets.

use std::io;

use rustix::process::Signal;
use tokio::signal::unix::{self, SignalKind, signal};

/// All that are listened to. From the first on none of them ends the agent by itself.
pub(crate) struct Signals {
    hangup: unix::Signal,
    interrupt: unix::Signal,
    quit: unix::Signal,
    terminate: unix::Signal,
    user1: unix::Signal,
    user2: unix::Signal,
}

impl Signals {
    /// Begins to listen. To be called within a tokio runtime.
    ///
    /// # Errors
    /// When the system refuses.
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            terminate: signal(SignalKind::terminate())?,
            user1: signal(SignalKind::user_defined1())?,
            user2: signal(SignalKind::user_defined2())?,
        })
    }

    /// The next one.
    pub(crate) async fn next(&mut self) -> Signal {
        tokio::select! {
            Some(()) = self.hangup.recv() => Signal::HUP,
            Some(()) = self.interrupt.recv() => Signal::INT,
            Some(()) = self.quit.recv() => Signal::QUIT,
            Some(()) = self.terminate.recv() => Signal::TERM,
            Some(()) = self.user1.recv() => Signal::USR1,
            Some(()) = self.user2.recv() => Signal::USR2,
            else => std::future::pending().await,
        }
    }

    /// Waits for one that means the end.
    pub(crate) async fn told_to_end(&mut self) {
        while !Self::ends(self.next().await) {}
    }

    /// Whether a signal means the end.
    pub(crate) fn ends(signal: Signal) -> bool {
        matches!(signal, Signal::INT | Signal::QUIT | Signal::TERM)
    }
}
