//! The broker: proof in, durable record, credential out, ending proven.

pub mod activate;
pub mod alarms;
pub mod api;
pub mod authority;
pub mod clock;
pub mod config;
pub mod dev;
pub mod emergency;
pub mod hardening;
pub mod ids;
pub mod index;
pub mod init;
pub mod issue;
pub mod keyring;
pub mod limits;
pub mod listen;
pub mod log;
pub mod ops;
pub mod recover;
pub mod refusals;
pub mod rotate;
#[cfg(feature = "sabotage")]
mod sabotage;
pub mod scrub;
pub mod seal;
pub mod serve;
pub mod server;
pub mod shelf;
pub mod signer;
pub mod store;
pub mod telemetry;
pub mod tiles;
pub mod tls;
pub mod trust;
pub mod web;
pub mod witness;
