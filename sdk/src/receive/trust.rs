//! What is trusted at one moment: keys, roots and revocations. Pure: whoever asks says what time it is.

use std::sync::Arc;

use daypass_verify::certificate::TrustAnchors;
use daypass_verify::credential::{
    Expected, Presenter, Profile, verify_certificate, verify_server_certificate, verify_token,
};
use daypass_verify::ids::{SpiffeId, TrustDomain};
use daypass_verify::jwks::KeySet;
use daypass_verify::revocations::{CUT_OFFS_MAX, Revocations, Shown};
use daypass_verify::scope::Audience;
use rustls_pki_types::CertificateDer;

use super::caller::Caller;
use super::peer::Peer;
use super::refused::Refused;
use super::{Feed, LEEWAY, ReceiverConfig};
use crate::clock::Moment;
use crate::published::Published;

/// How long keys and roots are used while nobody answers, in ms: 15 minutes.
const STALE_AFTER_MS: i64 = 900_000;

/// What a receiver believes at one moment.
#[derive(Debug, Clone)]
pub struct Trust {
    me: Arc<Me>,
    /// Grows with each change of the roots.
    epoch: u64,
    keys: Option<Keys>,
    feed: Option<Arc<Revocations>>,
}

/// Who the receiver is.
#[derive(Debug)]
struct Me {
    trust_domain: TrustDomain,
    audience: Audience,
    profile: Profile,
    feed: Feed,
}

#[derive(Debug, Clone)]
struct Keys {
    published: Arc<Published>,
    anchors: Option<Arc<TrustAnchors>>,
    fetched: Moment,
}

impl Trust {
    /// Nothing is trusted yet.
    pub(super) fn none(config: &ReceiverConfig) -> Self {
        let me = Me {
            trust_domain: config.trust_domain.clone(),
            audience: config.audience.clone(),
            profile: config.profile,
            feed: config.feed,
        };
        Self { me: Arc::new(me), epoch: 0, keys: None, feed: None }
    }

    /// The same with what is published now.
    pub(super) fn with_keys(&self, published: Arc<Published>, fetched: Moment) -> Self {
        let same = self.keys.as_ref().filter(|it| it.published.roots == published.roots);
        let (epoch, anchors) = match same {
            Some(known) => (self.epoch, known.anchors.clone()),
            // Roots that cannot be used are none: no certificate leads to them.
            None => (self.epoch + 1, TrustAnchors::new(published.roots.clone()).ok().map(Arc::new)),
        };
        Self { epoch, keys: Some(Keys { published, anchors, fetched }), ..self.clone() }
    }

    /// The same with another feed.
    pub(super) fn with_feed(&self, feed: Revocations) -> Self {
        Self { feed: Some(Arc::new(feed)), ..self.clone() }
    }

    /// The keys of tokens, whatever their age.
    pub(super) fn token_keys(&self) -> Option<&KeySet> {
        self.keys.as_ref().map(|it| &it.published.token_keys)
    }

    /// The newest feed, whatever its age.
    #[must_use]
    pub fn revocations(&self) -> Option<&Revocations> {
        self.feed.as_deref()
    }

    /// Whether a credential could be verified at `now`.
    pub(super) fn check(&self, now: Moment) -> Result<(), Refused> {
        self.keys(now)?;
        self.feed(now).map(drop)
    }

    /// Verifies a token.
    pub(super) fn token(&self, compact: &str, presenter: Presenter, now: Moment) -> Result<Caller, Refused> {
        let keys = self.keys(now)?;
        let feed = self.feed(now)?;
        let set = match self.me.profile {
            Profile::AccessToken => &keys.published.token_keys,
            Profile::JwtSvid => &keys.published.svid_keys,
        };
        let expected = Expected {
            profile: self.me.profile,
            issuer: &keys.published.issuer,
            audience: &self.me.audience,
            presenter,
            now: now.wall,
            leeway: LEEWAY,
        };
        let token = verify_token(compact, set, &expected)?;
        self.check_domain(&token.subject.trust_domain())?;
        let shown =
            Shown { id: token.credential_id, subject: &token.subject, issuer: None, key: Some(&token.key) };
        not_revoked(feed, &shown)?;
        Ok(token.into())
    }

    /// Verifies the certificate of a peer.
    pub(super) fn certificate(&self, peer: &Peer, now: Moment) -> Result<Caller, Refused> {
        if peer.chain().is_empty() {
            return Err(Refused::NoCredential);
        }
        let keys = self.keys(now)?;
        let feed = self.feed(now)?;
        let anchors = keys.anchors.as_ref().ok_or(Refused::Unavailable("no roots are published"))?;
        let domain = &self.me.trust_domain;
        let verify = || verify_certificate(peer.chain(), anchors, None, domain, now.wall).map(Arc::new);
        let certificate = peer.verified(self.epoch, verify)?;
        // A connection outlives its certificate.
        if now.wall.floor_second() > certificate.expires_at {
            return Err(Refused::Invalid(daypass_verify::certificate::CertificateError::Expired.into()));
        }
        let locations = &certificate.task.locations;
        if !locations.is_empty() && !locations.contains(&self.me.audience) {
            return Err(Refused::Audience);
        }
        not_revoked(feed, &certificate.shown())?;
        Ok(Caller::from(&*certificate))
    }

    /// Verifies the certificate of a service, leaf first.
    pub(super) fn service(&self, chain: &[CertificateDer<'_>], now: Moment) -> Result<SpiffeId, Refused> {
        let keys = self.keys(now)?;
        let feed = self.feed(now)?;
        let anchors = keys.anchors.as_ref().ok_or(Refused::Unavailable("no roots are published"))?;
        let certificate = verify_server_certificate(chain, anchors, &self.me.trust_domain, now.wall)?;
        not_revoked(feed, &certificate.shown())?;
        Ok(certificate.subject)
    }

    fn check_domain(&self, found: &TrustDomain) -> Result<(), Refused> {
        use daypass_verify::credential::CredentialError::TrustDomain as Foreign;
        let domain = &self.me.trust_domain;
        if found == domain { Ok(()) } else { Err(Refused::Invalid(Foreign(domain.clone()))) }
    }

    fn keys(&self, now: Moment) -> Result<&Keys, Refused> {
        let fresh = |it: &&Keys| now.boot_ms - it.fetched.boot_ms <= STALE_AFTER_MS;
        self.keys
            .as_ref()
            .filter(fresh)
            .ok_or(Refused::Unavailable("the broker's keys are not known, or too old"))
    }

    /// The feed, fresh; none where none is wanted.
    fn feed(&self, now: Moment) -> Result<Option<&Revocations>, Refused> {
        if self.me.feed == Feed::Ignored {
            return Ok(None);
        }
        let fresh = |it: &&Revocations| now.wall < it.expires_at.plus(LEEWAY);
        let feed = self.feed.as_deref().filter(fresh);
        feed.map(Some).ok_or(Refused::Unavailable("the feed of revocations is not known, or too old"))
    }
}

fn not_revoked(feed: Option<&Revocations>, shown: &Shown<'_>) -> Result<(), Refused> {
    let Some(feed) = feed else { return Ok(()) };
    match feed.revoked.covers(shown) {
        Some(by) => Err(Refused::Revoked(by, shown.id)),
        None if knows(feed, shown) => Ok(()),
        None => {
            Err(Refused::Unavailable("more is revoked than the feed has room for: this one cannot be judged"))
        }
    }
}

/// Whether a feed that does not name a credential says that it is good. A full one leaves out the oldest.
fn knows(feed: &Revocations, shown: &Shown<'_>) -> bool {
    let revoked = &feed.revoked;
    let offs = revoked.cut_offs();
    let full = [offs.identities.len(), offs.issuers.len(), offs.keys.len()].contains(&CUT_OFFS_MAX);
    revoked.is_complete() || (!full && revoked.ids().first().is_some_and(|oldest| shown.id >= *oldest))
}

#[cfg(test)]
mod tests;
