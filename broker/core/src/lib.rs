//! The part that decides. Pure: no I/O, no clock, no randomness, no panic; `now`, keys and ids are arguments.
//!
//! The straight line through it: [`proof`] to principal, [`decision`] to permit or deny, [`draft`] to the exact
//! bytes that will be signed, under the [`state`] that the log's entries fold to and the [`bundle`] in force.

pub mod bundle;
pub mod decision;
pub mod draft;
pub mod policy;
pub mod proof;
pub mod request;
pub mod rotation;
pub mod state;

#[cfg(test)]
mod fixture;
