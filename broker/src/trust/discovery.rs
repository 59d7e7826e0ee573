//! What an issuer's documents may say (OpenID Connect Discovery 1.0, section 4): pure, no fetching.

use std::net::IpAddr;

use daypass_verify::json::{Limits, parse_limited};
use serde_json::Value;
use url::{Host, Url};

use super::address::is_global;

const URL_LEN_MAX: usize = 2048;

/// An issuer as a fetch sees it: its identifier, and whether it may be inside the network.
#[derive(Debug, Clone)]
pub(super) struct Provider {
    issuer: String,
    port: Option<u16>,
    internal: bool,
}

impl Provider {
    pub(super) fn new(issuer: &str, internal: bool) -> Self {
        let port = Url::parse(issuer).ok().and_then(|it| it.port_or_known_default());
        Self { issuer: issuer.to_owned(), port, internal }
    }

    /// Where the discovery document is: the path is appended, whatever path the issuer has.
    pub(super) fn discovery_url(&self) -> Result<Url, String> {
        let base = self.issuer.strip_suffix('/').unwrap_or(&self.issuer);
        self.fetchable(&format!("{base}/.well-known/openid-configuration"))
    }

    /// The key set's URL from the discovery document.
    pub(super) fn jwks_url(&self, document: &[u8]) -> Result<Url, String> {
        let document = parse_limited(document, &Limits::DOCUMENT)
            .map_err(|error| format!("the discovery document is not strict JSON: {error}"))?;
        let text = |name: &str| document.get(name).and_then(Value::as_str);
        if text("issuer") != Some(&self.issuer) {
            return Err(format!("expected the discovery document's `issuer` to be `{}`", self.issuer));
        }
        self.fetchable(text("jwks_uri").ok_or("expected a `jwks_uri` in the discovery document")?)
    }

    /// Reads a URL that may be fetched from.
    pub(super) fn fetchable(&self, text: &str) -> Result<Url, String> {
        let refuse = |expected: &str| {
            let shown: String = text.chars().take(80).collect();
            Err(format!("`{}` may not be fetched: expected {expected}", shown.escape_debug()))
        };
        // A URL parser mends what is written carelessly; two parsers may mend it differently.
        if text.len() > URL_LEN_MAX || !text.bytes().all(|it| it.is_ascii_graphic() && it != b'\\') {
            return refuse("a URL of printable ASCII");
        }
        let Ok(url) = Url::parse(text) else { return refuse("a URL") };
        if url.scheme() != "https" {
            return refuse("`https`");
        }
        if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
            return refuse("no user, password or fragment");
        }
        let port = url.port_or_known_default();
        if !(port == self.port || matches!(port, Some(443 | 1024..))) {
            return refuse("port 443, the issuer's own, or one from 1024 on");
        }
        if !self.internal && literal_address(&url).is_some_and(|it| !is_global(it)) {
            return refuse("a global address; declare the issuer `internal` if this one is meant");
        }
        Ok(url)
    }
}

/// An address in place of a host name: these are connected to without being resolved.
fn literal_address(url: &Url) -> Option<IpAddr> {
    match url.host()? {
        Host::Domain(_) => None,
        Host::Ipv4(v4) => Some(v4.into()),
        Host::Ipv6(v6) => Some(v6.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ISSUER: &str = "https://ci.example.org";

    #[test]
    fn a_key_url_is_https_at_a_public_host_and_a_usual_port() {
        let provider = Provider::new(ISSUER, false);
        for good in ["/jwks", ":443/", ":8443/jwks", ":1024/", "/keys?v=1"] {
            assert!(provider.fetchable(&format!("{ISSUER}{good}")).is_ok(), "{good}");
        }
        let spoiled = [
            "http://ci.example.org/jwks",
            "file:///etc/passwd",
            "data:,{}",
            "ftp://ci.example.org/",
            "//ci.example.org/jwks",
            "/jwks",
            "",
            "https://",
            "https://user@ci.example.org/",
            "https://:secret@ci.example.org/",
            "https://ci.example.org/#x",
            "https://ci.example.org:22/",
            "https://ci.example.org:80/",
            "https://ci.example.org:1023/",
            "https://ci.example.org:0/",
            "https://ci.example.org\\@evil.example/",
            "https://ci.example.org/\u{e9}",
            "https://ci.ex\tample.org/",
            "https://127.0.0.1/",
            "https://127.1/",
            "https://0x7f.1/",
            "https://2130706433/",
            "https://017700000001/",
            "https://127.0.0.1./",
            "https://[::1]/",
            "https://[::ffff:127.0.0.1]/",
            "https://[::ffff:7f00:1]/",
            "https://[fd00:ec2::254]/",
            "https://169.254.169.254/",
            "https://100.64.0.1/",
            "https://0/",
            "https://0.0.0.0/",
        ];
        for text in spoiled {
            assert!(provider.fetchable(text).is_err(), "{text}");
        }
        let long = format!("{ISSUER}/{}", "a".repeat(URL_LEN_MAX));
        assert!(provider.fetchable(&long).is_err());
    }

    #[test]
    fn an_internal_issuer_may_be_anywhere_but_still_needs_https() {
        let provider = Provider::new("https://127.0.0.1:444", true);
        assert!(provider.fetchable("https://127.0.0.1:444/jwks").is_ok());
        assert!(provider.fetchable("https://[fd00::1]/jwks").is_ok());
        assert!(provider.fetchable("http://127.0.0.1:444/jwks").is_err());
        assert!(provider.fetchable("https://127.0.0.1:22/jwks").is_err());
    }

    #[test]
    fn a_discovery_document_must_name_the_issuer_byte_for_byte() {
        let provider = Provider::new(ISSUER, false);
        let read = |issuer: &str| {
            let document = serde_json::json!({"issuer": issuer, "jwks_uri": format!("{ISSUER}/jwks")});
            provider.jwks_url(document.to_string().as_bytes())
        };
        assert_eq!(read(ISSUER).unwrap().as_str(), "https://ci.example.org/jwks");
        for other in ["https://ci.example.org/", "https://CI.example.org", "https://ci.example.org:443", ""] {
            assert!(read(other).is_err(), "{other}");
        }
        let spoiled: [&[u8]; 6] = [
            b"[]",
            b"null",
            b"<html></html>",
            br#"{"issuer":"https://ci.example.org"}"#,
            br#"{"issuer":"https://ci.example.org","jwks_uri":["https://ci.example.org/jwks"]}"#,
            br#"{"issuer":"https://x","issuer":"https://ci.example.org","jwks_uri":"https://ci.example.org/"}"#,
        ];
        for document in spoiled {
            assert!(provider.jwks_url(document).is_err(), "{}", String::from_utf8_lossy(document));
        }
    }

    #[test]
    fn discovery_is_below_the_issuers_path() {
        let at = |issuer: &str| Provider::new(issuer, false).discovery_url().unwrap().to_string();
        assert_eq!(at(ISSUER), "https://ci.example.org/.well-known/openid-configuration");
        assert_eq!(at("https://a.example/b/"), "https://a.example/b/.well-known/openid-configuration");
    }
}
