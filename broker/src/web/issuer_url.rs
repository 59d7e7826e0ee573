//! The issuer's URL, which is for ever, and the names under which its site may be asked for.

use std::fmt;
use std::str::FromStr;

use url::{Position, Url};

/// The issuer: `https://`, a host and perhaps a port, written the one way that a URL parser writes it, less the
/// last `/`. Verifiers compare it byte for byte (RFC 8414, section 3.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerUrl(String);

/// Why a URL cannot be an issuer's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` cannot name an issuer; expected `https://` and a host in lower case, perhaps with a port, without a path and a last `/`, such as `https://daypass.example.org`"
)]
pub struct IssuerUrlError(String);

impl FromStr for IssuerUrl {
    type Err = IssuerUrlError;

    fn from_str(text: &str) -> Result<Self, IssuerUrlError> {
        let url = Url::parse(text).ok().filter(|url| url.scheme() == "https");
        match url {
            Some(url)
                if url.as_str().strip_suffix('/') == Some(text)
                    && url[Position::BeforeUsername..Position::BeforeHost].is_empty()
                    && url.path() == "/" =>
            {
                Ok(Self(text.to_owned()))
            }
            _ => Err(IssuerUrlError(text.to_owned())),
        }
    }
}

impl IssuerUrl {
    /// The URL.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The URL of a path on the same site; `path` begins with `/`.
    #[must_use]
    pub fn at(&self, path: &str) -> String {
        format!("{}{path}", self.0)
    }

    /// Host and port; without the port where it is 443.
    #[must_use]
    pub fn authority(&self) -> &str {
        self.0.trim_start_matches("https://")
    }
}

impl fmt::Display for IssuerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The hosts and ports that requests may name.
#[derive(Debug, Clone)]
pub struct Authorities(Vec<String>);

impl Authorities {
    /// The issuer's own, and others such as the one that clients with certificates use.
    #[must_use]
    pub fn new(issuer: &IssuerUrl, others: impl IntoIterator<Item = String>) -> Self {
        let own = std::iter::once(issuer.authority().to_owned());
        Self(
            own.chain(others)
                .map(|authority| without_default_port(&authority).to_ascii_lowercase())
                .collect(),
        )
    }

    pub(super) fn include(&self, authority: &str) -> bool {
        let asked = without_default_port(authority);
        self.0.iter().any(|known| known.eq_ignore_ascii_case(asked))
    }
}

fn without_default_port(authority: &str) -> &str {
    authority.strip_suffix(":443").unwrap_or(authority)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issuer_has_one_spelling() {
        for good in ["https://daypass.example.org", "https://127.0.0.1:8443", "https://[::1]:8443"] {
            assert_eq!(good.parse::<IssuerUrl>().unwrap().as_str(), good);
        }
        for bad in [
            "",
            "daypass.example.org",
            "http://daypass.example.org",
            "https://daypass.example.org/",
            "https://daypass.example.org/a",
            "https://daypass.example.org?",
            "https://daypass.example.org#",
            "https://daypass.example.org:443",
            "https://Daypass.example.org",
            "https://u@daypass.example.org",
            "https://u:p@daypass.example.org",
            "https://dä.example.org",
            "https://0x7f.1",
            "https://",
            " https://daypass.example.org",
        ] {
            assert!(bad.parse::<IssuerUrl>().is_err(), "{bad}");
        }
    }

    #[test]
    fn only_names_of_the_site_are_answered_for() {
        let issuer = "https://daypass.example.org".parse().unwrap();
        let authorities = Authorities::new(&issuer, ["mtls.example.org:8443".to_owned()]);
        for own in
            ["daypass.example.org", "DAYPASS.example.org", "daypass.example.org:443", "mtls.example.org:8443"]
        {
            assert!(authorities.include(own), "{own}");
        }
        for foreign in
            ["", "example.org", "daypass.example.org:8443", "daypass.example.org.", "mtls.example.org"]
        {
            assert!(!authorities.include(foreign), "{foreign}");
        }
    }
}
