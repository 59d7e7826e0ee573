//! The credential that a request renews.

use daypass_core::decision::Outward;
use daypass_core::request::Renewed;
use daypass_verify::ids::CredentialId;

use super::{Api, Caller, Outgoing, outgoing};

impl Api {
    /// The issuance of `id`, which a renewal supersedes: one of the caller's own.
    ///
    /// # Errors
    /// When it is not, or was revoked.
    pub(crate) async fn renewed(
        &self,
        caller: &Caller,
        id: Option<CredentialId>,
    ) -> Result<Option<Renewed>, Outgoing> {
        let Some(id) = id else { return Ok(None) };
        let own: Vec<_> = caller.principal.identities().iter().map(|(name, _)| name.clone()).collect();
        if own.is_empty() {
            // Denied in a moment, as it would be without: no reason to search the log for it.
            return Ok(None);
        }
        let find = self.readers.run(move |reader| {
            let found = crate::index::find(reader, &id)?;
            let followed = if found.is_none() { crate::index::followed_at(reader)? } else { None };
            Ok((found, followed))
        });
        let (found, followed) = find.await.map_err(|error| outgoing::of_store(&error))?;
        if followed.is_some_and(|followed| id.drawn_at() < followed) {
            // Of a log before this one: an entry names only what is in its own.
            return Ok(None);
        }
        let renewed = found.and_then(|row| crate::index::issued_to(&row, &own));
        if renewed.is_some() && self.revocation.forbids_renewal(&id) {
            return Err(Outgoing::new(Outward::NotAllowed, outgoing::REVOKED));
        }
        renewed.map(Some).ok_or_else(|| {
            Outgoing::new(Outward::NotFound, "`supersedes` names no credential of this identity: leave it empty, or name the one that is renewed")
        })
    }
}
