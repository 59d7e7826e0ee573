//! One entry of each kind with every optional field shown, and a minimal one where that differs much.

mod credential;
mod operation;

use std::str::FromStr;

use crate::entry::{Body, By, NewEntry};
use daypass_verify::ids::{CredentialId, Digest, KeyId};
use daypass_verify::time::UnixMs;

/// The time of every sample: 2026-11-22T01:13:20.123Z.
pub(super) const TIME_MS: i64 = 1_795_310_000_123;

/// The samples, with what stands between kind and version in their files' names.
pub(super) fn samples() -> Vec<(&'static str, NewEntry)> {
    let mut all = operation::full();
    all.extend(credential::full());
    let mut samples: Vec<_> = all.into_iter().map(|body| ("", full(body))).collect();
    samples.extend(credential::minimal().into_iter().map(|body| (".minimal", minimal(body))));
    samples.extend(operation::minimal().into_iter().map(|body| (".minimal", minimal(body))));
    samples
}

fn full(body: Body) -> NewEntry {
    let by = By { operator: Some(p("alice")), identity: Some(p("prod/ops/automation")), proof: digest(b'p') };
    NewEntry { id: id(), request: Some(p("0199f2c1-0000-4000-8000-000000000001")), by: Some(by), body }
}

fn minimal(body: Body) -> NewEntry {
    NewEntry { id: id(), request: None, by: None, body }
}

fn id() -> CredentialId {
    CredentialId::new(UnixMs::new(TIME_MS), [7; 10])
}

/// Parses a name, an id, an action: whatever is wanted.
fn p<T: FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().unwrap()
}

fn digest(of: u8) -> Digest {
    Digest::of(&[of])
}

fn key() -> KeyId {
    KeyId::from_thumbprint([9; 32])
}

fn at(offset_ms: i64) -> UnixMs {
    UnixMs::new(TIME_MS + offset_ms)
}
