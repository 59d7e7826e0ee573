//! The client of a Daypass broker. It proves who is calling, asks for one credential for one task, and verifies
//! what came back before handing it out: the signature, the scope, the lifetime, the binding, and that the
//! issuance stands in a log that has not forked since the last call.
//!
//! [`CredentialSource`] keeps such a credential fresh:
//!
//! ```no_run
//! # async fn demo() -> Result<(), Box<dyn std::error::Error>> {
//! # use daypass_sdk::{Client, CredentialSource, IssueRequest};
//! let client = Client::from_env()?; // DAYPASS_BROKER, DAYPASS_WEB, DAYPASS_CA, and the proof
//! let source = CredentialSource::new(client, IssueRequest::token("post-invoices".parse()?));
//! let credential = source.credential().await?; // whenever one is needed: never one that is over
//! # drop(credential);
//! # Ok(())
//! # }
//! ```
//!
//! [`TokenLayer`], [`CredentialSource::put_on`] and [`SourceCertificate`] show it to a target; [`receive`] is for the
//! target.
//!
//! One credential alone:
//!
//! ```no_run
//! # async fn demo() -> Result<(), Box<dyn std::error::Error>> {
//! use daypass_sdk::{Client, Config, IdToken, IssueRequest, Secret};
//!
//! let client = Client::new(Config {
//!     broker: "https://broker.example.org:8443".parse()?,
//!     web: Some("https://daypass.example.org".parse()?),
//!     ca: std::fs::read("ca.crt")?,
//!     certificate: None,
//!     id_token: Some(IdToken::File("/run/id-token".into())),
//!     log_key: Some("example.org/evidence/2027h1+3c5d6e7f+AbCd…".parse()?),
//!     state: None,
//! })?;
//! let credential = client.issue(IssueRequest::token("post-invoices".parse()?)).await?;
//! let Secret::Token { value, .. } = &credential.secret else { return Ok(()) };
//! # let _ = value;
//! # Ok(())
//! # }
//! ```

mod client;
mod clock;
mod config;
mod credential;
mod error;
mod evidence;
mod governance;
mod holder;
mod issuance;
mod kept;
mod line;
mod node;
mod observation;
mod present;
mod published;
pub mod receive;
mod request;
mod revocation;
#[cfg(feature = "sabotage")]
mod sabotage;
mod source;
mod stamp;
mod tls;
mod verify;

pub use client::Client;
pub use clock::{Clock, SystemClock};
pub use config::{ClientCertificate, Config, IdToken};
pub use credential::{Credential, Grant, Preview, Receipt, Secret};
pub use daypass_proto::v1::selector::What as Selected;
pub use daypass_proto::v1::{CertificateProfile, KeyUse, ObservationKind, Reach, RevocationReason, Selector};
pub use daypass_verify::ids::SpiffeId;
pub use daypass_verify::scope::{Action, Audience, Resource};
pub use error::{Error, FieldViolation, Refusal};
pub use evidence::{Entries, EntryFilter, Explanation, LogEntry, Proof};
pub use governance::{Rotated, Rotation, Suspended, Suspension};
pub use holder::Holder;
pub use kept::write_private;
pub use node::{AddedNode, RequestedKey};
pub use observation::Observation;
pub use present::{HttpClient, SourceCertificate, TokenLayer, WithToken};
pub use published::Published;
pub use request::{Binding, IssueRequest, Kind, Workload};
pub use revocation::{Endings, Revocation, Revoked, Selection, TrustUpdates};
pub use source::CredentialSource;
pub use stamp::FileStamp;
pub use verify::VerifyError;
