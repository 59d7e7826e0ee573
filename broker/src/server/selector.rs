//! Selectors as the wire has them: for whatever orders take one.

use daypass_evidence::entry::Selector;
use daypass_proto::v1 as pb;
use daypass_proto::v1::selector::What as Wanted;
use daypass_verify::ids::Digest;
use daypass_verify::time::UnixMs;

use super::convert::{self, moment};
use super::status::Outgoing;
use crate::revocation::What;

/// How long an instance's name may be, in bytes.
const INSTANCE_BYTES_MAX: usize = 256;

/// What a selector names, and the moment before which it must have been issued.
pub(super) fn selector(wire: Option<&pb::Selector>) -> Result<(What, Option<UnixMs>), Outgoing> {
    let empty = || Outgoing::malformed("selector", "expected exactly one thing to be selected");
    let wire = wire.ok_or_else(empty)?;
    let before = moment("selector.issued_before", wire.issued_before.as_ref())?;
    let what = what(wire.what.as_ref().ok_or_else(empty)?)?;
    Ok((what, before))
}

fn what(wanted: &Wanted) -> Result<What, Outgoing> {
    let none = Selector::default;
    Ok(match wanted {
        Wanted::CredentialId(id) => What::Credential(named("credential_id", id)?),
        Wanted::Token(token) => What::Token(token.clone()),
        Wanted::Certificate(der) => What::Certificate(der.to_vec()),
        Wanted::Digest(digest) => What::Digest(sha256(digest)?),
        Wanted::Identity(name) => What::All(Selector { identity: Some(named("identity", name)?), ..none() }),
        Wanted::Instance(name) => What::All(Selector { instance: Some(instance(name)?), ..none() }),
        Wanted::Task(name) => What::All(Selector { task: Some(named("task", name)?), ..none() }),
        Wanted::Target(name) => What::All(Selector { target: Some(named("target", name)?), ..none() }),
        Wanted::Supplier(name) => What::All(Selector { supplier: Some(named("supplier", name)?), ..none() }),
        Wanted::Issuer(name) => What::All(Selector { issuer: Some(named("issuer", name)?), ..none() }),
        Wanted::KeyId(key) => What::All(Selector { key: Some(named("key_id", key)?), ..none() }),
        Wanted::Everything(true) => What::All(Selector { everything: true, ..none() }),
        Wanted::Everything(false) => {
            return Err(Outgoing::malformed("selector.everything", "expected true, or something else"));
        }
    })
}

fn named<T: std::str::FromStr<Err: std::fmt::Display>>(field: &str, text: &str) -> Result<T, Outgoing> {
    let field = format!("selector.{field}");
    convert::optional(&field, text)?.ok_or_else(|| Outgoing::malformed(&field, "expected a name"))
}

fn sha256(digest: &[u8]) -> Result<Digest, Outgoing> {
    let octets = <[u8; 32]>::try_from(digest);
    let refuse = |_| Outgoing::malformed("selector.digest", "expected the 32 octets of a SHA-256");
    octets.map(Digest::from_bytes).map_err(refuse)
}

fn instance(name: &str) -> Result<String, Outgoing> {
    let fits = (1..=INSTANCE_BYTES_MAX).contains(&name.len()) && !name.chars().any(char::is_control);
    let expected = format!("expected 1 to {INSTANCE_BYTES_MAX} bytes without control characters");
    fits.then(|| name.to_owned()).ok_or_else(|| Outgoing::malformed("selector.instance", expected))
}
