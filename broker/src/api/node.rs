//! Nodes: the code that lets one in, and what becomes of one whose certificate somebody has copied.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use daypass_core::bundle::Bundle;
use daypass_core::bundle::object::{Class, Identity, IssuerKind};
use daypass_core::draft::Mark;
use daypass_core::proof::{Enrolment, NodeProof, Principal, ProofError, UnverifiedProof};
use daypass_core::state::State;
use daypass_evidence::entry::{
    ApprovalNeeds, ApprovalRequested, Body, By, Index, KeyUse, NameAt, NewEntry, ObjectType, Profile,
    Selector, SuspensionSet,
};
use daypass_verify::certificate::TrustAnchors;
use daypass_verify::ids::{CredentialId, Digest, IdentityName, Name};
use daypass_verify::time::{Seconds, UnixMs};
use ring::rand::{SecureRandom as _, SystemRandom};
use rustls_pki_types::CertificateDer;
use tokio::time::timeout;

use super::{Api, Caller, Outgoing, outgoing, standing};
use crate::ids::RandomnessFailed;
use crate::index;
use crate::log::{Attached, Place};
use crate::revocation::Authority;

/// What every code begins with: so it is told from a token, and found where it does not belong.
const PREFIX: &str = "daypass-node-";

/// How long a code is good.
const CODE_LIFE: Seconds = Seconds::new(15 * 60);

/// How many octets of a code nobody can guess.
const SECRET_LEN: usize = 16;

/// The alarm about a node certificate of which there are two.
const NODE_SUPERSEDED: &str = "NODE_SUPERSEDED";

/// What stands in the suspension of its node.
const SUPERSEDED_REASON: &str =
    "a node certificate was shown for renewal that had been renewed before, for another key";

/// How long is waited in the first moments of a start, until it is known what was revoked before.
const STARTED_WITHIN: Duration = Duration::from_secs(2);

/// How often it is looked whether the suspension of a node was lifted.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A code that was made, or could be.
pub(crate) struct Added {
    /// The code itself; none where nothing was made.
    pub(crate) code: Option<String>,
    /// The task that the node asks for with it.
    pub(crate) task: Name,
    /// Until when it is good.
    pub(crate) until: UnixMs,
    /// Its entry.
    pub(crate) place: Option<Place>,
}

impl Api {
    /// Makes a code for a node, on the word of an operator: durable on return, and kept as a digest alone.
    ///
    /// # Errors
    /// When the caller may not, the identity is no node that could use it, or it could not be recorded.
    pub(crate) async fn add_node(
        &self,
        caller: &Caller,
        identity: &IdentityName,
        validate_only: bool,
    ) -> Result<Added, Outgoing> {
        let operator = self.operator(caller, standing::ENROL, "add node")?;
        self.within_rate(caller)?;
        let (state, now) = (self.desk.log.state(), self.desk.clock.now());
        let (identity, task) = node_and_task(&state, identity, now)?;
        let (name, until) = (task.name.clone(), now.plus(CODE_LIFE));
        if validate_only {
            return Ok(Added { code: None, task: name, until, place: None });
        }
        let failed = |error: RandomnessFailed| outgoing::of_order(error.into());
        let id = self.desk.ids.draw(now).map_err(failed)?;
        let code = code(&id).map_err(failed)?;
        let body = ApprovalRequested {
            subject: "issuance".into(),
            identity: Some(identity),
            task: Some(task),
            needs: ApprovalNeeds { n: 0, roles: [].into() },
            until_ms: until,
            code: Some(Digest::of(code.as_bytes())),
        };
        let by = By { operator: Some(operator), identity: None, proof: caller.principal.digest() };
        let entry = NewEntry { id, request: Some(caller.request), by: Some(by), body: body.into() };
        let marks = Mark::of_proof(&caller.principal).into_iter().collect();
        let attached = Attached { marks, ..Attached::default() };
        let places = self.desk.log.append(vec![entry], attached).await;
        let place = places.map_err(|error| outgoing::of_record(&error))?.into_iter().next();
        Ok(Added { code: Some(code), task: name, until, place })
    }

    /// Whoever renewed a node certificate that had been renewed before: one of two has a copy, and nobody knows which. The
    /// node is suspended, and all that it holds revoked.
    pub(crate) async fn suspend_node(&self, caller: &Caller) {
        let Some((name, _)) = caller.principal.identities().first() else { return };
        let selector = Selector { identity: Some(name.clone()), ..Selector::default() };
        let is_so = |state: &State| state.suspensions().any(|(_, set)| set.selector == selector);
        let detail =
            "its certificate was renewed twice: find out who has a copy, resume it, and enrol it anew";
        self.alarms.raise(NODE_SUPERSEDED, &format!("`{name}`"), detail);
        if is_so(&self.desk.log.state()) {
            return;
        }
        let set = SuspensionSet {
            selector: selector.clone(),
            reason: SUPERSEDED_REASON.into(),
            until_ms: None,
            revoked: 0,
            live: 0,
            drill: None,
            revokes: true,
        };
        let by = By { operator: None, identity: Some(name.clone()), proof: caller.principal.digest() };
        let authority = Authority { by: Some(by), request: Some(caller.request), marks: Vec::new() };
        let suspended = match self.suspensions.set(set.clone(), &authority).await {
            Ok(suspended) => suspended,
            Err(error) => {
                return tracing::error!(%error, node = %name, "a copied node could not be suspended");
            }
        };
        let suspensions = Arc::clone(&self.suspensions);
        let at = suspended.place.index;
        tokio::spawn(async move {
            // What fails here is tried again by whichever broker looks next.
            drop(suspensions.revoke(at, &set, &authority, &AtomicU64::default()).await);
        });
        let (log, alarms, subject) = (self.desk.log.clone(), self.alarms.clone(), format!("`{name}`"));
        tokio::spawn(async move {
            while log.published_at(at + 1).await.state.suspensions().any(|(index, _)| index == at) {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            alarms.clear(NODE_SUPERSEDED, &subject);
        });
    }
}

/// Whether what is shown in the place of a token is a code.
pub(super) fn is_code(token: &str) -> bool {
    token.starts_with(PREFIX)
}

/// The principal of a code.
pub(super) async fn by_code(api: &Api, bundle: &Bundle, code: &str) -> Result<Principal, ProofError> {
    let unknown =
        || ProofError::Refused { inner: "UNKNOWN_CODE", detail: "no such code was given out".into() };
    let id = id_of(code).ok_or_else(unknown)?;
    let found = api.readers.run(move |reader| index::find(reader, &id)).await;
    let row = found.map_err(|_| unavailable(bundle))?.ok_or_else(unknown)?;
    let entry = index::read(&row).map_err(|_| unavailable(bundle))?;
    let Body::ApprovalRequested(approval) = entry.body else { return Err(unknown()) };
    let (Some(identity), Some(code_digest)) = (approval.identity, approval.code) else {
        return Err(unknown());
    };
    let enrolment = Enrolment {
        code: code_digest,
        identity: identity.name,
        made: entry.envelope.time,
        until: approval.until_ms,
        at: row.index,
    };
    let shown = Digest::of(code.as_bytes());
    let trust_domain = entry.envelope.td;
    let proof = UnverifiedProof::Code { shown, enrolment: Box::new(enrolment), trust_domain };
    proof.verify(bundle, &api.trust.known(), &api.desk.issuer, api.desk.clock.now())
}

/// What a chain that says it is a node's has to be checked with: our own issuing CAs, as they are now.
pub(super) fn of_chain(
    api: &Api,
    bundle: &Bundle,
    chain: &[CertificateDer<'static>],
) -> Result<UnverifiedProof, ProofError> {
    let (state, now) = (api.desk.log.state(), api.desk.clock.now());
    let cas = state.published_keys(KeyUse::Ca, now).filter_map(|ca| api.desk.keyring.certificate(&ca.key));
    let anchors = TrustAnchors::new(cas.collect()).map_err(|_| unavailable(bundle))?;
    let trust_domain = state.trust_domain().ok_or_else(|| unavailable(bundle))?.clone();
    Ok(UnverifiedProof::Node { chain: chain.to_vec(), anchors, trust_domain })
}

/// A node certificate is a credential as any other: once it is revoked it proves nothing.
pub(super) async fn not_revoked(api: &Api, bundle: &Bundle, principal: &Principal) -> Result<(), ProofError> {
    let Some(NodeProof::Certificate(id)) = principal.node() else { return Ok(()) };
    let ledger = api.revocation.ledger();
    if !ledger.is_whole() && timeout(STARTED_WITHIN, ledger.covers(1)).await.is_err() {
        return Err(unavailable(bundle));
    }
    match ledger.get(&id) {
        None => Ok(()),
        Some(_) => {
            let detail = "the node certificate is revoked: the node has to be enrolled anew".into();
            Err(ProofError::Refused { inner: "REVOKED", detail })
        }
    }
}

fn unavailable(bundle: &Bundle) -> ProofError {
    let nodes = |(name, issuer): (&Name, &daypass_core::bundle::object::Issuer)| {
        (issuer.kind == IssuerKind::Nodes).then(|| name.clone())
    };
    match bundle.declared().issuers.iter().find_map(nodes) {
        Some(issuer) => ProofError::KeysUnavailable { issuer },
        None => ProofError::Refused { inner: "NO_NODES", detail: "no issuer stands for nodes".into() },
    }
}

/// The node that `identity` names, and the one task by which it gets its certificate.
fn node_and_task(
    state: &State,
    identity: &IdentityName,
    now: UnixMs,
) -> Result<(NameAt<IdentityName>, NameAt<Name>), Outgoing> {
    let refuse =
        |expected: &str| Outgoing::malformed("identity", format!("`{identity}`: expected {expected}"));
    let declared = state.bundle().map(|bundle| bundle.declared());
    let node: Option<&Identity> = declared.and_then(|it| it.identities.get(identity));
    let node = node.filter(|it| it.class == Class::Node && !it.disabled && now < it.expires_ms);
    let node = node.ok_or_else(|| refuse("a declared identity of class `node` that is not over"))?;
    let tasks = declared.map(|it| &it.tasks);
    let gives = |name: &&Name| {
        tasks.and_then(|it| it.get(*name)).is_some_and(|task| task.kinds.contains(&Profile::Node))
    };
    let mut of_node = node.tasks.iter().filter(gives);
    let (Some(task), None) = (of_node.next(), of_node.next()) else {
        return Err(refuse("a node with one task of kind `node`, by which it gets its certificate"));
    };
    let at =
        |object, name: &str| state.declared_at(object, name).ok_or_else(|| refuse("one that is recorded"));
    let identity_at: Index = at(ObjectType::Identity, identity.as_str())?;
    let task_at: Index = at(ObjectType::Task, task.as_str())?;
    Ok((NameAt { name: identity.clone(), at: identity_at }, NameAt { name: task.clone(), at: task_at }))
}

/// A code that names its own entry, so that it is found without being looked for by what is secret in it.
fn code(id: &CredentialId) -> Result<String, RandomnessFailed> {
    let mut secret = [0; SECRET_LEN];
    SystemRandom::new().fill(&mut secret).map_err(|_| RandomnessFailed)?;
    let secret: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("{PREFIX}{id}-{secret}"))
}

/// The entry that a code names.
fn id_of(code: &str) -> Option<CredentialId> {
    let (id, secret) = code.strip_prefix(PREFIX)?.rsplit_once('-')?;
    (secret.len() == 2 * SECRET_LEN).then(|| id.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_names_its_entry_and_is_never_the_same_twice() {
        let id = crate::ids::Ids::system().draw(UnixMs::new(1_795_310_000_000)).unwrap();
        let (first, second) = (code(&id).unwrap(), code(&id).unwrap());
        assert_ne!(first, second);
        for made in [&first, &second] {
            assert!(is_code(made));
            assert_eq!(id_of(made), Some(id));
        }
    }

    #[test]
    fn what_is_no_whole_code_names_nothing() {
        let id = crate::ids::Ids::system().draw(UnixMs::new(1_795_310_000_000)).unwrap();
        let whole = code(&id).unwrap();
        for spoiled in
            ["", PREFIX, &whole[1..], &whole[..whole.len() - 1], &whole.replace('-', ""), &id.to_string()]
        {
            assert_eq!(id_of(spoiled), None, "{spoiled}");
        }
    }
}
