//! Whether a token lives (RFC 7662): told to those who serve its target, to its holder, and to operators.

use daypass_evidence::entry::{Body, CredentialIssued, Index, KeyUse};
use daypass_verify::ids::{CredentialId, Digest};
use daypass_verify::jose::{SignedToken, UnverifiedToken};
use daypass_verify::jwks::KeySet;
use daypass_verify::time::UnixMs;
use serde_json::{Map, Value, json};

use super::{Api, Caller, Outgoing, outgoing, standing};
use crate::index;
use crate::store::{Live, Reader, Row, StoreError, base};

/// How many that live are looked at together.
const PAGE: u32 = 256;

impl Api {
    /// The claims of a token that lives; none where it does not, or is nothing that `caller` may know of. It changes
    /// nothing, so that no proof is spent for it.
    ///
    /// # Errors
    /// When the log cannot be read: then nobody knows whether it lives.
    pub(crate) async fn introspect(
        &self,
        caller: &Caller,
        token: &str,
    ) -> Result<Option<Map<String, Value>>, Outgoing> {
        let Some((id, digest, signed)) = self.signed_here(token) else { return Ok(None) };
        let Some(exp) = signed.claims().get("exp").and_then(Value::as_i64) else { return Ok(None) };
        let (exp, now) = (UnixMs::from_seconds(exp), self.desk.clock.now());
        let found = self.readers.run(move |reader| living(reader, &id, digest, exp, now)).await;
        let issued = found.map_err(|error| outgoing::of_store(&error))?;
        Ok(issued.filter(|issued| self.may_know(caller, issued)).map(|_| signed.claims().clone()))
    }

    /// What we signed with a key that is still published: a compromised one is not, from one moment to the next.
    fn signed_here(&self, token: &str) -> Option<(CredentialId, Digest, SignedToken)> {
        let token = UnverifiedToken::parse(token).ok()?;
        let (state, now) = (self.desk.log.state(), self.desk.clock.now());
        let mut published =
            [KeyUse::Token, KeyUse::Svid].into_iter().flat_map(|usage| state.published_keys(usage, now));
        let key = published.find(|key| token.kid() == Some(key.key.as_str()))?;
        let jwk = self.desk.keyring.jwk(&key.key, "sig")?;
        let (keys, _) = KeySet::parse(json!({ "keys": [jwk] }).to_string().as_bytes()).ok()?;
        let digest = token.signed_digest();
        let key = keys.key_for(&token).ok()?;
        let signed = token.verify(key).ok()?;
        let id = signed.claims().get("jti")?.as_str()?.parse().ok()?;
        Some((id, digest, signed))
    }

    fn may_know(&self, caller: &Caller, issued: &CredentialIssued) -> bool {
        let (state, now) = (self.desk.log.state(), self.desk.clock.now());
        let Some(bundle) = state.bundle() else { return false };
        let target = bundle.declared().targets.get(&issued.target.name);
        let serves = |name| target.is_some_and(|target| target.served_by.contains(name));
        let own = standing::identities(&caller.principal, bundle, now);
        own.iter().any(|name| *name == issued.identity.name || serves(name))
            || standing::reads_evidence(&caller.principal, bundle, now)
    }
}

/// The issuance of a credential that was recorded as exactly this, and has not ended in any way.
fn living(
    reader: &dyn Reader,
    id: &CredentialId,
    tbs: Digest,
    exp: UnixMs,
    now: UnixMs,
) -> Result<Option<Box<CredentialIssued>>, StoreError> {
    let own = reader.head()?.map_or(0, |head| base(head.shard));
    let found = match index::find(reader, id)? {
        Some(row) => Some((own + row.index, row)),
        None => in_a_log_before(reader, id, exp, own)?,
    };
    let Some((place, row)) = found else { return Ok(None) };
    let Body::CredentialIssued(issued) = index::read(&row)?.body else { return Ok(None) };
    let live = Live { exp: issued.credential.exp_ms, index: place };
    // A log begins with what opens it: no issuance is its first entry.
    let before = Live { index: place.saturating_sub(1), ..live };
    let lives = issued.credential.tbs == tbs
        && now < live.exp
        && reader.live_after(Some(before), 1)?.first() == Some(&live);
    Ok(lives.then_some(issued))
}

/// The same from a log that this one follows in the store, whose entries are not searched by their time: it is among those
/// that live and end in the same second.
fn in_a_log_before(
    reader: &dyn Reader,
    id: &CredentialId,
    exp: UnixMs,
    own: Index,
) -> Result<Option<(Index, Row)>, StoreError> {
    if own == 0 {
        return Ok(None);
    }
    let mut after = Live { exp, index: 0 };
    loop {
        let page = reader.live_after(Some(after), PAGE)?;
        for live in page.iter().filter(|live| live.index < own && live.exp.seconds() == exp.seconds()) {
            let Some(row) = reader.entry_at(live.index)? else { continue };
            if index::read(&row)?.envelope.id == *id {
                return Ok(Some((live.index, row)));
            }
        }
        match page.last().filter(|last| last.exp.seconds() == exp.seconds()) {
            Some(last) => after = *last,
            None => return Ok(None),
        }
    }
}
