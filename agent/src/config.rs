//! The configuration: raw text in, checked values out. All that is wrong in it is said at once.

mod auth;
mod credential;
mod enforcer;
mod keys;
mod node;
mod proxy;
mod reference;
mod sealed;
mod section;
mod socket;
mod value;
mod workload;

use std::fmt;
use std::path::{Path, PathBuf};

use daypass_evidence::note::VerifierKey;
use toml::de::DeTable;
use url::Url;

pub use auth::Auth;
pub use credential::{Credential, Files, Owner};
pub use enforcer::{Enforcer, LeftOver, Tls};
pub use keys::{Key, keys};
pub use node::Node;
pub use proxy::{Inject, Listen, Permit, Proxy, StaticKey};
pub use reference::reference;
pub use sealed::Sealed;
pub use socket::{Allowed, Exec, Restart, Serves, Socket};

use section::{Notes, Section};

/// A configuration whose every value was checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the broker is, and with what to prove oneself.
    pub connection: Connection,
    /// Where credentials outlive the process; none: nowhere but in their files.
    pub sealed: Option<Sealed>,
    /// What is kept fresh.
    pub credentials: Vec<Credential>,
    /// Where it is given out to whoever asks.
    pub sockets: Vec<Socket>,
    /// Where requests are passed on with it.
    pub proxies: Vec<Proxy>,
    /// Where others ask whether a token may pass.
    pub auths: Vec<Auth>,
    /// The servers whose sessions end with their credentials.
    pub enforcers: Vec<Enforcer>,
    /// The program that is run with it.
    pub exec: Option<Exec>,
    /// The most that is written to standard error.
    pub level: tracing::Level,
}

/// Where the broker is, and with what to prove oneself.
#[derive(Debug, Clone)]
pub struct Connection {
    /// The broker's `api`.
    pub broker: Url,
    /// The broker's `web`.
    pub web: Url,
    /// The roots of the broker's own certificates, PEM.
    pub ca: PathBuf,
    /// The key of the log; none: what the broker says at the first use.
    pub log_key: Option<VerifierKey>,
    /// Where what is known of the log outlives the process.
    pub state: Option<PathBuf>,
    /// A token of the platform, read anew at each use.
    pub id_token_file: Option<PathBuf>,
    /// A certificate and its key, read anew when they change.
    pub certificate: Option<CertificateFiles>,
    /// How the machine proves itself as a node; `certificate` is then what it keeps for that.
    pub node: Option<Node>,
}

/// A certificate and its key, PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// Leaf first.
    pub chain: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The line, from 1.
    pub line: usize,
    /// What was wrong, and what was expected.
    pub message: String,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("the configuration `{0}` could not be read: {1}")]
    File(String, std::io::Error),
    /// It cannot be.
    #[error("{0}")]
    Refused(Refused),
}

/// All that is wrong with a configuration.
#[derive(Debug)]
pub struct Refused {
    /// What the configuration is called.
    pub name: String,
    /// Each fault, from the top of the file to its end.
    pub faults: Vec<Fault>,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Fault { line, message } in &self.faults {
            writeln!(f, "{}:{line}: {message}", self.name)?;
        }
        write!(f, "the configuration is refused; every key is described in docs/agent.md")
    }
}

impl Config {
    /// Reads and checks the file at `path`; relative paths in it are relative to its folder.
    ///
    /// # Errors
    /// When it cannot be read, or anything in it cannot be.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| ConfigError::File(name.clone(), error))?;
        let folder = std::path::absolute(path).ok();
        let folder = folder.as_deref().and_then(Path::parent).unwrap_or(Path::new("/"));
        Self::parse(&text, folder).map_err(|faults| ConfigError::Refused(Refused { name, faults }))
    }

    /// Checks the text of a configuration whose relative paths start at `folder`.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn parse(text: &str, folder: &Path) -> Result<Self, Vec<Fault>> {
        let notes = Notes::on(text);
        let (table, errors) = DeTable::parse_recoverable(text);
        for error in &errors {
            let message = error.message().replace('\n', ", ");
            notes.refuse(error.span().map_or(0, |span| span.start), message);
        }
        let config = read_whole(Section::whole(&notes, table.get_ref()), folder);
        match (config, notes.into_faults()) {
            (Some(config), faults) if faults.is_empty() => Ok(config),
            (_, faults) => Err(faults),
        }
    }
}

fn read_whole(mut whole: Section<'_>, folder: &Path) -> Option<Config> {
    let connection = read_connection(&mut whole, folder);
    let sealed = whole.section("sealed").and_then(|section| sealed::read(section, folder));
    let (credentials, complete) = credential::read_all(&mut whole, folder);
    let auths = auth::read_all(&mut whole, folder);
    if !["credential", "enforcer", "auth"].into_iter().any(|it| whole.has(it)) {
        whole.refuse(
            "there is nothing to do: expected `[[credential]]`, `[[enforcer]]` or `[[auth]]`, one or more",
        );
    }
    let known = complete.then_some(credentials.as_slice());
    let enforcers = enforcer::read_all(&mut whole, folder, known);
    let sockets = socket::read_all(&mut whole, folder, known);
    let proxies = proxy::read_all(&mut whole, folder, known);
    let exec = whole.section("exec").and_then(socket::read_exec);
    let level = whole.optional::<tracing::Level>("level").unwrap_or(tracing::Level::INFO);
    // What could not be read may be what takes it.
    if whole.is_clean() {
        credential::refuse_unused(&whole, &credentials, &sockets, &proxies, &enforcers);
        let has_node = whole.has("node");
        workload::refuse_others(&whole, has_node, &credentials, (&sockets, &proxies, &enforcers));
    }
    whole.finish();
    let connection = connection?;
    Some(Config { connection, sealed, credentials, sockets, proxies, auths, enforcers, exec, level })
}

fn read_connection(whole: &mut Section<'_>, folder: &Path) -> Option<Connection> {
    let broker = whole.required("broker", "the broker's `api`, `https://HOST:PORT`");
    let web = whole.required("web", "the broker's `web`, which is its issuer URL, `https://HOST`");
    let ca = whole.required::<PathBuf>("ca", "a file with the roots of the broker's certificates, PEM");
    let log_key = whole.optional("log_key");
    let path = |path: Option<PathBuf>| path.map(|path| folder.join(path));
    let id_token_file = path(whole.optional("id_token_file"));
    let (chain, key) = (path(whole.optional("cert")), path(whole.optional("key")));
    let (has_node, others) = (whole.has("node"), id_token_file.is_some() || chain.is_some() || key.is_some());
    let node = whole.section("node").and_then(|section| node::read(section, folder));
    if has_node && others {
        whole.wrong("node", "another proof stands beside it: expected one of them");
    }
    if chain.is_some() != key.is_some() {
        let (there, lacking) = if chain.is_some() { ("cert", "key") } else { ("key", "cert") };
        whole.wrong(there, &format!("stands alone: expected `{lacking}` beside it"));
    } else if id_token_file.is_none() && chain.is_none() && !has_node {
        let expected = "expected `id_token_file`, or `cert` and `key`, or `[node]`";
        if !whole.has("id_token_file") && !whole.has("cert") {
            whole.refuse(&format!("there is no proof: {expected}"));
        }
    }
    let certificate = chain.zip(key).map(|(chain, key)| CertificateFiles { chain, key });
    let certificate = node.as_ref().map(Node::files).or(certificate);
    let state = path(whole.optional("state"));
    Some(Connection {
        broker: broker?,
        web: web?,
        ca: path(ca)?,
        log_key,
        state,
        id_token_file,
        certificate,
        node,
    })
}

#[cfg(test)]
mod tests;
