//! The listener for operators, and whether this broker is ready.

use std::sync::Arc;

use daypass_evidence::entry::KeyUse;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{ServeError, upkeep};
use crate::issue::Desk;
use crate::ops::{self, NotReady, Readiness};

pub(super) fn serve_ops(
    listener: TcpListener,
    desk: &Desk,
    shutdown: &CancellationToken,
) -> Result<JoinHandle<()>, ServeError> {
    let metrics = upkeep::metrics()?;
    let readiness = readiness(desk);
    let shutdown = shutdown.clone();
    Ok(tokio::spawn(async move {
        if let Err(error) = ops::serve(listener, metrics, readiness, shutdown).await {
            tracing::error!(%error, "the listener for operators failed");
        }
    }))
}

/// Ready means: it can record and sign.
fn readiness(desk: &Desk) -> Readiness {
    let desk = desk.clone();
    Arc::new(move || {
        let (state, now) = (desk.log.state(), desk.clock.now());
        let mut reasons = Vec::new();
        if state.bundle().is_none() {
            reasons.push(NotReady { part: "bundle", detail: "no bundle is in force: activate one".into() });
        }
        if state.signing_key(KeyUse::Token, now).is_none() {
            reasons.push(NotReady { part: "keys", detail: "no key for tokens may sign now: rotate".into() });
        }
        if let Some(why) = desk.log.halt().why() {
            reasons.push(NotReady { part: "halt", detail: why });
        }
        if let Some(why) = desk.log.watch().off() {
            reasons.push(NotReady { part: "clock", detail: why });
        } else if let Some(fault) = desk.log.fault() {
            reasons.push(NotReady { part: "log", detail: fault });
        }
        if desk.log.is_full() {
            let detail = "the store is full: make room, and issuance goes on by itself".into();
            reasons.push(NotReady { part: "store", detail });
        }
        reasons
    })
}
