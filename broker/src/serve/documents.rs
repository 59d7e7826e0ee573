//! What verifiers are told of our keys and our log, from the state, the keyring and the store.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use daypass_core::rotation::Lifetimes;
use daypass_evidence::entry::KeyUse;
#[cfg(feature = "sabotage")]
use daypass_verify::time::Seconds;

use super::Settings;
use crate::index::Readers;
use crate::issue::Desk;
use crate::shelf::{Closed, Shelf};
use crate::store::StoreError;
use crate::tiles;
use crate::web::{
    Authorities, Documents, IssuerUrl, KeySchedule, LogShown, NewestCheckpoint, PublishedKey, ReadTile, Site,
    Tiles, documents,
};
use crate::witness::Cosignatures;

/// All that the HTTP listener at `at` serves. It has `readers` of its own: strangers never stand in the way of operators.
///
/// # Errors
/// When the store cannot be read.
pub(super) async fn site(
    settings: &Settings,
    desk: &Desk,
    readers: Readers,
    cosignatures: &Cosignatures,
    at: SocketAddr,
) -> Result<Arc<Site>, StoreError> {
    let shelf = Shelf::open(&settings.store, readers).await?;
    let others = [at.to_string(), format!("localhost:{}", at.port())];
    let checkpoint = checkpoint(settings, desk.clone(), cosignatures.clone());
    let tiles = settings.tiles.then(|| Tiles::new(tiles_by(shelf.newest())));
    let mut logs: BTreeMap<_, _> =
        shelf.all_closed().map(|closed| shown(closed, settings.checkpoint, tiles.as_ref())).collect();
    let newest = LogShown { checkpoint: Arc::clone(&checkpoint), tiles: tiles.clone() };
    logs.insert(name_of(&desk.log.published().head.origin), newest);
    Ok(Arc::new(Site {
        documents: ArcSwap::from_pointee(current(desk, &settings.issuer, &settings.lifetimes)),
        revoked: ArcSwap::default(),
        checkpoint,
        tiles,
        logs,
        authorities: Authorities::new(&settings.issuer, others),
    }))
}

/// A closed log, which changes no more.
fn shown(closed: &Closed, checkpoint: bool, newest: Option<&Tiles>) -> (String, LogShown) {
    let last: Arc<[u8]> = closed.head.checkpoint.as_slice().into();
    let checkpoint: NewestCheckpoint = Arc::new(move || checkpoint.then(|| Arc::clone(&last)));
    let tiles = newest.map(|newest| newest.of(tiles_by(&closed.readers)));
    (name_of(&closed.head.origin), LogShown { checkpoint, tiles })
}

/// The last part of an origin, which no two logs of one trust domain share.
fn name_of(origin: &str) -> String {
    origin.rsplit('/').next().unwrap_or(origin).to_owned()
}

/// The newest checkpoint, or, where there are witnesses, the newest that one of them signed: whoever trusts a witness
/// can do nothing with another. While none answers, the log still tells what it is.
fn checkpoint(settings: &Settings, desk: Desk, cosignatures: Cosignatures) -> NewestCheckpoint {
    let served = settings.checkpoint;
    Arc::new(move || {
        let cosigned = || cosignatures.fresh(desk.clock.boot_ms()).map(|cosigned| Arc::clone(&cosigned.note));
        served.then(|| cosigned().unwrap_or_else(|| desk.log.published().head.checkpoint.as_slice().into()))
    })
}

fn tiles_by(readers: &Readers) -> ReadTile {
    let readers = readers.clone();
    Arc::new(move |tile| {
        let readers = readers.clone();
        Box::pin(async move { readers.run(move |reader| tiles::hashes(reader, tile)).await })
    })
}

/// The documents as of now. A copy of them may be used for less time than a key is published before it signs.
pub(super) fn current(desk: &Desk, issuer: &IssuerUrl, lifetimes: &Lifetimes) -> Documents {
    let (state, now) = (desk.log.state(), desk.clock.now());
    let jwk = |key, usage| desk.keyring.jwk(key, usage);
    let mut keys = Vec::new();
    for changed in state.published_keys(KeyUse::Token, now) {
        keys.extend(jwk(&changed.key, "sig").map(PublishedKey::Token));
    }
    for changed in state.published_keys(KeyUse::Svid, now) {
        keys.extend(jwk(&changed.key, "jwt-svid").map(PublishedKey::JwtSvid));
    }
    for changed in state.published_keys(KeyUse::Root, now) {
        if let (Some(jwk), Some(certificate)) =
            (jwk(&changed.key, "x509-svid"), desk.keyring.certificate(&changed.key))
        {
            keys.push(PublishedKey::X509Svid { jwk, certificate });
        }
    }
    let max_age_s = lifetimes.max_age();
    #[cfg(feature = "sabotage")]
    let max_age_s = if crate::sabotage::breaks("p9") { Seconds::new(3_600) } else { max_age_s };
    documents(issuer, &keys, KeySchedule { max_age_s, sequence: state.at() })
}
