//! Watches a PostgreSQL server: ends each session whose credential has ended, and tells the broker. What showed no
//! certificate of the broker's CA is left alone, unless the configuration says otherwise, and told where credentials open
//! its role.

mod database;
mod follow;
mod known;
mod left;
mod lists;
mod names;
mod report;
mod server;
mod uses;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use daypass_sdk::{Client, Observation, ObservationKind};
use daypass_verify::ids::{CredentialId, Name};
use daypass_verify::time::UnixMs;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::{error, info, warn};

use crate::clock::now;
use crate::config::Enforcer;
use crate::keep::{Changes, Kept};
use database::{Database, Failed};
use follow::{Follower, Shared, follow_trust};
use known::{How, Session, Verdict};
use left::Left;
use lists::Lists;
use report::Reports;
use server::Server;
use uses::Uses;

/// How often the server's sessions are looked at, besides at each ending: what expires is ended this late at most.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How often it is looked whether a session has ended, and for how long before it is complained of.
const GONE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(2));
/// How often a session that goes on is told to end.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// How long to wait for a server that cannot be asked.
const RETRY: Duration = Duration::from_secs(1);
/// How often a broker is asked anew for the sake of sessions that it told nothing of.
const ASK_EVERY: Duration = Duration::from_secs(10);
/// How often it is said how many sessions there are, where that has changed.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// Enforces the ends of credentials at one target, until it is dropped. `shown` is what it proves itself with to a server
/// that is spoken to over TCP.
pub(crate) async fn run(enforcer: Enforcer, shown: Option<Kept>, clients: watch::Receiver<Client>) {
    let tls = enforcer.tls.and_then(|tls| Some((tls.ca, shown?)));
    let server = Server::new(enforcer.postgresql, tls);
    let shared = Arc::new(Shared::default());
    let (reports, seen) = mpsc::unbounded_channel();
    let mut beside = JoinSet::new();
    beside.spawn(report::tell(seen, clients.clone()));
    let lists = enforcer.crl_file.map(|file| Lists::new(file, enforcer.reload));
    beside.spawn(follow_trust(clients.clone(), Arc::clone(&shared), lists));
    beside.spawn(Follower::new(enforcer.target.clone(), clients, Arc::clone(&shared)).run());
    let mut watch = Watch {
        target: enforcer.target,
        shared,
        reports,
        uses: Uses::default(),
        left: Left::new(enforcer.left_over),
        ending: BTreeMap::new(),
        said: None,
        asked: None,
        complained: None,
    };
    let mut changes = server.changes();
    loop {
        let left = match Database::open(&server).await {
            Ok(database) => watch.over(&database, &mut changes).await,
            Err(failed) => Err(failed),
        };
        let Err(failed) = left else { continue };
        if watch.complained.as_ref() != Some(&failed) {
            warn!("`{}`: the database cannot be asked: {failed}", watch.target);
            watch.complained = Some(failed);
        }
        sleep(RETRY).await;
    }
}

/// Until there is a newer certificate than the one that was shown; for ever where there is none to show at all.
async fn renewed(changes: &mut Option<Changes>, shown: Option<CredentialId>) {
    if let Some(changes) = changes {
        let newer = changes.wait_for(|it| it.as_ref().map(|it| it.credential.id) > shown).await.is_ok();
        if newer {
            return;
        }
    }
    std::future::pending().await
}

/// How many sessions there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Count {
    ours: usize,
    others: usize,
    without: i64,
}

/// What one enforcer remembers from look to look.
struct Watch {
    target: Name,
    shared: Arc<Shared>,
    reports: Reports,
    uses: Uses,
    left: Left,
    /// Sessions that were told to end, by process and serial number, and were there at the last look.
    ending: BTreeMap<(i32, String), Ending>,
    said: Option<(Count, Instant)>,
    asked: Option<Instant>,
    /// What was said last of a database that could not be asked.
    complained: Option<Failed>,
}

/// A session that has to end.
struct Ending {
    session: Session,
    id: Option<CredentialId>,
    /// How its credential ended, and when; none for one that nobody knows.
    how: Option<(How, UnixMs)>,
    first_told: Instant,
    last_told: Instant,
    complained: bool,
}

impl Watch {
    /// Looks at the sessions again and again, until there is another certificate to show.
    ///
    /// # Errors
    /// Why that cannot go on.
    async fn over(&mut self, database: &Database, changes: &mut Option<Changes>) -> Result<(), Failed> {
        let mut watching = false;
        loop {
            self.look(database).await?;
            if !std::mem::replace(&mut watching, true) {
                info!("`{}`: watching the sessions of PostgreSQL {}", self.target, database.version);
                self.complained = None;
            }
            let soon = self.ending.values().any(|it| it.first_told.elapsed() < GONE.1);
            tokio::select! {
                () = self.shared.changed.notified() => {}
                () = sleep(if soon { GONE.0 } else { LOOK_EVERY }) => {}
                () = renewed(changes, database.shown) => return Ok(()),
            }
        }
    }

    async fn look(&mut self, database: &Database) -> Result<(), Failed> {
        if !self.shared.known().is_ready() {
            return Ok(());
        }
        let sessions = database.sessions().await?;
        self.tell_of_those_gone(&sessions);
        let (mut used, mut others, mut must_ask, mut is_out) = (Vec::new(), Vec::new(), false, false);
        let now = now();
        for session in sessions {
            let verdict = self.shared.known().verdict(&session, now);
            let is_own = session.pid == database.own_pid;
            match verdict {
                // What holds for all holds for us, but the others first: whoever contains a target ends them all at once.
                Verdict::Ended(..) if is_own => is_out = true,
                Verdict::Unknown(_) if is_own => {}
                Verdict::Others => others.push(session),
                Verdict::Unclear => must_ask |= self.shared.known().must_ask(&session, now),
                Verdict::Lives(id) => {
                    self.left.learn(&session.role);
                    used.push((id, session));
                }
                Verdict::Ended(id, how, at) => {
                    self.left.learn(&session.role);
                    self.end(database, session, Some(id), Some((how, at))).await;
                }
                Verdict::Unknown(id) => self.end(database, session, id, None).await,
            }
        }
        if must_ask && self.asked.is_none_or(|at| at.elapsed() >= ASK_EVERY) {
            self.asked = Some(Instant::now());
            self.shared.ask.notify_one();
        }
        let ours = used.len();
        for (id, role, count) in self.uses.seen(now, &used) {
            let detail = format!("as `{role}`");
            self.tell(Observation {
                credential: Some(id),
                count,
                detail,
                ..self.seen(ObservationKind::Used)
            });
        }
        self.say(database, ours, others.len()).await?;
        self.tell_of_left_over(database, others, now).await?;
        if is_out { Err("our own certificate has ended: the next one is shown".into()) } else { Ok(()) }
    }

    async fn tell_of_left_over(
        &mut self,
        database: &Database,
        mut others: Vec<Session>,
        now: UnixMs,
    ) -> Result<(), Failed> {
        others.retain(|session| self.shared.known().is_of_others(session));
        for (detail, count) in self.left.look(database, others, now).await? {
            self.tell(Observation { count, detail, ..self.seen(ObservationKind::LeftOver) });
        }
        Ok(())
    }

    /// Tells a session to end, and again where it goes on.
    async fn end(
        &mut self,
        database: &Database,
        session: Session,
        id: Option<CredentialId>,
        how: Option<(How, UnixMs)>,
    ) {
        let at = Instant::now();
        let fresh = |session: &Session| Ending {
            session: session.clone(),
            id,
            how,
            first_told: at,
            last_told: at,
            complained: false,
        };
        let key = (session.pid, session.serial.clone());
        let ending = self.ending.entry(key).or_insert_with(|| fresh(&session));
        if ending.first_told != at && ending.last_told.elapsed() < TELL_EVERY {
            return;
        }
        ending.last_told = at;
        let refused = database.end(&session).await.err();
        let late = ending.first_told.elapsed() >= GONE.1;
        if (refused.is_some() || late) && !ending.complained {
            ending.complained = true;
            let (role, pid) = (&session.role, session.pid);
            let why = refused.unwrap_or_else(|| "it was told to, and is still there".into());
            error!("`{}`: the session {pid} of `{role}` has to end and goes on: {why}", self.target);
        }
    }

    /// Those that were told to end, and are not among these any more.
    fn tell_of_those_gone(&mut self, sessions: &[Session]) {
        let is_there = |(pid, serial): &(i32, String)| {
            sessions.iter().any(|session| session.pid == *pid && session.serial == *serial)
        };
        let (still, gone) = std::mem::take(&mut self.ending).into_iter().partition(|(key, _)| is_there(key));
        self.ending = still;
        let gone: BTreeMap<_, Ending> = gone;
        for ending in gone.values() {
            self.gone(ending);
        }
    }

    /// A second look found it no more.
    fn gone(&self, ending: &Ending) {
        let Ending { session, id, how, .. } = ending;
        let (role, pid) = (&session.role, session.pid);
        let why = match how {
            Some((How::Expired, _)) => "expired",
            Some((How::Revoked, _)) => "revoked",
            Some((How::Void, _)) => "void",
            None => "unknown to the broker, or long over",
        };
        let named = id.map_or_else(|| format!("serial {}", session.serial), |id| id.to_string());
        info!("`{}`: the session {pid} of `{role}` is ended: {named} is {why}", self.target);
        if how.is_some_and(|(_, at)| session.since > at) {
            let detail = format!("as `{role}`");
            let seen = self.seen(ObservationKind::AcceptedAfterEnd);
            self.tell(Observation { credential: *id, at: Some(session.since), detail, ..seen });
        }
        let (kind, detail) = match id {
            Some(_) => (ObservationKind::SessionEnded, format!("as `{role}`: {why}")),
            None => (ObservationKind::Unseen, format!("as `{role}`, serial {}: ended", session.serial)),
        };
        self.tell(Observation { credential: *id, detail, ..self.seen(kind) });
    }

    fn seen(&self, kind: ObservationKind) -> Observation {
        Observation { at: Some(now()), ..Observation::of(self.target.clone(), kind) }
    }

    fn tell(&self, observation: Observation) {
        // It is taken for as long as this lives.
        drop(self.reports.send(observation));
    }

    async fn say(&mut self, database: &Database, ours: usize, others: usize) -> Result<(), Failed> {
        if self.said.is_some_and(|(_, at)| at.elapsed() < SAY_EVERY) {
            return Ok(());
        }
        let count = Count { ours, others, without: database.without_certificate().await? };
        if self.said.is_none_or(|(before, _)| before != count) {
            info!(
                "`{}`: {ours} sessions by live credentials; left alone: {} without a certificate, {others} of other CAs",
                self.target, count.without
            );
        }
        self.said = Some((count, Instant::now()));
        Ok(())
    }
}
