//! Bad input over the wire, against a whole broker: each table spoils one thing at a time in a call that is good.

mod discovery;
mod grpc;
mod http;
mod jwt;
mod methods;
mod minting;
mod mtls;
