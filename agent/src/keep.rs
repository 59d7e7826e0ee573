//! What keeps one credential fresh, whichever client it is asked with.

use std::sync::Arc;
use std::time::Duration;

use daypass_sdk::{Client, Credential, CredentialSource, Error, IssueRequest, Kind, Secret};
use daypass_verify::ids::Name;
use secrecy::SecretString;
use tokio::sync::watch;
use tokio::time::{Interval, interval};
use tracing::{info, warn};

use crate::sealed::Resumed;

/// How often is looked whether there is something to complain about.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// A credential with all that is needed to use it.
#[derive(Debug)]
pub(crate) struct Fresh {
    /// The credential.
    pub(crate) credential: Arc<Credential>,
    /// The certificate and the key that a token is bound to, where they were made for that: PEM.
    pub(crate) holder: Option<SecretString>,
}

/// What is known of a credential, as time goes on.
pub(crate) type Changes = watch::Receiver<Option<Arc<Fresh>>>;

/// One credential that is kept fresh. Cheap to clone; the keeping ends when the last clone is gone.
#[derive(Clone)]
pub(crate) struct Kept {
    /// What it is called.
    pub(crate) name: Name,
    /// Token or certificate.
    pub(crate) kind: Kind,
    /// Each credential as it arrives, and none once the last one ended.
    pub(crate) changes: Changes,
    sources: watch::Receiver<CredentialSource>,
}

impl Kept {
    /// Begins to keep, with what was there before a restart if anything was. To be called within a tokio runtime.
    pub(crate) fn new(
        name: Name,
        request: IssueRequest,
        clients: watch::Receiver<Client>,
        resumed: Option<Resumed>,
    ) -> Self {
        let kind = request.kind.clone();
        let keeper = Keeper::new(name.clone(), request, clients, resumed);
        let (changes, sources) = (keeper.changes.subscribe(), keeper.sources.subscribe());
        tokio::spawn(keeper.run());
        Self { name, kind, changes, sources }
    }

    /// The credential as it is now: never one that is over.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) async fn credential(&self) -> Result<Arc<Credential>, Error> {
        self.source().credential().await
    }

    /// What keeps it now: another one once the proof has changed.
    pub(crate) fn source(&self) -> CredentialSource {
        self.sources.borrow().clone()
    }
}

/// Fetches one credential, and keeps nothing fresh: waits up to ten seconds for a broker that does not answer.
///
/// # Errors
/// Why there is none.
pub(crate) async fn once(client: &Client, request: IssueRequest) -> Result<Fresh, Error> {
    let credential = CredentialSource::new(client.clone(), request).credential().await?;
    let holder = holder(client, &credential);
    Ok(Fresh { credential, holder })
}

/// A source, and the client that it asks with.
struct Asking {
    client: Client,
    source: CredentialSource,
    stream: watch::Receiver<Option<Arc<Credential>>>,
}

impl Asking {
    fn new(client: Client, request: &IssueRequest) -> Self {
        let source = CredentialSource::new(client.clone(), request.clone());
        Self::with(client, source)
    }

    fn with(client: Client, source: CredentialSource) -> Self {
        let stream = source.subscribe();
        Self { client, source, stream }
    }
}

struct Keeper {
    name: Name,
    request: IssueRequest,
    clients: watch::Receiver<Client>,
    /// Asks with the newest proof.
    asking: Asking,
    /// Serves until that one has something.
    former: Option<Asking>,
    changes: watch::Sender<Option<Arc<Fresh>>>,
    sources: watch::Sender<CredentialSource>,
    complained: Option<String>,
}

impl Keeper {
    fn new(
        name: Name,
        request: IssueRequest,
        mut clients: watch::Receiver<Client>,
        resumed: Option<Resumed>,
    ) -> Self {
        let client = clients.borrow_and_update().clone();
        let (asking, before) = match resumed {
            None => (Asking::new(client, &request), None),
            Some(Resumed { fresh, left }) => {
                let held = Arc::clone(&fresh.credential);
                let source = CredentialSource::resumed(client.clone(), request.clone(), held, left);
                (Asking::with(client, source), Some(Arc::new(fresh)))
            }
        };
        let sources = watch::Sender::new(asking.source.clone());
        let (changes, complained) = (watch::Sender::new(before), None);
        Self { name, request, clients, asking, former: None, changes, sources, complained }
    }

    async fn run(mut self) {
        let mut look = interval(LOOK_EVERY);
        while self.changes.receiver_count() > 0 {
            self.step(&mut look).await;
        }
    }

    async fn step(&mut self, look: &mut Interval) {
        tokio::select! {
            Ok(()) = self.asking.stream.changed() => self.arrived(),
            Ok(()) = self.clients.changed() => self.ask_anew(),
            Ok(()) = former_changed(&mut self.former) => self.former_ended(),
            _ = look.tick() => self.complain(),
        }
    }

    fn arrived(&mut self) {
        let arrived = self.asking.stream.borrow_and_update().clone();
        match arrived {
            Some(credential) => {
                let until = credential.granted.expires_at;
                info!("`{}` is fresh: {} until {until}", self.name, credential.id);
                self.former = None;
                self.complained = None;
                self.sources.send_replace(self.asking.source.clone());
                let holder = holder(&self.asking.client, &credential);
                self.changes.send_replace(Some(Arc::new(Fresh { credential, holder })));
            }
            None if self.former.is_none() => self.ended(),
            None => {}
        }
    }

    fn ask_anew(&mut self) {
        let client = self.clients.borrow_and_update().clone();
        let before = std::mem::replace(&mut self.asking, Asking::new(client, &self.request));
        if before.stream.borrow().is_some() {
            self.former = Some(before);
        }
        if self.former.is_none() {
            self.sources.send_replace(self.asking.source.clone());
        }
    }

    /// It may also have been renewed, with the proof of before: that is as good.
    fn former_ended(&mut self) {
        let Some(former) = &mut self.former else { return };
        let newest = former.stream.borrow_and_update().clone();
        match newest {
            Some(credential) => {
                let holder = holder(&former.client, &credential);
                self.changes.send_replace(Some(Arc::new(Fresh { credential, holder })));
            }
            None => {
                self.former = None;
                self.sources.send_replace(self.asking.source.clone());
                self.ended();
            }
        }
    }

    fn ended(&self) {
        if self.changes.borrow().is_some() {
            warn!("`{}` has ended, and there is no other: it is given to nobody", self.name);
            self.changes.send_replace(None);
        }
    }

    fn complain(&mut self) {
        let failure = self.asking.source.failure().map(|error| error.to_string());
        if failure != self.complained {
            if let Some(failure) = &failure {
                warn!("`{}` could not be fetched: {failure}", self.name);
            }
            self.complained = failure;
        }
    }
}

async fn former_changed(former: &mut Option<Asking>) -> Result<(), watch::error::RecvError> {
    match former {
        Some(former) => former.stream.changed().await,
        None => std::future::pending().await,
    }
}

/// The certificate that the token is bound to, unless it is the agent's own proof: that is given to nobody.
fn holder(client: &Client, credential: &Credential) -> Option<SecretString> {
    let bound = matches!(&credential.secret, Secret::Token { bound: Some(_), .. });
    (bound && client.holder().is_fresh()).then(|| client.holder().to_pem())
}
