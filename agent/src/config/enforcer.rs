//! `[[enforcer]]`: the server whose sessions end with their credentials.

use std::path::{Path, PathBuf};

use daypass_verify::ids::Name;
use tokio_postgres::config::Host;
use toml::de::DeValue;

use super::section::Section;
use super::value::{Value, text};

/// A PostgreSQL server beside this agent.
#[derive(Debug, Clone)]
pub struct Enforcer {
    /// The declared target that it is.
    pub target: Name,
    /// Where it is asked, and as whom: a Unix socket, without a password.
    pub postgresql: tokio_postgres::Config,
    /// Where the revocation lists of the broker's CAs are put.
    pub crl_file: Option<PathBuf>,
    /// Run when they were replaced; empty: none.
    pub reload: Vec<String>,
}

/// A connection string that holds no secret and leaves no machine.
struct Local(tokio_postgres::Config);

impl Value for Local {
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        let expected = "the server's socket and a role, such as `host=/run/postgresql user=daypass_enforcer`";
        let text = text(value, expected)?;
        let mut config: tokio_postgres::Config =
            text.parse().map_err(|_| format!("not a connection string: expected {expected}"))?;
        if config.get_password().is_some() {
            return Err(
                "there is a password in it: expected a role that the server knows by its user (`peer`)"
                    .into(),
            );
        }
        let local = |host: &Host| matches!(host, Host::Unix(_));
        if config.get_hosts().is_empty() || !config.get_hosts().iter().all(local) {
            return Err(format!("not a Unix socket: expected {expected}"));
        }
        if config.get_user().is_none() {
            return Err(format!("`user` is missing: expected {expected}"));
        }
        if config.get_dbname().is_none() {
            config.dbname("postgres");
        }
        Ok(Self(config))
    }
}

/// Every `[[enforcer]]`.
pub(super) fn read_all(whole: &mut Section<'_>, folder: &Path) -> Vec<Enforcer> {
    let mut all: Vec<Enforcer> = Vec::new();
    for mut section in whole.sections("enforcer") {
        if let Some(enforcer) = read(&mut section, folder) {
            if all.iter().any(|other| other.target == enforcer.target) {
                section.wrong("target", "another enforcer has it: expected one for each target");
            }
            all.push(enforcer);
        }
        section.finish();
    }
    all
}

fn read(section: &mut Section<'_>, folder: &Path) -> Option<Enforcer> {
    let target = section.required::<Name>("target", "the name of a declared target");
    if let Some(target) = &target {
        section.call(&format!("enforcer `{target}`"));
    }
    let postgresql = section.required::<Local>("postgresql", "where the server is asked, and as whom");
    let crl_file = section.optional::<PathBuf>("crl_file").map(|path| folder.join(path));
    let reload: Vec<String> = section.list("reload");
    if crl_file.is_none() && !reload.is_empty() {
        section.wrong("reload", "stands alone: expected `crl_file` beside it");
    }
    Some(Enforcer { target: target?, postgresql: postgresql?.0, crl_file, reload })
}
