//! A client of the OAuth endpoints that knows HTTP and nothing of Daypass.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use daypass_broker::dev::caller::client_config;
use daypass_broker::dev::workload_ca::WorkloadCertificate;
use http::HeaderMap;
use reqwest::Client;
use serde_json::{Value, json};

use super::Deployment;

/// The grant type of RFC 8693.
pub const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
/// Its type of an ID token.
pub const ID_TOKEN: &str = "urn:ietf:params:oauth:token-type:id_token";
/// Its type of any other JWT: here, a JWT-SVID.
pub const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";

/// A client of one deployment's web listener.
pub struct Web {
    /// The listener's URL.
    pub url: String,
    /// What sends.
    pub client: Client,
}

/// What came back.
#[derive(Debug)]
pub struct Said {
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The content, which is JSON wherever there is some.
    pub body: Value,
}

impl Said {
    /// Status, OAuth's error and our reason, as tests compare them.
    pub fn refusal(&self) -> (u16, &str, &str) {
        let text = |name: &str| self.body[name].as_str().unwrap_or_default();
        (self.status, text("error"), text("reason"))
    }

    /// The token that was issued.
    pub fn token(&self) -> &str {
        let token = self.body["access_token"].as_str();
        token.unwrap_or_else(|| panic!("expected a token: {self:?}"))
    }
}

impl Web {
    /// A client with this certificate, or with none; over HTTP/2 or HTTP/1.1.
    pub fn of(deployment: &Deployment, certificate: Option<&WorkloadCertificate>, http2: bool) -> Self {
        let tls = client_config(&deployment.listener_ca, certificate).unwrap();
        let client = Client::builder().no_proxy().tls_backend_preconfigured(tls);
        let client = if http2 { client.http2_prior_knowledge() } else { client.http1_only() };
        Self { url: deployment.settings.issuer.as_str().into(), client: client.build().unwrap() }
    }

    /// Posts a form.
    pub async fn post(&self, path: &str, form: &[(&str, &str)]) -> Said {
        self.send(self.client.post(format!("{}{path}", self.url)).body(encoded(form))).await
    }

    /// The same with this in `authorization: Bearer`.
    pub async fn post_by(&self, bearer: &str, path: &str, form: &[(&str, &str)]) -> Said {
        let request = self.client.post(format!("{}{path}", self.url)).bearer_auth(bearer);
        self.send(request.body(encoded(form))).await
    }

    /// Sends a request as it is, as a form unless it says otherwise.
    pub async fn send(&self, request: reqwest::RequestBuilder) -> Said {
        let mut request = request.build().unwrap();
        let form = http::HeaderValue::from_static("application/x-www-form-urlencoded");
        request.headers_mut().entry("content-type").or_insert(form);
        let response = self.client.execute(request).await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = response.bytes().await.unwrap();
        let text = || String::from_utf8_lossy(&body).into_owned();
        Said { status, headers, body: serde_json::from_slice(&body).unwrap_or_else(|_| json!(text())) }
    }
}

/// The form of an exchange of `token` for a task.
pub fn exchange<'a>(token: &'a str, scope: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![
        ("grant_type", EXCHANGE),
        ("subject_token", token),
        ("subject_token_type", ID_TOKEN),
        ("scope", scope),
    ]
}

/// A form as browsers write it.
pub fn encoded(form: &[(&str, &str)]) -> String {
    let mut text = url::form_urlencoded::Serializer::new(String::new());
    text.extend_pairs(form);
    text.finish()
}

/// The confirmation that names a certificate (RFC 8705, section 3.1).
pub fn certificate_digest(certificate: &WorkloadCertificate) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, &certificate.chain[0]);
    URL_SAFE_NO_PAD.encode(digest)
}

/// The chain of a certificate and its key, both in PEM.
pub fn in_pem(certificate: &WorkloadCertificate) -> (String, String) {
    let chain = certificate.chain.iter().map(|der| pem::encode(&pem::Pem::new("CERTIFICATE", der.as_ref())));
    (chain.collect(), pem::encode(&pem::Pem::new("PRIVATE KEY", certificate.key.secret_pkcs8_der())))
}
