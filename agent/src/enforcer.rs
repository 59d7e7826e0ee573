//! Beside a PostgreSQL server: ends each session whose credential has ended, and tells the broker. What showed no
//! certificate of the broker's CA is left alone.

mod database;
mod follow;
mod known;
mod lists;
mod names;
mod report;
mod uses;

use std::collections::BTreeSet;
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
use database::{Database, Failed};
use follow::{Follower, Shared, follow_trust};
use known::{How, Session, Verdict};
use lists::Lists;
use report::Reports;
use uses::Uses;

/// How often the server's sessions are looked at, besides at each ending: what expires is ended this late at most.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long a session may take to end, and how often it is looked whether it has.
const GONE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_millis(20));
/// How long to wait for a server that cannot be asked.
const RETRY: Duration = Duration::from_secs(1);
/// How often a broker is asked anew for the sake of sessions that it told nothing of.
const ASK_EVERY: Duration = Duration::from_secs(10);
/// How often it is said how many sessions there are, where that has changed.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// Enforces the ends of credentials at one target, until it is dropped.
pub(crate) async fn run(enforcer: Enforcer, clients: watch::Receiver<Client>) {
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
        stuck: BTreeSet::new(),
        said: None,
        asked: None,
    };
    let mut complained = None;
    loop {
        let failed = match Database::open(&enforcer.postgresql).await {
            Ok(database) => {
                info!("`{}`: watching the sessions of PostgreSQL {}", watch.target, database.version);
                complained = None;
                watch.over(&database).await
            }
            Err(failed) => failed,
        };
        if complained.as_ref() != Some(&failed) {
            warn!("`{}`: the database cannot be asked, no session is ended: {failed}", watch.target);
            complained = Some(failed);
        }
        sleep(RETRY).await;
    }
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
    /// Sessions that did not end, and were complained of.
    stuck: BTreeSet<(i32, String)>,
    said: Option<(Count, Instant)>,
    asked: Option<Instant>,
}

/// A session that has to end.
struct Due {
    session: Session,
    id: Option<CredentialId>,
    how: Option<How>,
    ended_at: Option<UnixMs>,
}

impl Watch {
    /// Looks at the sessions again and again; why that cannot go on.
    async fn over(&mut self, database: &Database) -> Failed {
        loop {
            if let Err(failed) = self.look(database).await {
                return failed;
            }
            tokio::select! {
                () = self.shared.changed.notified() => {}
                () = sleep(LOOK_EVERY) => {}
            }
        }
    }

    async fn look(&mut self, database: &Database) -> Result<(), Failed> {
        let (mut due, mut used, mut others) = (Vec::new(), Vec::new(), 0);
        if !self.shared.known().is_ready() {
            return Ok(());
        }
        let sessions = database.sessions().await?;
        let (now, mut must_ask) = (now(), false);
        for session in sessions {
            let known = self.shared.known();
            match known.verdict(&session, now) {
                Verdict::Others => others += 1,
                Verdict::Unclear => must_ask |= known.must_ask(&session, now),
                Verdict::Lives(id) => used.push((id, session)),
                Verdict::Ended(id, how, at) => {
                    due.push(Due { session, id: Some(id), how: Some(how), ended_at: Some(at) });
                }
                Verdict::Unknown(id) => due.push(Due { session, id, how: None, ended_at: None }),
            }
        }
        if !due.is_empty() {
            self.end(database, due).await?;
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
        self.say(database, ours, others).await
    }

    /// Ends these sessions, and tells of those that are gone.
    async fn end(&mut self, database: &Database, due: Vec<Due>) -> Result<(), Failed> {
        for Due { session, .. } in &due {
            if let Err(failed) = database.end(session).await {
                self.complain(session, &failed);
            }
        }
        let began = Instant::now();
        let all: Vec<Session> = due.iter().map(|it| it.session.clone()).collect();
        let mut still = database.still(&all).await?;
        while !still.is_empty() && began.elapsed() < GONE.0 {
            sleep(GONE.1).await;
            still = database.still(&all).await?;
        }
        for due in due {
            if still.contains(&due.session.pid) {
                self.complain(&due.session, "it is still there");
            } else {
                self.gone(&due);
            }
        }
        Ok(())
    }

    /// A second look found it no more.
    fn gone(&mut self, due: &Due) {
        let Due { session, id, how, ended_at } = due;
        let (role, pid) = (&session.role, session.pid);
        self.stuck.remove(&(pid, session.serial.clone()));
        let why = match how {
            Some(How::Expired) => "expired",
            Some(How::Revoked) => "revoked",
            Some(How::Void) => "void",
            None => "unknown to the broker, or long over",
        };
        let named = id.map_or_else(|| format!("serial {}", session.serial), |id| id.to_string());
        info!("`{}`: the session {pid} of `{role}` is ended: {named} is {why}", self.target);
        if ended_at.is_some_and(|at| session.since > at) {
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

    /// Once for each session.
    fn complain(&mut self, session: &Session, what: &str) {
        if self.stuck.insert((session.pid, session.serial.clone())) {
            let (role, pid) = (&session.role, session.pid);
            error!("`{}`: the session {pid} of `{role}` has to end and goes on: {what}", self.target);
        }
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
