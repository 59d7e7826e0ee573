//! One question to one witness over HTTP (C2SP tlog-witness, "add-checkpoint"), with a bound on everything.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use daypass_evidence::note::MAX_NOTE;
use daypass_evidence::tree::Hash;
use reqwest::{Client, Response, StatusCode, redirect};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore};
use url::{Host, Url};

const CONNECT: Duration = Duration::from_secs(3);
const WHOLE: Duration = Duration::from_secs(10);

/// How much of an error, that a stranger had a part in, is kept.
const DETAIL_LEN_MAX: usize = 200;

/// Why a witness cannot be asked there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no place to ask a witness: expected `https://HOST` with a path or none, or `http://` on loopback"
)]
pub struct WitnessUrlError(String);

/// Where checkpoints are submitted to the witness with this submission prefix.
///
/// # Errors
/// When it is not HTTPS, unless its host is this machine, or it has a query, a fragment or a user.
pub fn submission_url(prefix: &str) -> Result<Url, WitnessUrlError> {
    let refuse = || WitnessUrlError(prefix.chars().take(DETAIL_LEN_MAX).collect());
    let url =
        Url::parse(&format!("{}/add-checkpoint", prefix.trim_end_matches('/'))).map_err(|_| refuse())?;
    let safe = url.scheme() == "https" || (url.scheme() == "http" && is_loopback(&url));
    let plain = url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
    let whole = url.host().is_some() && url.password().is_none() && url.path().ends_with("/add-checkpoint");
    if safe && plain && whole { Ok(url) } else { Err(refuse()) }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        // A name is what a resolver says it is.
        Some(Host::Domain(_)) | None => false,
    }
}

/// What a witness answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// 200: signature lines.
    Signed(Vec<u8>),
    /// 409: the size of the newest checkpoint that it signed, and how it said so.
    Knows(u64, Vec<u8>),
    /// 422: the consistency proof does not lead from what it knows.
    Inconsistent(Vec<u8>),
    /// Anything else.
    Other(u16),
}

/// Asks witnesses.
pub(super) struct Asker(Client);

impl Asker {
    pub(super) fn new() -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let client = Client::builder()
            .tls_backend_preconfigured(tls)
            .http1_only()
            .redirect(redirect::Policy::none())
            .no_proxy()
            .connect_timeout(CONNECT)
            .timeout(WHOLE)
            .user_agent("daypass")
            .build();
        client.map(Self).map_err(|error| error.to_string())
    }

    /// Shows the checkpoint `note`, with the proof that the tree of `old` leaves is part of its own.
    pub(super) async fn add_checkpoint(
        &self,
        url: &Url,
        old: u64,
        proof: &[Hash],
        note: &[u8],
    ) -> Result<Answer, String> {
        let request = self.0.post(url.clone()).body(request(old, proof, note));
        let response = request.send().await.map_err(failed)?;
        let status = response.status();
        match status {
            StatusCode::OK => Ok(Answer::Signed(body(response).await?)),
            StatusCode::CONFLICT => conflict(body(response).await?),
            StatusCode::UNPROCESSABLE_ENTITY => Ok(Answer::Inconsistent(body(response).await?)),
            other => Ok(Answer::Other(other.as_u16())),
        }
    }
}

/// The old size, the proof, an empty line, the note.
fn request(old: u64, proof: &[Hash], note: &[u8]) -> Vec<u8> {
    let mut text = format!("old {old}\n").into_bytes();
    for hash in proof {
        text.extend_from_slice(STANDARD.encode(hash).as_bytes());
        text.push(b'\n');
    }
    text.push(b'\n');
    text.extend_from_slice(note);
    text
}

fn conflict(said: Vec<u8>) -> Result<Answer, String> {
    let text = std::str::from_utf8(&said).ok().and_then(|text| text.strip_suffix('\n'));
    let size = text.and_then(|text| text.parse::<u64>().ok().filter(|size| size.to_string() == text));
    size.map(|size| Answer::Knows(size, said)).ok_or_else(|| "a conflict that names no size".to_owned())
}

/// The whole body, if it is no longer than a note; whatever length is announced.
async fn body(mut response: Response) -> Result<Vec<u8>, String> {
    let mut whole = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        if whole.len().saturating_add(chunk.len()) > MAX_NOTE {
            return Err(format!("an answer of over {MAX_NOTE} bytes"));
        }
        whole.extend_from_slice(&chunk);
    }
    Ok(whole)
}

fn failed(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text.escape_debug().take(DETAIL_LEN_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_witness_is_asked_over_https_or_on_this_machine() {
        for (prefix, url) in [
            ("https://witness.example", "https://witness.example/add-checkpoint"),
            ("https://witness.example/", "https://witness.example/add-checkpoint"),
            ("https://witness.example:8443/w1", "https://witness.example:8443/w1/add-checkpoint"),
            ("http://127.0.0.1:9", "http://127.0.0.1:9/add-checkpoint"),
            ("http://[::1]:9/w", "http://[::1]:9/w/add-checkpoint"),
        ] {
            assert_eq!(submission_url(prefix).unwrap().as_str(), url);
        }
        for prefix in [
            "",
            "witness.example",
            "http://witness.example",
            "http://localhost:9",
            "http://10.0.0.1",
            "ftp://127.0.0.1",
            "https://user@witness.example",
            "https://user:pass@witness.example",
            "https://witness.example?x=1",
            "https://witness.example#x",
            "file:///etc/passwd",
        ] {
            assert!(submission_url(prefix).is_err(), "{prefix}");
        }
    }

    #[test]
    fn a_request_is_written_as_the_specification_says() {
        assert_eq!(request(0, &[], b"note\n"), b"old 0\n\nnote\n");
        let zeroes = "A".repeat(43);
        let expected = format!("old 7\n{zeroes}=\n{zeroes}=\n\nnote\n");
        assert_eq!(request(7, &[[0; 32]; 2], b"note\n"), expected.as_bytes());
    }

    #[test]
    fn a_conflict_names_one_size_in_one_spelling() {
        assert_eq!(conflict(b"20852014\n".to_vec()), Ok(Answer::Knows(20_852_014, b"20852014\n".to_vec())));
        for said in
            [&b""[..], b"\n", b"7", b"07\n", b"+7\n", b"-1\n", b"7\n\n", b"18446744073709551616\n", b"\xff\n"]
        {
            assert!(conflict(said.to_vec()).is_err(), "{said:?}");
        }
    }
}
