//! Callers that ask without a pause, and what they see.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use daypass_broker::dev::caller::Caller;
use daypass_tests::harness::{issue, task};
use tokio::task::JoinHandle;

use super::deployment::Walk;

/// What callers saw.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) issued: usize,
    pub(super) refused: usize,
    /// The longest time between two credentials of one caller.
    pub(super) longest_ms: u128,
    pub(super) credentials: Vec<String>,
    /// The newest one that came with a receipt.
    pub(super) checkpoint: Vec<u8>,
}

pub(super) struct Callers {
    issued: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
    asking: Vec<JoinHandle<()>>,
}

impl Callers {
    /// Two callers of each broker.
    pub(super) fn of(walk: &Walk, ports: &[u16]) -> Self {
        let (issued, over, seen) = <(Arc<AtomicUsize>, Arc<AtomicBool>, Arc<Mutex<Seen>>)>::default();
        let asking = ports.iter().chain(ports).map(|port| {
            let (issued, over, seen) = (Arc::clone(&issued), Arc::clone(&over), Arc::clone(&seen));
            let (port, ca, certificate) = (*port, walk.path("server-ca.pem"), walk.nightly());
            tokio::spawn(async move {
                let mut newest = Instant::now();
                while !over.load(Ordering::Relaxed) {
                    let Ok(caller) = Caller::connect(port, &ca, Some(&certificate)).await else { continue };
                    loop {
                        let answer = issue(&caller, task("post-invoices")).await;
                        let mut seen = seen.lock().unwrap();
                        let Ok(answer) = answer else {
                            seen.refused += 1;
                            break;
                        };
                        seen.issued += 1;
                        seen.longest_ms = seen.longest_ms.max(newest.elapsed().as_millis());
                        newest = Instant::now();
                        seen.credentials.push(answer.credential_id);
                        seen.checkpoint = answer.receipt.unwrap().checkpoint.to_vec();
                        issued.fetch_add(1, Ordering::Relaxed);
                        if over.load(Ordering::Relaxed) {
                            break;
                        }
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            })
        });
        let asking = asking.collect();
        Self { issued, over, seen, asking }
    }

    pub(super) fn issued(&self) -> usize {
        self.issued.load(Ordering::Relaxed)
    }

    pub(super) async fn wait_for(&self, count: usize) {
        for _ in 0..1_500 {
            if self.issued() >= count {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{} credentials in 30 s, and not {count}", self.issued());
    }

    pub(super) async fn stop(self) -> Seen {
        self.over.store(true, Ordering::Relaxed);
        for caller in self.asking {
            caller.await.unwrap();
        }
        std::mem::take(&mut *self.seen.lock().unwrap())
    }
}
