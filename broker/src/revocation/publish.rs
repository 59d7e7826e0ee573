//! Telling of revocations: the signed feed and the revocation lists of our CAs, anew soon after each change and again and
//! again without one. What is signed is recorded first, like everything.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use daypass_core::state::{UPSTREAM, phase};
use daypass_evidence::entry::{CredentialType, KeyChanged, KeyState, KeyUse, NewEntry, StatementSigned};
use daypass_verify::ids::{CredentialId, KeyId};
use daypass_verify::revocations::{IDS_MAX, Revocations, Revoked, Shown};
use daypass_verify::time::UnixMs;
use tokio::time::{MissedTickBehavior, interval};

use super::{Ledger, RevokedCredential};
use crate::authority::{self, AuthorityError, RevokedCertificate, crl_statement, serial_of_ca};
use crate::ids::RandomnessFailed;
use crate::issue::Desk;
use crate::log::{Attached, RecordError, Recorded};
use crate::signer::{SignError, Statement};
use crate::web::{Lists, Page, Site};

/// How often it is looked whether something changed: well within the five seconds that are promised.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How old a feed becomes before it is signed anew without a change; and while there is room for little else.
const FEED_AGE_MS: i64 = 28_000;
const FEED_AGE_FULL_MS: i64 = 120_000;

/// How old a revocation list becomes before it is signed anew without a change.
const CRL_AGE_MS: i64 = 600_000;

/// Why nothing new was published.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each says what failed in its text")]
enum PublishError {
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error(transparent)]
    Sign(#[from] SignError),
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    #[error(transparent)]
    NoId(#[from] RandomnessFailed),
    #[error("no key may sign the feed now")]
    NoKey,
}

/// What was published last.
#[derive(Default)]
struct Told {
    /// Of what: the ledger and the state that decides which keys sign.
    of: Option<(u64, u64)>,
    feed_at: Option<UnixMs>,
    crls: BTreeMap<KeyId, Crl>,
    feed: Option<Page>,
}

/// A list that was signed.
struct Crl {
    of: Vec<RevokedCertificate>,
    at: UnixMs,
    der: Vec<u8>,
    /// What signs now comes first, the root last: what reads one list alone reads the first.
    rank: (bool, i64),
}

/// Goes on for as long as the broker runs.
pub(super) async fn publish(desk: Desk, ledger: Arc<Ledger>, site: Arc<Site>) {
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = Told::default();
    loop {
        ticks.tick().await;
        if !ledger.is_whole() {
            continue;
        }
        if let Err(error) = look(&desk, &ledger, &site, &mut told).await {
            tracing::error!(%error, "what is revoked could not be published; it is tried again");
        }
    }
}

async fn look(desk: &Desk, ledger: &Ledger, site: &Site, told: &mut Told) -> Result<(), PublishError> {
    let now = desk.clock.now();
    let of = (ledger.version(), desk.log.state().at());
    let most = if desk.log.is_full() { FEED_AGE_FULL_MS } else { FEED_AGE_MS };
    let young = |at: UnixMs, most: i64| (0..most).contains(&now.millis_since(at));
    if told.of == Some(of) && told.feed_at.is_some_and(|at| young(at, most)) {
        return Ok(());
    }
    told.feed = Some(feed(desk, ledger).await?);
    told.feed_at = Some(now);
    crls(desk, ledger, told, now).await?;
    told.of = Some(of);
    site.revoked.store(Arc::new(lists(told)));
    Ok(())
}

/// The feed of now: of all that any broker wrote until now, and said to be so.
async fn feed(desk: &Desk, ledger: &Ledger) -> Result<Page, PublishError> {
    let head = Arc::clone(&desk.log.published_at(u64::MAX).await.head);
    ledger.covers(head.size).await;
    let (state, now) = (desk.log.state(), desk.clock.now().max(head.time));
    let key = state.signing_key(KeyUse::Token, now).or_else(|| {
        let rs256 = daypass_core::state::RS256;
        state.signing_key_by(KeyUse::Token, rs256, now)
    });
    let key = key.ok_or(PublishError::NoKey)?;
    let sequence = u64::try_from(head.time.get()).unwrap_or_default();
    let feed = Revocations::new(revoked(desk, ledger), sequence, now);
    if !feed.revoked.is_complete() {
        tracing::error!(
            "more is revoked than the feed has room for: verifiers learn the rest by asking alone"
        );
    }
    let tbs = feed.signing_input(&desk.issuer, &key.alg, &key.key).into_bytes();
    let statement = Statement { key: key.key.clone(), tbs };
    let entry = StatementSigned {
        statement: "revocations".into(),
        key: key.key.clone(),
        digest: statement.digest(),
        from_ms: feed.signed_at,
        until_ms: feed.expires_at,
        number: Some(feed.sequence),
    };
    let recorded = record(desk, statement, entry).await?;
    let signature = desk.signer.sign_statement(&recorded)?;
    let mut compact = recorded.into_parts().0.tbs;
    compact.push(b'.');
    compact.extend(BASE64_URL_SAFE_NO_PAD.encode(signature.as_bytes()).into_bytes());
    Ok(Page::signed(compact, "application/jwt"))
}

/// All of it; where that is too much, less what a receiver finds by a cut-off anyway.
fn revoked(desk: &Desk, ledger: &Ledger) -> Revoked {
    let cut_offs = ledger.cut_offs(desk);
    let mut listed = ledger.credentials();
    let state = desk.log.state();
    if let Some(trust_domain) = state.trust_domain().filter(|_| listed.len() > IDS_MAX) {
        let by_cut_off = Revoked::new(Vec::new(), cut_offs.clone());
        listed.retain(|(id, it): &(CredentialId, RevokedCredential)| {
            let subject = it.identity.spiffe_id(trust_domain);
            let key = Some(it.key.as_str());
            by_cut_off.covers(&Shown { id: *id, subject: &subject, issuer: None, key }).is_none()
        });
    }
    Revoked::new(listed.into_iter().map(|(id, _)| id).collect(), cut_offs)
}

async fn record(
    desk: &Desk,
    statement: Statement,
    entry: StatementSigned,
) -> Result<Recorded<Statement>, PublishError> {
    let id = desk.ids.draw(desk.clock.now())?;
    let entry = NewEntry { id, request: None, by: None, body: entry.into() };
    Ok(desk.log.record_statement(statement, entry, Attached::default()).await?)
}

/// The lists of all CAs that sign, or signed what may live: anew where one changed or is old.
async fn crls(desk: &Desk, ledger: &Ledger, told: &mut Told, now: UnixMs) -> Result<(), PublishError> {
    let state = desk.log.state();
    let signs = |key: &&KeyChanged| {
        matches!(phase(key, now), KeyState::Active | KeyState::Draining | KeyState::Retired)
    };
    let cas = state.published_keys(KeyUse::Ca, now).chain(state.published_keys(KeyUse::Root, now));
    let cas: Vec<KeyChanged> = cas.filter(signs).cloned().collect();
    told.crls.retain(|key, _| cas.iter().any(|ca| ca.key == *key));
    let certificates = ledger.credentials();
    for ca in cas {
        let listed = match ca.usage {
            KeyUse::Root => compromised_cas(desk, now),
            _ => leaves(&certificates, &ca.key),
        };
        let same = |crl: &Crl| crl.of == listed && (0..CRL_AGE_MS).contains(&now.millis_since(crl.at));
        if told.crls.get(&ca.key).is_some_and(same) {
            continue;
        }
        match crl(desk, &ca, listed, now).await {
            Ok(Some(crl)) => drop(told.crls.insert(ca.key, crl)),
            Ok(None) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// None for a CA whose secret is elsewhere.
async fn crl(
    desk: &Desk,
    ca: &KeyChanged,
    of: Vec<RevokedCertificate>,
    now: UnixMs,
) -> Result<Option<Crl>, PublishError> {
    let Some(certificate) = desk.keyring.certificate(&ca.key) else { return Ok(None) };
    if ca.usage == KeyUse::Root && ca.origin.as_str() == UPSTREAM {
        return Ok(None);
    }
    let head = Arc::clone(&desk.log.published().head);
    let number = u64::try_from(head.time.get()).unwrap_or_default();
    let described = desk.keyring.describe(&ca.key)?;
    let (statement, entry) = crl_statement(&described, &certificate, &of, number, now.max(head.time))?;
    let recorded = record(desk, statement, entry).await?;
    let der = authority::sign(&desk.signer, &recorded)?;
    let rank = (ca.usage == KeyUse::Root, -ca.sign_from_ms.get());
    Ok(Some(Crl { of, at: now, der, rank }))
}

/// Certificates of a CA that are revoked.
fn leaves(all: &[(CredentialId, RevokedCredential)], ca: &KeyId) -> Vec<RevokedCertificate> {
    let of_ca = all.iter().filter(|(_, it)| it.credential_type == CredentialType::X509 && it.key == *ca);
    let listed = of_ca.map(|(id, it)| RevokedCertificate {
        serial: id.as_bytes().to_vec(),
        at: it.at,
        reason: it.reason.clone(),
    });
    listed.collect()
}

/// Issuing CAs below our own root whose keys others know, while what they signed could still be shown.
fn compromised_cas(desk: &Desk, now: UnixMs) -> Vec<RevokedCertificate> {
    let state = desk.log.state();
    let known_to_others = state.keys().values().filter(|key| {
        key.usage == KeyUse::Ca && key.state == KeyState::Compromised && key.origin.as_str() != UPSTREAM
    });
    let listed = known_to_others.map(|key| RevokedCertificate {
        serial: serial_of_ca(&key.public),
        at: key.publish_until_ms.min(now),
        reason: "cACompromise".into(),
    });
    listed.collect()
}

fn lists(told: &Told) -> Lists {
    let pem = |crl: &Crl| pem::encode(&pem::Pem::new("X509 CRL", crl.der.clone()));
    let mut ranked: Vec<&Crl> = told.crls.values().collect();
    ranked.sort_by_key(|crl| crl.rank);
    let all: String = ranked.into_iter().map(pem).collect();
    Lists {
        feed: told.feed.clone(),
        crls: Some(Page::signed(all.into_bytes(), "application/x-pem-file")),
        crl_by_key: told
            .crls
            .iter()
            .map(|(key, crl)| (key.to_string(), Page::signed(crl.der.clone(), "application/pkix-crl")))
            .collect(),
    }
}
