//! A store in memory: the least that keeps the contract, for tests that need many stores and no disk. It passes the
//! suite that every store passes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use daypass_broker::store::{
    Batch, Head, Live, Reader, Row, SealedKey, Sealer, Store, StoreError, Transaction,
};
use daypass_core::draft::Mark;
use daypass_evidence::entry::Index;
use daypass_verify::ids::{Digest, KeyId};
use daypass_verify::time::UnixMs;

const LOCK_TIMEOUT: Duration = Duration::from_secs(1);

/// A store that lives as long as somebody holds it; each copy is another way to the same.
#[derive(Clone, Default)]
pub struct Memory(Arc<Shared>);

#[derive(Default)]
struct Shared {
    tables: Mutex<Tables>,
    locked: Mutex<bool>,
    freed: Condvar,
}

#[derive(Default)]
struct Tables {
    head: Option<Head>,
    rows: BTreeMap<Index, Row>,
    sealed: Index,
    dropped: Index,
    subtrees: BTreeMap<(u8, u64), [u8; 32]>,
    /// By its end, then by index.
    live: BTreeSet<(UnixMs, Index)>,
    marks: BTreeSet<Spent>,
    objects: BTreeMap<[u8; 32], Vec<u8>>,
    keys: BTreeMap<KeyId, SealedKey>,
}

type Spent = (i64, [u8; 32]);

impl Memory {
    /// All that a reader of another store sees, and these objects of it.
    ///
    /// # Errors
    /// When the other store fails.
    pub fn copy_of(reader: &dyn Reader, objects: &[Digest]) -> Result<Self, StoreError> {
        let keys = reader.keys()?.into_iter().map(|key| (key.key.clone(), key));
        let mut tables = Tables {
            head: reader.head()?,
            rows: reader.rows(0, u32::MAX)?.into_iter().map(|row| (row.index, row)).collect(),
            keys: keys.collect(),
            ..Tables::default()
        };
        for digest in objects {
            tables.objects.extend(reader.object(digest)?.map(|bytes| (*digest.as_bytes(), bytes)));
        }
        Ok(Self(Arc::new(Shared { tables: Mutex::new(tables), ..Shared::default() })))
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.0.tables.lock().unwrap()
    }

    fn lock(&self) -> Result<Held, StoreError> {
        let locked = self.0.locked.lock().unwrap();
        let (mut locked, waited) =
            self.0.freed.wait_timeout_while(locked, LOCK_TIMEOUT, |locked| *locked).unwrap();
        if waited.timed_out() {
            return Err(StoreError::Unavailable("another holds the log's lock".into()));
        }
        *locked = true;
        Ok(Held(self.clone()))
    }
}

/// The log's lock, until it is dropped.
struct Held(Memory);

impl Drop for Held {
    fn drop(&mut self) {
        *self.0.0.locked.lock().unwrap() = false;
        self.0.0.freed.notify_one();
    }
}

impl Store for Memory {
    fn keep_room(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    fn has_room(&mut self) -> bool {
        true
    }

    fn begin(&mut self) -> Result<Box<dyn Transaction + '_>, StoreError> {
        let held = self.lock()?;
        let head = self.tables().head.clone();
        let head = head.ok_or_else(|| StoreError::Damaged("there is no log in this store".into()))?;
        Ok(Box::new(MemoryTransaction { held, head, spending: BTreeSet::new() }))
    }

    fn open(&mut self, batch: &Batch, head: &Head) -> Result<(), StoreError> {
        let _held = self.lock()?;
        let mut tables = self.tables();
        match &tables.head {
            Some(found) => Err(StoreError::HeadMoved { expected: 0, found: found.size }),
            None => tables.add(batch, head),
        }
    }

    fn reader(&self) -> Result<Box<dyn Reader>, StoreError> {
        Ok(Box::new(self.clone()))
    }
}

struct MemoryTransaction {
    held: Held,
    head: Head,
    spending: BTreeSet<Spent>,
}

impl Transaction for MemoryTransaction {
    fn head(&self) -> &Head {
        &self.head
    }

    fn spend(&mut self, marks: &[Mark]) -> Result<Vec<bool>, StoreError> {
        let tables = self.held.0.tables();
        let fresh: Vec<bool> = marks
            .iter()
            .map(|mark| {
                let mut buckets = std::iter::once(mark.expires).chain(mark.earlier);
                !buckets.any(|bucket| {
                    let spent = (minute(bucket), mark.key);
                    tables.marks.contains(&spent) || self.spending.contains(&spent)
                })
            })
            .collect();
        if fresh.iter().all(|fresh| *fresh) {
            self.spending.extend(marks.iter().map(|mark| (minute(mark.expires), mark.key)));
        }
        Ok(fresh)
    }

    fn expired(&mut self, through: UnixMs, limit: u32) -> Result<Vec<Live>, StoreError> {
        let tables = self.held.0.tables();
        let due = tables.live.iter().take_while(|(exp, _)| *exp <= through);
        Ok(due.take(limit as usize).map(|(exp, index)| Live { exp: *exp, index: *index }).collect())
    }

    fn are_live(&mut self, credentials: &[Live]) -> Result<Vec<bool>, StoreError> {
        let tables = self.held.0.tables();
        Ok(credentials.iter().map(|it| tables.live.contains(&place(it))).collect())
    }

    fn commit(self: Box<Self>, batch: &Batch, head: &Head) -> Result<(), StoreError> {
        let mut tables = self.held.0.tables();
        tables.add(batch, head)?;
        tables.marks.extend(&self.spending);
        Ok(())
    }
}

impl Tables {
    /// All of it or nothing.
    fn add(&mut self, batch: &Batch, head: &Head) -> Result<(), StoreError> {
        if batch.turn.is_some() {
            return Err(StoreError::Unavailable("the store in memory keeps one log".into()));
        }
        let size = self.head.as_ref().map_or(0, |head| head.size);
        if !batch.rows.iter().zip(size..).all(|(row, index)| row.index == index) {
            return Err(StoreError::Damaged("an entry does not follow those that are there".into()));
        }
        self.rows.extend(batch.rows.iter().map(|row| (row.index, row.clone())));
        self.subtrees.extend(batch.subtrees.iter().map(|(level, index, hash)| ((*level, *index), *hash)));
        self.live.extend(batch.born.iter().map(place));
        for ended in &batch.ended {
            self.live.remove(&place(ended));
        }
        for (digest, bytes) in &batch.objects {
            self.objects.entry(*digest.as_bytes()).or_insert_with(|| bytes.clone());
        }
        self.keys.extend(batch.keys.iter().map(|key| (key.key.clone(), key.clone())));
        self.head = Some(head.clone());
        Ok(())
    }

    fn select(&self, start: Index, limit: u32, wanted: impl Fn(&Row) -> bool) -> Vec<Row> {
        let rows = self.rows.range(start..).map(|(_, row)| row);
        rows.filter(|row| wanted(row)).take(limit as usize).cloned().collect()
    }
}

impl Sealer for Memory {
    fn seal(&mut self, from: Index, to: Index) -> Result<(), StoreError> {
        let mut tables = self.tables();
        let size = tables.head.as_ref().map_or(0, |head| head.size);
        if tables.sealed != from || to <= from || to > size {
            return Err(StoreError::Damaged(format!("entries {from} to {to} cannot be sealed")));
        }
        tables.sealed = to;
        Ok(())
    }

    fn drop_sealed(&mut self, limit: u32) -> Result<bool, StoreError> {
        let mut tables = self.tables();
        let beyond = tables.sealed.min(tables.dropped + u64::from(limit));
        let gone = tables.dropped..beyond;
        tables.rows.retain(|index, row| row.folds || !gone.contains(index));
        tables.dropped = beyond;
        Ok(beyond < tables.sealed)
    }
}

fn minute(at: UnixMs) -> i64 {
    at.get().div_euclid(60_000)
}

fn place(live: &Live) -> (UnixMs, Index) {
    (live.exp, live.index)
}

impl Reader for Memory {
    fn head(&self) -> Result<Option<Head>, StoreError> {
        Ok(self.tables().head.clone())
    }

    fn rows(&self, start: Index, limit: u32) -> Result<Vec<Row>, StoreError> {
        Ok(self.tables().select(start, limit, |_| true))
    }

    fn closed(&self) -> Result<Vec<Head>, StoreError> {
        Ok(Vec::new())
    }

    fn entry_at(&self, place: Index) -> Result<Option<Row>, StoreError> {
        Ok(self.tables().rows.get(&place).cloned())
    }

    fn live_here(&self) -> Result<u64, StoreError> {
        self.live()
    }

    fn sealed_until(&self) -> Result<Index, StoreError> {
        Ok(self.tables().sealed)
    }

    fn fold_rows(&self, start: Index, limit: u32) -> Result<Vec<Row>, StoreError> {
        Ok(self.tables().select(start, limit, |row| row.folds))
    }

    fn subtree(&self, level: u8, index: u64) -> Result<Option<[u8; 32]>, StoreError> {
        Ok(self.tables().subtrees.get(&(level, index)).copied())
    }

    fn object(&self, digest: &Digest) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.tables().objects.get(digest.as_bytes()).cloned())
    }

    fn keys(&self) -> Result<Vec<SealedKey>, StoreError> {
        Ok(self.tables().keys.values().cloned().collect())
    }

    fn live(&self) -> Result<u64, StoreError> {
        Ok(self.tables().live.len() as u64)
    }

    fn live_after(&self, after: Option<Live>, limit: u32) -> Result<Vec<Live>, StoreError> {
        let tables = self.tables();
        let after = after.map(|it| place(&it));
        let rest = tables.live.iter().filter(|at| after.is_none_or(|after| **at > after));
        Ok(rest.take(limit as usize).map(|(exp, index)| Live { exp: *exp, index: *index }).collect())
    }
}
