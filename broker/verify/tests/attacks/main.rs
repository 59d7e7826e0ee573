//! Bad input and what must happen: each table spoils one thing at a time in an input that is accepted whole.

#![allow(
    clippy::cast_possible_truncation,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by its panics, and lengths of hand-made DER are small"
)]

mod authorities;
mod certificate;
mod claims;
mod credential;
mod feed;
mod key_set;
mod minting;
mod request;
mod revocation;
mod token;
