//! One strict parser for both directions: the proofs that a broker is shown and the credentials that a
//! receiver is shown. Pure: no I/O, no clock, no randomness, no panic. `now` is always an argument.

mod alg;
pub mod certificate;
mod chain;
pub mod claims;
pub mod credential;
pub mod csr;
mod header;
pub mod ids;
pub mod jose;
pub mod json;
pub mod jwks;
pub mod key;
pub mod pointer;
pub mod provider;
pub mod revocations;
pub mod scope;
pub mod task;
mod thumbprint;
pub mod time;
pub mod upstream;
