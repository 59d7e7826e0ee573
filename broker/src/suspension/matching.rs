//! Which credentials that live a selector is about: found by reading the entries of what lives, page by page, beside the
//! writer, whichever log of this store they were issued in.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use daypass_evidence::entry::{Body, CredentialIssued, Index, Reach, Selector};
use daypass_verify::ids::{CredentialId, Name};

use crate::index;
use crate::log::Ends;
use crate::store::{Live, PREDECESSOR, Reader, StoreError, place};

/// A credential that lives and is selected.
#[derive(Debug, Clone)]
pub(super) struct Selected {
    pub(super) live: Live,
    pub(super) id: CredentialId,
    pub(super) reach: Reach,
}

/// One page of what lives.
pub(super) struct Page {
    pub(super) found: Vec<Selected>,
    /// Where to go on; none at the end.
    pub(super) next: Option<Live>,
}

/// Who is looked for, in entries alone: what is declared now may differ from what was when they were written.
#[derive(Debug, Clone)]
pub(super) struct Matching {
    selector: Selector,
    /// The names of issuers, or of identities' suppliers, by the entries that declared them.
    declared: BTreeMap<Index, Option<Name>>,
}

impl Matching {
    pub(super) fn new(selector: Selector) -> Self {
        Self { selector, declared: BTreeMap::new() }
    }

    /// The page of what lives that follows `after`, or the first; at most as many as one entry can name.
    pub(super) fn page(&mut self, reader: &dyn Reader, after: Option<Live>) -> Result<Page, StoreError> {
        let most = u32::try_from(Ends::MOST).unwrap_or(u32::MAX);
        let mut all = reader.live_after(after, most)?;
        let next = all.last().copied();
        // What lives of a log before this one in another store is not read here.
        all.retain(|live| live.index < PREDECESSOR);
        let mut found = Vec::new();
        for live in all {
            let missing = || StoreError::Damaged(format!("entry {} is missing", place(live.index).1));
            let row = reader.entry_at(live.index)?.ok_or_else(missing)?;
            let entry = index::read(&row)?;
            let (id, time) = (entry.envelope.id, entry.envelope.time);
            let Body::CredentialIssued(issued) = entry.body else { continue };
            let in_time = self.selector.issued_before_ms.is_none_or(|before| time < before);
            if in_time && self.selects(reader, live.index, &issued)? {
                found.push(Selected { live, id, reach: issued.credential.reach });
            }
        }
        Ok(Page { found, next })
    }

    fn selects(
        &mut self,
        reader: &dyn Reader,
        at: Index,
        issued: &CredentialIssued,
    ) -> Result<bool, StoreError> {
        let selector = &self.selector;
        let by_itself = selector.everything
            || selector.identity.as_ref() == Some(&issued.identity.name)
            || selector.task.as_ref() == Some(&issued.task.name)
            || selector.target.as_ref() == Some(&issued.target.name)
            || selector.key.as_ref() == Some(&issued.credential.key)
            || (selector.instance.is_some() && selector.instance == issued.proof.instance);
        if by_itself {
            return Ok(true);
        }
        let (wanted, declared) = match (&selector.issuer, &selector.supplier) {
            (Some(issuer), _) => (issuer.clone(), issued.proof.at),
            (None, Some(supplier)) => (supplier.clone(), issued.identity.at),
            (None, None) => return Ok(false),
        };
        // It lies in the log that the issuance lies in.
        let declared = at - place(at).1 + declared;
        let of_issuer = selector.issuer.is_some();
        let found = match self.declared.entry(declared) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => unknown.insert(name_at(reader, declared, of_issuer)?),
        };
        Ok(found.as_ref() == Some(&wanted))
    }
}

/// The name of the issuer that the entry at `at` declares, or the supplier of the identity.
fn name_at(reader: &dyn Reader, at: Index, of_issuer: bool) -> Result<Option<Name>, StoreError> {
    let Some(row) = reader.entry_at(at)? else { return Ok(None) };
    let Body::RegistryChanged(changed) = index::read(&row)?.body else { return Ok(None) };
    let supplier = || changed.declared.as_ref()?.get("supplier")?.as_str()?.parse().ok();
    Ok(if of_issuer { changed.name.as_str().parse().ok() } else { supplier() })
}
