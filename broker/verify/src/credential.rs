//! Credentials that Daypass has issued, as the service that receives one checks it: access tokens (RFC 9068),
//! JWT-SVIDs and X.509 certificates. Each names its task, so that the receiver can hold the bearer to it.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls_pki_types::CertificateDer;
use serde_json::Value;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::certificate::{
    CertificateError, Crls, TrustAnchors, VerifiedLeaf, verify_client_chain, verify_node_chain,
    verify_server_chain,
};
use crate::ids::{CredentialId, Digest, Name, SpiffeId, TrustDomain};
use crate::jose::{JoseError, SignedToken, UnverifiedToken};
use crate::json;
use crate::jwks::KeySet;
use crate::revocations::Shown;
use crate::scope::{Action, Audience, Resource, Scope};
use crate::time::{Seconds, UnixMs};

pub use crate::task::{TASK_EXTENSION_OID, TaskDetail};

/// The longest life of a token that a receiver believes: a day, far above every ceiling of the broker.
const LIFE_MAX: Seconds = Seconds::new(86_400);

/// Why a credential is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// A fault of the token.
    #[error(transparent)]
    Token(#[from] JoseError),
    /// A fault of the certificate.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The id is missing or no credential id.
    #[error("expected a credential id as `jti` or serial number")]
    CredentialId,
    /// The task is missing or malformed.
    #[error("expected one task in `authorization_details` or the task extension")]
    Task,
    /// The subject lies in another trust domain.
    #[error("expected a subject in the trust domain `{0}`")]
    TrustDomain(TrustDomain),
}

impl CredentialError {
    /// The stable code for logs and counts.
    #[must_use]
    pub fn inner_reason(&self) -> &'static str {
        match self {
            Self::Token(error) => error.inner_reason(),
            Self::Certificate(error) => error.inner_reason(),
            Self::CredentialId => "BAD_CREDENTIAL_ID",
            Self::Task => "BAD_TASK",
            Self::TrustDomain(_) => "BAD_TRUST_DOMAIN",
        }
    }
}

/// Which kind of token a receiver expects. One token is never both: their `typ` differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// RFC 9068: `typ` is `at+jwt`.
    AccessToken,
    /// SPIFFE JWT-SVID: `typ` is absent or `JWT`, one audience.
    JwtSvid,
}

/// Who shows the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presenter {
    /// A peer that proved in its TLS handshake that it holds the key of the certificate with this digest.
    Certificate(Digest),
    /// A peer without a client certificate: a bound token is refused.
    Bearer,
    /// The holder itself, which looks at its own token: the binding is read and not checked.
    Holder,
}

/// What a receiver expects of a token.
#[derive(Debug, Clone)]
pub struct Expected<'a> {
    /// The kind of token.
    pub profile: Profile,
    /// The broker's issuer URL, byte for byte.
    pub issuer: &'a str,
    /// The receiver's own audience.
    pub audience: &'a Audience,
    /// Who shows it.
    pub presenter: Presenter,
    /// The time.
    pub now: UnixMs,
    /// How far the clocks may differ.
    pub leeway: Seconds,
}

/// A token that is good for this receiver, now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedToken {
    /// `jti`: the id under which the log knows the credential.
    pub credential_id: CredentialId,
    /// The workload.
    pub subject: SpiffeId,
    /// The task it is doing.
    pub task: Name,
    /// Who may be addressed with it.
    pub audiences: BTreeSet<Audience>,
    /// What it may do.
    pub actions: BTreeSet<Action>,
    /// What it may do it to; empty where the task names no resources.
    pub resources: BTreeSet<Resource>,
    /// `iat`.
    pub issued_at: UnixMs,
    /// `exp`.
    pub expires_at: UnixMs,
    /// The certificate that the token is bound to (`cnf.x5t#S256`, RFC 8705).
    pub bound: Option<Digest>,
    /// The id of the key that signed it.
    pub key: String,
}

impl VerifiedToken {
    /// Whether the token lets its bearer do `action` on `resource`. A task without resources limits actions
    /// alone.
    #[must_use]
    pub fn allows(&self, action: &Action, resource: &Resource) -> bool {
        let reaches = self.resources.is_empty() || self.resources.iter().any(|it| resource.is_within(it));
        self.actions.contains(action) && reaches
    }

    /// What the revocation feed is asked about it.
    #[must_use]
    pub fn shown(&self) -> Shown<'_> {
        Shown { id: self.credential_id, subject: &self.subject, issuer: None, key: Some(&self.key) }
    }

    /// Audiences, actions and resources together.
    #[must_use]
    pub fn scope(&self) -> Scope {
        Scope {
            audiences: self.audiences.clone(),
            actions: self.actions.clone(),
            resources: self.resources.clone(),
        }
    }
}

/// Checks a token against the broker's published `keys` and what the receiver expects.
///
/// # Errors
/// When it is malformed, not signed by one of `keys`, from another issuer, for another audience or kind of
/// receiver, outside its lifetime, bound to another certificate, or names no id, subject or task.
pub fn verify_token(
    compact: &str,
    keys: &KeySet,
    expected: &Expected<'_>,
) -> Result<VerifiedToken, CredentialError> {
    let token = UnverifiedToken::parse(compact)?;
    let key = keys.key_for(&token)?;
    let token = token.verify(key)?;
    check_profile(&token, expected.profile)?;
    if token.issuer()? != expected.issuer {
        return Err(JoseError::BadIssuer.into());
    }
    let audiences = audiences(&token, expected)?;
    let lifetime = token.lifetime(expected.now, expected.leeway, LIFE_MAX)?;
    let bound = binding(&token)?;
    check_presenter(bound, expected.presenter)?;
    let subject = token.subject()?.parse().map_err(|_| JoseError::BadSubject)?;
    let id = token.string("jti")?.and_then(|id| id.parse().ok());
    let detail = task_claim(&token)?;
    Ok(VerifiedToken {
        credential_id: id.ok_or(CredentialError::CredentialId)?,
        subject,
        task: detail.identifier,
        audiences,
        actions: detail.actions,
        resources: detail.resources,
        issued_at: lifetime.issued_at,
        expires_at: lifetime.expires_at,
        bound,
        key: key.kid().to_owned(),
    })
}

fn check_profile(token: &SignedToken, profile: Profile) -> Result<(), JoseError> {
    let fits = match profile {
        // The client is the workload itself, so that a token whose `client_id` says otherwise is not ours.
        Profile::AccessToken => {
            token.typ_is("at+jwt") && token.string("client_id")? == token.string("sub")?
        }
        Profile::JwtSvid => token.typ().is_none() || token.typ_is("JWT"),
    };
    if fits { Ok(()) } else { Err(JoseError::Typ) }
}

fn audiences(token: &SignedToken, expected: &Expected<'_>) -> Result<BTreeSet<Audience>, JoseError> {
    let all = match expected.profile {
        Profile::AccessToken => token.audiences()?,
        Profile::JwtSvid => vec![token.single_audience()?],
    };
    let all = all.into_iter().map(str::parse).collect::<Result<BTreeSet<Audience>, _>>();
    all.ok().filter(|all| all.contains(expected.audience)).ok_or(JoseError::BadAudience)
}

/// The digest in `cnf`. A confirmation by another method cannot be checked here, and to pass over it would
/// turn a bound token into a bearer token.
fn binding(token: &SignedToken) -> Result<Option<Digest>, JoseError> {
    let Some(cnf) = token.claims().get("cnf") else { return Ok(None) };
    let members = cnf.as_object().filter(|members| members.len() == 1).ok_or(JoseError::NotBound)?;
    let text = members.get("x5t#S256").and_then(Value::as_str).ok_or(JoseError::NotBound)?;
    let octets = URL_SAFE_NO_PAD.decode(text).map_err(|_| JoseError::NotBound)?;
    octets.try_into().map(|octets| Some(Digest::from_bytes(octets))).map_err(|_| JoseError::NotBound)
}

fn check_presenter(bound: Option<Digest>, presenter: Presenter) -> Result<(), JoseError> {
    match (bound, presenter) {
        (None, _) | (_, Presenter::Holder) => Ok(()),
        (Some(bound), Presenter::Certificate(shown)) if bound == shown => Ok(()),
        (Some(_), Presenter::Certificate(_) | Presenter::Bearer) => Err(JoseError::NotBound),
    }
}

fn task_claim(token: &SignedToken) -> Result<TaskDetail, CredentialError> {
    match token.claims().get("authorization_details").and_then(Value::as_array).map(Vec::as_slice) {
        Some([only]) => serde_json::from_value(only.clone()).map_err(|_| CredentialError::Task),
        _ => Err(CredentialError::Task),
    }
}

/// A certificate that Daypass has issued, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedCertificate {
    /// The serial number: the id under which the log knows the credential.
    pub credential_id: CredentialId,
    /// The workload.
    pub subject: SpiffeId,
    /// The task and its scope; its `locations` are the audiences that are URIs.
    pub task: TaskDetail,
    /// The last second in which the certificate is valid.
    pub expires_at: UnixMs,
    /// What the certificate says besides.
    pub leaf: VerifiedLeaf,
}

impl VerifiedCertificate {
    /// What the revocation feed is asked about it. Which CA signed it was checked along the chain.
    #[must_use]
    pub fn shown(&self) -> Shown<'_> {
        Shown { id: self.credential_id, subject: &self.subject, issuer: None, key: None }
    }
}

/// Checks a certificate chain, leaf first, against the broker's published roots.
///
/// # Errors
/// When no path leads to a root, the leaf is not one for a client, its subject lies outside `trust_domain`, or
/// it carries no credential id or task.
pub fn verify_certificate(
    chain: &[CertificateDer<'_>],
    anchors: &TrustAnchors,
    crls: Option<&Crls>,
    trust_domain: &TrustDomain,
    now: UnixMs,
) -> Result<VerifiedCertificate, CredentialError> {
    verified(verify_client_chain(chain, anchors, crls, now)?, trust_domain)
}

/// Checks the chain that a service shows, leaf first, against the broker's published roots: as [`verify_certificate`], but
/// for a leaf that is one for a service.
///
/// # Errors
/// As for [`verify_certificate`].
pub fn verify_server_certificate(
    chain: &[CertificateDer<'_>],
    anchors: &TrustAnchors,
    trust_domain: &TrustDomain,
    now: UnixMs,
) -> Result<VerifiedCertificate, CredentialError> {
    verified(verify_server_chain(chain, anchors, now)?, trust_domain)
}

/// Checks the chain of a node certificate, leaf first, against roots of the broker that issued it: as any certificate of
/// Daypass, but that it is a node's and so good for nothing else.
///
/// # Errors
/// As for [`verify_certificate`].
pub fn verify_node_certificate(
    chain: &[CertificateDer<'_>],
    anchors: &TrustAnchors,
    trust_domain: &TrustDomain,
    now: UnixMs,
) -> Result<VerifiedCertificate, CredentialError> {
    verified(verify_node_chain(chain, anchors, now)?, trust_domain)
}

fn verified(leaf: VerifiedLeaf, trust_domain: &TrustDomain) -> Result<VerifiedCertificate, CredentialError> {
    let subject = leaf.spiffe_id()?;
    if subject.trust_domain() != *trust_domain {
        return Err(CredentialError::TrustDomain(trust_domain.clone()));
    }
    let task = leaf.task_extension().and_then(read_task).ok_or(CredentialError::Task)?;
    let credential_id = id_of_serial(leaf.serial()).ok_or(CredentialError::CredentialId)?;
    Ok(VerifiedCertificate { credential_id, subject, task, expires_at: leaf.not_after(), leaf })
}

/// The id that a certificate says it has, and the SHA-256 of what its issuer signed: only good for looking the credential
/// up. None for what is no certificate of a credential.
#[must_use]
pub fn unverified_certificate(der: &[u8]) -> Option<(CredentialId, Digest)> {
    let (_, certificate) = X509Certificate::from_der(der).ok().filter(|(rest, _)| rest.is_empty())?;
    let id = id_of_serial(certificate.raw_serial())?;
    Some((id, Digest::of(certificate.tbs_certificate.as_ref())))
}

/// Reads the value of the task extension, as strictly as a token's claims.
fn read_task(value: &[u8]) -> Option<TaskDetail> {
    let members = json::parse_object(value).ok()?;
    serde_json::from_value(Value::Object(members)).ok()
}

/// The id whose 16 octets, less leading zeros, are the serial number.
fn id_of_serial(serial: &[u8]) -> Option<CredentialId> {
    let mut octets = [0; 16];
    let start = octets.len().checked_sub(serial.len())?;
    octets.get_mut(start..)?.copy_from_slice(serial);
    CredentialId::from_bytes(octets).ok()
}
