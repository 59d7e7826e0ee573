//! `[[enforcer]]`: the server whose sessions end with their credentials.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use daypass_verify::ids::Name;
use tokio_postgres::config::{Host, SslMode};
use toml::de::DeValue;

use super::credential::Credential;
use super::section::Section;
use super::value::{Value, did_you_mean, text, word};

/// The only way over TCP.
const VERIFIED: &str = "sslmode=verify-full";

/// A PostgreSQL server that this agent watches.
#[derive(Debug, Clone)]
pub struct Enforcer {
    /// The declared target that it is.
    pub target: Name,
    /// Where it is asked, and as whom, without a password.
    pub postgresql: tokio_postgres::Config,
    /// How it is spoken to over TCP; none: at a Unix socket.
    pub tls: Option<Tls>,
    /// Where the revocation lists of the broker's CAs are put.
    pub crl_file: Option<PathBuf>,
    /// Run when they were replaced; empty: none.
    pub reload: Vec<String>,
    /// Sessions by anything else than a credential.
    pub left_over: LeftOver,
}

/// What becomes of sessions by anything else than a credential, of roles that credentials open.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeftOver {
    /// These roles, besides those that are seen with a credential.
    pub roles: BTreeSet<String>,
    /// Whether those of `roles` are ended.
    pub ends: bool,
}

/// How a server on another machine is spoken to: both sides prove who they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// The roots of the server's certificate, PEM, read at each connection.
    pub ca: PathBuf,
    /// The certificate that is shown.
    pub credential: Name,
}

const EXPECTED: &str = "`host=/run/postgresql user=daypass_enforcer`, or over TCP `host=db1.example.org user=daypass_enforcer sslmode=verify-full`";

/// A connection string that holds no secret, and whether it leaves the machine.
struct Address {
    config: tokio_postgres::Config,
    is_remote: bool,
}

impl Value for Address {
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        let text = text(value, "where the server is and a role")?;
        // The library below knows no mode that looks at the server's name: each handshake of ours does.
        let verified = text.contains(VERIFIED);
        let known = text.replace(VERIFIED, "sslmode=require");
        let mut config: tokio_postgres::Config =
            known.parse().map_err(|_| format!("not a connection string: expected {EXPECTED}"))?;
        if config.get_password().is_some() {
            let expected = "expected a role that the server knows by its user (`peer`) or by a certificate";
            return Err(format!("there is a password in it: {expected}"));
        }
        let is_remote = is_remote(&config)?;
        if is_remote && !verified {
            return Err(format!("over TCP expected `{VERIFIED}`, and nothing less"));
        }
        if !is_remote && config.get_ssl_mode() == SslMode::Require {
            return Err("nothing is encrypted at a Unix socket: leave `sslmode` out".into());
        }
        config.ssl_mode(if is_remote { SslMode::Require } else { SslMode::Disable });
        if config.get_user().is_none() {
            return Err(format!("`user` is missing: expected {EXPECTED}"));
        }
        if config.get_dbname().is_none() {
            config.dbname("postgres");
        }
        Ok(Self { config, is_remote })
    }
}

fn is_remote(config: &tokio_postgres::Config) -> Result<bool, String> {
    match config.get_hosts() {
        [Host::Tcp(_)] => Ok(true),
        [Host::Unix(_)] if config.get_hostaddrs().is_empty() => Ok(false),
        [] if !config.get_hostaddrs().is_empty() => {
            Err("`hostaddr` stands alone: expected `host` too, the name in the server's certificate".into())
        }
        _ => Err(format!("expected one server: {EXPECTED}")),
    }
}

/// Whether what is left over is ended.
struct Ends(bool);

impl Value for Ends {
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        word(value, &[("report", false), ("end", true)]).map(Self)
    }
}

/// Every `[[enforcer]]`. `credentials` are those that it may show; none: not all could be read.
pub(super) fn read_all(
    whole: &mut Section<'_>,
    folder: &Path,
    credentials: Option<&[Credential]>,
) -> Vec<Enforcer> {
    let mut all: Vec<Enforcer> = Vec::new();
    for mut section in whole.sections("enforcer") {
        if let Some(enforcer) = read(&mut section, folder, credentials) {
            if all.iter().any(|other| other.target == enforcer.target) {
                section.wrong("target", "another enforcer has it: expected one for each target");
            }
            all.push(enforcer);
        }
        section.finish();
    }
    all
}

fn read(section: &mut Section<'_>, folder: &Path, credentials: Option<&[Credential]>) -> Option<Enforcer> {
    let target = section.required::<Name>("target", "the name of a declared target");
    if let Some(target) = &target {
        section.call(&format!("enforcer `{target}`"));
    }
    let address = section.required::<Address>("postgresql", "where the server is asked, and as whom");
    let tls = address.as_ref().map(|address| read_tls(section, folder, address, credentials));
    let crl_file = section.optional::<PathBuf>("crl_file").map(|path| folder.join(path));
    let reload: Vec<String> = section.list("reload");
    if crl_file.is_none() && !reload.is_empty() {
        section.wrong("reload", "stands alone: expected `crl_file` beside it");
    }
    let left_over = read_left_over(section);
    Some(Enforcer { target: target?, postgresql: address?.config, tls: tls?, crl_file, reload, left_over })
}

fn read_left_over(section: &mut Section<'_>) -> LeftOver {
    let roles: BTreeSet<String> = section.list("roles").into_iter().collect();
    let ends = section.optional::<Ends>("left_over").is_some_and(|it| it.0);
    if ends && roles.is_empty() {
        section.wrong("left_over", "nobody knows whose sessions to end: expected `roles` beside it");
    }
    LeftOver { roles, ends }
}

fn read_tls(
    section: &mut Section<'_>,
    folder: &Path,
    address: &Address,
    credentials: Option<&[Credential]>,
) -> Option<Tls> {
    if !address.is_remote {
        for key in ["ca", "credential"] {
            if section.has(key) {
                section.wrong(key, &format!("nothing is encrypted at a Unix socket: expected `{VERIFIED}`"));
            }
        }
        return None;
    }
    let ca = section.required::<PathBuf>("ca", "a file with the roots of the server's certificate, PEM");
    let credential =
        section.required::<Name>("credential", "the name of a `[[credential]]` with the role's certificate");
    let (ca, credential) = (folder.join(ca?), credential?);
    match credentials.map(|all| (all, all.iter().find(|it| it.name == credential))) {
        Some((all, None)) => {
            let near = did_you_mean(credential.as_str(), all.iter().map(|it| it.name.as_str()));
            section.wrong("credential", &format!("there is no credential `{credential}`{near}"));
        }
        Some((_, Some(found))) if !found.may_have_common_name() => {
            let expected = "expected one with `kind = \"common-name\"`, whose common name is the role";
            section.wrong("credential", &format!("the server would not know `{credential}`: {expected}"));
        }
        _ => {}
    }
    Some(Tls { ca, credential })
}
