//! HTTP to targets, over connections that show the client's certificate as it is now.

use std::sync::{Arc, Mutex, PoisonError};

use daypass_verify::ids::Digest;
use rustls::ClientConfig;
use tracing::warn;

use super::CONNECT_TIMEOUT;
use crate::error::Error;
use crate::line::Lines;

/// Makes requests to targets: [`Client::http_to`](crate::Client::http_to). Cheap to clone.
#[derive(Clone, Debug)]
pub struct HttpClient {
    tls: ClientConfig,
    lines: Lines,
    made: Arc<Mutex<Made>>,
}

/// A pool of connections, and the certificate that they show.
#[derive(Clone, Debug)]
struct Made {
    shown: Digest,
    client: reqwest::Client,
}

impl HttpClient {
    pub(super) fn new(tls: ClientConfig, lines: Lines) -> Result<Self, Error> {
        let made = Made { shown: lines.now().holder.digest(), client: build(&tls)? };
        Ok(Self { tls, lines, made: Arc::new(Mutex::new(made)) })
    }

    /// The client for the next request: its connections are kept, and all of them show the certificate of now. Ask for it
    /// each time, so that none shows one that was replaced. To be called within a tokio runtime.
    #[must_use]
    pub fn now(&self) -> reqwest::Client {
        let shown = self.lines.now().holder.digest();
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if made.shown != shown {
            match build(&self.tls) {
                Ok(client) => *made = Made { shown, client },
                Err(error) => warn!("connections go on showing the certificate before: {error}"),
            }
        }
        made.client.clone()
    }
}

fn build(tls: &ClientConfig) -> Result<reqwest::Client, Error> {
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls.clone())
        .https_only(true)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .build()
        .map_err(|error| Error::Config(format!("cannot set up a client: {error}")))
}
