//! What there is to give, at one moment.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use daypass_proto::spiffe::{
    Jwtsvid, JwtsvidRequest, JwtsvidResponse, ValidateJwtsvidRequest, ValidateJwtsvidResponse, X509svid,
    X509svidResponse,
};
use daypass_sdk::{Client, Credential, Error, Secret};
use daypass_verify::credential::{Expected, Presenter, Profile, verify_token};
use daypass_verify::jose::UnverifiedToken;
use daypass_verify::scope::Audience;
use daypass_verify::time::Seconds;
use futures::future::select_all;
use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject as _;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::watch;
use tokio::time::timeout;
use tonic::Status;

use super::trust::Trust;
use crate::clock::now;
use crate::keep::{Changes, Kept};

/// How long a caller waits for what the broker has not said yet.
const PATIENCE: Duration = Duration::from_secs(10);
/// How far the clocks of broker and receiver may differ.
const LEEWAY: Seconds = Seconds::new(30);

/// All that a socket gives.
pub(super) struct Served {
    /// Credentials that are certificates.
    pub(super) certificates: Vec<Kept>,
    /// Credentials that are tokens.
    pub(super) tokens: Vec<Kept>,
    /// Roots and keys.
    pub(super) trust: watch::Receiver<Option<Arc<Trust>>>,
    /// To verify others' tokens with.
    pub(super) clients: watch::Receiver<Client>,
}

impl Served {
    /// Roots, once they are known.
    pub(super) async fn trust(&self) -> Result<Arc<Trust>, Status> {
        self.trust_that(|_| true).await
    }

    /// The keys of tokens, once they are known.
    pub(super) async fn token_keys(&self) -> Result<(Arc<Trust>, Bytes), Status> {
        let trust = self.trust_that(|trust| trust.token_keys.is_some()).await?;
        let keys = trust.token_keys.clone().unwrap_or_default();
        Ok((trust, keys))
    }

    async fn trust_that(&self, fits: impl Fn(&Trust) -> bool) -> Result<Arc<Trust>, Status> {
        let mut trust = self.trust.clone();
        let fits = |known: &Option<Arc<Trust>>| known.as_deref().is_some_and(&fits);
        let known = timeout(PATIENCE, trust.wait_for(fits)).await;
        let known = known.ok().and_then(Result::ok).and_then(|known| known.clone());
        known.ok_or_else(|| Status::unavailable("the broker has not been reached yet"))
    }

    /// Every certificate with its key, and the roots.
    pub(super) async fn certificates(&self) -> Result<X509svidResponse, Status> {
        let bundle = self.trust().await?.roots.clone();
        let mut svids = Vec::new();
        let mut failure = Status::permission_denied("no certificate is given at this socket");
        for kept in &self.certificates {
            match kept.credential().await {
                Ok(credential) => {
                    let (chain, key) = certificate(&credential)?;
                    svids.push(X509svid {
                        spiffe_id: credential.granted.subject.to_string(),
                        x509_svid: chain.into(),
                        x509_svid_key: key.into(),
                        bundle: bundle.clone(),
                        hint: hint(kept, &self.certificates),
                    });
                }
                Err(error) => failure = status(&error),
            }
        }
        if svids.is_empty() {
            return Err(failure);
        }
        Ok(X509svidResponse { svids, ..X509svidResponse::default() })
    }

    /// The tokens that fit a request.
    pub(super) async fn tokens(&self, request: &JwtsvidRequest) -> Result<JwtsvidResponse, Status> {
        if request.audience.is_empty() {
            return Err(Status::invalid_argument("`audience`: expected at least one"));
        }
        let mut svids = Vec::new();
        let mut failure =
            Status::permission_denied("no token is given at this socket for that audience and identity");
        for kept in &self.tokens {
            match kept.credential().await {
                Ok(credential) if fits(&credential, request) => svids.push(Jwtsvid {
                    spiffe_id: credential.granted.subject.to_string(),
                    svid: token(&credential)?.expose_secret().to_owned(),
                    hint: hint(kept, &self.tokens),
                }),
                Ok(_) => {}
                Err(error) => failure = status(&error),
            }
        }
        if svids.is_empty() { Err(failure) } else { Ok(JwtsvidResponse { svids }) }
    }

    /// Whether somebody else's token holds, and what it says.
    pub(super) async fn validated(
        &self,
        request: &ValidateJwtsvidRequest,
    ) -> Result<ValidateJwtsvidResponse, Status> {
        let refuse = |why: String| Status::invalid_argument(why);
        let audience: Audience =
            request.audience.parse().map_err(|_| refuse("`audience` is malformed".into()))?;
        let client = self.clients.borrow().clone();
        let published = client.published().await.map_err(|error| status(&error))?;
        let expected = Expected {
            profile: Profile::JwtSvid,
            issuer: &published.issuer,
            audience: &audience,
            presenter: Presenter::Bearer,
            now: now(),
            leeway: LEEWAY,
        };
        let unfit = |why: &dyn std::fmt::Display| refuse(format!("the token does not hold: {why}"));
        let verified =
            verify_token(&request.svid, &published.svid_keys, &expected).map_err(|why| unfit(&why))?;
        // Its claims have just been read once: what is read now is what was verified.
        let token = UnverifiedToken::parse(&request.svid).map_err(|why| unfit(&why))?;
        let key = published.svid_keys.key_for(&token).map_err(|why| unfit(&why))?;
        let signed = token.verify(key).map_err(|why| unfit(&why))?;
        let fields = signed.claims().iter().map(|(name, value)| (name.clone(), protobuf(value))).collect();
        Ok(ValidateJwtsvidResponse {
            spiffe_id: verified.subject.to_string(),
            claims: Some(Struct { fields }),
        })
    }
}

/// Waits for the next change of anything that a socket gives.
pub(super) struct Following {
    served: Arc<Served>,
    changes: Vec<Changes>,
    trust: watch::Receiver<Option<Arc<Trust>>>,
    begun: bool,
}

impl Following {
    pub(super) fn new(served: Arc<Served>) -> Self {
        let changes = served.certificates.iter().map(|kept| kept.changes.clone()).collect();
        let trust = served.trust.clone();
        Self { served, changes, trust, begun: false }
    }

    /// At once at first; then after a change.
    pub(super) async fn next(&mut self) -> Arc<Served> {
        if self.begun {
            let (trust, changes) = (&mut self.trust, &mut self.changes);
            let changed = async {
                match changes.is_empty() {
                    true => std::future::pending().await,
                    false => drop(select_all(changes.iter_mut().map(|it| Box::pin(it.changed()))).await),
                }
            };
            tokio::select! { _ = trust.changed() => {}, () = changed => {} }
        }
        self.begun = true;
        self.trust.mark_unchanged();
        self.changes.iter_mut().for_each(watch::Receiver::mark_unchanged);
        Arc::clone(&self.served)
    }
}

fn hint(kept: &Kept, all: &[Kept]) -> String {
    if all.len() > 1 { kept.name.to_string() } else { String::new() }
}

fn fits(credential: &Credential, request: &JwtsvidRequest) -> bool {
    let granted = &credential.granted;
    let is_for = |audience: &String| granted.scope.audiences.iter().any(|it| it.as_str() == audience);
    let is_meant = request.spiffe_id.is_empty() || request.spiffe_id == granted.subject.as_str();
    is_meant && request.audience.iter().all(is_for)
}

/// The chain as DER one after another, and the key as PKCS#8.
fn certificate(credential: &Credential) -> Result<(Vec<u8>, Vec<u8>), Status> {
    let other = || Status::internal("the credential is no certificate with a key");
    let Secret::Certificate { chain, key: Some(key), .. } = &credential.secret else { return Err(other()) };
    let key = PrivatePkcs8KeyDer::from_pem_slice(key.expose_secret().as_bytes()).map_err(|_| other())?;
    let chain = chain.iter().flat_map(|der| der.as_ref()).copied().collect();
    Ok((chain, key.secret_pkcs8_der().to_vec()))
}

fn token(credential: &Credential) -> Result<&SecretString, Status> {
    match &credential.secret {
        Secret::Token { value, .. } => Ok(value),
        Secret::Certificate { .. } => Err(Status::internal("the credential is no token")),
    }
}

/// To a workload that has no identity, PERMISSION_DENIED (SPIFFE Workload API, section 5).
fn status(error: &Error) -> Status {
    match error {
        Error::AskForPermission(_) | Error::FixRequest { .. } => Status::permission_denied(error.to_string()),
        _ => Status::unavailable(error.to_string()),
    }
}

fn protobuf(value: &serde_json::Value) -> Value {
    let kind = match value {
        serde_json::Value::Null => Kind::NullValue(0),
        serde_json::Value::Bool(it) => Kind::BoolValue(*it),
        serde_json::Value::Number(it) => Kind::NumberValue(it.as_f64().unwrap_or_default()),
        serde_json::Value::String(it) => Kind::StringValue(it.clone()),
        serde_json::Value::Array(all) => {
            Kind::ListValue(ListValue { values: all.iter().map(protobuf).collect() })
        }
        serde_json::Value::Object(all) => {
            let fields = all.iter().map(|(name, value)| (name.clone(), protobuf(value))).collect();
            Kind::StructValue(Struct { fields })
        }
    };
    Value { kind: Some(kind) }
}
