//! `GET /verify`: whether the token of a request may pass, for servers that ask somebody else (nginx's `auth_request`).
//! Demands beyond the audience stand in the query: `task`, `action`, `resource`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use daypass_sdk::receive::{Caller, Peer, Receiver, ReceiverConfig, Refused};
use daypass_sdk::{Action, Client, Error, Resource};
use daypass_verify::ids::{CredentialId, Name};
use daypass_verify::revocations::By;
use daypass_verify::scope::Audience;
use http::header::{CACHE_CONTROL, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use percent_encoding::percent_decode_str;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{debug, info, warn};
use url::form_urlencoded;

use crate::config;
use crate::door::{self, Door};
use crate::standing::Standing;
use crate::tally::{Reporter, Seen, Tally};

/// Where it is asked.
const PATH: &str = "/verify";
/// How long until the broker is asked again for its name.
const RETRY: Duration = Duration::from_secs(1);
/// What an answer tells of the caller.
const SUBJECT: HeaderName = HeaderName::from_static("daypass-subject");
const TASK: HeaderName = HeaderName::from_static("daypass-task");
const CREDENTIAL: HeaderName = HeaderName::from_static("daypass-credential");

type Answer = Response<Full<Bytes>>;

/// What verifies for one audience.
pub(crate) struct Auth {
    receiver: watch::Receiver<Option<Receiver>>,
    client_certificate: Option<HeaderName>,
    standing: Option<Standing>,
    tally: Tally,
}

/// Why a request does not pass, and by which credential it came, where that is verified.
struct Refusal {
    refused: Refused,
    credential: Option<CredentialId>,
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        let credential = match &refused {
            Refused::Revoked(_, credential) => Some(*credential),
            _ => None,
        };
        Self { refused, credential }
    }
}

/// What a request has to be allowed beyond the audience.
#[derive(Debug, Default, PartialEq, Eq)]
struct Demand {
    task: Option<Name>,
    action: Option<Action>,
    resource: Option<Resource>,
}

impl Auth {
    /// Begins to learn whom to believe; and what reports its use, where `standing` says at which target. To be called
    /// within a tokio runtime.
    pub(crate) fn new(
        auth: &config::Auth,
        connection: config::Connection,
        standing: Option<Standing>,
        clients: watch::Receiver<Client>,
    ) -> (Arc<Self>, Option<Reporter>) {
        let (sender, receiver) = watch::channel(None);
        tokio::spawn(follow(auth.audience.clone(), connection, clients.clone(), sender));
        let (tally, client_certificate) = (Tally::default(), auth.client_certificate.clone());
        let reporter = standing.clone().map(|standing| Reporter::new(tally.clone(), standing, clients));
        (Arc::new(Self { receiver, client_certificate, standing, tally }), reporter)
    }

    /// Answers whoever asks, for ever.
    pub(crate) async fn serve(self: Arc<Self>, door: Door) {
        loop {
            let (guest, auth) = (door.next().await, Arc::clone(&self));
            tokio::spawn(guest.attend(move |request, caller| {
                let auth = Arc::clone(&auth);
                async move { auth.answer(request, &caller).await }
            }));
        }
    }

    async fn answer<B>(&self, request: Request<B>, caller: &door::Caller) -> Answer {
        if caller.is_err() {
            return plain(StatusCode::FORBIDDEN);
        }
        if request.method() != Method::GET || request.uri().path() != PATH {
            return plain(StatusCode::NOT_FOUND);
        }
        let demand = match Demand::read(request.uri().query().unwrap_or_default()) {
            Ok(demand) => demand,
            Err(why) => {
                warn!("`{PATH}` was asked wrongly: {why}");
                return plain(StatusCode::INTERNAL_SERVER_ERROR);
            }
        };
        match self.verify(request, &demand).await {
            Ok(caller) => {
                self.count(Some(caller.credential_id), &demand, None);
                pass(&caller)
            }
            Err(Refusal { refused, credential }) => {
                debug!("refused: {} ({refused})", refused.inner_reason());
                self.count(credential, &demand, Some(word(&refused)));
                refusal(&refused)
            }
        }
    }

    /// Where use is reported: of strangers there is nothing to tell.
    fn count(&self, credential: Option<CredentialId>, demand: &Demand, refused: Option<&'static str>) {
        if self.standing.is_some() && credential.is_some() {
            self.tally.add(Seen { credential, exception: None, action: demand.action.clone(), refused });
        }
    }

    async fn verify<B>(&self, mut request: Request<B>, demand: &Demand) -> Result<Caller, Refusal> {
        let receiver = self.receiver.borrow().clone();
        let receiver = receiver.ok_or(Refused::Unavailable("the broker has not been reached yet"))?;
        if let Some(peer) = self.client_certificate.as_ref().and_then(|name| peer(request.headers(), name)) {
            request.extensions_mut().insert(peer);
        }
        let caller = receiver.caller(&mut request).await?;
        let id = caller.credential_id;
        self.demand(&caller, demand).map_err(|refused| Refusal { refused, credential: Some(id) })?;
        Ok(caller)
    }

    fn demand(&self, caller: &Caller, demand: &Demand) -> Result<(), Refused> {
        // The list of what is revoked comes each five seconds, the word of an ending at once.
        let id = caller.credential_id;
        if self.standing.as_ref().is_some_and(|standing| standing.has_ended(&id)) {
            return Err(Refused::Revoked(By::Id, id));
        }
        if let Some(task) = &demand.task {
            caller.is_doing(task)?;
        }
        match &demand.action {
            Some(action) => caller.may(action, demand.resource.as_ref()),
            None => Ok(()),
        }
    }
}

/// The stable word for reports.
fn word(refused: &Refused) -> &'static str {
    match refused {
        Refused::Revoked(..) => "credential_ended",
        _ => "access_denied",
    }
}

/// The certificate of the server's own caller, PEM with percent-encodings, as nginx writes it. It binds tokens and proves
/// nothing else: the server took the handshake.
fn peer(headers: &HeaderMap, name: &HeaderName) -> Option<Peer> {
    let mut values = headers.get_all(name).iter();
    let (value, more) = (values.next()?, values.next());
    let pem = percent_decode_str(value.to_str().ok()?).collect::<Vec<u8>>();
    let der = CertificateDer::from_pem_slice(&pem).ok().filter(|_| more.is_none())?;
    Some(Peer::new(Some(&[der])))
}

impl Demand {
    fn read(query: &str) -> Result<Self, String> {
        let mut demand = Self::default();
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            let wrong = |error: daypass_verify::ids::ParseError| format!("`{key}`: {error}");
            let before = match &*key {
                "task" => demand.task.replace(value.parse().map_err(wrong)?).is_some(),
                "action" => demand.action.replace(value.parse().map_err(wrong)?).is_some(),
                "resource" => demand.resource.replace(value.parse().map_err(wrong)?).is_some(),
                _ => return Err(format!("`{key}` is no key: expected `task`, `action` or `resource`")),
            };
            if before {
                return Err(format!("`{key}` is there twice"));
            }
        }
        if demand.resource.is_some() && demand.action.is_none() {
            return Err("`resource` stands alone: expected `action` beside it".to_owned());
        }
        Ok(demand)
    }
}

fn plain(status: StatusCode) -> Answer {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = status;
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

fn pass(caller: &Caller) -> Answer {
    let mut answer = plain(StatusCode::NO_CONTENT);
    let told = [
        (SUBJECT, caller.subject.to_string()),
        (TASK, caller.task.to_string()),
        (CREDENTIAL, caller.credential_id.to_string()),
    ];
    for (name, value) in told {
        if let Ok(value) = HeaderValue::from_str(&value) {
            answer.headers_mut().insert(name, value);
        }
    }
    answer
}

/// Servers that ask take 401 and 403 for an answer, and all else for a fault of whom they asked.
fn refusal(refused: &Refused) -> Answer {
    let status = match refused.status() {
        StatusCode::BAD_REQUEST => StatusCode::UNAUTHORIZED,
        status => status,
    };
    let mut answer = plain(status);
    if let Some(challenge) = refused.challenge() {
        answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    }
    answer
}

/// Keeps what verifies, and makes it anew when the roots of the broker have changed.
async fn follow(
    audience: Audience,
    connection: config::Connection,
    mut clients: watch::Receiver<Client>,
    sender: watch::Sender<Option<Receiver>>,
) {
    let mut complained = None;
    while !sender.is_closed() {
        let client = clients.borrow_and_update().clone();
        match receiver(&client, &connection, &audience).await {
            Ok(made) => {
                if let Err(error) = made.ready().await {
                    warn!("what verifies tokens for `{audience}` could not be fetched yet: {error}");
                } else {
                    info!("tokens for `{audience}` are verified");
                }
                sender.send_replace(Some(made));
                if clients.changed().await.is_err() {
                    return;
                }
            }
            Err(error) => {
                let error = error.to_string();
                if complained.as_ref() != Some(&error) {
                    warn!("tokens for `{audience}` cannot be verified yet: {error}");
                }
                complained = Some(error);
                sleep(RETRY).await;
            }
        }
    }
}

async fn receiver(
    client: &Client,
    connection: &config::Connection,
    audience: &Audience,
) -> Result<Receiver, Error> {
    // A log is named `TRUST-DOMAIN/evidence/PERIOD`.
    let name = client.log_key().await?.name().split('/').next().unwrap_or_default().to_owned();
    let wrong = |what: String| Error::Config(what);
    let trust_domain = name.parse().map_err(|error| wrong(format!("the log's name: {error}")))?;
    let path = connection.ca.display();
    let ca =
        std::fs::read(&connection.ca).map_err(|error| wrong(format!("cannot read `{path}`: {error}")))?;
    Receiver::new(ReceiverConfig::new(connection.web.clone(), ca, trust_domain, audience.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_demanded_is_read_strictly() {
        let read = Demand::read;
        assert_eq!(read("").unwrap(), Demand::default());
        let demand = read("task=post-invoices&action=invoice:write&resource=eu/de").unwrap();
        assert_eq!(demand.resource.unwrap().to_string(), "eu/de");
        for (query, expected) in [
            ("tsak=a", "is no key"),
            ("task=A", "`task`"),
            ("task=a&task=b", "twice"),
            ("action=a&action=a", "twice"),
            ("resource=eu/de", "stands alone"),
            ("resource=../x&action=a", "`resource`"),
        ] {
            assert!(read(query).unwrap_err().contains(expected), "{query}");
        }
    }
}
