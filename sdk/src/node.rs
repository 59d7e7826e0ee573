//! Nodes: how an operator lets one in, and the key that it makes for its certificate.

use daypass_proto::v1;
use daypass_proto::v1::governance_service_client::GovernanceServiceClient;
use daypass_verify::ids::{IdentityName, Name};
use daypass_verify::time::UnixMs;
use rcgen::{CertificateParams, KeyPair};
use secrecy::{ExposeSecret as _, SecretString};

use crate::client::Client;
use crate::error::Error;
use crate::verify::{self, VerifyError};

/// A code that lets a node in, once.
#[derive(Debug)]
pub struct AddedNode {
    /// The code.
    pub code: SecretString,
    /// The task that the node asks for with it.
    pub task: Name,
    /// Until when it is good.
    pub until: UnixMs,
    /// The index of its entry.
    pub entry: Option<u64>,
}

impl Client {
    /// Lets a node in: a code that buys its first node certificate. An operator's right (`enrol`).
    ///
    /// # Errors
    /// When the broker refuses or does not answer.
    pub async fn add_node(&self, identity: &IdentityName) -> Result<AddedNode, Error> {
        let request = v1::AddNodeRequest { identity: identity.to_string(), validate_only: false };
        let request = self.proven(request).await?;
        let answer = GovernanceServiceClient::new(self.channel()).add_node(request).await;
        let answer = self.sorted(answer)?.into_inner();
        Ok(AddedNode {
            code: answer.code.into(),
            task: answer.task.parse().map_err(|_| VerifyError::Answer("task"))?,
            until: verify::moment(answer.expires_at.as_ref(), "expires_at")?,
            entry: answer.entry.map(|entry| entry.index),
        })
    }
}

/// A key that was made here, and the request for a certificate of it.
#[derive(Debug)]
pub struct RequestedKey {
    pem: SecretString,
    csr: Vec<u8>,
}

impl RequestedKey {
    /// A new key on P-256.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn fresh() -> Result<Self, Error> {
        Self::of(&KeyPair::generate().map_err(|error| failed(&error))?)
    }

    /// A key that was kept: PKCS#8, PEM.
    ///
    /// # Errors
    /// When it is no key.
    pub fn from_pem(pem: &SecretString) -> Result<Self, Error> {
        Self::of(&KeyPair::from_pem(pem.expose_secret()).map_err(|error| failed(&error))?)
    }

    fn of(key: &KeyPair) -> Result<Self, Error> {
        let request = CertificateParams::default().serialize_request(key).map_err(|error| failed(&error))?;
        Ok(Self { pem: key.serialize_pem().into(), csr: request.der().to_vec() })
    }

    /// The key: PKCS#8, PEM.
    #[must_use]
    pub fn pem(&self) -> &SecretString {
        &self.pem
    }

    /// The request: PKCS#10, DER.
    #[must_use]
    pub fn csr(&self) -> &[u8] {
        &self.csr
    }
}

fn failed(error: &rcgen::Error) -> Error {
    Error::Config(format!("cannot make a key: {error}"))
}
