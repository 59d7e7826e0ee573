//! Ending credentials before their time, and learning of endings.

use std::collections::BTreeMap;

use daypass_proto::v1;
use daypass_proto::v1::credential_service_client::CredentialServiceClient;
use daypass_proto::v1::selector::What;
use daypass_proto::v1::trust_service_client::TrustServiceClient;
use daypass_proto::v1::{RevocationReason, TrustBundle, WatchEndingsResponse};
use daypass_verify::ids::{CredentialId, Digest, IdentityName, KeyId, Name};
use daypass_verify::time::UnixMs;
use secrecy::{ExposeSecret as _, SecretString};
use tonic::Streaming;

use crate::client::Client;
use crate::error::Error;

/// The largest answer that is taken: trust comes with feed and revocation lists.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What to revoke.
#[derive(Debug, Clone)]
pub enum Selection {
    /// One credential, by its id.
    Credential(CredentialId),
    /// One, by the token itself.
    Token(SecretString),
    /// One, by the certificate itself, DER.
    Certificate(Vec<u8>),
    /// One, by the SHA-256 of the whole token or DER certificate.
    Digest(Digest),
    /// All of an identity.
    Identity(IdentityName),
    /// All of one running copy of a workload.
    Instance(String),
    /// All for a task.
    Task(Name),
    /// All for a target.
    Target(Name),
    /// All of a supplier's identities.
    Supplier(Name),
    /// All whose proof came from an issuer.
    Issuer(Name),
    /// All that a key has signed.
    Key(KeyId),
}

/// An order to revoke. A holder's is about its own credentials alone; all else is an operator's right (`contain`).
#[derive(Debug, Clone)]
pub struct Revocation {
    /// What.
    pub selection: Selection,
    /// Only what was issued before.
    pub issued_before: Option<UnixMs>,
    /// Why (RFC 5280, section 5.3.1).
    pub reason: RevocationReason,
    /// In words, for the log.
    pub comment: String,
    /// The name of the exercise, where this is one.
    pub drill: String,
    /// Count and name; change nothing.
    pub validate_only: bool,
}

impl Revocation {
    /// An order without words.
    #[must_use]
    pub fn of(selection: Selection, reason: RevocationReason) -> Self {
        Self {
            selection,
            issued_before: None,
            reason,
            comment: String::new(),
            drill: String::new(),
            validate_only: false,
        }
    }
}

/// What an order led to, or would.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revoked {
    /// How many credentials.
    pub count: u64,
    /// At most 1,000 of them.
    pub named: Vec<CredentialId>,
    /// The index of the order's first entry; none where nothing was written.
    pub entry: Option<u64>,
    /// How many by the reach of their targets: where it is `none` they live until their own end.
    pub reach: BTreeMap<String, u64>,
    /// Whether more is being ended than `count` says.
    pub goes_on: bool,
}

impl Client {
    /// Ends credentials before their time: recorded, and told by the broker, on return.
    ///
    /// # Errors
    /// When the broker refuses or does not answer.
    pub async fn revoke_selected(&self, revocation: &Revocation) -> Result<Revoked, Error> {
        let issued_before = revocation.issued_before.map(timestamp);
        let request = self.proven(v1::RevokeRequest {
            selector: Some(v1::Selector { what: Some(what(&revocation.selection)), issued_before }),
            reason: revocation.reason.into(),
            comment: revocation.comment.clone(),
            drill: revocation.drill.clone(),
            validate_only: revocation.validate_only,
        });
        let answer = CredentialServiceClient::new(self.channel()).revoke(request.await?).await;
        let answer = self.sorted(answer)?.into_inner();
        Ok(Revoked {
            count: answer.count,
            named: answer.credential_ids.iter().filter_map(|id| id.parse().ok()).collect(),
            entry: answer.entry.map(|entry| entry.index),
            reach: answer.reach.into_iter().collect(),
            goes_on: answer.goes_on,
        })
    }

    /// What is needed to verify credentials: at once, and again after each change. Each is the full state. Whoever
    /// loses the stream begins a new one.
    ///
    /// # Errors
    /// When the broker refuses or does not answer.
    pub async fn watch_trust(&self) -> Result<TrustUpdates, Error> {
        let request = self.proven_stream(v1::WatchTrustRequest {}).await?;
        let trust = TrustServiceClient::new(self.channel());
        let answer = trust.max_decoding_message_size(ANSWER_BYTES_MAX).watch_trust(request).await;
        Ok(TrustUpdates { client: self.clone(), stream: self.sorted(answer)?.into_inner() })
    }

    /// What lives at a target and, from then on, each that ends: for whoever serves it. `cursor` is that of the last
    /// event that was acted on, of any broker of the log; empty: begin with what lives.
    ///
    /// # Errors
    /// When the broker refuses or does not answer.
    pub async fn watch_endings(&self, target: &Name, cursor: &str) -> Result<Endings, Error> {
        let request = v1::WatchEndingsRequest { target: target.to_string(), cursor: cursor.to_owned() };
        let request = self.proven_stream(request).await?;
        let answer = TrustServiceClient::new(self.channel()).watch_endings(request).await;
        Ok(Endings { client: self.clone(), stream: self.sorted(answer)?.into_inner() })
    }
}

/// What is needed to verify credentials, as it changes.
#[derive(Debug)]
pub struct TrustUpdates {
    client: Client,
    stream: Streaming<v1::WatchTrustResponse>,
}

impl TrustUpdates {
    /// The next state; none where the broker ended the stream.
    ///
    /// # Errors
    /// When the stream broke off.
    pub async fn next(&mut self) -> Result<Option<TrustBundle>, Error> {
        let message = self.stream.message().await.map_err(|status| self.client.error(&status))?;
        Ok(message.and_then(|message| message.trust))
    }
}

/// What lives at a target, and each that ends.
#[derive(Debug)]
pub struct Endings {
    client: Client,
    stream: Streaming<WatchEndingsResponse>,
}

impl Endings {
    /// The next event, with the cursor to go on from once it was acted on; none where the broker ended the stream.
    ///
    /// # Errors
    /// When the stream broke off.
    pub async fn next(&mut self) -> Result<Option<WatchEndingsResponse>, Error> {
        self.stream.message().await.map_err(|status| self.client.error(&status))
    }
}

pub(crate) fn timestamp(at: UnixMs) -> prost_types::Timestamp {
    let nanos = i32::try_from(at.get().rem_euclid(1000) * 1_000_000).unwrap_or_default();
    prost_types::Timestamp { seconds: at.seconds(), nanos }
}

fn what(selection: &Selection) -> What {
    match selection {
        Selection::Credential(id) => What::CredentialId(id.to_string()),
        Selection::Token(token) => What::Token(token.expose_secret().to_owned()),
        Selection::Certificate(der) => What::Certificate(der.clone().into()),
        Selection::Digest(digest) => What::Digest(digest.as_bytes().to_vec().into()),
        Selection::Identity(name) => What::Identity(name.to_string()),
        Selection::Instance(name) => What::Instance(name.clone()),
        Selection::Task(name) => What::Task(name.to_string()),
        Selection::Target(name) => What::Target(name.to_string()),
        Selection::Supplier(name) => What::Supplier(name.to_string()),
        Selection::Issuer(name) => What::Issuer(name.to_string()),
        Selection::Key(key) => What::KeyId(key.to_string()),
    }
}
