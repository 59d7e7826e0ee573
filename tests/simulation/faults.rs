//! A store and a signer that do as they are told: the real ones, but for the faults that are armed.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use daypass_broker::keyring::Keyring;
use daypass_broker::signer::{Keys, SignError};
use daypass_broker::store::{
    Batch, Head, Live, Reader, Row, SealedKey, Store, StoreError, Transaction, base,
};
use daypass_core::draft::Mark;
use daypass_evidence::entry::Index;
use daypass_verify::ids::{Digest, KeyId};
use daypass_verify::time::UnixMs;

use super::op::{Frozen, Op, Says, Step};

/// Longer than a broker asks for the outcome of a commit.
const LOST_FOR: Duration = Duration::from_millis(2_300);

/// What is armed, and what was seen.
#[derive(Default)]
pub(crate) struct Faults {
    armed: Mutex<Vec<Op>>,
    lost_until: Mutex<Option<Instant>>,
    /// Whether the broker was killed within a commit.
    pub(crate) dead: AtomicBool,
    /// Bytes that were signed, with the size of the log at that moment.
    pub(crate) signed: Mutex<Vec<(Digest, u64)>>,
    /// Whether the store cannot be reached.
    pub(crate) cut: AtomicBool,
    freeze: Mutex<Freeze>,
    thawed: Condvar,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Freeze {
    #[default]
    Goes,
    Stands,
    Killed,
}

impl Faults {
    pub(crate) fn arm(&self, fault: Op) {
        self.armed.lock().unwrap().push(fault);
    }

    pub(crate) fn forget(&self, fault: Op) {
        self.armed.lock().unwrap().retain(|armed| *armed != fault);
    }

    pub(crate) fn disarm(&self) {
        self.armed.lock().unwrap().clear();
        self.cut.store(false, Ordering::SeqCst);
    }

    pub(crate) fn is_frozen(&self) -> bool {
        *self.freeze.lock().unwrap() == Freeze::Stands
    }

    pub(crate) fn thaw(&self) {
        self.becomes(Freeze::Goes);
    }

    pub(crate) fn kill_if_frozen(&self) {
        if self.is_frozen() {
            self.becomes(Freeze::Killed);
        }
    }

    /// The broker that these faults were told to is gone. The next one starts where it can reach the store: else it
    /// would not start.
    pub(crate) fn is_over(&self) {
        self.cut.store(false, Ordering::SeqCst);
        self.dead.store(false, Ordering::SeqCst);
        self.becomes(Freeze::Goes);
    }

    fn becomes(&self, freeze: Freeze) {
        *self.freeze.lock().unwrap() = freeze;
        self.thawed.notify_all();
    }

    /// Stands still until it is told otherwise.
    fn stand_still(&self) {
        let mut freeze = self.freeze.lock().unwrap();
        *freeze = Freeze::Stands;
        let goes = self.thawed.wait_while(freeze, |freeze| *freeze == Freeze::Stands).unwrap();
        if *goes == Freeze::Killed {
            drop(goes);
            resume_unwind(Box::new("killed"))
        }
    }

    fn reached(&self) -> Result<(), StoreError> {
        if self.cut.load(Ordering::SeqCst) {
            return Err(StoreError::Unavailable("the store cannot be reached".into()));
        }
        Ok(())
    }

    fn take(&self, wanted: impl Fn(&Op) -> bool) -> Option<Op> {
        let mut armed = self.armed.lock().unwrap();
        let at = armed.iter().position(wanted)?;
        Some(armed.remove(at))
    }

    fn at(&self, step: Step) -> Result<(), StoreError> {
        self.reached()?;
        let lost = self.lost_until.lock().unwrap().is_some_and(|until| Instant::now() < until);
        if lost || self.take(|fault| *fault == Op::StoreFails(step)).is_some() {
            return Err(StoreError::Unavailable(format!("{step:?} was told to fail")));
        }
        Ok(())
    }

    fn at_commit(&self) -> Option<Op> {
        self.take(|fault| {
            matches!(
                fault,
                Op::IssueFrozen { .. }
                    | Op::CasFails { .. }
                    | Op::CommitUnknown { .. }
                    | Op::StoreLost { .. }
                    | Op::DiesInCommit { .. }
                    | Op::StoreForgets
            )
        })
    }
}

/// The real store behind the faults.
pub(crate) struct FaultyStore {
    pub(crate) inner: Box<dyn Store>,
    pub(crate) faults: Arc<Faults>,
    /// Lets the world see when the writer is gone.
    pub(crate) _held: Arc<()>,
}

impl Store for FaultyStore {
    fn keep_room(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    fn has_room(&mut self) -> bool {
        true
    }

    fn begin(&mut self) -> Result<Box<dyn Transaction + '_>, StoreError> {
        self.faults.at(Step::Begin)?;
        Ok(Box::new(FaultyTransaction { inner: self.inner.begin()?, faults: &self.faults }))
    }

    fn open(&mut self, batch: &Batch, head: &Head) -> Result<(), StoreError> {
        self.inner.open(batch, head)
    }

    fn reader(&self) -> Result<Box<dyn Reader>, StoreError> {
        Ok(Box::new(FaultyReader { inner: self.inner.reader()?, faults: Arc::clone(&self.faults) }))
    }

    fn rest(&mut self) {
        self.inner.rest();
    }
}

struct FaultyTransaction<'a> {
    inner: Box<dyn Transaction + 'a>,
    faults: &'a Faults,
}

impl Transaction for FaultyTransaction<'_> {
    fn head(&self) -> &Head {
        self.inner.head()
    }

    fn spend(&mut self, marks: &[Mark]) -> Result<Vec<bool>, StoreError> {
        self.faults.at(Step::Spend)?;
        self.inner.spend(marks)
    }

    fn spend_all(&mut self, groups: &[&[Mark]]) -> Result<Vec<Vec<bool>>, StoreError> {
        if groups.iter().any(|marks| !marks.is_empty()) {
            self.faults.at(Step::Spend)?;
        }
        self.inner.spend_all(groups)
    }

    fn expired(&mut self, through: UnixMs, limit: u32) -> Result<Vec<Live>, StoreError> {
        self.faults.at(Step::Expired)?;
        self.inner.expired(through, limit)
    }

    fn are_live(&mut self, credentials: &[Live]) -> Result<Vec<bool>, StoreError> {
        self.inner.are_live(credentials)
    }

    fn commit(self: Box<Self>, batch: &Batch, head: &Head) -> Result<(), StoreError> {
        self.faults.at(Step::Commit)?;
        let unknown = || Err(StoreError::Unknown("the answer was lost".into()));
        let Self { inner, faults } = *self;
        let commit = |persisted: bool| {
            if persisted {
                inner.commit(batch, head)
            } else {
                drop(inner);
                Ok(())
            }
        };
        match faults.at_commit() {
            Some(Op::CommitUnknown { persisted }) => commit(persisted).and_then(|()| unknown()),
            Some(Op::StoreLost { persisted }) => {
                commit(persisted)?;
                *faults.lost_until.lock().unwrap() = Some(Instant::now() + LOST_FOR);
                unknown()
            }
            Some(Op::DiesInCommit { persisted }) => {
                commit(persisted)?;
                faults.dead.store(true, Ordering::SeqCst);
                // Ends the writer as a kill would: at once, without an answer to anybody.
                resume_unwind(Box::new("killed"))
            }
            Some(Op::CasFails { persisted }) => commit(persisted).and_then(|()| says(Says::Moved)),
            Some(Op::IssueFrozen { frozen, .. }) => {
                let (persisted, told) = match frozen {
                    Frozen::LockLost(told) => (false, told),
                    Frozen::Committed(told) => (true, told),
                };
                commit(persisted)?;
                faults.stand_still();
                says(told)
            }
            Some(_forgets) => Ok(()),
            None => commit(true),
        }
    }
}

fn says(told: Says) -> Result<(), StoreError> {
    match told {
        Says::Done => Ok(()),
        Says::Failed => Err(StoreError::Unavailable("the store ended the session".into())),
        Says::Moved => Err(StoreError::HeadMoved { expected: 0, found: 0 }),
        Says::Unknown => Err(StoreError::Unknown("the answer was lost".into())),
    }
}

/// The real reader, where the store can be reached.
struct FaultyReader {
    inner: Box<dyn Reader>,
    faults: Arc<Faults>,
}

impl FaultyReader {
    fn reached(&self) -> Result<&dyn Reader, StoreError> {
        self.faults.reached()?;
        Ok(self.inner.as_ref())
    }
}

impl Reader for FaultyReader {
    fn head(&self) -> Result<Option<Head>, StoreError> {
        self.reached()?.head()
    }

    fn rows(&self, start: Index, limit: u32) -> Result<Vec<Row>, StoreError> {
        self.reached()?.rows(start, limit)
    }

    fn closed(&self) -> Result<Vec<Head>, StoreError> {
        self.reached()?.closed()
    }

    fn entry_at(&self, place: Index) -> Result<Option<Row>, StoreError> {
        self.reached()?.entry_at(place)
    }

    fn live_here(&self) -> Result<u64, StoreError> {
        self.reached()?.live_here()
    }

    fn fold_rows(&self, start: Index, limit: u32) -> Result<Vec<Row>, StoreError> {
        self.reached()?.fold_rows(start, limit)
    }

    fn subtree(&self, level: u8, index: u64) -> Result<Option<[u8; 32]>, StoreError> {
        self.reached()?.subtree(level, index)
    }

    fn object(&self, digest: &Digest) -> Result<Option<Vec<u8>>, StoreError> {
        self.reached()?.object(digest)
    }

    fn keys(&self) -> Result<Vec<SealedKey>, StoreError> {
        self.reached()?.keys()
    }

    fn live(&self) -> Result<u64, StoreError> {
        self.reached()?.live()
    }

    fn live_after(&self, after: Option<Live>, limit: u32) -> Result<Vec<Live>, StoreError> {
        self.reached()?.live_after(after, limit)
    }
}

/// The real keys behind the faults.
pub(crate) struct FaultyKeys {
    pub(crate) inner: Arc<Keyring>,
    pub(crate) faults: Arc<Faults>,
    pub(crate) reader: Mutex<Box<dyn Reader>>,
}

impl Keys for FaultyKeys {
    fn sign(&self, key: &KeyId, message: &[u8]) -> Result<Vec<u8>, SignError> {
        let head = self.reader.lock().unwrap().head().unwrap();
        let size = head.map_or(0, |head| base(head.shard) + head.size);
        let fault = self.faults.take(|fault| matches!(fault, Op::SignerFails | Op::SignerLies));
        if fault == Some(Op::SignerFails) {
            return Err(SignError::Failed(key.clone(), "it was told to fail".into()));
        }
        self.faults.signed.lock().unwrap().push((Digest::of(message), size));
        let signed: &[u8] = if fault.is_some() { b"something else" } else { message };
        self.inner.sign(key, signed)
    }

    fn verifies(&self, key: &KeyId, message: &[u8], signature: &[u8]) -> bool {
        self.inner.verifies(key, message, signature)
    }

    fn verify_always(&self) -> bool {
        true
    }
}
