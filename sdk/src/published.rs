//! What the broker publishes on its `web`: the keys of its tokens and the roots of its certificates.

use std::sync::Arc;
use std::time::{Duration, Instant};

use daypass_verify::json::{Limits, parse_limited};
use daypass_verify::jwks::KeySet;
use http::StatusCode;
use http::header::{CACHE_CONTROL, ETAG, IF_NONE_MATCH};
use rustls::ClientConfig;
use rustls_pki_types::CertificateDer;
use serde_json::Value;
use tokio::sync::Mutex;
use url::Url;

use crate::client::ASK_FOR_LIFE_AFTER;
use crate::error::Error;
use crate::verify::VerifyError;

/// The longest document, in bytes.
const DOCUMENT_LEN_MAX: usize = 256 * 1024;
/// Where the broker says who it is (RFC 8414, section 3).
const METADATA: &str = "/.well-known/oauth-authorization-server";
/// How long documents are used before they are fetched again, unless their headers say a shorter time.
const FRESH_FOR: Duration = Duration::from_secs(300);
/// They are used this long whatever their headers say.
const FRESH_FOR_MIN: Duration = Duration::from_secs(1);
/// A set this young is not fetched again for the sake of an unknown key.
const TOO_YOUNG_TO_REFRESH: Duration = Duration::from_secs(5);

/// Keys and roots, as fetched together.
#[derive(Debug, Clone)]
pub struct Published {
    /// The issuer URL, byte for byte as tokens name it.
    pub issuer: String,
    /// The keys of access tokens: `/jwks`.
    pub token_keys: KeySet,
    /// The keys of JWT-SVIDs: `/bundle`.
    pub svid_keys: KeySet,
    /// The same as a JWK set (RFC 7517), for others who verify.
    pub svid_jwks: String,
    /// The roots of certificates: `/bundle`.
    pub roots: Vec<CertificateDer<'static>>,
}

/// The `web` of one broker.
#[derive(Debug)]
pub(crate) struct Web {
    http: reqwest::Client,
    issuer: String,
    newest: Mutex<Option<Fetched>>,
}

/// What was fetched, when, and how long it may be used.
#[derive(Debug)]
struct Fetched {
    at: Instant,
    fresh_for: Duration,
    published: Arc<Published>,
}

/// One document as it came.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) body: Vec<u8>,
    pub(crate) etag: Option<String>,
    max_age: Option<Duration>,
}

impl Web {
    pub(crate) fn new(url: &Url, tls: ClientConfig) -> Result<Self, Error> {
        let issuer = url.as_str().trim_end_matches('/').to_owned();
        if url.scheme() != "https" || url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return Err(Error::Config(format!(
                "`{url}` is no issuer URL: expected `https://HOST`, without a path"
            )));
        }
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .https_only(true)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_secs(2))
            .timeout(Duration::from_secs(5))
            .http2_keep_alive_interval(ASK_FOR_LIFE_AFTER)
            .http2_keep_alive_timeout(ASK_FOR_LIFE_AFTER)
            .build()
            .map_err(|error| Error::Config(format!("cannot set up `{url}`: {error}")))?;
        Ok(Self { http, issuer, newest: Mutex::new(None) })
    }

    /// The documents, at most five minutes old.
    pub(crate) async fn published(&self) -> Result<Arc<Published>, Error> {
        self.no_older_than(FRESH_FOR).await
    }

    /// The documents after a key was not found in them.
    pub(crate) async fn refreshed(&self) -> Result<Arc<Published>, Error> {
        self.no_older_than(TOO_YOUNG_TO_REFRESH).await
    }

    async fn no_older_than(&self, age: Duration) -> Result<Arc<Published>, Error> {
        // Held while fetching: of many callers one fetches, and the others find what it brought.
        let mut newest = self.newest.lock().await;
        if let Some(known) = newest.as_ref()
            && known.at.elapsed() < age.min(known.fresh_for)
        {
            return Ok(known.published.clone());
        }
        let at = Instant::now();
        let (published, fresh_for) = self.fetch().await?;
        let published = Arc::new(published);
        *newest = Some(Fetched { at, fresh_for, published: published.clone() });
        Ok(published)
    }

    /// The documents as they are now, and how long they may be used.
    pub(crate) async fn fetch(&self) -> Result<(Published, Duration), Error> {
        let (metadata, jwks, bundle) =
            tokio::try_join!(self.document(METADATA), self.document("/jwks"), self.document("/bundle"))?;
        check_issuer(&metadata.body, &self.issuer).map_err(|why| self.unusable(METADATA, &why))?;
        let keys = KeySet::parse(&jwks.body);
        let (token_keys, _) = keys.map_err(|why| self.unusable("/jwks", &why.to_string()))?;
        // A broker that signs no JWT-SVIDs publishes no key for them.
        let svid_keys = KeySet::parse_bundle(&bundle.body).map(|(keys, _)| keys).unwrap_or_default();
        let svid_jwks = svid_jwks(&bundle.body);
        let roots = roots(&bundle.body).map_err(|why| self.unusable("/bundle", why))?;
        let max_ages = [jwks.max_age, bundle.max_age].into_iter().flatten();
        let fresh_for = max_ages.fold(FRESH_FOR, Duration::min).max(FRESH_FOR_MIN);
        Ok((Published { issuer: self.issuer.clone(), token_keys, svid_keys, svid_jwks, roots }, fresh_for))
    }

    async fn document(&self, path: &str) -> Result<Page, Error> {
        let page = self.page(path, None, DOCUMENT_LEN_MAX).await?;
        page.ok_or_else(|| self.unusable(path, "expected the document").into())
    }

    /// What is published under `path`; none where it is still the one of `etag`.
    pub(crate) async fn page(
        &self,
        path: &str,
        etag: Option<&str>,
        len_max: usize,
    ) -> Result<Option<Page>, Error> {
        let url = self.url(path);
        let unreachable =
            |error: reqwest::Error| Error::Unreachable { broker: url.clone(), detail: deepest(&error) };
        let mut request = self.http.get(&url);
        if let Some(etag) = etag {
            request = request.header(IF_NONE_MATCH, etag);
        }
        let answer = request.send().await.map_err(unreachable)?;
        if answer.status() == StatusCode::NOT_MODIFIED && etag.is_some() {
            return Ok(None);
        }
        let mut answer = answer.error_for_status().map_err(unreachable)?;
        let header = |name| answer.headers().get(name).and_then(|value| value.to_str().ok());
        let (etag, max_age) = (header(ETAG).map(str::to_owned), header(CACHE_CONTROL).and_then(max_age));
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(unreachable)? {
            body.extend_from_slice(&chunk);
            if body.len() > len_max {
                return Err(self.unusable(path, &format!("expected at most {len_max} bytes")).into());
            }
        }
        Ok(Some(Page { body, etag, max_age }))
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.issuer)
    }

    pub(crate) fn issuer(&self) -> &str {
        &self.issuer
    }

    fn unusable(&self, path: &str, why: &str) -> VerifyError {
        VerifyError::Published { url: self.url(path), why: why.to_owned() }
    }
}

/// `max-age` (RFC 9111, section 5.2.2.1); nothing may be used for longer than `no-store` and `no-cache` say.
fn max_age(cache_control: &str) -> Option<Duration> {
    let mut directives = cache_control.split(',').map(str::trim);
    directives.find_map(|it| match it {
        "no-store" | "no-cache" => Some(Duration::ZERO),
        _ => it.strip_prefix("max-age=")?.parse().ok().map(Duration::from_secs),
    })
}

/// The issuer must be the URL under which it is found, byte for byte (RFC 8414, section 3.3): tokens name it so.
fn check_issuer(metadata: &[u8], expected: &str) -> Result<(), String> {
    let document = parse_limited(metadata, &Limits::DOCUMENT).map_err(|why| why.to_string())?;
    match document.get("issuer").and_then(Value::as_str) {
        Some(issuer) if issuer == expected => Ok(()),
        Some(issuer) => Err(format!("the issuer is `{issuer}`: name it so as `web`, not `{expected}`")),
        None => Err("expected a JSON object with `issuer`".to_owned()),
    }
}

/// The keys of JWT-SVIDs in a SPIFFE bundle that was parsed before, and nothing else of it.
fn svid_jwks(bundle: &[u8]) -> String {
    let document = parse_limited(bundle, &Limits::DOCUMENT).unwrap_or_default();
    let keys = document.get("keys").and_then(Value::as_array).into_iter().flatten();
    let keys: Vec<_> =
        keys.filter(|key| key.get("use").and_then(Value::as_str) == Some("jwt-svid")).collect();
    serde_json::json!({ "keys": keys }).to_string()
}

/// The X.509 authorities of a SPIFFE bundle (SPIFFE Trust Domain and Bundle, section 4.2).
fn roots(bundle: &[u8]) -> Result<Vec<CertificateDer<'static>>, &'static str> {
    let expected = "expected a SPIFFE bundle: `keys`, those for `x509-svid` with one certificate in `x5c`";
    let document = parse_limited(bundle, &Limits::DOCUMENT).map_err(|_| expected)?;
    let keys = document.get("keys").and_then(Value::as_array).ok_or(expected)?;
    let authorities = keys.iter().filter(|key| key.get("use").and_then(Value::as_str) == Some("x509-svid"));
    authorities
        .map(|key| {
            let text = key.get("x5c").and_then(|x5c| x5c.get(0)).and_then(Value::as_str).ok_or(expected)?;
            data_encoding::BASE64.decode(text.as_bytes()).map(CertificateDer::from).map_err(|_| expected)
        })
        .collect()
}

fn deepest(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_roots_are_the_certificates_of_the_bundle() {
        let bundle = |x5c: &str| format!(r#"{{"keys":[{{"use":"jwt-svid"}},{{"use":"x509-svid"{x5c}}}]}}"#);
        let roots_of = |x5c| roots(bundle(x5c).as_bytes());
        assert_eq!(roots_of(r#","x5c":["AQID"]"#).unwrap(), [CertificateDer::from(vec![1, 2, 3])]);
        for spoiled in ["", r#","x5c":[]"#, r#","x5c":"AQID""#, r#","x5c":["*"]"#] {
            assert!(roots_of(spoiled).is_err(), "{spoiled}");
        }
        assert!(roots(b"<html>").is_err());
    }

    #[test]
    fn an_issuer_is_known_by_its_exact_url() {
        let check = |text: &str| check_issuer(text.as_bytes(), "https://a.example");
        check(r#"{"issuer":"https://a.example"}"#).unwrap();
        for spoiled in
            [r#"{"issuer":"https://a.example/"}"#, r#"{"issuer":"https://b.example"}"#, "{}", "[]", "<html>"]
        {
            assert!(check(spoiled).is_err(), "{spoiled}");
        }
    }

    #[test]
    fn an_issuer_url_has_no_path() {
        let tls = || {
            let holder = crate::holder::Holder::fresh(daypass_verify::time::UnixMs::default()).unwrap();
            let ca = crate::holder::pem("CERTIFICATE", &holder.chain()[0]);
            crate::tls::client_config(ca.as_bytes(), None, &["h2"]).unwrap()
        };
        for good in ["https://127.0.0.1:8443", "https://daypass.example.org/"] {
            let web = Web::new(&good.parse().unwrap(), tls()).unwrap();
            assert_eq!(web.issuer, good.trim_end_matches('/'));
        }
        for bad in ["http://a", "https://a/b", "https://a?b", "https://a#b"] {
            assert!(Web::new(&bad.parse().unwrap(), tls()).is_err(), "{bad}");
        }
    }
}
