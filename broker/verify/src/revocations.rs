//! The signed feed of revocations, as brokers write it and receivers read it: a JWT that lists what is revoked and would
//! otherwise still be good, by the ids of credentials and by cut-offs ("of this identity, what was issued before T").
//! Each feed is the whole state: whoever holds the newest needs no other.

mod feed;

use std::collections::BTreeMap;

use crate::ids::{CredentialId, KeyId, Name, SpiffeId};
use crate::time::{Seconds, UnixMs};

pub use feed::{FeedError, Known, Revocations};

/// `typ` of the feed: no token of a workload has it.
pub const TYP: &str = "daypass-revocations+jwt";
/// The longest feed: 4 MiB.
pub const LEN_MAX: usize = 4 * 1024 * 1024;
/// How many ids a feed lists at most.
pub const IDS_MAX: usize = 65_536;
/// How many cut-offs of each kind a feed has at most.
pub const CUT_OFFS_MAX: usize = 2_048;
/// How long a feed may be used after it was signed. It is signed anew far more often.
pub const LIFE: Seconds = Seconds::new(300);

/// A cut-off later than every credential: of a key that others know, nothing is believed, whatever time it names.
pub const ALWAYS: UnixMs = UnixMs::new(253_402_300_799_000);

/// What is revoked: the contents of a feed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Revoked {
    /// Credentials by their ids: strictly ascending.
    ids: Vec<CredentialId>,
    /// What was issued before a time.
    cut_offs: CutOffs,
    /// Whether all that is revoked is in it.
    complete: bool,
}

/// "Issued before T": T is compared with the time in a credential's id, to the millisecond.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CutOffs {
    /// By the subject of the credential.
    pub identities: BTreeMap<SpiffeId, UnixMs>,
    /// By the declared name of the issuer of the proof that bought it. A credential does not name it: this is for those
    /// who know it otherwise, and all ids are listed besides.
    pub issuers: BTreeMap<Name, UnixMs>,
    /// By the key that signed it.
    pub keys: BTreeMap<KeyId, UnixMs>,
}

/// What is known of a credential that is shown.
#[derive(Debug, Clone, Copy)]
pub struct Shown<'a> {
    /// Its id, which also tells when it was issued.
    pub id: CredentialId,
    /// Whom it names.
    pub subject: &'a SpiffeId,
    /// The declared name of the issuer of the proof that bought it, where that is known.
    pub issuer: Option<&'a Name>,
    /// The key that signed it, where that is known.
    pub key: Option<&'a str>,
}

/// By what a credential is revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// Itself.
    Id,
    /// All of its identity until a time.
    Identity,
    /// All of its issuer until a time.
    Issuer,
    /// All of its key until a time.
    Key,
}

impl Revoked {
    /// What is revoked, as far as a feed has room for it: ids that a receiver finds by a cut-off anyway are left out
    /// first, by the caller, and those nearest to their own end last, by this.
    #[must_use]
    pub fn new(mut ids: Vec<CredentialId>, cut_offs: CutOffs) -> Self {
        ids.sort_unstable();
        ids.dedup();
        let fits = |len: usize| len <= CUT_OFFS_MAX;
        let complete = ids.len() <= IDS_MAX
            && fits(cut_offs.identities.len())
            && fits(cut_offs.issuers.len())
            && fits(cut_offs.keys.len());
        // The oldest ids are of those that end first.
        ids.drain(..ids.len().saturating_sub(IDS_MAX));
        Self { ids, cut_offs: cut_offs.within(CUT_OFFS_MAX), complete }
    }

    /// Whether `shown` is revoked, and by what. Takes well under a microsecond, whatever the feed holds.
    #[must_use]
    pub fn covers(&self, shown: &Shown<'_>) -> Option<By> {
        let issued = shown.id.drawn_at();
        let before = |cut_off: Option<&UnixMs>| cut_off.is_some_and(|at| issued < *at);
        let CutOffs { identities, issuers, keys } = &self.cut_offs;
        if self.ids.binary_search(&shown.id).is_ok() {
            Some(By::Id)
        } else if before(identities.get(shown.subject)) {
            Some(By::Identity)
        } else if before(shown.key.and_then(|key| keys.get(key))) {
            Some(By::Key)
        } else if before(shown.issuer.and_then(|issuer| issuers.get(issuer))) {
            Some(By::Issuer)
        } else {
            None
        }
    }

    /// The ids, ascending.
    #[must_use]
    pub fn ids(&self) -> &[CredentialId] {
        &self.ids
    }

    /// The cut-offs.
    #[must_use]
    pub fn cut_offs(&self) -> &CutOffs {
        &self.cut_offs
    }

    /// Whether all that is revoked is in it. What had no room can only be asked for (introspection).
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.complete
    }
}

impl CutOffs {
    fn within(mut self, most: usize) -> Self {
        while self.identities.len() > most {
            self.identities.pop_first();
        }
        while self.issuers.len() > most {
            self.issuers.pop_first();
        }
        while self.keys.len() > most {
            self.keys.pop_first();
        }
        self
    }
}

#[cfg(test)]
mod tests;
