//! One program for all tests of the whole: built and linked once.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by its panics"
)]

mod attacks;
mod conformance;
mod differential;
mod e2e;
mod faults;
mod simulation;
mod targets;
mod tidy;
mod walk;
