//! Where the broker is and with what to prove oneself: from flags and the environment first, then from a profile.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use daypass_evidence::note::VerifierKey;
use daypass_sdk::{ClientCertificate, Config, IdToken};
use secrecy::SecretString;
use serde::{Deserialize, Deserializer};
use url::Url;

use crate::args::Connection;
use crate::failure::Failure;

/// What a command knows before it asks anybody.
#[derive(Debug)]
pub(crate) struct Profile {
    /// How it is called, for `status`.
    pub(crate) name: String,
    keys: Keys,
}

/// The keys of one profile. A file is the profile without a name, with the named ones under `profile`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    #[serde(default, deserialize_with = "url")]
    broker: Option<Url>,
    #[serde(default, deserialize_with = "url")]
    web: Option<Url>,
    ca: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    id_token_file: Option<PathBuf>,
    log_key: Option<String>,
    state: Option<PathBuf>,
    #[serde(default)]
    profile: BTreeMap<String, Keys>,
}

fn url<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Url>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let refuse = |_| serde::de::Error::custom(format!("`{text}` is no URL: expected `https://HOST:PORT`"));
    text.parse().map(Some).map_err(refuse)
}

/// Reads the profile that `connection` names, and lays what `connection` says over it.
///
/// # Errors
/// When a file was named and cannot be read, has an unknown key, or lacks the profile.
pub(crate) fn load(connection: &Connection) -> Result<Profile, Failure> {
    let path = connection.config.clone().or_else(default_path);
    let text = match &path {
        Some(path) => read_optional(path, connection.config.is_some() || connection.profile.is_some())?,
        None => None,
    };
    let file = match (&path, &text) {
        (Some(path), Some(text)) => parse(path, text)?,
        _ => Keys::default(),
    };
    let keys = file.select(connection.profile.as_deref(), path.as_deref())?;
    let directory = path.as_deref().and_then(Path::parent).unwrap_or(Path::new("."));
    let named = connection.profile.as_deref().map(|name| format!("`{name}` of ")).unwrap_or_default();
    let name = match (&path, &text) {
        (Some(path), Some(_)) => format!("{named}{}", path.display()),
        _ => "flags and environment".into(),
    };
    Ok(Profile { name, keys: keys.relative_to(directory).under(connection) })
}

fn default_path() -> Option<PathBuf> {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".config"));
    let base = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).or_else(home)?;
    Some(base.join("daypass/config.toml"))
}

fn read_optional(path: &Path, named: bool) -> Result<Option<String>, Failure> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !named => Ok(None),
        Err(error) => Err(Failure::Usage(format!("cannot read the profiles `{}`: {error}", path.display()))),
    }
}

fn parse(path: &Path, text: &str) -> Result<Keys, Failure> {
    toml::from_str(text).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start);
        let line = text.get(..start).unwrap_or(text).matches('\n').count() + 1;
        Failure::Usage(format!("{}:{line}: {}", path.display(), error.message().replace('\n', ", ")))
    })
}

impl Keys {
    /// The profile called `name`; without a name, this one.
    fn select(mut self, name: Option<&str>, path: Option<&Path>) -> Result<Self, Failure> {
        let Some(name) = name else { return Ok(self) };
        self.profile.remove(name).ok_or_else(|| {
            let known = self.profile.keys().map(|it| format!("`{it}`")).collect::<Vec<_>>().join(", ");
            let shown = path.map(|path| path.display().to_string()).unwrap_or_default();
            Failure::Usage(format!("no profile `{name}` in `{shown}`: expected one of {known}"))
        })
    }

    /// Paths in a profile are meant from where its file lies.
    fn relative_to(self, directory: &Path) -> Self {
        let from = |path: Option<PathBuf>| path.map(|path| directory.join(path));
        Self {
            ca: from(self.ca),
            cert: from(self.cert),
            key: from(self.key),
            id_token_file: from(self.id_token_file),
            state: from(self.state),
            ..self
        }
    }

    fn under(self, over: &Connection) -> Self {
        Self {
            broker: over.broker.clone().or(self.broker),
            web: over.web.clone().or(self.web),
            ca: over.ca.clone().or(self.ca),
            cert: over.cert.clone().or(self.cert),
            key: over.key.clone().or(self.key),
            id_token_file: over.id_token_file.clone().or(self.id_token_file),
            ..self
        }
    }
}

impl Profile {
    /// What the SDK needs.
    ///
    /// # Errors
    /// When something is missing, or a file that is named cannot be read.
    pub(crate) fn config(&self) -> Result<Config, Failure> {
        let keys = &self.keys;
        let missing =
            |what: &str, how: &str| Failure::Usage(format!("no {what}: give {how}, or name it in a profile"));
        Ok(Config {
            broker: keys.broker.clone().ok_or_else(|| missing("broker", "`--broker` or DAYPASS_BROKER"))?,
            web: keys.web.clone(),
            ca: read(keys.ca.as_ref().ok_or_else(|| missing("CA", "`--ca` or DAYPASS_CA"))?, "ca")?,
            certificate: self.certificate()?,
            id_token: keys.id_token_file.clone().map(IdToken::File),
            log_key: self.log_key()?,
            state: keys.state.clone(),
        })
    }

    /// The key of the log, where the profile names it.
    ///
    /// # Errors
    /// When it is malformed.
    pub(crate) fn log_key(&self) -> Result<Option<VerifierKey>, Failure> {
        let parse = |text: &String| text.parse().map_err(|why| Failure::Usage(format!("`log_key`: {why}")));
        self.keys.log_key.as_ref().map(parse).transpose()
    }

    /// Where the ID token lies.
    pub(crate) fn id_token_file(&self) -> Option<&Path> {
        self.keys.id_token_file.as_deref()
    }

    /// Where things are kept.
    pub(crate) fn state(&self) -> Option<&Path> {
        self.keys.state.as_deref()
    }

    fn certificate(&self) -> Result<Option<ClientCertificate>, Failure> {
        match (&self.keys.cert, &self.keys.key) {
            (None, None) => Ok(None),
            (Some(cert), Some(key)) => {
                let chain = read(cert, "cert")?;
                let key = String::from_utf8(read(key, "key")?);
                let key = key.map_err(|_| Failure::Usage("`key`: expected a PEM file".into()))?;
                Ok(Some(ClientCertificate::Pem { chain, key: SecretString::from(key) }))
            }
            _ => Err(Failure::Usage("`cert` and `key` go together: give both or neither".into())),
        }
    }
}

fn read(path: &Path, what: &str) -> Result<Vec<u8>, Failure> {
    std::fs::read(path)
        .map_err(|error| Failure::Usage(format!("cannot read `{what}` `{}`: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
broker = "https://127.0.0.1:8443"
ca = "ca.crt"
state = "state"

[profile.prod]
broker = "https://broker.example.org:8443"
web = "https://daypass.example.org"
ca = "/etc/daypass/ca.crt"
id_token_file = "token"
"#;

    fn written(text: &str) -> (tempfile::TempDir, Connection) {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("config.toml");
        std::fs::write(&config, text).unwrap();
        (directory, Connection { config: Some(config), ..Connection::default() })
    }

    #[test]
    fn the_keys_at_the_top_are_the_profile_without_a_name() {
        let (directory, connection) = written(TEXT);
        let keys = load(&connection).unwrap().keys;
        assert_eq!(keys.broker.unwrap().as_str(), "https://127.0.0.1:8443/");
        assert_eq!(keys.ca.unwrap(), directory.path().join("ca.crt"));
        assert_eq!(keys.state.unwrap(), directory.path().join("state"));
        assert_eq!(keys.id_token_file, None);
    }

    #[test]
    fn a_profile_stands_alone_and_its_paths_begin_at_its_file() {
        let (directory, connection) = written(TEXT);
        let keys = load(&Connection { profile: Some("prod".into()), ..connection }).unwrap().keys;
        assert_eq!(keys.ca.unwrap(), PathBuf::from("/etc/daypass/ca.crt"));
        assert_eq!(keys.id_token_file.unwrap(), directory.path().join("token"));
        assert_eq!(keys.state, None);
    }

    #[test]
    fn flags_go_before_a_profile_and_are_meant_from_here() {
        let (_directory, connection) = written(TEXT);
        let connection = Connection {
            broker: Some("https://other:1".parse().unwrap()),
            ca: Some("here.crt".into()),
            ..connection
        };
        let keys = load(&connection).unwrap().keys;
        assert_eq!(keys.broker.unwrap().as_str(), "https://other:1/");
        assert_eq!(keys.ca.unwrap(), PathBuf::from("here.crt"));
    }

    #[test]
    fn a_damaged_profile_is_refused_with_its_line() {
        let refused = |text: &str, profile: Option<&str>| {
            let (_directory, connection) = written(text);
            let failure =
                load(&Connection { profile: profile.map(str::to_owned), ..connection }).unwrap_err();
            assert_eq!(failure.exit_code(), 2);
            match failure {
                Failure::Usage(text) => text,
                other => panic!("{other:?}"),
            }
        };
        assert!(
            refused("ca = \"x\"\nborker = \"https://b\"", None)
                .contains("config.toml:2: unknown field `borker`")
        );
        assert!(refused("broker = \"not a url\"", None).contains("config.toml:1: "));
        assert!(refused(TEXT, Some("test")).contains("expected one of `prod`"));
        let absent = Connection { config: Some("/nowhere/config.toml".into()), ..Connection::default() };
        assert!(load(&absent).is_err());
    }

    #[test]
    fn what_is_missing_is_named() {
        let message = |text: &str| {
            let (_directory, connection) = written(text);
            match load(&connection).unwrap().config() {
                Err(Failure::Usage(text)) => text,
                other => panic!("{other:?}"),
            }
        };
        assert!(message("ca = \"x\"").starts_with("no broker: give `--broker`"));
        assert!(message("broker = \"https://b\"").starts_with("no CA: give `--ca`"));
        let half = "broker = \"https://b\"\nca = \"config.toml\"\ncert = \"config.toml\"";
        assert!(message(half).starts_with("`cert` and `key` go together"));
        let key = "broker = \"https://b\"\nca = \"config.toml\"\nlog_key = \"nonsense\"";
        assert!(message(key).starts_with("`log_key`: `nonsense` is not a verifier key"));
    }
}
