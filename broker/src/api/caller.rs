//! Who calls: the same for both faces, whatever a call looks like on the wire.

use std::sync::Arc;

use daypass_core::bundle::Bundle;
use daypass_core::decision::Outward;
use daypass_core::proof::{KnownKeys, Principal, ProofError, UnverifiedProof, possession};
use daypass_evidence::entry::{Client, ProofUse};
use daypass_verify::certificate::{Holder, says_node};
use daypass_verify::ids::RequestId;
use daypass_verify::jose::UnverifiedToken;
use daypass_verify::time::UnixMs;
use http::{HeaderMap, header};

use super::Api;
use super::node;
use super::outgoing::{self, Outgoing};
use crate::listen::Connection;

/// How long a connection's principal is believed before its certificate is checked again, revocation included.
const KEPT_MS: i64 = 30_000;

/// How many bytes of a caller's `user-agent` are kept.
const AGENT_BYTES_MAX: usize = 128;

/// Who calls, and how its request is named.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(crate) principal: Arc<Principal>,
    pub(crate) request: RequestId,
    pub(crate) client: Option<Client>,
}

/// Who calls over `connection`, showing `token` beside what the connection itself proves.
///
/// # Errors
/// When neither leads to anybody, or both lead to different ones.
pub(crate) async fn caller(
    api: &Api,
    connection: Option<&Arc<Connection>>,
    token: Option<&str>,
    client: Option<Client>,
    id: RequestId,
) -> Result<Caller, Outgoing> {
    look_at(api, connection.map(Arc::as_ref))?;
    let state = api.desk.log.state();
    let bundle = state.bundle().ok_or_else(|| Outgoing::new(Outward::Halted, "no bundle is in force"))?;
    let principal = match (token, connection) {
        (None, Some(connection)) => remembered(api, bundle, connection),
        (Some(code), _) if node::is_code(code) => node::by_code(api, bundle, code).await.map(Arc::new),
        (Some(token), connection) => with_token(api, bundle, token, connection.map(Arc::as_ref)).await,
        (None, None) => Err(missing()),
    };
    let principal = principal.and_then(|principal| not_lost(principal, state.proofs_from()));
    let principal = match principal {
        Ok(it) => node::not_revoked(api, bundle, &it).await.map(|()| it),
        refused => refused,
    };
    let principal = principal.map_err(|error| {
        if let Some(connection) = connection {
            api.limits.proof_failed(connection.peer.addr.ip());
        }
        api.refusals.proof_failed(id, error.inner_reason(), &error.to_string());
        tracing::debug!(request = %id, reason = error.inner_reason(), %error, "a proof was refused");
        outgoing::of_proof(&error)
    })?;
    Ok(Caller { principal, request: id, client })
}

/// A principal that a connection keeps, with the keys it was verified under and when.
struct Kept {
    principal: Arc<Principal>,
    known: Arc<KnownKeys>,
    at: UnixMs,
}

/// An address whose proofs keep failing is not looked at for a moment; connections that proved themselves are.
fn look_at(api: &Api, connection: Option<&Connection>) -> Result<(), Outgoing> {
    let Some(connection) = connection.filter(|it| it.remembered::<Kept>().is_none()) else { return Ok(()) };
    api.limits.look_at_proof(connection.peer.addr.ip()).map_err(|wait| {
        let message = "too many proofs from this address failed: come back";
        Outgoing::new(Outward::RateLimited, message).retry(wait)
    })
}

/// After a recovery nobody knows which proofs were spent in the part of the log that is lost: all that were made by
/// then count as spent.
fn not_lost(principal: Arc<Principal>, from: Option<UnixMs>) -> Result<Arc<Principal>, ProofError> {
    let early = from.is_some_and(|from| principal.issued_at() < from);
    if early && principal.usage() == ProofUse::Once {
        let detail = "it was made before the log was recovered: ask its issuer for a fresh one".into();
        return Err(ProofError::Refused { inner: "BEFORE_RECOVERY", detail });
    }
    Ok(principal)
}

fn missing() -> ProofError {
    ProofError::Refused {
        inner: "NO_PROOF",
        detail: "the call carried neither a client certificate nor an ID token".into(),
    }
}

/// The principal of a connection's certificate: worked out twice a minute, and checked on each request that it
/// still holds.
fn remembered(api: &Api, bundle: &Bundle, connection: &Connection) -> Result<Arc<Principal>, ProofError> {
    if connection.peer.chain.is_empty() {
        return Err(missing());
    }
    let (known, now) = (api.trust.known(), api.desk.clock.now());
    if let Some(kept) = connection.remembered::<Kept>()
        && Arc::ptr_eq(&kept.known, &known)
        && (0..KEPT_MS).contains(&now.millis_since(kept.at))
        && kept.principal.holds_under(bundle.digest(), now)
    {
        return Ok(Arc::clone(&kept.principal));
    }
    let chain = &connection.peer.chain;
    let proof = match chain.first().is_some_and(|leaf| says_node(leaf)) {
        true => node::of_chain(api, bundle, chain)?,
        false => UnverifiedProof::Certificate { chain: chain.to_vec() },
    };
    let principal = Arc::new(proof.verify(bundle, &known, &api.desk.issuer, now)?);
    connection.remember(Arc::new(Kept { principal: Arc::clone(&principal), known, at: now }));
    Ok(principal)
}

/// The principal of an ID token. A key that is not known, or that was replaced under its id, is asked for once.
async fn with_token(
    api: &Api,
    bundle: &Bundle,
    token: &str,
    connection: Option<&Connection>,
) -> Result<Arc<Principal>, ProofError> {
    let verify = || {
        let token = UnverifiedToken::parse(token)?;
        let connection = connection.filter(|connection| !connection.peer.chain.is_empty());
        let holder = connection.map(held).transpose()?.and_then(|held| held.0);
        let proof = match connection {
            Some(connection) if holder.is_none() => {
                UnverifiedProof::Both { token, chain: connection.peer.chain.to_vec() }
            }
            _ => UnverifiedProof::IdToken { token, holder },
        };
        proof.verify(bundle, &api.trust.known(), &api.desk.issuer, api.desk.clock.now())
    };
    let principal = match verify() {
        Err(ProofError::UnknownKey { issuer } | ProofError::ReplacedKey { issuer })
            if api.trust.refresh(&issuer).await =>
        {
            verify()
        }
        other => other,
    };
    principal.map(Arc::new)
}

/// What a connection's own certificate shows, where it was made to show possession only.
struct Held(Option<Holder>);

/// Worked out once a connection: it is the same for every token that comes over it.
fn held(connection: &Connection) -> Result<Arc<Held>, ProofError> {
    if let Some(held) = connection.remembered::<Held>() {
        return Ok(held);
    }
    let held = Arc::new(Held(possession(&connection.peer.chain)?));
    connection.remember(Arc::clone(&held));
    Ok(held)
}

/// The token of `authorization: Bearer`; none where there is no such header.
///
/// # Errors
/// When there is another, or more than one.
pub(crate) fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Outgoing> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let refuse = || {
        Outgoing::new(
            Outward::ProofRefused,
            "the `authorization` header is refused: expected one, `Bearer` and an ID token",
        )
    };
    let token = value.to_str().ok().and_then(|text| text.split_once(' '));
    match (token, values.next()) {
        (Some((scheme, token)), None) if scheme.eq_ignore_ascii_case("bearer") => Ok(Some(token)),
        _ => Err(refuse()),
    }
}

/// Where a call comes from, as entries say it.
pub(crate) fn client(connection: Option<&Connection>, headers: &HeaderMap) -> Option<Client> {
    let addr = connection.map(|connection| connection.peer.addr.ip().to_string());
    let agent = headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok());
    let agent = agent
        .map(|agent| agent.chars().take(AGENT_BYTES_MAX).collect::<String>())
        .filter(|agent| !agent.is_empty());
    (addr.is_some() || agent.is_some()).then_some(Client { addr, agent })
}
