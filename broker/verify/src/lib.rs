//! One strict parser for both directions: the proofs that a broker is shown and the credentials that a
//! receiver is shown. Pure: no I/O, no clock, no randomness, no panic. `now` is always an argument.

pub mod ids;
pub mod scope;
pub mod time;
