//! For services that receive credentials: who is calling, for which task, with what scope; verified here, with keys
//! and revocations that are kept fresh in the background.
//!
//! ```no_run
//! # async fn demo() -> Result<(), Box<dyn std::error::Error>> {
//! use daypass_sdk::receive::{Presenter, Receiver, ReceiverConfig};
//!
//! let receiver = Receiver::new(ReceiverConfig::new(
//!     "https://daypass.example.org".parse()?,
//!     std::fs::read("ca.crt")?,
//!     "example.org".parse()?,
//!     "https://ledger.example.org".parse()?,
//! ))?;
//! let caller = receiver.token("eyJ…", Presenter::Bearer).await?;
//! caller.may(&"invoice:write".parse()?, Some(&"eu/2027-01".parse()?))?;
//! # Ok(())
//! # }
//! ```

mod caller;
mod keeper;
mod layer;
mod peer;
mod refused;
mod report;
mod serve;
mod trust;
mod verifier;

#[cfg(feature = "axum")]
mod extract;

use std::sync::Arc;
use std::time::Duration;

use daypass_verify::credential::CredentialError;
use daypass_verify::ids::{SpiffeId, TrustDomain};
use daypass_verify::jose::JoseError;
use daypass_verify::scope::Audience;
use daypass_verify::time::Seconds;
use rustls_pki_types::CertificateDer;
use tokio::task::AbortHandle;
use url::Url;

pub use caller::{Caller, Shown};
pub use daypass_verify::credential::{Presenter, Profile};
#[cfg(feature = "axum")]
pub use extract::{Allowed, Demand};
pub use layer::{Receive, ReceiverLayer};
pub use peer::Peer;
pub use refused::Refused;
pub use report::Report;
pub use serve::{serve, server_config};
pub use trust::Trust;
pub use verifier::{IssuedPeers, IssuedServices, PossessingPeers};

use crate::clock::{Clock, Moment, SystemClock};
use crate::error::Error;
use crate::published::Web;
use crate::tls::client_config;
use keeper::{Keeper, Shared};
use report::Reporter;

/// How far the clocks of broker and receiver may differ.
pub(crate) const LEEWAY: Seconds = Seconds::new(30);
/// How long a request waits for keys that it may be the first to need.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long [`Receiver::ready`] waits: a broker that has just begun signs its first feed within seconds.
const READY_WITHIN: Duration = Duration::from_secs(15);

/// What a receiver believes, and who it is.
#[derive(Debug, Clone)]
pub struct ReceiverConfig {
    /// The broker's `web`, which is its issuer URL: `https://HOST`, without a path.
    pub issuer: Url,
    /// The roots that the broker's own certificates are believed under, PEM; no others are.
    pub ca: Vec<u8>,
    /// The trust domain: subjects of another are refused.
    pub trust_domain: TrustDomain,
    /// Who is addressed here: credentials for somebody else are refused.
    pub audience: Audience,
    /// The kind of token that is expected.
    pub profile: Profile,
    /// Whether revocations are known here.
    pub feed: Feed,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Whether the broker is told whose credentials are used here; none: it is not.
    pub report: Option<Report>,
}

/// What becomes of revoked credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feed {
    /// They are refused. A receiver that has no fresh feed refuses everything, as unavailable.
    Required,
    /// They are good until their end: for targets whose declared reach is `none`.
    Ignored,
}

impl ReceiverConfig {
    /// For access tokens, with revocations, by the machine's clock.
    #[must_use]
    pub fn new(issuer: Url, ca: Vec<u8>, trust_domain: TrustDomain, audience: Audience) -> Self {
        let (profile, feed) = (Profile::AccessToken, Feed::Required);
        let clock = Arc::new(SystemClock);
        Self { issuer, ca, trust_domain, audience, profile, feed, clock, report: None }
    }
}

/// Verifies what callers show. Cheap to clone; all clones share the keys, the roots and the feed, and the one task that
/// keeps them fresh, which ends with the last clone.
///
/// Keys are fetched as often as the broker's cache headers say, each five minutes at least, and used for 15 minutes
/// at most while nobody answers. A key that is not known costs one fetch in 30 seconds. The feed is fetched each five
/// seconds.
#[derive(Debug, Clone)]
pub struct Receiver(Arc<Handle>);

#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
    task: AbortHandle,
    reporter: Option<Reporter>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Receiver {
    /// Begins to fetch at once. To be made within a tokio runtime.
    ///
    /// # Errors
    /// When the configuration cannot work.
    pub fn new(config: ReceiverConfig) -> Result<Self, Error> {
        let tls = client_config(&config.ca, None, &["h2", "http/1.1"])?;
        let web = Web::new(&config.issuer, tls)?;
        let report = config.report.clone();
        let reporter = report.map(|report| Reporter::start(report, Arc::clone(&config.clock)));
        let shared = Arc::new(Shared::new(config, web));
        let task = tokio::spawn(Keeper::new(Arc::clone(&shared)).run()).abort_handle();
        Ok(Self(Arc::new(Handle { shared, task, reporter })))
    }

    /// Waits until all that is needed has been fetched once: for 15 seconds at most.
    ///
    /// # Errors
    /// When it could not be fetched.
    pub async fn ready(&self) -> Result<(), Error> {
        self.0.shared.ready(READY_WITHIN).await
    }

    /// What is trusted now.
    #[must_use]
    pub fn trust(&self) -> Arc<Trust> {
        self.0.shared.trust()
    }

    /// Verifies a token that `presenter` shows. Nothing is fetched for it, unless its key is not known.
    ///
    /// # Errors
    /// When it is not good here, now; or nobody can say.
    pub async fn token(&self, compact: &str, presenter: Presenter) -> Result<Caller, Refused> {
        let now = self.now();
        match self.trust().token(compact, presenter, now) {
            Err(Refused::Invalid(CredentialError::Token(JoseError::UnknownKey)))
            | Err(Refused::Unavailable(_))
                if self.0.shared.fetched_for_another(PATIENCE).await =>
            {
                self.trust().token(compact, presenter, self.now())
            }
            answered => answered,
        }
    }

    /// Verifies the certificate that a peer has shown in its handshake, as issued by the broker. It is verified once a
    /// connection and a change of the roots; its end and the feed count each time.
    ///
    /// # Errors
    /// When it is not good here, now; or nobody can say.
    pub fn certificate(&self, peer: &Peer) -> Result<Caller, Refused> {
        self.trust().certificate(peer, self.now())
    }

    /// Verifies the certificate that a service has shown in its handshake, leaf first, as issued by the broker: whose it is.
    fn service(&self, chain: &[CertificateDer<'_>]) -> Result<SpiffeId, Refused> {
        self.trust().service(chain, self.now())
    }

    /// The layer that lets only verified callers pass: see [`ReceiverLayer`].
    #[must_use]
    pub fn layer(&self) -> ReceiverLayer {
        ReceiverLayer::new(self.clone())
    }

    /// What of use could not be told at the last try, and why; none where all was, or none is told.
    #[must_use]
    pub fn untold(&self) -> Option<String> {
        self.0.reporter.as_ref()?.untold()
    }

    /// Counts a use, where use is told.
    fn used(&self, caller: &Caller) {
        if let Some(reporter) = &self.0.reporter {
            reporter.used(caller.credential_id);
        }
    }

    fn now(&self) -> Moment {
        Moment::of(&*self.0.shared.config.clock)
    }
}
