//! The sections of a configuration, as they are written.

use std::net::SocketAddr;
use std::path::PathBuf;

use daypass_verify::ids::{Name, TrustDomain};
use serde::Deserialize;

use crate::clock::ClockTrust;

/// `[broker]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Broker {
    /// Its name in the log.
    pub name: Name,
    /// The trust domain.
    pub trust_domain: TrustDomain,
    /// The issuer URL.
    pub issuer: String,
}

/// `[store]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Store {
    /// The SQLite file, where no database is named.
    pub path: PathBuf,
    /// The PostgreSQL database; empty: the SQLite file.
    pub url: String,
    /// The file with the password of its role; empty: none, or the environment's.
    pub password_file: PathBuf,
    /// The same database as the role that may seal; empty: this broker does not seal there.
    pub sealer_url: String,
    /// The file with the password of that role; empty: none, or the environment's.
    pub sealer_password_file: PathBuf,
    /// The roots (PEM) of its certificate; empty: those of the system.
    pub ca_file: PathBuf,
    /// Whether it may be spoken to in the clear from another machine.
    pub plaintext: bool,
    /// What a commit must survive: `local` or `standby`.
    pub durability: String,
    /// The anchor file.
    pub anchor: PathBuf,
    /// From one scrubbing of the whole log to the next, in seconds; 0: never.
    pub scrub_every_s: u64,
    /// Entries that are scrubbed in a second at most.
    pub scrub_entries_per_s: u32,
}

/// `[keys]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keys {
    /// The key-encryption key.
    pub kek_file: PathBuf,
    /// How long a key for tokens signs, in seconds.
    pub token_life_s: u32,
    /// How long an issuing CA signs, in seconds.
    pub ca_life_s: u32,
    /// How long before it signs a key is published, in seconds.
    pub ahead_s: u32,
}

/// `[api]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// Its address.
    pub listen: SocketAddr,
    /// Its certificate chain.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Whether gRPC reflection is served.
    pub reflection: bool,
}

/// `[web]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Web {
    /// Its address.
    pub listen: SocketAddr,
    /// Its certificate chain.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Whether the newest checkpoint is served.
    pub checkpoint: bool,
    /// Whether the hashes of the log's tree are served.
    pub tiles: bool,
}

/// `[log]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// How often witnesses are asked, in seconds.
    pub witness_every_s: u64,
    /// After how long a silent witness is an alarm, in seconds.
    pub witness_silent_s: u64,
    /// At how many entries a log is closed; 0: with the half-year alone.
    pub shard_entries: u64,
    /// Where old entries are sealed; empty: nowhere.
    pub seal_dir: PathBuf,
    /// How many are sealed at once.
    pub seal_entries: u64,
}

/// `[[witness]]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Witness {
    /// What the log calls it.
    pub name: Name,
    /// Its submission prefix.
    pub url: String,
    /// Its key.
    pub vkey: String,
}

/// `[ops]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ops {
    /// Its address, on loopback.
    pub listen: SocketAddr,
}

/// `[emergency]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Emergency {
    /// The Unix socket.
    pub socket: PathBuf,
}

/// `[clock]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Clock {
    /// Whose word is taken that the clock is right after the machine booted.
    pub trust: ClockTrust,
}

/// `[limits]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Connections in all.
    pub connections: usize,
    /// Connections of one address.
    pub connections_per_address: usize,
    /// How long a TLS handshake may take, in seconds.
    pub handshake_timeout_s: u64,
    /// How old a connection gets, in seconds.
    pub connection_age_s: u64,
    /// Calls to issue a second, of one caller.
    pub issue_per_s: u32,
    /// How many may come at once.
    pub issue_burst: u32,
    /// Proofs that fail a second, of one address.
    pub failed_proofs_per_s: u32,
    /// How many may come at once.
    pub failed_proofs_burst: u32,
}

/// `[output]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Output {
    /// `error`, `warn`, `info`, `debug`, or a filter by module.
    pub level: String,
}
