//! What was seen, told to the broker: kept while the broker is away.

use std::collections::VecDeque;
use std::time::Duration;

use daypass_sdk::{Client, Error, Observation, ObservationKind};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use tracing::warn;

use crate::clock::now;

/// How many observations wait for a broker at most: the oldest go first.
const WAITING_MAX: usize = 10_000;
/// How many go in one call.
const AT_ONCE: usize = 256;
/// How long one is worth telling, in milliseconds: brokers take none that is older than a day.
const AGE_MAX_MS: i64 = 23 * 3_600_000;
/// How long to wait for a broker that did not answer, at first and at most.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Where observations go.
pub(super) type Reports = mpsc::UnboundedSender<Observation>;

/// Tells until nobody observes any more.
pub(super) async fn tell(mut seen: mpsc::UnboundedReceiver<Observation>, clients: watch::Receiver<Client>) {
    let mut waiting = VecDeque::new();
    let mut retry = RETRY.0;
    loop {
        if waiting.is_empty() {
            let Some(first) = seen.recv().await else { return };
            waiting.push_back(first);
        }
        while let Ok(next) = seen.try_recv() {
            waiting.push_back(next);
        }
        forget(&mut waiting);
        let batch: Vec<Observation> = waiting.iter().take(AT_ONCE).cloned().collect();
        let client = clients.borrow().clone();
        match tell_all(&client, &batch).await {
            Ok(()) => {
                waiting.drain(..batch.len());
                retry = RETRY.0;
            }
            Err(error) => {
                warn!("{} observations wait for the broker: {error}", waiting.len());
                sleep(retry).await;
                retry = RETRY.1.min(retry * 2);
            }
        }
    }
}

fn forget(waiting: &mut VecDeque<Observation>) {
    let now = now();
    let before = waiting.len();
    waiting.retain(|it| it.at.is_none_or(|at| now.millis_since(at) < AGE_MAX_MS));
    waiting.drain(..waiting.len().saturating_sub(WAITING_MAX));
    if waiting.len() < before {
        warn!("{} observations were never told: the broker was away for too long", before - waiting.len());
    }
}

/// Tells all of them; where one of them cannot be, each alone.
async fn tell_all(client: &Client, seen: &[Observation]) -> Result<(), Error> {
    match client.observe(seen).await {
        Err(Error::FixRequest { .. }) => {
            for one in seen {
                tell_alone(client, one).await?;
            }
            Ok(())
        }
        told => told,
    }
}

/// A credential that the broker never issued for this target is told of as such: by its number, in words.
async fn tell_alone(client: &Client, one: &Observation) -> Result<(), Error> {
    let refusal = match client.observe(std::slice::from_ref(one)).await {
        Err(Error::FixRequest { refusal, .. }) => refusal,
        told => return told,
    };
    if let Some(id) = one.credential {
        let detail = format!("{id}: {}", one.detail);
        let kind = ObservationKind::Unseen;
        match client.observe(&[Observation { credential: None, kind, detail, ..one.clone() }]).await {
            Err(Error::FixRequest { .. }) => {}
            told => return told,
        }
    }
    warn!("an observation is not taken: {refusal}");
    Ok(())
}
