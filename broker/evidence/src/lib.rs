//! The evidence log as data: canonical entries, the Merkle tree over them, signed checkpoints, and everything
//! that a stranger needs to verify them offline. Pure: no I/O, no clock, no randomness, no panic.

pub mod audit;
pub mod canonical;
pub mod checkpoint;
pub mod entry;
pub mod note;
pub mod receipt;
pub mod tile;
pub mod tree;
