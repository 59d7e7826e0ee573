//! The broker: proof in, durable record, credential out, ending proven.

pub mod clock;
pub mod dev;
pub mod listen;
pub mod ops;
pub mod telemetry;
pub mod tls;
pub mod web;
pub mod trust;
