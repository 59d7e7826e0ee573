//! What `daypass revoke` is told.

use std::path::PathBuf;

use clap::{Args as ClapArgs, ValueEnum};
use daypass_verify::ids::{CredentialId, Digest, IdentityName, KeyId, Name};
use daypass_verify::time::UnixMs;

/// `revoke`.
#[derive(Debug, ClapArgs)]
pub(crate) struct Revoke {
    #[command(flatten)]
    pub(crate) what: What,
    /// Why
    #[arg(long, value_enum)]
    pub(crate) reason: Reason,
    /// Why, in words; it is recorded
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) comment: String,
    /// The name of the exercise, where this is one; it is recorded
    #[arg(long, value_name = "NAME")]
    pub(crate) drill: Option<String>,
    /// Only what was issued before: a time, or how long ago
    #[arg(long, value_name = "TIME", value_parser = super::moment)]
    pub(crate) issued_before: Option<UnixMs>,
    /// Say what would end, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// What is selected: exactly one.
#[derive(Debug, ClapArgs)]
#[group(required = true, multiple = false)]
pub(crate) struct What {
    /// The id of one credential
    #[arg(value_name = "CREDENTIAL-ID")]
    pub(crate) credential: Option<CredentialId>,
    /// A file that holds one token
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// A file that holds one certificate, PEM or DER
    #[arg(long, value_name = "FILE")]
    pub(crate) certificate: Option<PathBuf>,
    /// The SHA-256 of one whole token or DER certificate: sha256:HEX
    #[arg(long, value_name = "SHA256")]
    pub(crate) digest: Option<Digest>,
    /// All of an identity
    #[arg(long, value_name = "NAME")]
    pub(crate) identity: Option<IdentityName>,
    /// All of one running copy of a workload
    #[arg(long, value_name = "NAME")]
    pub(crate) instance: Option<String>,
    /// All for a task
    #[arg(long, value_name = "NAME")]
    pub(crate) task: Option<Name>,
    /// All for a target
    #[arg(long, value_name = "NAME")]
    pub(crate) target: Option<Name>,
    /// All of a supplier's identities
    #[arg(long, value_name = "NAME")]
    pub(crate) supplier: Option<Name>,
    /// All whose proof came from an issuer
    #[arg(long, value_name = "NAME")]
    pub(crate) issuer: Option<Name>,
    /// All that a key has signed
    #[arg(long, value_name = "KEY")]
    pub(crate) key_id: Option<KeyId>,
}

/// Why a credential ends early (RFC 5280, section 5.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Reason {
    /// The holder's key is known to others
    KeyCompromise,
    /// The issuer's key is known to others
    CaCompromise,
    /// The holder belongs elsewhere now
    AffiliationChanged,
    /// Another credential took its place
    Superseded,
    /// No longer needed
    CessationOfOperation,
    /// The right was taken back
    PrivilegeWithdrawn,
}
