//! What outlives the tests just long enough to clean up behind them, however they end.

use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A shell that waits for the end of its input, which comes with the end of this process at the latest.
pub(super) struct Keeper(Child);

const WAIT: &str = r#"while read -r _; do :; done
pid=$(head -n 1 "$1/data/postmaster.pid" 2>/dev/null) && kill -QUIT "$pid" 2>/dev/null
for _ in 1 2 3 4 5 6 7 8 9 10; do kill -0 "${pid:-0}" 2>/dev/null || break; sleep 0.2; done
rm -rf "$1""#;

impl Keeper {
    pub(super) fn of(folder: &Path) -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", WAIT, "keeper"]).arg(folder);
        Self(command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        drop(self.0.wait());
    }
}
