//! `[[proxy]]`: where requests come in, which of them go on, to where, and with what.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use daypass_sdk::{Binding, Kind};
use daypass_verify::ids::Name;
use daypass_verify::time::Seconds;
use http::{HeaderName, Method};
use toml::de::DeValue;
use url::Url;

use super::credential::Credential;
use super::section::Section;
use super::socket::Allowed;
use super::value::{Value, did_you_mean, text, word};

/// How long an upstream may take to begin its answer where nothing else is said.
const TIMEOUT: Seconds = Seconds::new(60);

/// A reverse proxy to one upstream.
#[derive(Debug, Clone)]
pub struct Proxy {
    /// Where requests come in.
    pub listen: Listen,
    /// The credential under which it runs.
    pub credential: Name,
    /// The declared target that the upstream is; none: what is done there is not reported.
    pub target: Option<Name>,
    /// Where requests go: scheme, host and port.
    pub upstream: Url,
    /// The roots of the upstream's certificate, PEM; none: those of the machine.
    pub ca: Option<PathBuf>,
    /// What goes on; everything else is refused.
    pub allow: Vec<Permit>,
    /// What is put on each request.
    pub inject: Inject,
    /// How long the upstream may take to begin its answer.
    pub timeout: Seconds,
}

/// Where requests come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// At a Unix socket.
    Socket {
        /// Where it is.
        path: PathBuf,
        /// Whether others may write where it is.
        shared_parent: bool,
        /// Who may speak on it.
        allowed: Allowed,
    },
    /// At a loopback address, for every process of the machine.
    Loopback(SocketAddr),
}

/// A method, and the beginning of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permit {
    /// The method, exactly.
    pub method: Method,
    /// Whole segments of the path, decoded.
    pub prefix: String,
}

/// What is put on each request.
#[derive(Debug, Clone)]
pub enum Inject {
    /// A fresh token of Daypass, as `authorization: Bearer`.
    Token,
    /// A key that cannot be replaced yet, while its exception is open.
    Static(StaticKey),
}

/// A key that cannot be replaced yet.
#[derive(Debug, Clone)]
pub struct StaticKey {
    /// The header that it stands in.
    pub header: HeaderName,
    /// What stands before and behind it.
    pub template: (String, String),
    /// Where it is read from, at each use.
    pub file: PathBuf,
    /// The declared exception that allows it.
    pub exception: Name,
}

#[derive(Debug, Clone, Copy)]
enum Kinds {
    Token,
    Static,
}

impl Value for Kinds {
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        word(value, &[("token", Self::Token), ("static", Self::Static)])
    }
}

/// An address or a path.
enum At {
    Loopback(SocketAddr),
    Path(PathBuf),
}

impl Value for At {
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        let expected = "expected a loopback address such as `127.0.0.1:8081`, or the path of a Unix socket such as `./erp.sock`";
        let given = text(value, "an address or a path")?;
        match given.parse::<SocketAddr>() {
            Ok(address) if address.ip().is_loopback() => Ok(Self::Loopback(address)),
            Ok(_) => Err(format!("`{given}` can be reached from other machines: {expected}")),
            Err(_) if given.contains('/') => PathBuf::read(value).map(Self::Path),
            Err(_) => Err(format!("`{}`: {expected}", given.escape_debug())),
        }
    }
}

/// The origin of an upstream.
struct Upstream(Url);

impl Value for Upstream {
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        let given = text(value, "a URL")?;
        let fits = |url: &Url| {
            let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
            let named = url.has_host() && url.username().is_empty() && url.password().is_none();
            bare && named && matches!(url.scheme(), "http" | "https")
        };
        let expected = "expected `https://HOST:PORT` or `http://HOST:PORT`, without a path";
        let url = Url::parse(given).ok().filter(fits);
        url.map(Self).ok_or_else(|| format!("`{}`: {expected}", given.escape_debug()))
    }
}

impl Value for Permit {
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        let given = text(value, "a method and a path")?;
        let expected =
            "expected a method and the beginning of a path such as `POST /v1/orders`, in plain letters";
        let refuse = || format!("`{}`: {expected}", given.escape_debug());
        let (method, prefix) = given.split_once(' ').ok_or_else(refuse)?;
        let method: Method = method.parse().map_err(|_| refuse())?;
        let named = method.as_str().bytes().all(|b| b.is_ascii_uppercase()) && method != Method::CONNECT;
        let inner = prefix.strip_prefix('/').ok_or_else(refuse)?;
        let inner = inner.strip_suffix('/').unwrap_or(inner);
        let plain = prefix.bytes().all(|b| b.is_ascii_graphic() && !b"%\\?#;".contains(&b));
        let whole = prefix == "/" || !inner.split('/').any(|part| matches!(part, "" | "." | ".."));
        if named && plain && whole { Ok(Self { method, prefix: prefix.to_owned() }) } else { Err(refuse()) }
    }
}

pub(super) struct Header(pub(super) HeaderName);

impl Value for Header {
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        let given = text(value, "the name of a header")?;
        let refused =
            ["host", "connection", "content-length", "transfer-encoding", "te", "trailer", "upgrade"];
        let name = given.parse::<HeaderName>().ok().filter(|it| !refused.contains(&it.as_str()));
        name.map(Self).ok_or_else(|| {
            format!("`{}`: expected the name of a header such as `X-Api-Key`", given.escape_debug())
        })
    }
}

struct Template(String, String);

impl Value for Template {
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        let given = text(value, "a template")?;
        let parts = given.split_once("{}").filter(|(_, after)| !after.contains("{}"));
        let plain = |part: &str| part.bytes().all(|b| b == b' ' || b.is_ascii_graphic());
        match parts {
            Some((before, after)) if plain(before) && plain(after) => {
                Ok(Self(before.to_owned(), after.trim_end().to_owned()))
            }
            _ => Err(format!("`{}`: expected `{{}}` once, where the key stands", given.escape_debug())),
        }
    }
}

/// Every `[[proxy]]`. `credentials` are those that it may run under; none: not all could be read.
pub(super) fn read_all(
    whole: &mut Section<'_>,
    folder: &Path,
    credentials: Option<&[Credential]>,
) -> Vec<Proxy> {
    let mut all: Vec<Proxy> = Vec::new();
    for mut section in whole.sections("proxy") {
        if let Some(proxy) = read(&mut section, folder, credentials) {
            if all.iter().any(|other| other.listen == proxy.listen) {
                section.wrong("listen", "another proxy has it: expected a place of its own");
            }
            all.push(proxy);
        }
        section.finish();
    }
    all
}

fn read(section: &mut Section<'_>, folder: &Path, credentials: Option<&[Credential]>) -> Option<Proxy> {
    let listen = read_listen(section, folder);
    let credential = section.required::<Name>("credential", "the name of a `[[credential]]`");
    let target = section.optional::<Name>("target");
    let upstream = section.required::<Upstream>("upstream", "`https://HOST:PORT`");
    let ca = section.optional::<PathBuf>("ca").map(|path| folder.join(path));
    if ca.is_some() && upstream.as_ref().is_some_and(|it| it.0.scheme() == "http") {
        section.wrong("ca", "nothing is encrypted on the way there: expected `https` in `upstream`");
    }
    if !section.has("allow") {
        section.refuse("`allow` is missing: expected what goes on, such as `[\"POST /v1/orders\"]`");
    }
    let allow: Vec<Permit> = section.list("allow");
    let inject = section.required::<Kinds>("inject", "`token` or `static`");
    let key = read_key(section, folder, inject, target.is_some());
    let timeout = section.optional("timeout").unwrap_or(TIMEOUT);
    let (credential, inject) = (credential?, inject?);
    check_credential(section, &credential, inject, credentials?, ca.is_some());
    let inject = match inject {
        Kinds::Token => Inject::Token,
        Kinds::Static => Inject::Static(key?),
    };
    Some(Proxy { listen: listen?, credential, target, upstream: upstream?.0, ca, allow, inject, timeout })
}

/// Where `listen` says, and who may speak there.
pub(super) fn read_listen(section: &mut Section<'_>, folder: &Path) -> Option<Listen> {
    let at = section.required::<At>("listen", "a loopback address, or the path of a Unix socket");
    let shared_parent = section.optional("shared_parent").unwrap_or(false);
    let allowed =
        Allowed { uids: section.list("uids"), gids: section.list("gids"), units: section.list("units") };
    match at? {
        At::Path(path) => Some(Listen::Socket { path: folder.join(path), shared_parent, allowed }),
        At::Loopback(address) => {
            for key in ["shared_parent", "uids", "gids", "units"] {
                if section.has(key) {
                    section.wrong(key, "nobody knows who calls at an address: expected a Unix socket");
                }
            }
            Some(Listen::Loopback(address))
        }
    }
}

fn read_key(
    section: &mut Section<'_>,
    folder: &Path,
    inject: Option<Kinds>,
    has_target: bool,
) -> Option<StaticKey> {
    if !matches!(inject, Some(Kinds::Static)) {
        for key in ["key_file", "exception", "header", "template"] {
            if section.has(key) && inject.is_some() {
                section.wrong(key, "a token has none: expected it only where `inject = \"static\"`");
            }
        }
        return None;
    }
    if !has_target {
        section.refuse("`target` is missing: expected the declared target that takes the key");
    }
    let file = section.required::<PathBuf>("key_file", "a file of mode 0600 that holds the key alone");
    let exception = section.required("exception", "the declared exception that allows the key");
    let header = section.optional::<Header>("header").map_or(http::header::AUTHORIZATION, |it| it.0);
    let Template(before, after) =
        section.optional("template").unwrap_or_else(|| Template(String::new(), String::new()));
    Some(StaticKey { header, template: (before, after), file: folder.join(file?), exception: exception? })
}

fn check_credential(section: &Section<'_>, name: &Name, inject: Kinds, all: &[Credential], has_ca: bool) {
    match (all.iter().find(|it| it.name == *name), inject) {
        (None, _) => {
            let near = did_you_mean(name.as_str(), all.iter().map(|it| it.name.as_str()));
            section.wrong("credential", &format!("there is no credential `{name}`{near}"));
        }
        (Some(found), Kinds::Token) => match &found.request.kind {
            Kind::Token { binding: Binding::Bearer, .. } => {}
            Kind::Token { .. } if has_ca => {}
            Kind::Token { .. } => {
                let expected = "expected `ca` here, to which it is shown with the agent's certificate, or `bearer = true` there";
                section.wrong("credential", &format!("`{name}` is bound to a key: {expected}"));
            }
            Kind::Certificate { .. } => {
                section.wrong("credential", &format!("`{name}` is a certificate: expected a token"));
            }
        },
        (Some(_), Kinds::Static) => {}
    }
}
