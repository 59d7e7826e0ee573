//! Witnesses: others who sign our checkpoints, each only if the log grew from the last one that it signed (C2SP
//! tlog-witness). Off the path of issuance: a witness that is slow, silent or wrong changes nothing but alarms.
//!
//! What a witness says against us is its word alone, so it never halts the broker: a note by our own key does, when a
//! caller brings it. It is an alarm, with what was said kept as evidence.

mod ask;
mod record;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use daypass_evidence::checkpoint::Checkpoint;
use daypass_evidence::note::{Cosignature, NoteError, WitnessKey};
use daypass_evidence::tree::consistency_proof;
use daypass_verify::ids::Name;
use futures::future::join_all;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};
use url::Url;

pub use ask::{WitnessUrlError, submission_url};

use crate::index::{self, Readers};
use crate::issue::Desk;
use crate::store::StoreError;
use ask::{Answer, Asker};
use record::Standing;

/// How often one checkpoint is offered to one witness: again, where it told which size it knows.
const ATTEMPTS: usize = 3;

/// How far a witness's clock may lie from ours.
const CLOCK_SLACK_S: u64 = 600;

/// One witness, as it is configured.
#[derive(Debug, Clone)]
pub struct Witness {
    /// What entries and alarms call it.
    pub name: Name,
    /// Where checkpoints are submitted.
    pub url: Url,
    /// What verifies its cosignatures.
    pub key: WitnessKey,
}

/// Whom to ask, and how often.
#[derive(Debug, Clone)]
pub struct WitnessSettings {
    /// The witnesses.
    pub witnesses: Vec<Witness>,
    /// How long after one round the next begins.
    pub every: Duration,
    /// After how long without a cosignature the alarm WITNESS_SILENT is raised.
    pub silent_after: Duration,
}

impl Default for WitnessSettings {
    fn default() -> Self {
        Self { witnesses: Vec::new(), every: Duration::from_secs(60), silent_after: Duration::from_secs(600) }
    }
}

/// The newest checkpoint that a witness signed too.
#[derive(Debug, Clone)]
pub struct Cosigned {
    /// Its size.
    pub size: u64,
    /// The note with our signature and, below it, those of witnesses.
    pub note: Arc<[u8]>,
    /// When the round ended, on the clock that runs since boot.
    at_boot_ms: i64,
}

/// Where the newest cosigned checkpoint is kept.
#[derive(Debug, Clone, Default)]
pub struct Cosignatures {
    newest: Arc<ArcSwapOption<Cosigned>>,
    fresh_ms: i64,
}

impl Cosignatures {
    fn kept_for(fresh: Duration) -> Self {
        Self { newest: Arc::default(), fresh_ms: i64::try_from(fresh.as_millis()).unwrap_or(i64::MAX) }
    }

    /// The cosigned checkpoint of exactly this size, where it is still kept.
    #[must_use]
    pub fn of_size(&self, size: u64) -> Option<Arc<Cosigned>> {
        self.newest.load_full().filter(|cosigned| cosigned.size == size)
    }

    /// The newest one, unless witnesses have been silent for so long that it would hide how the log grew.
    #[must_use]
    pub fn fresh(&self, boot_ms: i64) -> Option<Arc<Cosigned>> {
        let is_fresh = |cosigned: &Arc<Cosigned>| boot_ms - cosigned.at_boot_ms <= self.fresh_ms;
        self.newest.load_full().filter(is_fresh)
    }
}

/// What one witness made of one checkpoint.
#[derive(Debug)]
enum Outcome {
    /// It signed.
    Cosigned(Cosignature),
    /// It signed a later one of ours meanwhile, that another broker showed it.
    Overtaken,
    /// It did not answer, or with nothing that can be used.
    Silent(String),
    /// It says that our log is not what we say.
    Contradicts(Contradiction),
}

/// An alarm's code, what happened, and the very words of the witness.
#[derive(Debug)]
struct Contradiction {
    code: &'static str,
    detail: String,
    evidence: Vec<u8>,
}

/// Asks the witnesses, where there are any, until the task is ended.
pub(crate) fn start(
    desk: Desk,
    readers: Readers,
    broker: Name,
    settings: WitnessSettings,
) -> (Cosignatures, Option<JoinHandle<()>>) {
    let cosignatures = Cosignatures::kept_for(settings.silent_after);
    if settings.witnesses.is_empty() {
        return (cosignatures, None);
    }
    let kept = cosignatures.clone();
    let task = tokio::spawn(async move {
        match Asker::new() {
            Ok(asker) => Rounds { desk, readers, broker, asker, kept }.run(settings).await,
            Err(error) => tracing::error!(%error, "witnesses cannot be asked"),
        }
    });
    (cosignatures, Some(task))
}

struct Rounds {
    desk: Desk,
    readers: Readers,
    broker: Name,
    asker: Asker,
    kept: Cosignatures,
}

/// A witness, with what is known of it since the start.
struct Asked {
    witness: Witness,
    /// The size of the newest checkpoint that it signed; 0 when that is not known.
    knows: u64,
    standing: Standing,
}

impl Rounds {
    async fn run(self, settings: WitnessSettings) {
        let now = self.desk.clock.boot_ms();
        let state = self.desk.log.state();
        let asked = |witness: Witness| {
            let standing = Standing::new(now, settings.silent_after, &state, &self.broker, &witness.name);
            Asked { witness, knows: 0, standing }
        };
        let mut witnesses: Vec<Asked> = settings.witnesses.into_iter().map(asked).collect();
        let mut ticks = interval(settings.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Err(error) = self.round(&mut witnesses).await {
                tracing::error!(%error, "a round of witnesses could not be held");
            }
        }
    }

    /// Shows all witnesses the same checkpoint, and keeps it with the signatures that came.
    async fn round(&self, witnesses: &mut [Asked]) -> Result<(), StoreError> {
        let offered = self.newest().await?;
        let outcomes = join_all(witnesses.iter_mut().map(|asked| self.offer(asked, &offered))).await;
        let lines: String = outcomes.iter().filter_map(signed).map(|said| said.line.as_str()).collect();
        if !lines.is_empty() {
            let note = [offered.note.as_slice(), lines.as_bytes()].concat().into();
            let at_boot_ms = self.desk.clock.boot_ms();
            self.kept.newest.store(Some(Arc::new(Cosigned {
                size: offered.checkpoint.size,
                note,
                at_boot_ms,
            })));
        }
        for (asked, outcome) in witnesses.iter_mut().zip(outcomes) {
            asked.standing.record(&self.desk, &asked.witness.name, &offered, outcome).await;
        }
        Ok(())
    }

    /// The head in the store, opened: what is offered, and what proofs can be made of.
    async fn newest(&self) -> Result<Offered, StoreError> {
        let head = self.readers.run(|reader| reader.head()).await?;
        let head = head.ok_or_else(|| StoreError::Damaged("there is no log in this store".into()))?;
        let checkpoint = Checkpoint::open(&head.checkpoint, self.desk.log.key())
            .map_err(|error| StoreError::Damaged(format!("the head's checkpoint: {error}")))?;
        Ok(Offered { checkpoint, note: head.checkpoint })
    }

    async fn offer(&self, asked: &mut Asked, offered: &Offered) -> Outcome {
        let size = offered.checkpoint.size;
        for _ in 0..ATTEMPTS {
            // It may have signed a later one, that another broker showed it.
            let old = if asked.knows <= size { asked.knows } else { 0 };
            let answer = match self.ask(&asked.witness, old, offered).await {
                Ok(answer) => answer,
                Err(detail) => return Outcome::Silent(detail),
            };
            match answer {
                Answer::Signed(lines) => {
                    let outcome = read(&asked.witness, offered, lines, self.desk.clock.now().get() / 1000);
                    if signed(&outcome).is_some() {
                        asked.knows = size;
                    }
                    return outcome;
                }
                Answer::Knows(known, _) if known > size => return self.is_ahead(asked, known).await,
                Answer::Knows(known, _) if known != old => asked.knows = known,
                // It knows exactly what we say it does: then it is the tree that it has otherwise.
                Answer::Knows(known, said) => return split(offered, known, said),
                Answer::Inconsistent(said) => {
                    return if old == 0 {
                        silent("422 for an empty proof")
                    } else {
                        split(offered, old, said)
                    };
                }
                Answer::Other(status) => return silent(&format!("status {status}")),
            }
        }
        silent("another size each time")
    }

    async fn ask(&self, witness: &Witness, old: u64, offered: &Offered) -> Result<Answer, String> {
        let size = offered.checkpoint.size;
        let prove = move |reader: &dyn crate::store::Reader| {
            index::prove(reader, |nodes| consistency_proof(old, size, nodes))
        };
        let proof = self.readers.run(prove).await.map_err(|error| error.to_string())?;
        self.asker.add_checkpoint(&witness.url, old, &proof, &offered.note).await
    }

    /// The witness signed a larger tree than was offered: one of ours by now, or one that this store lost.
    async fn is_ahead(&self, asked: &mut Asked, known: u64) -> Outcome {
        match self.newest().await {
            Ok(newest) if newest.checkpoint.size >= known => {
                asked.knows = known;
                Outcome::Overtaken
            }
            Ok(newest) => Outcome::Contradicts(Contradiction {
                code: "ROLLBACK",
                detail: format!(
                    "it signed a checkpoint of size {known}, and the store has {}",
                    newest.checkpoint.size
                ),
                evidence: format!("{known}\n").into_bytes(),
            }),
            Err(error) => Outcome::Silent(error.to_string()),
        }
    }
}

/// A checkpoint as it is shown.
#[derive(Debug)]
struct Offered {
    checkpoint: Checkpoint,
    note: Vec<u8>,
}

fn signed(outcome: &Outcome) -> Option<&Cosignature> {
    match outcome {
        Outcome::Cosigned(cosignature) => Some(cosignature),
        _ => None,
    }
}

/// What a witness's signature lines are worth.
fn read(witness: &Witness, offered: &Offered, lines: Vec<u8>, now_s: i64) -> Outcome {
    match witness.key.cosignature(&offered.checkpoint, &lines) {
        Ok(said) if i64::try_from(said.time_s).is_ok_and(|at| at.abs_diff(now_s) <= CLOCK_SLACK_S) => {
            Outcome::Cosigned(said)
        }
        Ok(said) => silent(&format!("a cosignature of another time: {} s since the epoch", said.time_s)),
        Err(NoteError::BadSignature(_)) => Outcome::Contradicts(Contradiction {
            code: "SPLIT_VIEW",
            detail: format!(
                "its signature is not of the checkpoint of size {} that it was shown",
                offered.checkpoint.size
            ),
            evidence: lines,
        }),
        Err(error) => silent(&error.to_string()),
    }
}

fn split(offered: &Offered, known: u64, evidence: Vec<u8>) -> Outcome {
    Outcome::Contradicts(Contradiction {
        code: "SPLIT_VIEW",
        detail: format!(
            "it signed another tree of size {known} than the one that grew to size {}",
            offered.checkpoint.size
        ),
        evidence,
    })
}

fn silent(detail: &str) -> Outcome {
    Outcome::Silent(format!("it answered with {detail}"))
}
