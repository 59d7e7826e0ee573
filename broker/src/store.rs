//! What the log needs of a store, stated as a contract that every store keeps.
//!
//! Whoever can write the store can at most stop issuance or destroy what was not yet anchored: entries are bound
//! by signed checkpoints, keys lie in it sealed, and a head that went back is found.

mod at;
pub mod carry;
mod columns;
pub mod postgres;
pub mod sqlite;

use daypass_core::draft::Mark;
use daypass_evidence::entry::Index;
use daypass_verify::ids::{Digest, KeyId};
use daypass_verify::time::UnixMs;

pub use at::{About, Claimed, OpenReader, Opened, StoreAt};

/// The newest state of the log, as the store holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Which of the logs in this store that follow each other, from 0: a shard.
    pub shard: u32,
    /// The origin of its checkpoints.
    pub origin: String,
    /// How many entries there are.
    pub size: u64,
    /// The index of the newest entry that changed the runtime state.
    pub state: Index,
    /// The time of the newest entry.
    pub time: UnixMs,
    /// The roots of the perfect subtrees, largest first (RFC 6962, section 2.1).
    pub frontier: Vec<[u8; 32]>,
    /// The signed checkpoint of exactly this size (C2SP signed note).
    pub checkpoint: Vec<u8>,
}

/// One entry as it lies in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its position.
    pub index: Index,
    /// SHA-256 of 0x00 and the bytes.
    pub leaf: [u8; 32],
    /// Its canonical bytes.
    pub bytes: Vec<u8>,
    /// Whether the fold of the runtime state reads it.
    pub folds: bool,
}

/// A credential that has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Live {
    /// When it expires.
    pub exp: UnixMs,
    /// The index of its issuance: that in its log, raised by the shard's [`base`].
    pub index: Index,
}

/// Where the entries of a shard begin in the store: whoever reads one shard counts from there, and others never meet them.
/// It is the beginning of a subtree of each kept level, so that those lie side by side too.
#[must_use]
pub const fn base(shard: u32) -> Index {
    (shard as Index) << SHARD_BITS
}

const SHARD_BITS: u32 = 40;

/// The shard in which what was raised by a [`base`] lies, and its index there.
#[must_use]
pub const fn place(raised: Index) -> (Index, Index) {
    (raised >> SHARD_BITS, raised & ((1 << SHARD_BITS) - 1))
}

/// The index of a credential of the log before those in this store is its index there and this: what lived when that log
/// was lost has its ending in one of these. Those of even earlier logs follow, each raised by a [`base`], as the first
/// entry of this store names them.
pub const PREDECESSOR: Index = 1 << 62;

/// Everything that one transaction adds.
#[derive(Debug, Default)]
pub struct Batch {
    /// Entries, in order, from the head's size on.
    pub rows: Vec<Row>,
    /// Roots of the perfect subtrees of 256, 65,536 and so on leaves that these entries complete: level, index, hash.
    pub subtrees: Vec<(u8, u64, [u8; 32])>,
    /// Credentials that begin to live.
    pub born: Vec<Live>,
    /// Credentials that ended.
    pub ended: Vec<Live>,
    /// Objects that entries name by digest.
    pub objects: Vec<(Digest, Vec<u8>)>,
    /// Where the log ends with these entries, its head as they leave it; the head that is committed is then that of the
    /// next shard, whose first entries follow.
    pub turn: Option<Box<Turn>>,
    /// Key blobs, sealed. One that is there is replaced: by other times, or by nothing where the key is destroyed.
    pub keys: Vec<SealedKey>,
}

/// The turn from one shard to the next.
#[derive(Debug)]
pub struct Turn {
    /// The head that the old shard is left with.
    pub closed: Head,
    /// The first entries of the next one, in order, from 0 on.
    pub rows: Vec<Row>,
    /// The subtrees that they complete.
    pub subtrees: Vec<(u8, u64, [u8; 32])>,
}

/// A key as it lies in the store: its secret part sealed, its public part in the clear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedKey {
    /// Its id.
    pub key: KeyId,
    /// Nonce and AES-256-GCM ciphertext of the PKCS#8 document; empty where the key is destroyed.
    pub sealed: Vec<u8>,
    /// Its certificate (DER), for a CA.
    pub certificate: Option<Vec<u8>>,
}

/// What went wrong with a store. Nothing of a transaction is in the store after any of these but `Unknown`.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// It could not be reached or did not answer.
    #[error("the store is not available: {0}")]
    Unavailable(String),
    /// There is no room left.
    #[error("the store is full: {0}")]
    Full(String),
    /// Somebody else moved the head first.
    #[error("the head of the log moved: expected size {expected}, found {found}")]
    HeadMoved {
        /// The size that was read under the lock.
        expected: u64,
        /// The size that is there.
        found: u64,
    },
    /// What was read cannot be.
    #[error("the store is damaged: {0}")]
    Damaged(String),
    /// Whether the transaction is in the store is not known: read the head to learn it, never write it again.
    #[error("the outcome of a commit is not known: {0}")]
    Unknown(String),
}

/// The writing side, owned by the one writer of a broker.
///
/// `begin` takes the log's lock: from its return until the transaction ends, no other writer on the same store,
/// in this process or another, gets past its own `begin`.
pub trait Store: Send {
    /// Takes the lock and reads the head. None before the log is opened.
    ///
    /// # Errors
    /// When the lock cannot be had within two seconds, or the head cannot be read.
    fn begin(&mut self) -> Result<Box<dyn Transaction + '_>, StoreError>;

    /// Opens a log: as [`Transaction::commit`], where there is no head yet.
    ///
    /// # Errors
    /// As for `commit`; `HeadMoved` when there is a log already.
    fn open(&mut self, batch: &Batch, head: &Head) -> Result<(), StoreError>;

    /// A reader of the same store.
    ///
    /// # Errors
    /// When it cannot be reached.
    fn reader(&self) -> Result<Box<dyn Reader>, StoreError>;

    /// Keeps room for what must be written when there is no more, where that is the store's to keep: for who serves it.
    ///
    /// # Errors
    /// When it cannot be known what is kept.
    fn keep_room(&mut self) -> Result<(), StoreError>;

    /// Whether there is room for more than what must be written: while there is not, a reserve is used up.
    fn has_room(&mut self) -> bool;

    /// Housekeeping that would delay a commit: called when nobody waits for one.
    fn rest(&mut self) {}
}

/// What lets entries leave a store: the writing side cannot, and in a database another role does.
pub trait Sealer: Send {
    /// Says that the entries `from..to` lie elsewhere for good, whole and verified: from then on they are read there.
    /// `from` is where the last ones ended.
    ///
    /// # Errors
    /// When the store fails, or others are sealed than was thought.
    fn seal(&mut self, from: Index, to: Index) -> Result<(), StoreError>;

    /// Drops some of the sealed entries that still lie in the store, of at most `limit` places, but never those that
    /// the state is folded from. Whether there may be more.
    ///
    /// # Errors
    /// When the store fails.
    fn drop_sealed(&mut self, limit: u32) -> Result<bool, StoreError>;
}

/// One transaction under the log's lock. Dropped, it leaves no trace.
pub trait Transaction {
    /// The head as read under the lock.
    fn head(&self) -> &Head;

    /// The store's own clock, read in this transaction with the head; none where the store has no clock but ours.
    fn store_time(&self) -> Option<UnixMs> {
        None
    }

    /// Spends marks together: all of them, or none where one was spent before. For each, whether it was fresh.
    ///
    /// # Errors
    /// When the store fails.
    fn spend(&mut self, marks: &[Mark]) -> Result<Vec<bool>, StoreError>;

    /// As [`Transaction::spend`] for each group in its order, in as few round trips as the store can.
    ///
    /// # Errors
    /// When the store fails.
    fn spend_all(&mut self, groups: &[&[Mark]]) -> Result<Vec<Vec<bool>>, StoreError> {
        groups.iter().map(|marks| self.spend(marks)).collect()
    }

    /// Credentials whose end lies at or before `through`, by their end and then by index, at most `limit`.
    ///
    /// # Errors
    /// When the store fails.
    fn expired(&mut self, through: UnixMs, limit: u32) -> Result<Vec<Live>, StoreError>;

    /// For each, whether it has not ended: what was found live before the lock was had may have ended meanwhile.
    ///
    /// # Errors
    /// When the store fails.
    fn are_live(&mut self, credentials: &[Live]) -> Result<Vec<bool>, StoreError>;

    /// Adds `batch`, moves the head from the one read to `head`, and commits. On return the whole is durable: it
    /// survives the loss of power.
    ///
    /// # Errors
    /// `HeadMoved` when the head is not the one that was read; `Unknown` when the commit may have happened.
    fn commit(self: Box<Self>, batch: &Batch, head: &Head) -> Result<(), StoreError>;
}

/// The reading side: what is committed, in any thread, never delaying the writer.
///
/// It reads one shard: the one that was the newest when it was opened, unless it was opened for another.
pub trait Reader: Send {
    /// The head; none before the log is opened.
    ///
    /// # Errors
    /// When the store fails.
    fn head(&self) -> Result<Option<Head>, StoreError>;

    /// The heads of all shards in the store that are closed, from the first on.
    ///
    /// # Errors
    /// When the store fails.
    fn closed(&self) -> Result<Vec<Head>, StoreError>;

    /// At most `limit` entries from `start` on.
    ///
    /// # Errors
    /// When the store fails.
    fn rows(&self, start: Index, limit: u32) -> Result<Vec<Row>, StoreError>;

    /// The leaf hashes of at most `limit` entries from `start` on.
    ///
    /// # Errors
    /// When the store fails.
    fn leaves(&self, start: Index, limit: u32) -> Result<Vec<[u8; 32]>, StoreError> {
        Ok(self.rows(start, limit)?.into_iter().map(|row| row.leaf).collect())
    }

    /// Below this index entries are sealed: `rows` and `leaves` of a store itself may lack them.
    ///
    /// # Errors
    /// When the store fails.
    fn sealed_until(&self) -> Result<Index, StoreError> {
        Ok(0)
    }

    /// At most `limit` of the entries that the state's fold reads, from `start` on.
    ///
    /// # Errors
    /// When the store fails.
    fn fold_rows(&self, start: Index, limit: u32) -> Result<Vec<Row>, StoreError>;

    /// The entry at a place, raised by its [`base`]: of whichever shard in this store.
    ///
    /// # Errors
    /// When the store fails.
    fn entry_at(&self, place: Index) -> Result<Option<Row>, StoreError>;

    /// The root of the perfect subtree of `2^level` leaves at `index`, where it was kept.
    ///
    /// # Errors
    /// When the store fails.
    fn subtree(&self, level: u8, index: u64) -> Result<Option<[u8; 32]>, StoreError>;

    /// An object by its digest.
    ///
    /// # Errors
    /// When the store fails.
    fn object(&self, digest: &Digest) -> Result<Option<Vec<u8>>, StoreError>;

    /// All sealed keys.
    ///
    /// # Errors
    /// When the store fails.
    fn keys(&self) -> Result<Vec<SealedKey>, StoreError>;

    /// How many credentials live at `now`, as far as endings are written, of all shards.
    ///
    /// # Errors
    /// When the store fails.
    fn live(&self) -> Result<u64, StoreError>;

    /// The same of this shard alone.
    ///
    /// # Errors
    /// When the store fails.
    fn live_here(&self) -> Result<u64, StoreError>;

    /// Credentials that live, of all shards, by their end and then by index, at most `limit`: those that
    /// follow `after`, or from the first.
    ///
    /// # Errors
    /// When the store fails.
    fn live_after(&self, after: Option<Live>, limit: u32) -> Result<Vec<Live>, StoreError>;
}
