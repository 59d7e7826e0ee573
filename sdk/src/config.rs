//! What a client needs to know: where the broker is, whom to trust, and with what to prove itself.

use std::path::{Path, PathBuf};

use daypass_evidence::note::VerifierKey;
use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

use crate::error::Error;
use crate::holder::Holder;

/// The longest ID token that is sent: what the broker accepts at most, in bytes.
const ID_TOKEN_LEN_MAX: usize = 16 * 1024;

/// Everything that a [`crate::Client`] is made from.
#[derive(Debug, Clone)]
pub struct Config {
    /// The broker's `api`: `https://HOST:PORT`.
    pub broker: Url,
    /// The broker's `web`, which is also its issuer URL: `https://HOST`, without a path. Keys and roots are
    /// fetched from there, so that no credential can be verified without it.
    pub web: Option<Url>,
    /// The roots that the broker's own certificates are believed under, PEM; no others are.
    pub ca: Vec<u8>,
    /// A client certificate. Without one a fresh self-signed one binds the tokens, and proves nothing else.
    pub certificate: Option<ClientCertificate>,
    /// An ID token, shown with each call.
    pub id_token: Option<IdToken>,
    /// The key that signs the log's checkpoints. Without one the broker is asked at the first use, and what it
    /// says then is kept under `state`.
    pub log_key: Option<VerifierKey>,
    /// A directory for what should outlive the process: the newest checkpoint, the log's key, and the fresh
    /// certificate. It is made if it is missing.
    pub state: Option<PathBuf>,
}

impl Config {
    /// What the environment says, as the program `daypass` reads it: `DAYPASS_BROKER`, `DAYPASS_WEB`, and by file
    /// `DAYPASS_CA`, `DAYPASS_CERT` with `DAYPASS_KEY`, `DAYPASS_ID_TOKEN_FILE`; the last three are followed as they
    /// change. No secret stands in the environment
    /// itself. `DAYPASS_LOG_KEY` pins the key of the log.
    ///
    /// # Errors
    /// When something needed is missing or cannot be read.
    pub fn from_env() -> Result<Self, Error> {
        Self::from_variables(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let needed = |name: &str, what: &str| {
            variable(name).ok_or_else(|| Error::Config(format!("`{name}` is not set: expected {what}")))
        };
        let read = |name: &str, path: &str| {
            let why = |error| Error::Config(format!("cannot read `{path}`: {error}; look at `{name}`"));
            std::fs::read(path).map_err(why)
        };
        let url = |name: &str, text: String| {
            let why = |error| Error::Config(format!("`{text}` is no URL: {error}; look at `{name}`"));
            text.parse().map_err(why)
        };
        let broker = url("DAYPASS_BROKER", needed("DAYPASS_BROKER", "`https://HOST:PORT`")?)?;
        let web = variable("DAYPASS_WEB").map(|text| url("DAYPASS_WEB", text)).transpose()?;
        let ca = read("DAYPASS_CA", &needed("DAYPASS_CA", "a file with the broker's roots")?)?;
        let certificate = match (variable("DAYPASS_CERT"), variable("DAYPASS_KEY")) {
            (Some(chain), Some(key)) => {
                Some(ClientCertificate::Files { chain: chain.into(), key: key.into() })
            }
            (None, None) => None,
            _ => {
                let why = "expected both `DAYPASS_CERT` and `DAYPASS_KEY`, or none";
                return Err(Error::Config(why.to_owned()));
            }
        };
        let log_key = variable("DAYPASS_LOG_KEY").map(|text| {
            let why = |_| Error::Config("`DAYPASS_LOG_KEY`: expected `name+id+key`".to_owned());
            text.parse().map_err(why)
        });
        let id_token = variable("DAYPASS_ID_TOKEN_FILE").map(|path| IdToken::File(path.into()));
        Ok(Self { broker, web, ca, certificate, id_token, log_key: log_key.transpose()?, state: None })
    }
}

/// A client certificate and its key.
#[derive(Clone)]
pub enum ClientCertificate {
    /// Two files in PEM, as for the other kind. They are looked at every two seconds: what they hold then is shown on
    /// new connections, and those that show what they held before end five seconds later. As long as chain and key do
    /// not fit, for they are written one after the other, what was before is kept.
    Files {
        /// The certificate, leaf first.
        chain: PathBuf,
        /// The private key.
        key: PathBuf,
    },
    /// The texts themselves.
    Pem {
        /// PEM, leaf first.
        chain: Vec<u8>,
        /// PKCS#8, SEC1 or PKCS#1, PEM.
        key: SecretString,
    },
}

impl ClientCertificate {
    /// The certificate as it is now.
    ///
    /// # Errors
    /// When a file cannot be read, or holds something else.
    pub(crate) fn read(&self) -> Result<Holder, Error> {
        match self {
            Self::Pem { chain, key } => Holder::from_pem(chain, key),
            Self::Files { chain, key } => {
                let key = SecretString::from(String::from_utf8(read_file(key)?).unwrap_or_default());
                Holder::from_pem(&read_file(chain)?, &key)
            }
        }
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|error| Error::Config(format!("cannot read `{}`: {error}", path.display())))
}

impl std::fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Files { chain, key } => {
                f.debug_struct("Files").field("chain", chain).field("key", key).finish()
            }
            Self::Pem { .. } => f.debug_struct("Pem").finish_non_exhaustive(),
        }
    }
}

/// Where the ID token comes from.
#[derive(Debug, Clone)]
pub enum IdToken {
    /// A file, read anew for each call: whoever mounted it may have renewed it.
    File(PathBuf),
    /// The token itself.
    Text(SecretString),
}

impl IdToken {
    /// The token as it is now.
    ///
    /// # Errors
    /// When the file cannot be read, or holds no token.
    pub async fn read(&self) -> Result<SecretString, Error> {
        match self {
            Self::Text(token) => checked(token.clone(), "the ID token"),
            Self::File(path) => {
                let shown = path.display();
                let text = tokio::fs::read_to_string(path).await.map_err(|error| {
                    Error::Config(format!(
                        "cannot read the ID token `{shown}`: {error}; look at `id_token_file`"
                    ))
                })?;
                checked(SecretString::from(text.trim_ascii()), &format!("`{shown}`"))
            }
        }
    }
}

/// Refuses what could not be sent in a header. The token itself is never part of the error.
fn checked(token: SecretString, from: &str) -> Result<SecretString, Error> {
    let text = token.expose_secret();
    let fits =
        !text.is_empty() && text.len() <= ID_TOKEN_LEN_MAX && text.bytes().all(|b| b.is_ascii_graphic());
    if fits {
        return Ok(token);
    }
    Err(Error::Config(format!(
        "{from} holds no ID token: expected one compact JSON Web Token of at most {ID_TOKEN_LEN_MAX} bytes"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_id_token_file_is_read_anew_for_each_call() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("id-token");
        let token = IdToken::File(path.clone());
        for text in ["a.b.c", "d.e.f"] {
            std::fs::write(&path, format!("{text}\n")).unwrap();
            assert_eq!(token.read().await.unwrap().expose_secret(), text);
        }
    }

    #[tokio::test]
    async fn what_is_no_token_is_refused_and_never_repeated() {
        for text in ["", " \n", "a b", "a\u{7f}b", &"x".repeat(ID_TOKEN_LEN_MAX + 1)] {
            let error = IdToken::Text(text.into()).read().await.unwrap_err().to_string();
            assert!(error.starts_with("the ID token holds no ID token: expected"), "{error}");
        }
        let missing = IdToken::File("/nowhere/token".into()).read().await.unwrap_err().to_string();
        assert!(missing.contains("`/nowhere/token`"), "{missing}");
    }
}
