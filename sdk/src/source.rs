//! A credential that is always fresh: one task fetches it, renews it at two thirds of its life, and hands it to
//! everybody who asks.

mod life;
mod plan;

use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use daypass_verify::ids::{CredentialId, Digest};
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use self::life::{Draw, Life};
use self::plan::{LOOK, Plan, Step};
use crate::client::Client;
use crate::clock::{Clock, Moment};
use crate::credential::{Credential, Secret};
use crate::error::Error;
use crate::request::IssueRequest;
use crate::verify::VerifyError;

/// How long [`CredentialSource::credential`] waits for a broker that does not answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long one attempt may take with all that it fetches: each call of it has a limit of its own.
const ATTEMPT: Duration = Duration::from_secs(30);

/// Holds one credential, and renews it before it ends. Cheap to clone: all clones share one credential and one task,
/// which has one request in flight at most and ends when the last clone is dropped.
///
/// The task asks again at two thirds of a life, give or take a tenth, and serves what it has meanwhile. It backs off
/// where nobody answers, waits as long as the broker says, and repeats a refused request only slowly, unless the proof
/// has changed. A token that is bound to another certificate than the client shows by now is renewed at once. Both clocks of the machine are looked at each second, so that a machine that slept or whose
/// clock was set renews at once.
#[derive(Clone)]
pub struct CredentialSource(Arc<Handle>);

struct Handle {
    shared: Arc<Shared>,
    task: AbortHandle,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Shared {
    clock: Arc<dyn Clock>,
    state: watch::Sender<State>,
    stream: watch::Sender<Option<Arc<Credential>>>,
    wanted: Notify,
}

#[derive(Default)]
struct State {
    held: Option<(Arc<Credential>, Life)>,
    failure: Option<Error>,
}

impl fmt::Debug for CredentialSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.0.shared.state.borrow();
        #[cfg(feature = "sabotage")]
        if crate::sabotage::breaks("p14") {
            let held = state.held.as_ref().map(|(credential, _)| crate::present::shown(credential));
            return write!(f, "{held:?}");
        }
        let held = state.held.as_ref().map(|(credential, _)| (credential.id, credential.granted.expires_at));
        f.debug_struct("CredentialSource").field("held", &held).field("failure", &state.failure).finish()
    }
}

impl CredentialSource {
    /// A source of what `request` asks for; it begins to fetch at once. To be made within a tokio runtime.
    ///
    /// Each renewal names what it `supersedes`. A certificate gets a new key each time, unless the request brings
    /// a CSR of its own.
    #[must_use]
    pub fn new(client: Client, request: IssueRequest) -> Self {
        let clock = Arc::clone(client.clock());
        Self::of(client, clock, request, None)
    }

    /// The same beginning with a credential from before, for instance from before a restart: it is handed out at once,
    /// for as long as it would have been, and renewed meanwhile. `left` is how far away its end is at most, where the
    /// caller knows better than the clock on the wall: that may have been set since.
    ///
    /// Whoever brings it vouches for it: it is not verified again.
    #[must_use]
    pub fn resumed(client: Client, request: IssueRequest, held: Arc<Credential>, left: Duration) -> Self {
        let clock = Arc::clone(client.clock());
        Self::of(client, clock, request, Some((held, left)))
    }

    fn of(
        issuer: impl Issues,
        clock: Arc<dyn Clock>,
        request: IssueRequest,
        held: Option<(Arc<Credential>, Duration)>,
    ) -> Self {
        let now = Moment::of(&*clock);
        let held = held.map(|(held, left)| {
            let life = Life::resumed(&held.granted, left, now);
            (held, life)
        });
        let plan = held.as_ref().map_or_else(Plan::default, |(_, life)| Plan::holding(*life));
        let newest = held.as_ref().map(|(held, _)| Arc::clone(held));
        let shared = Arc::new(Shared {
            clock,
            state: watch::Sender::new(State { held, failure: None }),
            stream: watch::Sender::new(newest),
            wanted: Notify::new(),
        });
        let issuer = Arc::new(issuer);
        let keeper = Keeper { issuer, request, shared: Arc::clone(&shared), plan };
        Self(Arc::new(Handle { shared, task: tokio::spawn(keeper.run()).abort_handle() }))
    }

    /// The credential: never one that is over, by either clock of this machine. Waits for the first one, and for
    /// another one where the last is over, as long as there is hope: up to ten seconds for a broker that does not
    /// answer, and not at all where it refused.
    ///
    /// # Errors
    /// Why the last attempt failed.
    pub async fn credential(&self) -> Result<Arc<Credential>, Error> {
        match timeout(PATIENCE, self.wait()).await {
            Ok(answered) => answered,
            Err(_) => Err(self.failure().unwrap_or_else(|| Error::Unreachable {
                broker: "the broker".to_owned(),
                detail: "no credential within 10 s".to_owned(),
            })),
        }
    }

    async fn wait(&self) -> Result<Arc<Credential>, Error> {
        let mut state = self.0.shared.state.subscribe();
        loop {
            if let Some(answered) = self.answer(&state.borrow_and_update()) {
                return answered;
            }
            self.0.shared.wanted.notify_one();
            if state.changed().await.is_err() {
                return Err(Error::Config("the credential's source has ended".to_owned()));
            }
        }
    }

    /// The credential, if there is one now: for those who cannot wait.
    #[must_use]
    pub fn current(&self) -> Option<Arc<Credential>> {
        let now = Moment::of(&*self.0.shared.clock);
        let state = self.0.shared.state.borrow();
        let held = state.held.as_ref().filter(|(_, life)| !life.is_over(now));
        held.map(|(credential, _)| Arc::clone(credential))
    }

    fn answer(&self, state: &State) -> Option<Result<Arc<Credential>, Error>> {
        let now = Moment::of(&*self.0.shared.clock);
        match (&state.held, &state.failure) {
            (Some((credential, life)), _) if !life.is_over(now) => Some(Ok(Arc::clone(credential))),
            (_, Some(failure)) if !failure.heals_itself() => Some(Err(failure.clone())),
            _ => None,
        }
    }

    /// Follows the changes: each credential as it arrives, and none where the last one ended before another came.
    /// A machine may have slept since a value was sent: whoever uses one asks [`CredentialSource::credential`].
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Option<Arc<Credential>>> {
        self.0.shared.stream.subscribe()
    }

    /// Why the last attempt failed; none once one succeeded.
    #[must_use]
    pub fn failure(&self) -> Option<Error> {
        self.0.shared.state.borrow().failure.clone()
    }
}

/// Who issues: a broker, by its client.
trait Issues: Send + Sync + 'static {
    /// A verified credential.
    fn issue(&self, request: IssueRequest) -> impl Future<Output = Result<Credential, Error>> + Send;

    /// What tells one proof from another.
    fn proof_mark(&self) -> impl Future<Output = Option<Digest>> + Send;

    /// The certificate that tokens are bound to now.
    fn holder(&self) -> Digest;
}

impl Issues for Client {
    async fn issue(&self, request: IssueRequest) -> Result<Credential, Error> {
        Client::issue(self, request).await
    }

    async fn proof_mark(&self) -> Option<Digest> {
        Client::proof_mark(self).await
    }

    fn holder(&self) -> Digest {
        Client::holder(self).digest()
    }
}

/// The task behind all clones.
struct Keeper<I> {
    issuer: Arc<I>,
    request: IssueRequest,
    shared: Arc<Shared>,
    plan: Plan,
}

impl<I: Issues> Keeper<I> {
    async fn run(mut self) {
        let mut shown = None;
        loop {
            self.end_what_is_over();
            match self.next() {
                Step::Ask => {
                    shown = self.issuer.proof_mark().await;
                    self.attempt().await;
                }
                Step::Wait(wait) => {
                    tokio::select! { () = sleep(wait) => {}, () = self.shared.wanted.notified() => {} }
                    if self.plan.is_refused() && self.issuer.proof_mark().await != shown {
                        self.plan.proof_changed();
                    }
                }
            }
        }
    }

    fn next(&self) -> Step {
        match self.plan.next(self.now()) {
            // With another certificate on the connection it is no better than a stolen one.
            Step::Wait(_) if !self.plan.is_paused() && self.is_bound_to_another() => Step::Ask,
            step => step,
        }
    }

    fn is_bound_to_another(&self) -> bool {
        let state = self.shared.state.borrow();
        let bound = state.held.as_ref().and_then(|(credential, _)| match &credential.secret {
            Secret::Token { bound, .. } => *bound,
            Secret::Certificate { .. } => None,
        });
        bound.is_some_and(|bound| bound != self.issuer.holder())
    }

    async fn attempt(&mut self) {
        let asked = self.now();
        let held = self.shared.state.borrow().held.as_ref().map(|(credential, _)| credential.id);
        let mut asking = pin!(ask(Arc::clone(&self.issuer), self.request.clone(), held));
        let answered = loop {
            tokio::select! {
                answered = &mut asking => break answered,
                () = sleep(LOOK) => self.end_what_is_over(),
            }
        };
        match answered.and_then(|credential| self.life_of(credential, asked)) {
            Ok((credential, life)) => {
                self.plan.succeeded(life);
                let held = Some((Arc::clone(&credential), life));
                self.shared.state.send_replace(State { held, failure: None });
                self.shared.stream.send_replace(Some(credential));
            }
            Err(error) => {
                self.plan.failed(&error, self.now(), Draw::fresh());
                self.shared.state.send_modify(|state| state.failure = Some(error));
            }
        }
    }

    fn end_what_is_over(&mut self) {
        if self.plan.ends(self.now()) {
            self.shared.state.send_modify(|state| state.held = None);
            self.shared.stream.send_replace(None);
        }
    }

    fn life_of(&self, credential: Credential, asked: Moment) -> Result<(Arc<Credential>, Life), Error> {
        let life = Life::of(&credential.granted, credential.renew_after, asked, Draw::fresh());
        if life.is_over(self.now()) {
            return Err(VerifyError::Over { until: credential.granted.expires_at }.into());
        }
        Ok((Arc::new(credential), life))
    }

    fn now(&self) -> Moment {
        Moment::of(&*self.shared.clock)
    }
}

/// One attempt: what `held` names is renewed.
async fn ask(
    issuer: Arc<impl Issues>,
    request: IssueRequest,
    held: Option<CredentialId>,
) -> Result<Credential, Error> {
    let renewal = IssueRequest { supersedes: held.or(request.supersedes), ..request.clone() };
    let asking = async {
        match issuer.issue(renewal).await {
            // The log has begun anew since: what is held can no longer be named.
            Err(Error::FixRequest { refusal, .. }) if held.is_some() && refusal.reason == "NOT_FOUND" => {
                issuer.issue(request).await
            }
            // What is held was revoked: it is not renewed, and whether there may be another is decided anew.
            Err(Error::AskForPermission(refusal)) if held.is_some() && refusal.reason == "NOT_ALLOWED" => {
                issuer.issue(request).await
            }
            answered => answered,
        }
    };
    let late =
        || Error::Unreachable { broker: "the broker".to_owned(), detail: "no answer within 30 s".to_owned() };
    timeout(ATTEMPT, asking).await.unwrap_or_else(|_| Err(late()))
}

#[cfg(test)]
pub(crate) mod tests;
