//! How things stand at one target, as the broker tells it: which credentials live there, which exceptions are open, and
//! how long ago that was last heard. Whoever passes secrets on asks here each time, and stops when nothing is heard.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use daypass_proto::v1::watch_endings_response::Event;
use daypass_sdk::{Client, Credential, Error};
use daypass_verify::ids::{CredentialId, Name};
use daypass_verify::time::UnixMs;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::clock::{boot_ms, now};
use crate::keep::Kept;

/// How long what the broker said last counts, in ms. It speaks every two seconds.
const HEARD_WITHIN_MS: i64 = 10_000;
const HEARD_WITHIN: Duration = Duration::from_secs(10);
/// How long until the broker is asked again after it broke off.
const RETRY: Duration = Duration::from_secs(1);
/// How long a request waits for what the broker is about to say: of a credential that was issued just now, or at a start.
const PATIENCE: Duration = Duration::from_secs(3);

/// Why nothing is passed on. The text is for whoever called, and names what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Closed {
    #[error("nothing was heard from the broker about target `{target}` for 10 s, and nothing is passed on without its word{}: look at the agent's log, and whether the broker serves", why(.trouble))]
    Unheard { target: Name, trouble: Option<String> },
    #[error(
        "exception `{exception}` of target `{target}` is not open: it was closed, came to its end, or was never declared; ask its owner, or use what replaces the key"
    )]
    Exception { exception: Name, target: Name },
    #[error("there is no credential `{name}` now: {why}")]
    NoCredential { name: Name, why: String },
    #[error(
        "credential `{name}` has ended at target `{target}`, or was never for it: another one is asked for when it is due, or when the agent is started again"
    )]
    Ended { name: Name, target: Name },
}

fn why(trouble: &Option<String>) -> String {
    trouble.as_ref().map(|it| format!(" ({it})")).unwrap_or_default()
}

impl Closed {
    /// The stable word for answers and reports.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Unheard { .. } => "broker_unheard",
            Self::Exception { .. } => "exception_closed",
            Self::NoCredential { .. } => "no_credential",
            Self::Ended { .. } => "credential_ended",
        }
    }
}

/// What is known at one moment.
#[derive(Debug, Default)]
struct View {
    live: HashSet<CredentialId>,
    /// Those that were live once.
    ended: BTreeSet<CredentialId>,
    /// Open or not, and the declared end.
    exceptions: BTreeMap<Name, (bool, Option<UnixMs>)>,
    /// When something was heard last; none before the first, and after a refusal.
    heard_boot_ms: Option<i64>,
    trouble: Option<String>,
}

/// How things stand at one target. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Standing {
    target: Name,
    view: watch::Receiver<View>,
}

impl Standing {
    /// Begins to listen. To be called within a tokio runtime.
    pub(crate) fn follow(target: Name, clients: watch::Receiver<Client>) -> Self {
        let (sender, view) = watch::channel(View::default());
        let listener = Listener { target: target.clone(), clients, view: sender };
        tokio::spawn(listener.run());
        Self { target, view }
    }

    pub(crate) fn target(&self) -> &Name {
        &self.target
    }

    /// Whether the broker knows of this exception, open or not.
    pub(crate) fn knows(&self, exception: &Name) -> bool {
        self.view.borrow().exceptions.contains_key(exception)
    }

    /// Whether the broker has said that a credential ended; of what ended long ago it may be forgotten.
    pub(crate) fn has_ended(&self, credential: &CredentialId) -> bool {
        self.view.borrow().ended.contains(credential)
    }

    /// The credential under which something may be passed on now: it lives, the broker says so, and `exception` is open.
    ///
    /// # Errors
    /// Why not.
    pub(crate) async fn permit(&self, kept: &Kept, exception: &Name) -> Result<Arc<Credential>, Closed> {
        let mut view = self.view.clone();
        let credential = match timeout(PATIENCE, kept.credential()).await {
            Ok(answered) => answered.map_err(|error| error.to_string()),
            Err(_) => Err("the broker has not answered yet".to_owned()),
        };
        let no = |why| Closed::NoCredential { name: kept.name.clone(), why };
        let credential = credential.map_err(no)?;
        let checked = || self.check(&view.borrow(), kept, &credential, exception);
        let mut found = checked();
        if found.as_ref().is_err_and(|(_, heals)| *heals) {
            let heals = |view: &View| self.check(view, kept, &credential, exception).is_ok();
            timeout(PATIENCE, view.wait_for(heals)).await.ok();
            found = self.check(&view.borrow(), kept, &credential, exception);
        }
        found.map(|()| credential).map_err(|(closed, _)| closed)
    }

    /// Why nothing is passed on, and whether that may be over in a moment.
    fn check(
        &self,
        view: &View,
        kept: &Kept,
        credential: &Credential,
        exception: &Name,
    ) -> Result<(), (Closed, bool)> {
        let target = self.target.clone();
        match view.heard_boot_ms {
            Some(at) if boot_ms().saturating_sub(at) <= HEARD_WITHIN_MS => {}
            heard => {
                let heals = heard.is_none() && view.trouble.is_none();
                return Err((Closed::Unheard { target, trouble: view.trouble.clone() }, heals));
            }
        }
        let is_open =
            |(open, until): &(bool, Option<UnixMs>)| *open && until.is_none_or(|until| until > now());
        let opened = view.exceptions.get(exception).is_some_and(is_open);
        #[cfg(feature = "sabotage")]
        let opened = opened || crate::sabotage::breaks("p14-exception");
        if !opened {
            return Err((Closed::Exception { exception: exception.clone(), target }, false));
        }
        if !view.live.contains(&credential.id) {
            let name = kept.name.clone();
            return Err((Closed::Ended { name, target }, !view.ended.contains(&credential.id)));
        }
        Ok(())
    }
}

/// Takes over what the broker tells.
struct Listener {
    target: Name,
    clients: watch::Receiver<Client>,
    view: watch::Sender<View>,
}

impl Listener {
    async fn run(mut self) {
        while !self.view.is_closed() {
            let client = self.clients.borrow_and_update().clone();
            if let Err(error) = self.listen(&client).await {
                self.complain(&error);
            }
            tokio::select! { () = sleep(RETRY) => {}, _ = self.clients.changed() => {} }
        }
    }

    /// A broker that is away may come back in time; one that refuses has spoken.
    fn complain(&self, error: &Error) {
        let refused = !matches!(error, Error::Unreachable { .. } | Error::Retry { .. });
        let trouble = error.to_string();
        self.view.send_modify(|view| {
            if view.trouble.as_ref() != Some(&trouble) {
                warn!("target `{}`: {trouble}", self.target);
            }
            view.trouble = Some(trouble);
            if refused {
                view.heard_boot_ms = None;
            }
        });
    }

    /// Listens to one stream to its end. Nothing of it counts before it has caught up.
    async fn listen(&self, client: &Client) -> Result<(), Error> {
        let mut stream = client.watch_endings(&self.target, "").await?;
        let mut fresh = Some(View::default());
        loop {
            let silent = || Error::Unreachable {
                broker: "the broker".to_owned(),
                detail: "it fell silent".to_owned(),
            };
            let message = timeout(HEARD_WITHIN, stream.next()).await.map_err(|_| silent())?;
            let Some(event) = message?.map(|message| message.event) else { return Ok(()) };
            let Some(event) = event else { continue };
            match (&mut fresh, event) {
                (Some(_), Event::Synced(_)) => {
                    info!("target `{}`: the broker says what ends there", self.target);
                    let mut caught_up = fresh.take().unwrap_or_default();
                    caught_up.heard_boot_ms = Some(boot_ms());
                    self.view.send_modify(|view| {
                        let before = std::mem::replace(view, caught_up);
                        let gone = before.live.difference(&view.live).copied().collect::<Vec<_>>();
                        view.ended.extend(before.ended.into_iter().chain(gone));
                    });
                }
                (Some(fresh), event) => fresh.take_over(event),
                (None, event) => self.view.send_modify(|view| {
                    view.take_over(event);
                    view.heard_boot_ms = Some(boot_ms());
                    view.trouble = None;
                }),
            }
        }
    }
}

impl View {
    fn take_over(&mut self, event: Event) {
        match event {
            Event::Live(live) => {
                self.live.extend(live.credential_id.parse::<CredentialId>().ok());
            }
            Event::Ended(ended) => {
                if let Ok(id) = ended.credential_id.parse::<CredentialId>() {
                    self.live.remove(&id);
                    self.ended.insert(id);
                    if self.ended.len() > ENDED_MAX {
                        self.ended.pop_first();
                    }
                }
            }
            Event::Exception(state) => {
                let Ok(name) = state.name.parse::<Name>() else { return };
                let until = state.until.map(|it| UnixMs::new(it.seconds.saturating_mul(1000)));
                self.exceptions.insert(name, (state.open, until));
            }
            Event::Synced(_) | Event::Heartbeat(_) => {}
        }
    }
}

/// How many that ended are remembered, the newest: by then the others are over by their own time.
const ENDED_MAX: usize = 10_000;
