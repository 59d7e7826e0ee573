//! The harness: a whole deployment on loopback, with real issuers, real clients and real files.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by its panics"
)]

pub mod harness;
pub mod memory;
