//! Entries in the order of the log. What is asked of one credential is told from the log that issued it on, through
//! those that follow.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use daypass_core::decision::Outward;
use daypass_proto::v1 as pb;
use daypass_verify::ids::CredentialId;
use prost::bytes::Bytes;
use tokio::sync::mpsc;
use tonic::Status;

use super::{Named, Service};
use crate::index::{self, Filter, Issued};
use crate::server::authenticate::Caller;
use crate::server::convert;
use crate::server::status::{self, Outgoing};
use crate::store::{Head, Row, StoreError};

/// How often a follower looks for new entries.
const FOLLOW_EVERY: Duration = Duration::from_millis(200);

/// How much longer than its proof a stream may go on.
const LEEWAY_MS: i64 = 30_000;

/// A listing that was allowed.
pub(super) struct Listing {
    /// The logs that are gone through, one after another.
    logs: VecDeque<Named>,
    start: u64,
    limit: u64,
    follow: bool,
    filter: Filter,
    pub(super) caller: Caller,
    /// Whether it is an operator's, and not a holder's of what is its own.
    by_right: bool,
}

impl Listing {
    /// Goes on in the next log, where the one of this origin is at its end.
    fn turn(&mut self, origin: &str) {
        self.logs.pop_front();
        self.start = 0;
        if let Some(issued) = &mut self.filter.credential {
            issued.log.get_or_insert_with(|| origin.to_owned());
        }
    }
}

impl Service {
    /// Where a credential was issued, and the logs that can tell of it: in `log`, where one is named.
    async fn issued(
        &self,
        log: &str,
        credential: CredentialId,
    ) -> Result<Option<(VecDeque<Named>, Row)>, Outgoing> {
        let failed = |error: StoreError| status::of_store(&error);
        if !log.is_empty() {
            let named = self.log_named(log, 0).await?;
            let found = named.readers.run(move |reader| index::find(reader, &credential)).await;
            return Ok(found.map_err(failed)?.map(|row| (VecDeque::from([named]), row)));
        }
        let newest = self.log_named("", 0).await?;
        let Some((closed, row)) = self.0.shelf.find(credential).await.map_err(failed)? else {
            return Ok(None);
        };
        let after = closed.iter().flat_map(|closed| self.0.shelf.after(closed.head.shard));
        let logs = closed.iter().chain(after).map(Named::closed).chain([newest]);
        Ok(Some((logs.collect(), row)))
    }

    /// Rights end while a stream goes on: asked before each page.
    fn still_allowed(&self, listing: &Listing) -> bool {
        let caller = &listing.caller;
        self.0.desk.clock.now() < caller.principal.expires_at().plus_millis(LEEWAY_MS)
            && if listing.by_right {
                self.reads_evidence(caller)
            } else {
                !self.own_identities(caller).is_empty()
            }
    }

    pub(super) async fn listing(
        &self,
        wire: &pb::ListEntriesRequest,
        caller: &Caller,
    ) -> Result<Listing, Outgoing> {
        let credential: Option<CredentialId> = convert::optional("credential_id", &wire.credential_id)?;
        let mut filter = Filter {
            kinds: wire.kinds.clone(),
            identity: convert::optional("identity", &wire.identity)?,
            credential: None,
            request: convert::optional("request_id", &wire.request_id)?,
            since: convert::moment("since", wire.since.as_ref())?,
            until: convert::moment("until", wire.until.as_ref())?,
        };
        let limit = if wire.limit == 0 { u64::MAX } else { wire.limit };
        let by_right = self.reads_evidence(caller);
        let issued = match credential {
            Some(credential) => self.issued(&wire.log, credential).await?,
            None => None,
        };
        if !by_right {
            self.check_own(caller, credential, issued.as_ref().map(|(_, row)| row))?;
        }
        let logs = match (credential, issued) {
            (None, _) => VecDeque::from([self.log_named(&wire.log, 0).await?]),
            (_, Some((logs, row))) => {
                filter.credential = Some(Issued { log: None, index: row.index });
                logs
            }
            (_, None) => VecDeque::new(),
        };
        let caller = caller.clone();
        Ok(Listing { logs, start: wire.start, limit, follow: wire.follow, filter, caller, by_right })
    }

    /// A holder sees what became of a credential of its own, and of another's no more than of none.
    fn check_own(
        &self,
        caller: &Caller,
        credential: Option<CredentialId>,
        issued: Option<&Row>,
    ) -> Result<(), Outgoing> {
        let own = self.own_identities(caller);
        if credential.is_none() || own.is_empty() {
            return Err(Outgoing::new(
                Outward::NotAllowed,
                "reading the log is an operator's right: name a credential of your own by `credential_id`, or ask as an operator with `read_evidence`",
            ));
        }
        if issued.is_some_and(|row| index::issued_to(row, &own).is_some()) {
            return Ok(());
        }
        Err(Outgoing::new(Outward::NotFound, "`credential_id` names no credential of this identity"))
    }
}

pub(super) async fn list(
    service: Service,
    mut listing: Listing,
    sender: mpsc::Sender<Result<pb::ListEntriesResponse, Status>>,
) {
    let (api, request) = (&service.0, listing.caller.request);
    while let Some(named) = listing.logs.front().filter(|_| listing.limit > 0 && !sender.is_closed()) {
        if !service.still_allowed(&listing) {
            let refusal = Outgoing::new(Outward::NotAllowed, "the right to read this ended meanwhile");
            drop(sender.send(Err(refusal.into_status(&request))).await);
            return;
        }
        let (start, filter) = (listing.start, listing.filter.clone());
        let searched = named.readers.run(move |reader| index::search(reader, start, &filter)).await;
        let found = match searched {
            Ok(found) => found,
            Err(error) => {
                drop(sender.send(Err(status::of_store(&error).into_status(&request))).await);
                return;
            }
        };
        // The checkpoint that comes with an entry covers it, whichever broker wrote it.
        let covered = found.rows.last().map_or(0, |row| row.index + 1);
        let head = match named.is_newest {
            true => Arc::clone(&api.desk.log.published_at(covered).await.head),
            false => Arc::clone(&named.head),
        };
        let (is_newest, next) = (named.is_newest, if covered > head.size { None } else { found.next });
        for row in found.rows.into_iter().filter(|row| row.index < head.size) {
            listing.start = row.index + 1;
            if sender.send(Ok(response(row, &head))).await.is_err() || listing.limit == 1 {
                return;
            }
            listing.limit -= 1;
        }
        match next {
            Some(next) => listing.start = next,
            None if !is_newest => listing.turn(&head.origin),
            None if listing.follow => tokio::time::sleep(FOLLOW_EVERY).await,
            None => return,
        }
    }
}

fn response(row: Row, head: &Head) -> pb::ListEntriesResponse {
    let entry = pb::EntryRef { log: head.origin.clone(), index: row.index };
    let checkpoint = Bytes::copy_from_slice(&head.checkpoint);
    pb::ListEntriesResponse { r#ref: Some(entry), entry: row.bytes.into(), checkpoint }
}
