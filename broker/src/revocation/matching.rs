//! Which credentials that live an order is about: found by reading the entries of what lives, page by page, beside the
//! writer. Whatever orders use selectors (to revoke, to suspend, a compromised key) find by this.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use daypass_evidence::entry::{Body, CredentialIssued, Index, Reach, Selector};
use daypass_verify::ids::{CredentialId, IdentityName, Name};
use daypass_verify::time::UnixMs;

use crate::index;
use crate::log::Ends;
use crate::store::{Live, PREDECESSOR, Reader, Row, StoreError, place};

/// How many entries are read at once.
const ROWS: u32 = 128;

/// Who is looked for, in entries alone: what is declared now may differ from what was when they were written.
#[derive(Debug, Clone)]
pub struct Matching {
    selector: Selector,
    /// One credential alone: where its issuance lies, of whichever log in the store.
    one: Option<Index>,
    /// Only what was issued to one of these, where that is all that the order may be about.
    own: Option<Vec<IdentityName>>,
    /// Bytes that an entry has somewhere, where it is selected.
    needle: Option<String>,
    /// The names of issuers, or of identities' suppliers, by the entries that declared them.
    declared: BTreeMap<Index, Option<Name>>,
}

/// A credential that lives and is selected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selected {
    /// Its row.
    pub live: Live,
    /// Its id.
    pub id: CredentialId,
    /// How its revocation arrives.
    pub reach: Reach,
    /// Whose it is.
    pub identity: IdentityName,
    /// Where it is used.
    pub target: Name,
}

/// A page of what lives.
#[derive(Debug, Default)]
pub struct Page {
    /// Those that are selected.
    pub found: Vec<Selected>,
    /// How many were looked at.
    pub looked_at: u64,
    /// Where to go on; none at the end.
    pub next: Option<Live>,
}

impl Matching {
    /// All that `selector` selects.
    #[must_use]
    pub fn new(selector: Selector) -> Self {
        let needle = needle(&selector);
        Self { selector, one: None, own: None, needle, declared: BTreeMap::new() }
    }

    /// The same, less what was issued to others than `own`.
    #[must_use]
    pub fn of(selector: Selector, own: Vec<IdentityName>) -> Self {
        Self { own: Some(own), ..Self::new(selector) }
    }

    /// One credential, whose issuance lies at `at`; `index` is its index where that is in the log that is written.
    #[must_use]
    pub fn one(at: Index, index: Option<Index>, issued_before_ms: Option<UnixMs>) -> Self {
        let selector = Selector { credential: index, issued_before_ms, ..Selector::default() };
        Self { one: Some(at), ..Self::new(selector) }
    }

    /// What it selects.
    #[must_use]
    pub fn selector(&self) -> &Selector {
        &self.selector
    }

    /// The page of what lives that follows `after`, or the first; at most as many as one entry can name.
    ///
    /// # Errors
    /// When the store fails, or an entry is missing.
    pub fn page(&mut self, reader: &dyn Reader, after: Option<Live>) -> Result<Page, StoreError> {
        if let Some(at) = self.one {
            return self.only(reader, at);
        }
        let most = u32::try_from(Ends::MOST).unwrap_or(u32::MAX);
        let mut all = reader.live_after(after, most)?;
        let (next, looked_at) = (all.last().copied(), all.len() as u64);
        // What lives of a log before the first in this store cannot be read here.
        all.retain(|live| live.index < PREDECESSOR);
        all.sort_by_key(|live| live.index);
        let own = reader.head()?.map_or(0, |head| head.shard);
        let (mut found, mut rows): (_, Vec<Row>) = (Vec::new(), Vec::new());
        for live in all {
            let (shard, index) = place(live.index);
            let missing = || StoreError::Damaged(format!("entry {index} is missing"));
            if shard != Index::from(own) {
                let row = reader.entry_at(live.index)?.ok_or_else(missing)?;
                found.extend(self.selected(reader, &row, live)?);
                continue;
            }
            if rows.last().is_none_or(|last| last.index < index) {
                rows = reader.rows(index, ROWS)?;
            }
            let at = rows.binary_search_by_key(&index, |row| row.index).ok();
            let row = at.and_then(|at| rows.get(at)).ok_or_else(missing)?;
            found.extend(self.selected(reader, row, live)?);
        }
        Ok(Page { found, looked_at, next })
    }

    /// All that lives and is selected, but no more than `most`, and whether there is no more.
    ///
    /// # Errors
    /// As for [`Self::page`].
    pub fn all(&mut self, reader: &dyn Reader, most: usize) -> Result<(Vec<Selected>, bool), StoreError> {
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let page = self.page(reader, after)?;
            all.extend(page.found);
            after = page.next;
            if after.is_none() || all.len() > most {
                let whole = all.len() <= most;
                all.truncate(most);
                return Ok((all, whole));
            }
        }
    }

    fn only(&mut self, reader: &dyn Reader, at: Index) -> Result<Page, StoreError> {
        let Some(row) = reader.entry_at(at)? else { return Ok(Page::default()) };
        let exp = match index::read(&row)?.body {
            Body::CredentialIssued(issued) => issued.credential.exp_ms,
            _ => return Ok(Page::default()),
        };
        let live = Live { exp, index: at };
        // A log begins with what opens it: no issuance is its first entry.
        let before = Live { exp, index: at.saturating_sub(1) };
        let is_live = reader.live_after(Some(before), 1)?.first() == Some(&live);
        let found = if is_live { self.selected(reader, &row, live)? } else { None };
        Ok(Page { found: found.into_iter().collect(), looked_at: 1, next: None })
    }

    fn selected(
        &mut self,
        reader: &dyn Reader,
        row: &Row,
        live: Live,
    ) -> Result<Option<Selected>, StoreError> {
        let named = |needle: &String| memchr::memmem::find(&row.bytes, needle.as_bytes()).is_some();
        if !self.needle.as_ref().is_none_or(named) {
            return Ok(None);
        }
        let entry = index::read(row)?;
        let (id, Body::CredentialIssued(issued)) = (entry.envelope.id, entry.body) else { return Ok(None) };
        let own = self.own.as_ref().is_none_or(|own| own.iter().any(|it| holds(it, &issued)));
        let early = |before: UnixMs| id.drawn_at() < before;
        let in_time = self.selector.issued_before_ms.is_none_or(early);
        if !own || !in_time || !self.selects(reader, live.index, &issued)? {
            return Ok(None);
        }
        Ok(Some(Selected {
            live,
            id,
            reach: issued.credential.reach,
            identity: issued.identity.name.clone(),
            target: issued.target.name.clone(),
        }))
    }

    fn selects(
        &mut self,
        reader: &dyn Reader,
        at: Index,
        issued: &CredentialIssued,
    ) -> Result<bool, StoreError> {
        let selector = &self.selector;
        let by_itself = selector.everything
            || self.one == Some(at)
            || selector.identity.as_ref().is_some_and(|it| holds(it, issued))
            || selector.task.as_ref() == Some(&issued.task.name)
            || selector.target.as_ref() == Some(&issued.target.name)
            || selector.key.as_ref() == Some(&issued.credential.key)
            || (selector.instance.is_some() && selector.instance == issued.proof.instance);
        if by_itself {
            return Ok(true);
        }
        let of_issuer = selector.issuer.is_some();
        let Some(wanted) = selector.issuer.as_ref().or(selector.supplier.as_ref()).cloned() else {
            return Ok(false);
        };
        let node_at = issued.proof.via.as_ref().and_then(|via| via.at);
        let of_parties = [Some(issued.identity.at), node_at];
        let declared_at = if of_issuer { [Some(issued.proof.at), None] } else { of_parties };
        // References lie in the log of the issuance itself.
        let first = at - place(at).1;
        for at in declared_at.into_iter().flatten().map(|index| first + index) {
            let known = match self.declared.entry(at) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(unknown) => unknown.insert(declared(reader, at, of_issuer)?),
            };
            if known.as_ref() == Some(&wanted) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Whether it was issued to this identity, or to a workload that it spoke for: what a lost machine holds is all of it.
pub(crate) fn holds(identity: &IdentityName, issued: &CredentialIssued) -> bool {
    let node = issued.proof.via.as_ref().map(|via| &via.node);
    *identity == issued.identity.name || node == Some(identity)
}

/// The name of the issuer that the entry at `at` declares, or the supplier of the identity.
fn declared(reader: &dyn Reader, at: Index, of_issuer: bool) -> Result<Option<Name>, StoreError> {
    let Some(row) = reader.entry_at(at)? else { return Ok(None) };
    let Body::RegistryChanged(changed) = index::read(&row)?.body else { return Ok(None) };
    let supplier = || changed.declared.as_ref()?.get("supplier")?.as_str()?.parse().ok();
    Ok(if of_issuer { changed.name.as_str().parse().ok() } else { supplier() })
}

/// Bytes that each selected entry holds: most need not be read any further. A name has one spelling in canonical JSON;
/// what an instance is called may not.
fn needle(selector: &Selector) -> Option<String> {
    let key = selector.key.as_ref().map(ToString::to_string);
    let names = [&selector.task, &selector.target].map(|name| name.as_ref().map(ToString::to_string));
    let [task, target] = names;
    let identity = selector.identity.as_ref().map(ToString::to_string);
    let named = identity.or(task).or(target).or(key)?;
    Some(format!("\"{named}\""))
}
