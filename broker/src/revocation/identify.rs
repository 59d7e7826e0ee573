//! Which credential somebody means: by its id, by itself, or by a digest of it.

use daypass_evidence::entry::{Body, CredentialIssued, Index, Selector};
use daypass_verify::credential::unverified_certificate;
use daypass_verify::ids::{CredentialId, Digest};
use daypass_verify::jose::UnverifiedToken;
use daypass_verify::time::UnixMs;

use super::LIFE_MAX_MS;
use crate::index;
use crate::store::{Reader, Row, StoreError, base};

/// How many entries are read at once.
const ROWS: u32 = 1_000;

/// What an order names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// One credential, by its id.
    Credential(CredentialId),
    /// One, by the token itself: compact.
    Token(String),
    /// One, by the certificate itself: DER.
    Certificate(Vec<u8>),
    /// One, by the SHA-256 of the whole token or certificate.
    Digest(Digest),
    /// All of something, or everything.
    All(Selector),
}

/// Where the issuance lies that `what` names, where it names one that is in this log. A token or certificate names its own record
/// only where it is, byte for byte, what was signed.
///
/// # Errors
/// When the store fails.
pub fn identify(
    reader: &dyn Reader,
    what: &What,
    now: UnixMs,
) -> Result<Option<(Index, CredentialIssued)>, StoreError> {
    match what {
        What::Credential(id) => issued(reader, id, None),
        What::Token(compact) => {
            let token = UnverifiedToken::parse(compact).ok();
            let named = token.and_then(|token| Some((token.unverified_id()?, token.signed_digest())));
            named.map_or(Ok(None), |(id, tbs)| issued(reader, &id, Some(tbs)))
        }
        What::Certificate(der) => {
            unverified_certificate(der).map_or(Ok(None), |(id, tbs)| issued(reader, &id, Some(tbs)))
        }
        What::Digest(digest) => match settled(reader, digest, now)? {
            Some(at) => read(reader, at),
            None => Ok(None),
        },
        What::All(_) => Ok(None),
    }
}

fn issued(
    reader: &dyn Reader,
    id: &CredentialId,
    tbs: Option<Digest>,
) -> Result<Option<(Index, CredentialIssued)>, StoreError> {
    let found = match index::find(reader, id)? {
        Some(row) => Some((own_base(reader)? + row.index, row)),
        None => live_before(reader, id)?,
    };
    let Some((at, row)) = found else { return Ok(None) };
    let Body::CredentialIssued(issued) = index::read(&row)?.body else { return Ok(None) };
    let same = tbs.is_none_or(|tbs| issued.credential.tbs == tbs);
    Ok(same.then_some((at, *issued)))
}

fn own_base(reader: &dyn Reader) -> Result<Index, StoreError> {
    Ok(base(reader.head()?.map_or(0, |head| head.shard)))
}

/// A credential that lives and was issued in a log before the one that is written: there are some for a day after the turn.
fn live_before(reader: &dyn Reader, id: &CredentialId) -> Result<Option<(Index, Row)>, StoreError> {
    let own = own_base(reader)?;
    let named = id.to_string();
    let mut after = None;
    if own == 0 {
        return Ok(None);
    }
    loop {
        let page = reader.live_after(after, ROWS)?;
        after = page.last().copied();
        for live in page.iter().filter(|live| live.index < own) {
            if let Some(row) = reader.entry_at(live.index)?
                && memchr::memmem::find(&row.bytes, named.as_bytes()).is_some()
                && index::read(&row)?.envelope.id == *id
            {
                return Ok(Some((live.index, row)));
            }
        }
        if after.is_none() {
            return Ok(None);
        }
    }
}

fn read(reader: &dyn Reader, at: Index) -> Result<Option<(Index, CredentialIssued)>, StoreError> {
    let at = own_base(reader)? + at;
    let Some(row) = reader.entry_at(at)? else { return Ok(None) };
    Ok(match index::read(&row)?.body {
        Body::CredentialIssued(issued) => Some((at, *issued)),
        _ => None,
    })
}

/// The issuance of the credential that was released with this digest, among those that may live.
fn settled(reader: &dyn Reader, digest: &Digest, now: UnixMs) -> Result<Option<Index>, StoreError> {
    let needle = digest.to_string();
    let finder = memchr::memmem::Finder::new(&needle);
    let mut next = index::first_at(reader, now.plus_millis(-LIFE_MAX_MS))?;
    loop {
        let rows = reader.rows(next, ROWS)?;
        let Some(last) = rows.last() else { return Ok(None) };
        next = last.index + 1;
        for row in rows.iter().filter(|row| finder.find(&row.bytes).is_some()) {
            if let Body::CredentialSettled(settled) = index::read(row)?.body
                && let Some((at, ..)) = settled.released.iter().find(|(_, released, _)| released == digest)
            {
                return Ok(Some(*at));
            }
        }
    }
}
