//! What is declared: plain files, compiled as one object with one digest.

pub mod object;
