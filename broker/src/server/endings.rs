//! `WatchEndings`: what lives at a target, and then each that ends, for those who end its sessions.

mod exceptions;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use daypass_core::decision::Outward;
use daypass_evidence::entry::{Body, EndedHow, Entry, Index, Selector};
use daypass_proto::v1 as pb;
use daypass_proto::v1::watch_endings_response::Event;
use daypass_verify::ids::{CredentialId, Name};
use tokio::sync::mpsc;
use tonic::Status;

use super::Api;
use super::authenticate::Caller;
use super::convert::{self, timestamp};
use super::status::{self, Outgoing};
use crate::api::standing;
use crate::index;
use crate::revocation::{Matching, Page};
use crate::store::{Head, Live, Reader, Row, StoreError, base, place};
use exceptions::Exceptions;

/// How often it is looked whether there is more.
const FOLLOW_EVERY: Duration = Duration::from_millis(200);

/// How often is said that all was told.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(2);

/// How much longer than its proof a stream may go on.
const LEEWAY_MS: i64 = 30_000;

/// How many entries are read at once.
const ROWS: u32 = 500;

/// Where events go.
pub(super) type Events = mpsc::Sender<Result<pb::WatchEndingsResponse, Status>>;

/// A watch that was allowed.
pub(super) struct Watching {
    api: Arc<Api>,
    caller: Caller,
    target: Name,
    /// The first entry that was not told of yet; none where the stream begins with what lives.
    next: Option<Index>,
    /// What lives at the target, of what was issued up to `known`.
    live: BTreeMap<Index, CredentialId>,
    known: Index,
    /// Which of the logs in the store is written.
    shard: Index,
    exceptions: Exceptions,
}

/// Why a stream ends: the caller is gone, or is told why.
enum End {
    Gone,
    Told(Outgoing),
}

impl From<StoreError> for End {
    fn from(error: StoreError) -> Self {
        Self::Told(status::of_store(&error))
    }
}

impl Watching {
    pub(super) async fn new(
        api: Arc<Api>,
        wire: &pb::WatchEndingsRequest,
        caller: Caller,
    ) -> Result<Self, Outgoing> {
        let target: Name = convert::optional("target", &wire.target)?
            .ok_or_else(|| Outgoing::malformed("target", "expected the name of a declared target"))?;
        if !may_watch(&api, &caller, &target) {
            let message = "watching a target's endings is the right of who serves it (`served_by`), and of operators with `read_evidence`";
            return Err(Outgoing::new(Outward::NotAllowed, message));
        }
        let head = Arc::clone(&api.desk.log.published_at(u64::MAX).await.head);
        let next = cursor(&wire.cursor, &head)?;
        let shard = Index::from(head.shard);
        let exceptions = Exceptions::of(target.clone());
        Ok(Self { api, caller, target, next, live: BTreeMap::new(), known: head.size, shard, exceptions })
    }

    pub(super) async fn run(mut self, events: Events) {
        if let Err(End::Told(outgoing)) = self.tell(&events).await {
            drop(events.send(Err(outgoing.into_status(&self.caller.request))).await);
        }
    }

    async fn tell(&mut self, events: &Events) -> Result<(), End> {
        let (fresh, known) = (self.next.is_none(), self.known);
        self.learn_what_lives(events, fresh).await?;
        let mut next = self.next.unwrap_or(known);
        let (mut synced, mut heartbeat_at) = (false, Instant::now());
        loop {
            let is_due = synced && Instant::now() >= heartbeat_at;
            let is_current = is_due && self.is_current().await?;
            let head = Arc::clone(&self.api.desk.log.published().head);
            while next < head.size {
                let rows = self.rows(next, head.size).await?;
                let Some(last) = rows.last().map(|row| row.index) else { break };
                for row in rows {
                    self.tell_of(events, &row, &head).await?;
                }
                next = last + 1;
            }
            self.tell_of_exceptions(events).await?;
            if !synced && next >= known {
                synced = true;
                let live = self.live.len() as u64;
                let event = Event::Synced(pb::Synced { live });
                self.send(events, event, at(&head, next)).await?;
            }
            if is_current {
                heartbeat_at = Instant::now() + HEARTBEAT_EVERY;
                self.send(events, Event::Heartbeat(pb::Heartbeat {}), at(&head, next)).await?;
            }
            tokio::time::sleep(FOLLOW_EVERY).await;
            if events.is_closed() {
                return Err(End::Gone);
            }
            self.still_allowed()?;
        }
    }

    /// Whether this broker knows all that the store holds: others may have written to it, and it may be out of reach.
    async fn is_current(&self) -> Result<bool, End> {
        let head = self.api.readers.run(|reader: &dyn Reader| reader.head()).await?;
        let size = head.map_or(0, |head| head.size);
        Ok(self.api.desk.log.published_at(size).await.head.size >= size)
    }

    async fn tell_of_exceptions(&mut self, events: &Events) -> Result<(), End> {
        let (state, now) = (self.api.desk.log.state(), self.api.desk.clock.now());
        for change in self.exceptions.changes(state.bundle().map(Arc::as_ref), now) {
            self.send(events, Event::Exception(change), String::new()).await?;
        }
        Ok(())
    }

    /// What lives as of now, told where the stream begins.
    async fn learn_what_lives(&mut self, events: &Events, tell: bool) -> Result<(), End> {
        let selector = Selector { target: Some(self.target.clone()), ..Selector::default() };
        let (mut matching, mut after): (_, Option<Live>) = (Matching::new(selector), None);
        loop {
            let read = move |reader: &dyn Reader| {
                let page = matching.page(reader, after)?;
                Ok((matching, page))
            };
            let page: Page;
            (matching, page) = self.api.readers.run(read).await?;
            for one in &page.found {
                let (shard, index) = place(one.live.index);
                if shard == self.shard && index >= self.known {
                    continue;
                }
                self.live.insert(one.live.index, one.id);
                if tell {
                    let expires_at = Some(timestamp(one.live.exp));
                    let live = pb::Live { credential_id: one.id.to_string(), expires_at };
                    self.send(events, Event::Live(live), String::new()).await?;
                }
            }
            after = page.next;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    /// Where an entry of the log that is written lies in the store.
    fn at(&self, index: Index) -> Index {
        base(u32::try_from(self.shard).unwrap_or_default()) + index
    }

    async fn rows(&self, next: Index, until: Index) -> Result<Vec<Row>, End> {
        let limit = u32::try_from(until - next).unwrap_or(ROWS).min(ROWS);
        let mut rows = self.api.readers.run(move |reader: &dyn Reader| reader.rows(next, limit)).await?;
        rows.retain(|row| row.index < until);
        Ok(rows)
    }

    /// Whoever breaks off within an entry is told of the whole of it again.
    async fn tell_of(&mut self, events: &Events, row: &Row, head: &Head) -> Result<(), End> {
        let entry: Entry = index::read(row)?;
        match entry.body {
            Body::CredentialIssued(issued) if issued.target.name == self.target => {
                self.live.insert(self.at(row.index), entry.envelope.id);
                let expires_at = Some(timestamp(issued.credential.exp_ms));
                let live = pb::Live { credential_id: entry.envelope.id.to_string(), expires_at };
                self.send(events, Event::Live(live), at(head, row.index + 1)).await
            }
            Body::CredentialEnded(ended) => {
                let closed = self.api.readers.run(|reader: &dyn Reader| reader.closed()).await?;
                let of = |head: &&Head| Some(&head.origin) == ended.log.as_ref();
                let first = match &ended.log {
                    None => Some(self.at(0)),
                    Some(_) => closed.iter().find(of).map(|head| base(head.shard)),
                };
                let Some(first) = first else { return Ok(()) };
                let ended_at: Vec<Index> = ended.ended.iter().map(|index| first + index).collect();
                let how = match ended.how {
                    EndedHow::Expired => pb::EndingKind::Expired,
                    EndedHow::Revoked => pb::EndingKind::Revoked,
                };
                self.tell_ended(events, &ended_at, how, row.index, head).await
            }
            Body::CredentialSettled(settled) if !settled.void.is_empty() => {
                let void: Vec<Index> = settled.void.iter().map(|(index, _)| self.at(*index)).collect();
                self.tell_ended(events, &void, pb::EndingKind::Void, row.index, head).await
            }
            _ => Ok(()),
        }
    }

    async fn tell_ended(
        &mut self,
        events: &Events,
        ended: &[Index],
        how: pb::EndingKind,
        by: Index,
        head: &Head,
    ) -> Result<(), End> {
        let mut named = Vec::new();
        for index in ended {
            named.extend(self.ended_here(*index, by).await?);
        }
        let last = named.len().saturating_sub(1);
        for (n, id) in named.into_iter().enumerate() {
            let entry = Some(pb::EntryRef { log: head.origin.clone(), index: by });
            let ended = pb::Ended { credential_id: id.to_string(), how: how.into(), entry };
            let cursor = at(head, if n == last { by + 1 } else { by });
            self.send(events, Event::Ended(ended), cursor).await?;
        }
        Ok(())
    }

    /// A credential of the target, once it has ended. What ended before the stream knew what lives is looked up.
    async fn ended_here(&mut self, credential: Index, by: Index) -> Result<Option<CredentialId>, End> {
        if let Some(id) = self.live.remove(&credential) {
            return Ok(Some(id));
        }
        if by >= self.known {
            return Ok(None);
        }
        let row = self.api.readers.run(move |reader: &dyn Reader| reader.entry_at(credential)).await?;
        let entry = row.as_ref().map(index::read).transpose()?;
        Ok(entry.and_then(|entry| match entry.body {
            Body::CredentialIssued(issued) if issued.target.name == self.target => Some(entry.envelope.id),
            _ => None,
        }))
    }

    async fn send(&self, events: &Events, event: Event, cursor: String) -> Result<(), End> {
        let response = pb::WatchEndingsResponse { event: Some(event), cursor };
        events.send(Ok(response)).await.map_err(|_| End::Gone)
    }

    fn still_allowed(&self) -> Result<(), End> {
        let over = self.api.desk.clock.now().millis_since(self.caller.principal.expires_at()) > LEEWAY_MS;
        if over || !may_watch(&self.api, &self.caller, &self.target) {
            let message =
                "the right to watch this ended meanwhile: go on with a fresh proof, from the last cursor";
            return Err(End::Told(Outgoing::new(Outward::NotAllowed, message)));
        }
        Ok(())
    }
}

/// Who serves a target, and who may read the log.
pub(super) fn may_watch(api: &Api, caller: &Caller, target: &Name) -> bool {
    let (state, now) = (api.desk.log.state(), api.desk.clock.now());
    let Some(bundle) = state.bundle() else { return false };
    let Some(declared) = bundle.declared().targets.get(target) else { return false };
    let own = standing::identities(&caller.principal, bundle, now);
    own.iter().any(|name| declared.served_by.contains(name))
        || standing::reads_evidence(&caller.principal, bundle, now)
}

/// Where to go on: good on every broker of the log. One of another log begins anew: what lives is told again.
fn cursor(text: &str, head: &Head) -> Result<Option<Index>, Outgoing> {
    let refuse = || Outgoing::malformed("cursor", "expected a cursor of an earlier stream, or none");
    if text.is_empty() {
        return Ok(None);
    }
    let (origin, index) = text.rsplit_once('@').ok_or_else(refuse)?;
    let index: Index = index.parse().map_err(|_| refuse())?;
    match origin == head.origin {
        true if index <= head.size => Ok(Some(index)),
        true => Err(refuse()),
        false => Ok(None),
    }
}

fn at(head: &Head, next: Index) -> String {
    format!("{}@{next}", head.origin)
}
