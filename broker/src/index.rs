//! The read side: entries by position, by id and by filter, and proofs of their place.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use daypass_core::request::Renewed;
use daypass_evidence::entry::{Body, Entry, Envelope, Index};
use daypass_evidence::tree::{Nodes, leaf_hash};
use daypass_verify::ids::{CredentialId, IdentityName, RequestId};
use daypass_verify::time::UnixMs;
use tokio::sync::{AcquireError, Semaphore, mpsc};

use crate::store::{OpenReader, Reader, Row, StoreError};

/// How far the time in an id and the time of its entry can lie apart.
pub(crate) const ID_WINDOW_MS: i64 = 10_000;

/// How many rows are read at once; and how many first, where the first few are likely to be enough.
const PAGE: u32 = 256;
const PAGE_FIRST: u32 = 32;

/// How many reads run at once: more wait their turn, and no more readers stay open.
const READERS: usize = 8;

/// Readers that wait for work: reading never delays the writer, and never the runtime's own threads.
#[derive(Clone)]
pub struct Readers {
    open: Arc<OpenReader>,
    idle: Arc<Mutex<Vec<Box<dyn Reader>>>>,
    seats: Arc<Semaphore>,
    damage: Option<mpsc::Sender<String>>,
}

impl Readers {
    /// Readers that `open` makes as they are needed.
    #[must_use]
    pub fn new(open: Arc<OpenReader>) -> Self {
        Self { open, idle: Arc::default(), seats: Arc::new(Semaphore::new(READERS)), damage: None }
    }

    /// Readers of another log, which share the seats of these.
    #[must_use]
    pub fn of(&self, open: Arc<OpenReader>) -> Self {
        Self { open, idle: Arc::default(), ..self.clone() }
    }

    /// The same readers, which tell `damage` of what was found to be changed.
    #[must_use]
    pub fn telling(self, damage: mpsc::Sender<String>) -> Self {
        Self { damage: Some(damage), ..self }
    }

    /// Runs `read` on a thread for blocking work.
    ///
    /// # Errors
    /// Those of `read`, or when no reader can be had.
    pub async fn run<T: Send + 'static>(
        &self,
        read: impl FnOnce(&dyn Reader) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let readers = self.clone();
        let closed = |error: AcquireError| StoreError::Unavailable(error.to_string());
        let seat = Arc::clone(&self.seats).acquire_owned().await.map_err(closed)?;
        let work = tokio::task::spawn_blocking(move || {
            // Kept by the work itself: a caller that goes away does not end it.
            let _seat = seat;
            let idle = readers.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let reader = idle.map_or_else(|| (readers.open)(), Ok)?;
            let done = read(reader.as_ref());
            readers.idle.lock().unwrap_or_else(PoisonError::into_inner).push(reader);
            done
        });
        let done = work.await.map_err(|error| StoreError::Unavailable(error.to_string()))?;
        if let (Err(StoreError::Damaged(what)), Some(damage)) = (&done, &self.damage) {
            drop(damage.try_send(what.clone()));
        }
        done
    }
}

/// Which entries are wanted; what is empty or absent does not restrict.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Kinds.
    pub kinds: Vec<String>,
    /// Entries about this identity.
    pub identity: Option<IdentityName>,
    /// Entries about this credential.
    pub credential: Option<Issued>,
    /// Entries of this request.
    pub request: Option<RequestId>,
    /// From this time on.
    pub since: Option<UnixMs>,
    /// Up to this time.
    pub until: Option<UnixMs>,
}

/// Where a credential was issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// The origin of the log; none: the one that is searched.
    pub log: Option<String>,
    /// The index there.
    pub index: Index,
}

impl Filter {
    fn wants(&self, index: Index, entry: &Entry) -> bool {
        let Envelope { kind, time, request, .. } = &entry.envelope;
        (self.kinds.is_empty() || self.kinds.contains(kind))
            && self.since.is_none_or(|since| *time >= since)
            && self.until.is_none_or(|until| *time <= until)
            && self.request.is_none_or(|wanted| *request == Some(wanted))
            && self.identity.as_ref().is_none_or(|wanted| identity_of(entry) == Some(wanted))
            && self.credential.as_ref().is_none_or(|issued| concerns(index, &entry.body, issued))
    }
}

/// The identity that an entry is about, where it is about one.
#[must_use]
pub fn identity_of(entry: &Entry) -> Option<&IdentityName> {
    match &entry.body {
        Body::CredentialIssued(issued) => Some(&issued.identity.name),
        Body::CredentialRefused(refused) => refused.identity.as_ref().map(|identity| &identity.name),
        _ => None,
    }
}

/// The issuance that an entry is, where it is one of a credential to one of `identities`.
#[must_use]
pub fn issued_to(row: &Row, identities: &[IdentityName]) -> Option<Renewed> {
    match Entry::read(&row.bytes).ok()?.body {
        Body::CredentialIssued(issued) if identities.contains(&issued.identity.name) => {
            Some(Renewed { index: row.index, exp: issued.credential.exp_ms, reach: issued.credential.reach })
        }
        _ => None,
    }
}

/// Whether an entry is the issuance of a credential, or says what became of it.
fn concerns(index: Index, body: &Body, of: &Issued) -> bool {
    match body {
        Body::CredentialIssued(_) => of.log.is_none() && index == of.index,
        Body::CredentialEnded(ended) => ended.log == of.log && ended.ended.contains(&of.index),
        Body::CredentialSettled(settled) => {
            settled.log == of.log
                && (settled.released.iter().any(|(at, ..)| *at == of.index)
                    || settled.void.iter().any(|(at, _)| *at == of.index))
        }
        _ => false,
    }
}

/// A page of a search: what was found, and where to go on.
#[derive(Debug)]
pub struct Found {
    /// The entries that were wanted.
    pub rows: Vec<Row>,
    /// The index after the last one looked at; none at the end of the log.
    pub next: Option<Index>,
}

/// Looks at up to `PAGE` entries from `start` on.
///
/// # Errors
/// When the store fails or an entry cannot be read.
pub fn search(reader: &dyn Reader, start: Index, filter: &Filter) -> Result<Found, StoreError> {
    let here = filter.credential.as_ref().filter(|issued| issued.log.is_none());
    let first = match filter.since {
        Some(since) => start.max(first_at(reader, since)?),
        None => start.max(here.map_or(0, |issued| issued.index)),
    };
    let page = reader.rows(first, PAGE)?;
    let next = page.last().map(|row| row.index + 1);
    let mut rows = Vec::new();
    for row in page {
        let entry = read(&row)?;
        if filter.until.is_some_and(|until| entry.envelope.time > until) {
            return Ok(Found { rows, next: None });
        }
        if filter.wants(row.index, &entry) {
            rows.push(row);
        }
    }
    Ok(Found { rows, next })
}

/// The entry with an id: ids are drawn in the order of time, and entry times never go back, so a binary search
/// finds the ten seconds on either side.
///
/// # Errors
/// When the store fails.
pub fn find(reader: &dyn Reader, id: &CredentialId) -> Result<Option<Row>, StoreError> {
    // An id is drawn a moment before its entry is written: only a clock that was set back makes it otherwise.
    let near = first_at(reader, id.drawn_at())?;
    match find_in(reader, id, near..Index::MAX)? {
        None => find_in(reader, id, first_at(reader, id.drawn_at().plus_millis(-ID_WINDOW_MS))?..near),
        found => Ok(found),
    }
}

/// Up to where entries are too late for the id. Only what names the id somewhere is read.
fn find_in(reader: &dyn Reader, id: &CredentialId, places: Range<Index>) -> Result<Option<Row>, StoreError> {
    let latest = id.drawn_at().plus_millis(ID_WINDOW_MS);
    let named = id.to_string();
    let finder = memchr::memmem::Finder::new(&named);
    let (mut at, mut together) = (places.start, PAGE_FIRST);
    while at < places.end {
        let page = reader.rows(at, together)?;
        let Some(last) = page.last() else { return Ok(None) };
        let beyond = read(last)?.envelope.time > latest;
        (at, together) = (last.index + 1, PAGE);
        for row in page.into_iter().filter(|row| finder.find(&row.bytes).is_some()) {
            if read(&row)?.envelope.id == *id {
                return Ok(Some(row));
            }
        }
        if beyond {
            return Ok(None);
        }
    }
    Ok(None)
}

/// The index of the first entry at or after `time`.
///
/// # Errors
/// When the store fails.
pub fn first_at(reader: &dyn Reader, time: UnixMs) -> Result<Index, StoreError> {
    let (mut low, mut high) = (0, reader.head()?.map_or(0, |head| head.size));
    while low < high {
        let middle = low + (high - low) / 2;
        let before = match reader.rows(middle, 1)?.first() {
            Some(row) => read(row)?.envelope.time < time,
            None => false,
        };
        if before { low = middle + 1 } else { high = middle }
    }
    Ok(low)
}

/// When the log that is read began.
///
/// # Errors
/// When the store fails or its first entry cannot be read.
pub fn opened_at(reader: &dyn Reader) -> Result<Option<UnixMs>, StoreError> {
    Ok(first(reader)?.map(|entry| entry.envelope.time))
}

/// When the log that is read went on for another one; none where it is the first.
///
/// # Errors
/// When the store fails or its first entry cannot be read.
pub fn followed_at(reader: &dyn Reader) -> Result<Option<UnixMs>, StoreError> {
    let follows =
        |entry: &Entry| matches!(&entry.body, Body::LogOpened(opened) if opened.predecessor.is_some());
    Ok(first(reader)?.filter(follows).map(|entry| entry.envelope.time))
}

fn first(reader: &dyn Reader) -> Result<Option<Entry>, StoreError> {
    reader.rows(0, 1)?.first().map(read).transpose()
}

/// What is told of an entry is told of what was recorded: its bytes are held to their hash at each reading.
pub(crate) fn read(row: &Row) -> Result<Entry, StoreError> {
    if leaf_hash(&row.bytes) != row.leaf {
        let detail =
            format!("entry {}: its bytes do not have the hash that was stored beside them", row.index);
        return Err(StoreError::Damaged(detail));
    }
    Entry::read(&row.bytes).map_err(|error| StoreError::Damaged(format!("entry {}: {error}", row.index)))
}

/// What `proof` makes of the stored tree.
///
/// # Errors
/// When the store fails, or `Damaged` where it lacks a node that the proof needs.
pub fn prove<T>(
    reader: &dyn Reader,
    proof: impl FnOnce(&StoredNodes<'_>) -> Option<T>,
) -> Result<T, StoreError> {
    let nodes = StoredNodes::of(reader);
    let made = proof(&nodes);
    // A store that cannot be read now lacks nothing.
    match (made, nodes.failed.into_inner()) {
        (Some(made), _) => Ok(made),
        (None, Some(error)) => Err(error),
        (None, None) => Err(StoreError::Damaged("a node of the tree is missing".into())),
    }
}

/// The nodes of the stored tree: small ones from the leaves, larger ones from the kept subtrees.
pub struct StoredNodes<'a> {
    reader: &'a dyn Reader,
    failed: RefCell<Option<StoreError>>,
}

impl<'a> StoredNodes<'a> {
    /// Those of this store.
    #[must_use]
    pub fn of(reader: &'a dyn Reader) -> Self {
        Self { reader, failed: RefCell::default() }
    }

    fn noting<T>(&self, read: Result<T, StoreError>) -> Option<T> {
        read.map_err(|error| *self.failed.borrow_mut() = Some(error)).ok()
    }
}

impl Nodes for StoredNodes<'_> {
    fn node(&self, level: u8, index: u64) -> Option<[u8; 32]> {
        if level >= 8 && level.is_multiple_of(8) {
            return self.noting(self.reader.subtree(level, index)).flatten();
        }
        if level > 8 {
            let (left, right) = (self.node(level - 1, index * 2)?, self.node(level - 1, index * 2 + 1)?);
            return Some(daypass_evidence::tree::node_hash(&left, &right));
        }
        let count = 1_u32 << level;
        let mut hashes = self.noting(self.reader.leaves(index << level, count))?;
        if hashes.len() != count as usize {
            return None;
        }
        while hashes.len() > 1 {
            let pairs = hashes.as_chunks::<2>().0;
            hashes =
                pairs.iter().map(|[left, right]| daypass_evidence::tree::node_hash(left, right)).collect();
        }
        hashes.first().copied()
    }
}
