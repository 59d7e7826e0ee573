//! What a compromised key signed ends: found by reading the entries of what lives, page by page, beside the writer, and
//! ended under its lock. Each ends once, whoever else looks for it at the same time.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};

use daypass_evidence::entry::{
    Body, CredentialEnded, EndedHow, Entry, Index, KeyState, NewEntry, Reach, Selector,
};
use daypass_verify::ids::KeyId;
use daypass_verify::time::UnixMs;

use super::{Authority, RotateError, Rotation};
use crate::log::{Attached, COMPROMISE_OVER_MS, Ends};
use crate::revocation::{Matching, Page};
use crate::store::{Live, Reader, Row, StoreError};

/// How many entries are read at once.
const ROWS: u32 = 128;

/// How long after a compromise others leave the revocation to the broker that was told.
const LEFT_ALONE_MS: i64 = 10_000;

/// The reason of RFC 5280, section 5.3.1.
const KEY_COMPROMISE: &str = "keyCompromise";

impl Rotation {
    /// How many credentials live that `key` signed.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn live_by(&self, key: &KeyId) -> Result<u64, RotateError> {
        let (mut count, mut after) = (0, None);
        loop {
            let page = self.page(key, after).await?;
            count += page.found.len() as u64;
            after = page.next;
            if after.is_none() {
                return Ok(count);
            }
        }
    }

    /// Ends all that lives and that `key` signed, and counts it in `ended`. `ordered` is the first entry of the order.
    ///
    /// # Errors
    /// When something could not be written; asked again, it goes on with what is left.
    pub async fn revoke_by(
        &self,
        key: &KeyId,
        ordered: Option<Index>,
        authority: &Authority,
        ended: &AtomicU64,
    ) -> Result<(), RotateError> {
        let mut after = None;
        loop {
            let page = self.page(key, after).await?;
            let live: Vec<_> = page.found.iter().map(|one| (one.live, one.reach)).collect();
            for chunk in live.chunks(Ends::MOST) {
                let named = self.end(key, chunk.to_vec(), ordered, authority).await?;
                ended.fetch_add(named, Ordering::Relaxed);
            }
            after = page.next;
            if after.is_none() {
                self.ended.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone());
                return Ok(());
            }
        }
    }

    async fn end(
        &self,
        key: &KeyId,
        live: Vec<(Live, Reach)>,
        ordered: Option<Index>,
        authority: &Authority,
    ) -> Result<u64, RotateError> {
        let body = CredentialEnded {
            how: EndedHow::Revoked,
            ended: Vec::new(),
            log: None,
            through_ms: None,
            selector: Some(Selector { key: Some(key.clone()), ..Selector::default() }),
            reason: Some(KEY_COMPROMISE.into()),
            comment: authority.reason.clone(),
            drill: None,
            ordered,
            reach: BTreeMap::new(),
        };
        let id = self.desk.ids.draw(self.desk.clock.now())?;
        let entry = NewEntry { id, request: authority.request, by: authority.by.clone(), body: body.into() };
        let attached = Attached { ends: Some(Box::new(Ends { entry, live })), ..Attached::default() };
        let places = self.desk.log.append(Vec::new(), attached).await?;
        let Some(at) = places.first().map(|place| place.index) else { return Ok(0) };
        // One entry for each log that issued any of it.
        let most = u32::try_from(places.len()).unwrap_or(u32::MAX);
        let rows = self.readers.run(move |reader: &dyn Reader| reader.rows(at, most)).await?;
        let named = rows.iter().map(|row| match Entry::read(&row.bytes).map(|entry| entry.body) {
            Ok(Body::CredentialEnded(ended)) => ended.ended.len() as u64,
            _ => 0,
        });
        Ok(named.sum())
    }

    /// Goes on with what a broker was told and did not finish: another, or itself after its next start.
    pub(super) async fn finish_revocations(&self) -> Result<(), RotateError> {
        let (state, now) = (self.desk.log.state(), self.desk.clock.now());
        let done = self.ended.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let open = state.keys().values().filter(|key| {
            let since = now.millis_since(key.publish_until_ms);
            key.state == KeyState::Compromised && since < COMPROMISE_OVER_MS && !done.contains(&key.key)
        });
        for key in open {
            let found = key.key.clone();
            let ordered = self.readers.run(move |reader: &dyn Reader| order_of(reader, &found)).await?;
            let Some((ordered, at)) = ordered else { continue };
            if now.millis_since(at) < LEFT_ALONE_MS {
                continue;
            }
            let revoked = AtomicU64::default();
            self.revoke_by(&key.key, Some(ordered), &Authority::default(), &revoked).await?;
            let revoked = revoked.into_inner();
            if revoked > 0 {
                tracing::warn!(key = %key.key, revoked, "what a compromised key signed was left alive, and is ended");
            }
        }
        Ok(())
    }

    async fn page(&self, key: &KeyId, after: Option<Live>) -> Result<Page, RotateError> {
        let mut matching = Matching::new(Selector { key: Some(key.clone()), ..Selector::default() });
        Ok(self.readers.run(move |reader: &dyn Reader| matching.page(reader, after)).await?)
    }
}

/// The entry that says of a key that it is compromised, and when it was written.
fn order_of(reader: &dyn Reader, key: &KeyId) -> Result<Option<(Index, UnixMs)>, StoreError> {
    let mut next = 0;
    loop {
        let rows = reader.fold_rows(next, ROWS)?;
        let Some(last) = rows.last() else { return Ok(None) };
        next = last.index + 1;
        for row in rows.iter().filter(|row| names(row, key)) {
            let entry = read(row)?;
            if let Body::KeyChanged(changed) = &entry.body
                && changed.key == *key
                && changed.state == KeyState::Compromised
            {
                return Ok(Some((row.index, entry.envelope.time)));
            }
        }
    }
}

/// Whether an entry holds the key's name somewhere: most need not be read any further.
fn names(row: &Row, key: &KeyId) -> bool {
    memchr::memmem::find(&row.bytes, key.as_str().as_bytes()).is_some()
}

fn read(row: &Row) -> Result<Entry, StoreError> {
    Entry::read(&row.bytes).map_err(|error| StoreError::Damaged(format!("entry {}: {error}", row.index)))
}
