//! `[[socket]]` and `[exec]`: who may ask, and what is run.

use std::path::{Path, PathBuf};

use daypass_verify::ids::Name;
use rustix::process::Signal;
use toml::de::DeValue;

use super::credential::Credential;
use super::section::Section;
use super::value::{Value, did_you_mean, word};

/// A Unix socket that gives credentials to whoever may ask.
#[derive(Debug, Clone)]
pub struct Socket {
    /// Where it is.
    pub path: PathBuf,
    /// Whether others may write where it is.
    pub shared_parent: bool,
    /// What is spoken on it.
    pub serves: Serves,
    /// The credentials that it gives, by name.
    pub credentials: Vec<Name>,
    /// Who may ask.
    pub allowed: Allowed,
}

/// What is spoken on a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Serves {
    /// `GET /token?task=TASK`.
    Token,
    /// The SPIFFE Workload API.
    WorkloadApi,
}

/// Who may ask: whoever meets every condition that is given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allowed {
    /// One of these users; none is given: the agent's own user.
    pub uids: Vec<u32>,
    /// One of these groups, as the process's own.
    pub gids: Vec<u32>,
    /// In one of these systemd units.
    pub units: Vec<String>,
}

/// The program that is run, and how.
#[derive(Debug, Clone)]
pub struct Exec {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Sent to it when a credential was replaced.
    pub reload_signal: Option<Signal>,
    /// Run when a credential was replaced; empty: none.
    pub reload: Vec<String>,
    /// Whether it is started again when it ends by itself.
    pub restart: Restart,
}

/// Whether a program that ended is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// The agent ends with it.
    Never,
    /// Unless it ended with 0.
    OnFailure,
    /// However it ended.
    Always,
}

impl Value for Serves {
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        word(value, &[("token", Self::Token), ("workload-api", Self::WorkloadApi)])
    }
}

impl Value for Restart {
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        word(value, &[("never", Self::Never), ("on-failure", Self::OnFailure), ("always", Self::Always)])
    }
}

/// A signal that a program may take as the order to read its files again.
struct Reload(Signal);

impl Value for Reload {
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        let words = [("SIGHUP", Signal::HUP), ("SIGUSR1", Signal::USR1), ("SIGUSR2", Signal::USR2)];
        word(value, &words).map(Self)
    }
}

impl Value for tracing::Level {
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        let words =
            [("error", Self::ERROR), ("warn", Self::WARN), ("info", Self::INFO), ("debug", Self::DEBUG)];
        word(value, &words)
    }
}

/// Every `[[socket]]`. `credentials` are those that they may give; none: not all could be read.
pub(super) fn read_all(
    whole: &mut Section<'_>,
    folder: &Path,
    credentials: Option<&[Credential]>,
) -> Vec<Socket> {
    let mut all: Vec<Socket> = Vec::new();
    for mut section in whole.sections("socket") {
        if let Some(socket) = read(&mut section, folder, credentials) {
            if all.iter().any(|other| other.path == socket.path) {
                section.wrong("path", "another socket has it: expected a path of its own");
            }
            all.push(socket);
        }
        section.finish();
    }
    all
}

fn read(section: &mut Section<'_>, folder: &Path, credentials: Option<&[Credential]>) -> Option<Socket> {
    let path = section.required::<PathBuf>("path", "the path of a Unix socket");
    if let Some(path) = &path {
        section.call(&format!("socket `{}`", path.display()));
    }
    let serves = section.required("serves", "`token` or `workload-api`");
    let shared_parent = section.optional("shared_parent").unwrap_or(false);
    let named: Vec<Name> = section.list("credentials");
    let allowed =
        Allowed { uids: section.list("uids"), gids: section.list("gids"), units: section.list("units") };
    let (path, serves) = (folder.join(path?), serves?);
    let credentials = match credentials {
        Some(all) => served(section, serves, named, all),
        None => named,
    };
    Some(Socket { path, shared_parent, serves, credentials, allowed })
}

/// The credentials that a socket gives: those that are named, or all that fit.
fn served(section: &Section<'_>, serves: Serves, named: Vec<Name>, all: &[Credential]) -> Vec<Name> {
    let (fits, expected): (fn(&Credential) -> bool, _) = match serves {
        Serves::Token => (Credential::is_token, "a token"),
        Serves::WorkloadApi => (Credential::is_svid, "one of kind `x509-svid` or `jwt-svid`"),
    };
    for name in &named {
        match all.iter().find(|it| it.name == *name) {
            None => {
                let near = did_you_mean(name.as_str(), all.iter().map(|it| it.name.as_str()));
                section.wrong("credentials", &format!("there is no credential `{name}`{near}"));
            }
            Some(credential) if !fits(credential) => {
                section.wrong("credentials", &format!("`{name}` is of another kind: expected {expected}"));
            }
            Some(_) => {}
        }
    }
    let chosen = if named.is_empty() {
        all.iter().filter(|it| fits(it)).map(|it| it.name.clone()).collect()
    } else {
        named
    };
    if chosen.is_empty() {
        section.refuse(&format!("it would give nothing: expected a `[[credential]]` that is {expected}"));
    }
    let given = all.iter().filter(|it| chosen.contains(&it.name));
    let mut identities = given.map(|it| (&it.request.identity, &it.request.workload));
    if let Some(first) = identities.next()
        && identities.any(|other| other != first)
    {
        section.refuse("its credentials are of several identities: expected one socket for each");
    }
    chosen
}

/// `[exec]`.
pub(super) fn read_exec(mut section: Section<'_>) -> Option<Exec> {
    let has_command = section.has("command");
    let command: Vec<String> = section.list("command");
    if command.is_empty() && !has_command {
        section.refuse("`command` is missing: expected a program and its arguments, as a list");
    } else if command.is_empty() {
        section.wrong("command", "expected a program and its arguments, as a list");
    }
    let reload_signal = section.optional::<Reload>("reload_signal").map(|it| it.0);
    let reload = section.list("reload");
    let restart = section.optional("restart").unwrap_or(Restart::Never);
    section.finish();
    Some(Exec { command, reload_signal, reload, restart }).filter(|it| !it.command.is_empty())
}
