//! The client itself: one connection, one proof, and what is known of the log.

use std::sync::Arc;
use std::time::Duration;

use daypass_evidence::note::VerifierKey;
use daypass_proto::v1;
use daypass_proto::v1::trust_service_client::TrustServiceClient;
use daypass_verify::ids::Digest;
use daypass_verify::time::UnixMs;
use secrecy::{ExposeSecret as _, SecretString};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::clock::{Clock, SystemClock};
use crate::config::{Config, IdToken};
use crate::error::Error;
use crate::holder::Holder;
use crate::kept::{Kept, Newest};
use crate::line::{Followed, Line, Lines};
use crate::published::{Published, Web};
use crate::tls::client_config;
use crate::verify;

/// How long one call may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection may take, with its handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection on which an answer is waited for this long is asked whether it lives, and given up after as long
/// again: the next call makes a new one. A machine that slept, or whose network changed, finds its connections dead.
pub(crate) const ASK_FOR_LIFE_AFTER: Duration = Duration::from_secs(2);

/// What a caller is told who showed nothing.
const NO_PROOF: &str = "no proof: expected `id_token_file`, or `cert` and `key`, in the profile or in the environment \
                        (`DAYPASS_ID_TOKEN_FILE`; `DAYPASS_CERT` and `DAYPASS_KEY`)";

/// Talks to one broker. Cheap to clone; clones share the connection and what is known of the log.
#[derive(Debug, Clone)]
pub struct Client(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    clock: Arc<dyn Clock>,
    broker: String,
    lines: Lines,
    id_token: Option<IdToken>,
    web: Option<Web>,
    log_key: tokio::sync::OnceCell<VerifierKey>,
    kept: Kept,
}

impl Client {
    /// A client that connects at its first call. To be made within a tokio runtime.
    ///
    /// # Errors
    /// When the configuration cannot work: see [`Error::Config`].
    pub fn new(config: Config) -> Result<Self, Error> {
        Self::with_clock(config, Arc::new(SystemClock))
    }

    /// A client as the environment says: see [`Config::from_env`].
    ///
    /// # Errors
    /// When something needed is missing or cannot work.
    pub fn from_env() -> Result<Self, Error> {
        Self::new(Config::from_env()?)
    }

    /// The same by another clock than the machine's.
    ///
    /// # Errors
    /// When the configuration cannot work: see [`Error::Config`].
    pub fn with_clock(config: Config, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        let broker = config.broker.as_str().trim_end_matches('/').to_owned();
        if config.broker.scheme() != "https" {
            return Err(Error::Config(format!("`{broker}` is no broker: expected `https://HOST:PORT`")));
        }
        let kept = Kept::open(config.state.clone())?;
        let endpoint = Endpoint::from_shared(broker.clone())
            .and_then(|it| it.user_agent(concat!("daypass-sdk/", env!("CARGO_PKG_VERSION"))))
            .map_err(|error| Error::Config(format!("`{broker}` is no broker: {error}")))?
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(ASK_FOR_LIFE_AFTER)
            .keep_alive_timeout(ASK_FOR_LIFE_AFTER)
            .tcp_nodelay(true);
        let followed = Followed::of(config.certificate.as_ref());
        let lines = Lines::open(endpoint, &config.ca, holder(&config, clock.now())?, followed)?;
        let web = config.web.as_ref().map(|url| {
            client_config(&config.ca, None, &["h2", "http/1.1"]).and_then(|tls| Web::new(url, tls))
        });
        Ok(Self(Arc::new(Inner {
            clock,
            broker,
            lines,
            id_token: config.id_token,
            web: web.transpose()?,
            log_key: tokio::sync::OnceCell::new_with(config.log_key.or_else(|| kept.log_key())),
            kept,
        })))
    }

    /// Whether the broker says that it serves.
    ///
    /// # Errors
    /// When nobody answered.
    pub async fn is_serving(&self) -> Result<bool, Error> {
        let mut request = Request::new(HealthCheckRequest { service: String::new() });
        request.set_timeout(CALL_TIMEOUT);
        let answer = HealthClient::new(self.channel()).check(request).await;
        Ok(self.sorted(answer)?.into_inner().status() == ServingStatus::Serving)
    }

    /// The certificate that this client shows now, and to which its tokens are bound.
    #[must_use]
    pub fn holder(&self) -> Arc<Holder> {
        self.line().holder
    }

    /// The keys and roots that the broker publishes, at most five minutes old.
    ///
    /// # Errors
    /// When no `web` is configured, it does not answer, or what it publishes cannot be used.
    pub async fn published(&self) -> Result<Arc<Published>, Error> {
        self.web()?.published().await
    }

    /// The key of the log: as configured, as kept, or as the broker says at the first use.
    ///
    /// # Errors
    /// When there is none and the broker names none.
    pub async fn log_key(&self) -> Result<&VerifierKey, Error> {
        self.0.log_key.get_or_try_init(|| self.first_log_key()).await
    }

    async fn first_log_key(&self) -> Result<VerifierKey, Error> {
        let request = self.proven(v1::GetTrustRequest {}).await?;
        let answer = TrustServiceClient::new(self.channel()).get_trust(request).await;
        let trust = match self.sorted(answer) {
            Ok(answer) => answer.into_inner().trust.unwrap_or_default(),
            Err(error @ Error::Unreachable { .. }) => return Err(error),
            Err(_) => v1::TrustBundle::default(),
        };
        let key = trust.log_keys.last().and_then(|text| text.parse().ok()).ok_or_else(|| {
            Error::Config("no `log_key`: expected the key of the log's checkpoints, `name+id+key`".into())
        })?;
        self.0.kept.keep_log_key(&key)?;
        Ok(key)
    }

    pub(crate) fn web(&self) -> Result<&Web, Error> {
        let missing =
            || Error::Config("no `web`: expected the URL under which the broker publishes its keys".into());
        self.0.web.as_ref().ok_or_else(missing)
    }

    pub(crate) async fn follow_checkpoint(&self, known: Option<Newest>, found: Newest) -> Result<(), Error> {
        if let Some(known) = known
            && verify::not_behind(&known, &found.checkpoint)?
            && known.checkpoint.size > 0
        {
            let proof = self.consistency(known.checkpoint.size, found.checkpoint.size).await?;
            verify::consistent(&known, &found.checkpoint, &proof.hashes)?;
        }
        self.0.kept.advance(found)
    }

    pub(crate) fn known(&self, key: &VerifierKey) -> Result<Option<Newest>, Error> {
        Ok(self.0.kept.newest(key)?)
    }

    pub(crate) fn channel(&self) -> Channel {
        self.line().channel
    }

    pub(crate) fn line(&self) -> Line {
        self.0.lines.now()
    }

    pub(crate) fn lines(&self) -> &Lines {
        &self.0.lines
    }

    /// The request with the caller's proof, to be answered in time.
    pub(crate) async fn proven<T>(&self, message: T) -> Result<Request<T>, Error> {
        let mut request = self.proven_stream(message).await?;
        request.set_timeout(CALL_TIMEOUT);
        Ok(request)
    }

    /// The request with the caller's proof, to be answered for as long as it takes.
    pub(crate) async fn proven_stream<T>(&self, message: T) -> Result<Request<T>, Error> {
        let mut request = Request::new(message);
        match &self.0.id_token {
            Some(token) => {
                request.metadata_mut().insert("authorization", bearer(&token.read().await?)?);
            }
            None if self.holder().is_fresh() => {
                return Err(Error::Config(NO_PROOF.into()));
            }
            None => {}
        }
        Ok(request)
    }

    /// What tells one proof from another; none where it cannot be read.
    pub(crate) async fn proof_mark(&self) -> Option<Digest> {
        let Some(token) = &self.0.id_token else { return Some(self.holder().digest()) };
        Some(Digest::of(token.read().await.ok()?.expose_secret().as_bytes()))
    }

    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        &self.0.clock
    }

    pub(crate) fn now(&self) -> UnixMs {
        self.0.clock.now()
    }

    pub(crate) fn sorted<T>(&self, answer: Result<Response<T>, Status>) -> Result<Response<T>, Error> {
        answer.map_err(|status| self.error(&status))
    }

    pub(crate) fn error(&self, status: &Status) -> Error {
        Error::from_status(status, &self.0.broker)
    }
}

fn holder(config: &Config, now: UnixMs) -> Result<Holder, Error> {
    match (&config.certificate, &config.state) {
        (Some(certificate), _) => certificate.read(),
        (None, Some(state)) => Holder::kept(state, now),
        (None, None) => Holder::fresh(now),
    }
}

fn bearer(token: &SecretString) -> Result<MetadataValue<Ascii>, Error> {
    let text = zeroize::Zeroizing::new(format!("Bearer {}", token.expose_secret()));
    let mut value: MetadataValue<Ascii> =
        text.parse().map_err(|_| Error::Config("the ID token: expected a compact JSON Web Token".into()))?;
    value.set_sensitive(true);
    Ok(value)
}
