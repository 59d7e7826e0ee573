//! Why a broker did not start.

use std::net::SocketAddr;

use daypass_verify::ids::TrustDomain;

use crate::keyring::{KekError, KeyringError};
use crate::log::{AnchorError, RecordError, StartError};
use crate::ops::OpsError;
use crate::store::StoreError;
use crate::telemetry;
use crate::tls::CertificateFileError;

/// Why a broker did not start.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each says what failed in its text")]
pub enum ServeError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Anchor(#[from] AnchorError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Kek(#[from] KekError),
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error(transparent)]
    Certificate(#[from] CertificateFileError),
    #[error(transparent)]
    Ops(#[from] OpsError),
    #[error("cannot listen on {0}: {1}")]
    Bind(SocketAddr, std::io::Error),
    #[error(
        "the configuration names trust domain `{configured}`, and this store's log is of `{log}`: serve it as what it is, or name another store"
    )]
    OtherTrustDomain { configured: TrustDomain, log: TrustDomain },
    #[error(transparent)]
    Emergency(#[from] std::io::Error),
    #[error("TLS could not be set up: {0}")]
    Tls(String),
    #[error(transparent)]
    Telemetry(#[from] telemetry::TelemetryError),
}
