//! Bad input and what must happen: each table spoils one thing at a time in an input that is accepted whole.

#![allow(clippy::cast_possible_truncation, reason = "lengths of hand-made DER are small")]

mod certificate;
mod claims;
mod credential;
mod key_set;
mod minting;
mod request;
mod revocation;
mod token;
