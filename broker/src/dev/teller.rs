//! How the story is told: on standard output, legible with and without a terminal's colours.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::profiles::Profiles;
use super::proofs::Kept;
use super::state::State;
use crate::serve::Running;

/// Width of the column of names.
const NAMES: usize = 12;

fn paint(code: &str, text: &str) -> String {
    if std::io::stdout().is_terminal() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

/// A line. Whoever closed standard output does not stop the broker.
fn line(text: &str) {
    drop(writeln!(std::io::stdout().lock(), "{text}"));
}

pub(super) fn banner(state: &State, broker: &Running) {
    line(&paint("1;33", "daypass dev — FOR DEVELOPMENT ONLY"));
    line(
        "It believes issuers that it runs itself, activates its bundle alone, and trusts its own clock. Its log says so too.",
    );
    line("");
    fact("state", &state.folder.display().to_string());
    fact("gRPC", &format!("https://{}", broker.api));
    fact("issuer", &state.issuer());
    fact("metrics", &format!("http://{}/metrics", broker.ops));
    let report = &broker.verified;
    fact("log", &format!("{} entries verified at the start, key {}", report.size, broker.log().key()));
}

pub(super) fn step(number: u32, title: &str) {
    line("");
    line(&paint("1", &format!("{number}. {title}")));
}

pub(super) fn fact(name: &str, value: &str) {
    let mut lines = value.lines();
    line(&format!("   {} {}", paint("36", &format!("{name:<NAMES$}")), lines.next().unwrap_or_default()));
    for more in lines {
        line(&format!("   {:NAMES$} {more}", ""));
    }
}

/// JSON on one line a member, for claims and fields.
pub(super) fn members(value: &Value) -> String {
    match value.as_object() {
        Some(object) => {
            object.iter().map(|(name, value)| format!("{name}: {value}")).collect::<Vec<_>>().join("\n")
        }
        None => value.to_string(),
    }
}

/// Shows what is waited for, in place on a terminal.
pub(super) fn countdown(seconds: u64, what: &str) {
    if std::io::stdout().is_terminal() {
        let mut out = std::io::stdout().lock();
        drop(write!(
            out,
            "\r   {} {what} in {seconds:>2} s ",
            paint("36", &format!("{:<NAMES$}", "waiting"))
        ));
        drop(out.flush());
    } else if seconds.is_multiple_of(10) {
        fact("waiting", &format!("{what} in {seconds} s"));
    }
}

pub(super) fn countdown_over() {
    if std::io::stdout().is_terminal() {
        line("");
    }
}

/// The commands to type in a second terminal, with paths that run as printed.
pub(super) fn commands(profiles: &Profiles) {
    let daypass = shown(&program());
    let with = |profile: &str| format!("{daypass} --config {} --profile {profile}", shown(&profiles.config));
    let (nightly, ci, operator) = (with("nightly"), with("ci"), with("operator"));
    let mint = format!(
        "curl -sS --cacert {} '{}' | sed 's/.*\"id_token\":\"//; s/\".*//' > {}",
        shown(&profiles.ci_root),
        profiles.ci_mint,
        shown(&profiles.ci_token),
    );
    line("");
    line(&paint("1", "Now type in a second terminal:"));
    for (what, command) in [
        ("a token by mTLS, as often as you like", format!("{nightly} get post-invoices")),
        ("a certificate for PostgreSQL", format!("{nightly} get ledger-db --out {}", shown(&profiles.out))),
        ("look at it", format!("{nightly} inspect {}", shown(&profiles.out.join("tls.crt")))),
        (
            "give it up before its end; `inspect` says so then",
            format!(
                "{nightly} revoke --certificate {} --reason superseded",
                shown(&profiles.out.join("tls.crt"))
            ),
        ),
        ("a token with a freshly minted ID token", format!("{mint} && {ci} get post-invoices")),
        ("a request that is refused", format!("{nightly} get deploy-web")),
        ("why, as an operator (with the request id just shown)", format!("{operator} explain REQUEST-ID")),
        ("the log", format!("{operator} log")),
        ("the log, verified", format!("{operator} log verify")),
        ("its checkpoint", format!("{operator} log checkpoint")),
        ("how it stands", format!("{operator} status")),
    ] {
        line(&format!("   {}", paint("2", &format!("# {what}"))));
        line(&format!("   {command}"));
    }
}

/// Who can prove itself here, and how: for a bundle of somebody's own.
pub(super) fn proofs(profiles: &Profiles) {
    line("");
    line(&paint("1", "Who can prove itself here, each with a profile of its name:"));
    for proof in &profiles.proofs {
        let file = match &proof.kept {
            Kept::Certificate { cert, .. } => cert,
            Kept::Token { file, .. } => file,
        };
        line(&format!("   {:<28} {}", proof.who, shown(file)));
    }
    line("");
    line(&paint("1", "Now type in a second terminal:"));
    line(&format!("   . {}", shown(&profiles.environment)));
    for proof in &profiles.proofs {
        let name = &proof.who;
        match &proof.task {
            Some(task) => line(&format!("   daypass --profile {name} explain {task}")),
            None => line(&format!("   daypass --profile {name} log")),
        }
    }
}

/// That it serves from now on.
pub(super) fn serving(profiles: &Profiles, broker: &Running) {
    line("");
    line(&format!(
        "Serving {} identities and operators on https://{}. Ctrl-C stops; a second start goes on with the same log.",
        profiles.proofs.len(),
        broker.api
    ));
}

/// `daypass` lies beside this program.
fn program() -> PathBuf {
    std::env::current_exe().map_or_else(|_| PathBuf::from("daypass"), |own| own.with_file_name("daypass"))
}

/// A path as it can be typed here: relative below the current folder.
fn shown(path: &Path) -> String {
    let here = std::env::current_dir().ok();
    let relative = here.and_then(|here| path.strip_prefix(here).ok().map(Path::to_owned));
    let text = relative.as_deref().unwrap_or(path).display().to_string();
    if text.contains(|c: char| c.is_whitespace() || c == '\'') {
        format!("'{}'", text.replace('\'', r"'\''"))
    } else {
        text
    }
}
