//! The client itself: one connection, one proof, and the straight line of an issuance.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use daypass_evidence::note::VerifierKey;
use daypass_proto::v1;
use daypass_proto::v1::credential_service_client::CredentialServiceClient;
use daypass_proto::v1::issue_response;
use daypass_proto::v1::trust_service_client::TrustServiceClient;
use daypass_verify::credential::CredentialError;
use daypass_verify::csr::key_of_csr;
use daypass_verify::ids::{CredentialId, Digest};
use daypass_verify::jose::JoseError;
use daypass_verify::time::UnixMs;
use rustls_pki_types::CertificateDer;
use secrecy::{ExposeSecret as _, SecretString};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::config::{Config, IdToken};
use crate::credential::{Credential, Grant, Preview, Receipt, Secret};
use crate::error::Error;
use crate::holder::Holder;
use crate::kept::{Kept, Newest};
use crate::published::{Published, Web};
use crate::request::{IssueRequest, Kind};
use crate::tls::{Connector, client_config};
use crate::verify::{self, VerifyError};

/// How long one call may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection may take, with its handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Talks to one broker. Cheap to clone; clones share the connection and what is known of the log.
#[derive(Debug, Clone)]
pub struct Client(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    broker: String,
    channel: Channel,
    holder: Holder,
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
        let broker = config.broker.as_str().trim_end_matches('/').to_owned();
        if config.broker.scheme() != "https" {
            return Err(Error::Config(format!("`{broker}` is no broker: expected `https://HOST:PORT`")));
        }
        let kept = Kept::open(config.state.clone())?;
        let holder = holder(&config)?;
        let tls = client_config(&config.ca, Some(&holder), &["h2"])?;
        let endpoint = Endpoint::from_shared(broker.clone())
            .and_then(|it| it.user_agent(concat!("daypass-sdk/", env!("CARGO_PKG_VERSION"))))
            .map_err(|error| Error::Config(format!("`{broker}` is no broker: {error}")))?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true);
        let channel = endpoint.connect_with_connector_lazy(Connector::new(tls));
        let web = config.web.as_ref().map(|url| {
            client_config(&config.ca, None, &["h2", "http/1.1"]).and_then(|tls| Web::new(url, tls))
        });
        Ok(Self(Arc::new(Inner {
            broker,
            channel,
            holder,
            id_token: config.id_token,
            web: web.transpose()?,
            log_key: tokio::sync::OnceCell::new_with(config.log_key.or_else(|| kept.log_key())),
            kept,
        })))
    }

    /// Asks for one credential, and verifies it.
    ///
    /// # Errors
    /// When it was refused, nobody answered, or the answer does not hold: see [`Error`].
    pub async fn issue(&self, request: IssueRequest) -> Result<Credential, Error> {
        // Whatever is needed to check the answer is fetched first: a proof that counts once is not spent in vain.
        let (log_key, _) = (self.log_key().await?, self.published().await?);
        let key = IssueKey::of(&request.kind)?;
        let known = self.0.kept.newest(log_key)?;
        let mut wire = request.to_wire(key.csr.clone());
        wire.request_id = uuid::Uuid::now_v7().to_string();
        wire.known_checkpoint = known.as_ref().map(|it| it.note.clone()).unwrap_or_default();
        let (answer, request_id) = self.send_issue(wire).await?;
        let granted = verify::granted(&request, &answer)?;
        verify::trust_domain(&granted, log_key)?;
        let id = answer.credential_id.parse().map_err(|_| VerifyError::Answer("credential_id"))?;
        let receipt = answer.receipt.as_ref().ok_or(VerifyError::Answer("receipt"))?;
        let receipt = verify::receipt(receipt, log_key)?;
        self.follow(known, &receipt).await?;
        let renew_after = verify::moment(answer.renew_after.as_ref(), "renew_after")?;
        let wire = answer.credential.ok_or(VerifyError::Answer("credential"))?;
        let secret = self.verified_secret(wire, id, &granted, &request, key).await?;
        Ok(Credential { id, secret, granted, narrowed: answer.narrowed, renew_after, receipt, request_id })
    }

    /// Asks what `request` would get; nothing is issued and no proof is spent.
    ///
    /// # Errors
    /// When it would be refused, nobody answered, or the answer does not hold.
    pub async fn preview(&self, request: &IssueRequest) -> Result<Preview, Error> {
        let key = IssueKey::of(&request.kind)?;
        let wire = v1::IssueRequest { validate_only: true, ..request.to_wire(key.csr) };
        let (answer, request_id) = self.send_issue(wire).await?;
        let granted = verify::granted(request, &answer)?;
        Ok(Preview { granted, narrowed: answer.narrowed, request_id })
    }

    /// Ends a credential before its time.
    ///
    /// # Errors
    /// When it was refused or nobody answered.
    pub async fn revoke(
        &self,
        id: CredentialId,
        reason: v1::RevocationReason,
        comment: &str,
    ) -> Result<u64, Error> {
        let selector = v1::Selector {
            what: Some(v1::selector::What::CredentialId(id.to_string())),
            ..v1::Selector::default()
        };
        let request = v1::RevokeRequest {
            selector: Some(selector),
            reason: reason.into(),
            comment: comment.to_owned(),
            ..v1::RevokeRequest::default()
        };
        let mut service = CredentialServiceClient::new(self.channel());
        let answer = service.revoke(self.proven(request).await?).await;
        Ok(self.sorted(answer)?.into_inner().count)
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

    /// The certificate that this client shows, and to which its tokens are bound.
    #[must_use]
    pub fn holder(&self) -> &Holder {
        &self.0.holder
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

    fn web(&self) -> Result<&Web, Error> {
        let missing =
            || Error::Config("no `web`: expected the URL under which the broker publishes its keys".into());
        self.0.web.as_ref().ok_or_else(missing)
    }

    async fn send_issue(&self, wire: v1::IssueRequest) -> Result<(v1::IssueResponse, Option<String>), Error> {
        let mut service = CredentialServiceClient::new(self.channel());
        let answer = service.issue(self.proven(wire).await?).await;
        let answer = self.sorted(answer)?;
        let id =
            answer.metadata().get("daypass-request-id").and_then(|id| id.to_str().ok()).map(str::to_owned);
        Ok((answer.into_inner(), id))
    }

    /// Checks that the log of `receipt` begins with all that was known, and knows it from now on.
    async fn follow(&self, known: Option<Newest>, receipt: &Receipt) -> Result<(), Error> {
        let found = Newest { note: receipt.note.clone().into(), checkpoint: receipt.checkpoint.clone() };
        self.follow_checkpoint(known, found).await
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

    async fn verified_secret(
        &self,
        wire: issue_response::Credential,
        id: CredentialId,
        granted: &Grant,
        request: &IssueRequest,
        key: IssueKey,
    ) -> Result<Secret, Error> {
        match wire {
            issue_response::Credential::Token(token) => {
                self.verify_token(&token.value, id, granted, request).await?;
                Ok(Secret::Token { value: token.value.into(), kind: token.r#type })
            }
            issue_response::Credential::Certificate(certificate) => {
                let chain: Vec<_> =
                    certificate.chain.iter().map(|der| CertificateDer::from(der.to_vec())).collect();
                let spki = key.spki.ok_or(VerifyError::Answer("token"))?;
                let published = self.published().await?;
                verify::certificate(&chain, id, granted, spki, &published, now())?;
                Ok(Secret::Certificate { chain, roots: published.roots.clone(), key: key.pem })
            }
        }
    }

    async fn verify_token(
        &self,
        value: &str,
        id: CredentialId,
        granted: &Grant,
        request: &IssueRequest,
    ) -> Result<(), Error> {
        let holder = self.0.holder.digest();
        let check =
            |published: &Published| verify::token(value, id, granted, request, holder, published, now());
        match check(&*self.published().await?) {
            Err(VerifyError::Credential(CredentialError::Token(JoseError::UnknownKey))) => {
                Ok(check(&*self.web()?.refreshed().await?)?)
            }
            checked => Ok(checked?),
        }
    }

    pub(crate) fn channel(&self) -> Channel {
        self.0.channel.clone()
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
            None if self.0.holder.is_fresh() => {
                return Err(Error::Config("no proof: expected `id_token_file`, or `cert` and `key`".into()));
            }
            None => {}
        }
        Ok(request)
    }

    pub(crate) fn sorted<T>(&self, answer: Result<Response<T>, Status>) -> Result<Response<T>, Error> {
        answer.map_err(|status| self.error(&status))
    }

    pub(crate) fn error(&self, status: &Status) -> Error {
        Error::from_status(status, &self.0.broker)
    }
}

fn holder(config: &Config) -> Result<Holder, Error> {
    match (&config.certificate, &config.state) {
        (Some(certificate), _) => Holder::from_pem(&certificate.chain, &certificate.key),
        (None, Some(state)) => Holder::kept(state, now()),
        (None, None) => Holder::fresh(now()),
    }
}

fn bearer(token: &SecretString) -> Result<MetadataValue<Ascii>, Error> {
    let text = zeroize::Zeroizing::new(format!("Bearer {}", token.expose_secret()));
    let mut value: MetadataValue<Ascii> =
        text.parse().map_err(|_| Error::Config("the ID token: expected a compact JSON Web Token".into()))?;
    value.set_sensitive(true);
    Ok(value)
}

/// The only place where the SDK reads a clock.
fn now() -> UnixMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMs::new(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// The key that a certificate is asked for: none for a token.
struct IssueKey {
    csr: Vec<u8>,
    spki: Option<Digest>,
    pem: Option<SecretString>,
}

impl IssueKey {
    fn of(kind: &Kind) -> Result<Self, Error> {
        let (csr, pem) = match kind {
            Kind::Token { .. } => return Ok(Self { csr: Vec::new(), spki: None, pem: None }),
            Kind::Certificate { csr: Some(csr), .. } => (csr.clone(), None),
            Kind::Certificate { csr: None, .. } => fresh_csr()?,
        };
        let key = key_of_csr(&csr).map_err(|why| Error::Config(format!("the certificate request: {why}")))?;
        Ok(Self { spki: Some(key.spki_digest()), csr, pem })
    }
}

fn fresh_csr() -> Result<(Vec<u8>, Option<SecretString>), Error> {
    let failed = |error: rcgen::Error| Error::Config(format!("cannot make a key: {error}"));
    let key = rcgen::KeyPair::generate().map_err(failed)?;
    let request = rcgen::CertificateParams::default().serialize_request(&key).map_err(failed)?;
    Ok((request.der().to_vec(), Some(key.serialize_pem().into())))
}
