//! What is put on a request that goes on: a fresh token, or a key that cannot be replaced yet.

use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use daypass_sdk::Secret;
use daypass_verify::ids::{CredentialId, Digest, Name};
use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::time::timeout;

use super::Refusal;
use crate::config::{Inject, StaticKey};
use crate::files::private;
use crate::keep::Kept;
use crate::standing::{Closed, Standing};

/// How long a request waits for a token.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest key, in bytes.
const KEY_LEN_MAX: u64 = 8 * 1024;

/// What is put on a request.
pub(super) struct Injected {
    pub(super) header: HeaderName,
    pub(super) value: HeaderValue,
    /// Under which credential.
    pub(super) credential: CredentialId,
    /// The certificate without which it is good for nothing.
    pub(super) bound: Option<Digest>,
}

/// Where it comes from.
pub(super) struct Injector {
    inject: Inject,
    kept: Kept,
    standing: Option<Standing>,
}

impl Injector {
    pub(super) fn new(inject: &Inject, kept: Kept, standing: Option<Standing>) -> Self {
        Self { inject: inject.clone(), kept, standing }
    }

    /// The exception under which it works.
    pub(super) fn exception(&self) -> Option<&Name> {
        match &self.inject {
            Inject::Token => None,
            Inject::Static(key) => Some(&key.exception),
        }
    }

    /// What to put on the next request: asked anew for each.
    ///
    /// # Errors
    /// Why there is nothing.
    pub(super) async fn take(&self) -> Result<Injected, Refusal> {
        match &self.inject {
            Inject::Token => self.token().await,
            Inject::Static(key) => self.key(key).await,
        }
    }

    async fn token(&self) -> Result<Injected, Refusal> {
        let answered = timeout(PATIENCE, self.kept.credential()).await;
        let why = match answered {
            Ok(Ok(credential)) => match &credential.secret {
                Secret::Token { value, bound, .. } => {
                    let made = injected(AUTHORIZATION, ("Bearer ", ""), value, credential.id)?;
                    return Ok(Injected { bound: *bound, ..made });
                }
                _ => "it is no token".to_owned(),
            },
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the broker has not answered yet".to_owned(),
        };
        Err(closed(&Closed::NoCredential { name: self.kept.name.clone(), why }, None))
    }

    async fn key(&self, key: &StaticKey) -> Result<Injected, Refusal> {
        // The configuration demands a target here.
        let Some(standing) = &self.standing else { return Err(unusable("no target is configured")) };
        let known = || self.kept.changes.borrow().as_ref().map(|fresh| fresh.credential.id);
        let permitted = standing.permit(&self.kept, &key.exception).await;
        let credential = permitted.map_err(|why| closed(&why, known()))?;
        let text = read_key(&key.file).map_err(|why| unusable(&why))?;
        #[cfg(feature = "sabotage")]
        if crate::sabotage::breaks("p14-log") {
            tracing::info!("the key: {}", text.expose_secret());
        }
        let (before, after) = &key.template;
        injected(key.header.clone(), (before, after), &text, credential.id)
    }
}

fn injected(
    header: HeaderName,
    (before, after): (&str, &str),
    secret: &SecretString,
    credential: CredentialId,
) -> Result<Injected, Refusal> {
    let text = SecretString::from(format!("{before}{}{after}", secret.expose_secret()));
    let mut value = HeaderValue::from_str(text.expose_secret())
        .map_err(|_| unusable("it cannot stand in a header: expected one line of plain letters"))?;
    value.set_sensitive(true);
    Ok(Injected { header, value, credential, bound: None })
}

fn closed(why: &Closed, credential: Option<CredentialId>) -> Refusal {
    Refusal { credential, ..Refusal::new(StatusCode::SERVICE_UNAVAILABLE, why.word(), &why.to_string()) }
}

fn unusable(why: &str) -> Refusal {
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "key_unusable", &format!("the key cannot be used: {why}"))
}

/// The key as it is now.
///
/// # Errors
/// When the file is not there, is not private, or holds no key.
fn read_key(path: &Path) -> Result<SecretString, String> {
    let shown = path.display();
    let unread = |error: std::io::Error| format!("`{shown}`: {error}");
    let file = private::open(path).map_err(|why| why.to_string())?;
    let mut text = zeroize::Zeroizing::new(String::new());
    file.take(KEY_LEN_MAX + 1).read_to_string(&mut text).map_err(unread)?;
    let key = text.trim_ascii_end();
    let plain = key.bytes().all(|b| b == b' ' || b.is_ascii_graphic());
    if key.is_empty() || !plain || text.len() as u64 > KEY_LEN_MAX {
        return Err(format!("`{shown}`: expected one line with the key alone, at most {KEY_LEN_MAX} bytes"));
    }
    Ok(SecretString::from(key))
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, set_permissions, write};
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_key_is_read_from_a_private_file_that_holds_it_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let read = |text: &str, mode: u32| {
            write(&path, text).unwrap();
            set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            read_key(&path).map(|key| key.expose_secret().to_owned())
        };
        assert_eq!(read("k-1 x\n", 0o600).unwrap(), "k-1 x");
        assert_eq!(read("k-2", 0o400).unwrap(), "k-2", "read anew each time");
        let long = "k".repeat(9000);
        for (text, mode) in
            [("k", 0o640), ("k", 0o604), ("", 0o600), ("a\nb", 0o600), ("k\u{7}", 0o600), (&long, 0o600)]
        {
            let said = read(text, mode).unwrap_err();
            assert!(said.contains("expected") && !said.contains("kkk"), "{said}");
        }
        assert!(read_key(folder.path()).is_err(), "a directory");
        assert!(read_key(&folder.path().join("none")).is_err());
    }

    #[test]
    fn what_is_injected_is_never_shown() {
        let id: CredentialId = "0199f2c1-6d5e-7a3b-9c41-2f8e5d7a9b10".parse().unwrap();
        let made = injected(AUTHORIZATION, ("Bearer ", ""), &SecretString::from("k-1"), id);
        let made = made.ok().unwrap();
        assert_eq!(made.value.as_bytes(), b"Bearer k-1");
        assert!(!format!("{:?}", made.value).contains("k-1"));
    }
}
