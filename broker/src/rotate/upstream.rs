//! Issuing CAs that the organisation's own CA signs: asked for, and put in force.

use daypass_core::rotation::{Installed, Times, install, is_requested, requested};
use daypass_core::state::{State, UPSTREAM};
use daypass_evidence::entry::{KeyChanged, KeyUse, NewEntry};
use daypass_verify::ids::Digest;
use daypass_verify::time::UnixMs;
use daypass_verify::upstream::{UpstreamPath, check_upstream};
use rustls_pki_types::CertificateDer;

use super::{Authority, RotateError, Rotation, step};
use crate::authority;
use crate::keyring::{KeyringError, make_key};
use crate::log::Attached;

impl Rotation {
    /// A request for the certificate of an issuing CA (PKCS#10, DER), and its key. A key that waits for its certificate is
    /// asked for again.
    ///
    /// # Errors
    /// When it could not be made or recorded.
    pub async fn request_ca(&self) -> Result<(KeyChanged, Vec<u8>), RotateError> {
        let _acting = self.acting.lock().await;
        let (state, now) = (self.newest_state().await, self.desk.clock.now());
        self.follow(&state).await?;
        let waiting = state.keys().values().find(|key| is_requested(key, now)).cloned();
        let key = match waiting {
            Some(key) => key,
            None => self.make_requested(&state, now).await?,
        };
        let trust_domain = state.trust_domain().ok_or(RotateError::NoRoot)?;
        let spki = self.desk.keyring.spki(&key.key).ok_or_else(|| KeyringError::Missing(key.key.clone()))?;
        let (statement, entry) = authority::request_statement(trust_domain, &key, &spki)?;
        let id = self.desk.ids.draw(now)?;
        let entry = NewEntry { id, request: None, by: None, body: entry.into() };
        let recorded = self.desk.log.record_statement(statement, entry, Attached::default()).await?;
        Ok((key, authority::sign(&self.desk.signer, &recorded)?))
    }

    async fn make_requested(&self, state: &State, now: UnixMs) -> Result<KeyChanged, RotateError> {
        let mut made = make_key(KeyUse::Ca, requested(now))?;
        made.changed.origin = UPSTREAM.into();
        let entry = made.changed.clone();
        let changes = vec![step::added(self, made, None)?];
        let written = step::record(self, state, changes, now, &mut Authority::default()).await;
        self.follow_or_say().await;
        written.map(|_| entry)
    }

    /// Puts an issuing CA in force that was asked for before: `ders` leads from its certificate to the root. With `dry_run`
    /// nothing is written.
    ///
    /// # Errors
    /// When the chain does not hold, or is of no key that waits for one: then nothing was done.
    pub async fn install_ca(
        &self,
        ders: &[CertificateDer<'static>],
        dry_run: bool,
    ) -> Result<KeyChanged, RotateError> {
        let _acting = self.acting.lock().await;
        let (state, now) = (self.newest_state().await, self.desk.clock.now());
        self.follow(&state).await?;
        let trust_domain = state.trust_domain().ok_or(RotateError::NoRoot)?;
        let path = check_upstream(ders, trust_domain, now)?;
        let waiting = state.keys().values().find(|key| is_requested(key, now) && key.public == path.public);
        let was = waiting.ok_or(RotateError::NotRequested)?;
        let installed = install(state.keys().values(), &path.root.key, path.not_after, &self.lifetimes, now);
        if installed.ca.sign_until <= installed.ca.sign_from {
            return Err(RotateError::TooShort(path.not_after));
        }
        let entry = issuing(was, &path, installed.ca, now);
        if !dry_run {
            let written = self.record_installed(&state, was, entry.clone(), &path, &installed, now).await;
            self.follow_or_say().await;
            written?;
        }
        Ok(entry)
    }

    async fn record_installed(
        &self,
        state: &State,
        was: &KeyChanged,
        entry: KeyChanged,
        path: &UpstreamPath,
        installed: &Installed,
        now: UnixMs,
    ) -> Result<(), RotateError> {
        let mut authority = Authority::default();
        let mut changes = step::changes(self, state, &installed.steps, now, &mut authority).await?;
        changes.insert(0, step::root(self, root(path, installed.root), path.root.certificate.to_vec())?);
        let certificates = path.chain.iter().flat_map(|der| der.iter().copied()).collect();
        changes.push(step::certified(self, was, entry, certificates).await?);
        step::record(self, state, changes, now, &mut authority).await.map(drop)
    }
}

fn issuing(was: &KeyChanged, path: &UpstreamPath, times: Times, now: UnixMs) -> KeyChanged {
    let mut digests = path.chain.iter().map(|der| Digest::of(der));
    KeyChanged {
        certificate: digests.next(),
        chain: digests.collect(),
        ..timed(was.clone(), times, times.state(now))
    }
}

/// A root that is somebody else's: published, and never signing here.
fn root(path: &UpstreamPath, times: Times) -> KeyChanged {
    let root = &path.root;
    let entry = KeyChanged {
        key: root.key.clone(),
        usage: KeyUse::Root,
        alg: root.alg.into(),
        public: root.public,
        state: times.state(times.publish_from),
        publish_from_ms: times.publish_from,
        sign_from_ms: times.sign_from,
        sign_until_ms: times.sign_until,
        publish_until_ms: times.publish_until,
        certificate: Some(Digest::of(&root.certificate)),
        chain: Vec::new(),
        origin: UPSTREAM.into(),
        reason: None,
    };
    let until = times.publish_until.min(root.not_after);
    KeyChanged { publish_until_ms: until, ..entry }
}

fn timed(key: KeyChanged, times: Times, state: daypass_evidence::entry::KeyState) -> KeyChanged {
    KeyChanged {
        state,
        publish_from_ms: times.publish_from,
        sign_from_ms: times.sign_from,
        sign_until_ms: times.sign_until,
        publish_until_ms: times.publish_until,
        ..key
    }
}
