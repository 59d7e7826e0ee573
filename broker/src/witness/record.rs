//! What the log says of witnesses: checkpoints that they signed, and alarms, each raised once and cleared once.

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::Duration;

use daypass_core::state::State;
use daypass_evidence::entry::{Alarm, AlarmState, Body, CheckpointAnchored, Index, NewEntry};
use daypass_evidence::note::Cosignature;
use daypass_verify::ids::{Digest, Name};
use daypass_verify::time::UnixMs;

use super::{Contradiction, Offered, Outcome};
use crate::issue::Desk;
use crate::log::{Attached, Place, RecordError};

const SILENT: &str = "WITNESS_SILENT";
const DETAIL_LEN_MAX: usize = 512;

/// How one witness stands with us.
pub(super) struct Standing {
    silent_after_ms: i64,
    /// When it last signed, or was first asked, on the clock that runs since boot.
    heard_boot_ms: i64,
    raised: HashMap<Cow<'static, str>, Index>,
}

impl Standing {
    /// With the alarms about it that an earlier run of this broker left standing.
    pub(super) fn new(
        boot_ms: i64,
        silent_after: Duration,
        state: &State,
        broker: &Name,
        witness: &Name,
    ) -> Self {
        let silent_after_ms = i64::try_from(silent_after.as_millis()).unwrap_or(i64::MAX);
        let about = about(witness, "");
        let left = state.alarms().filter(|(_, it)| it.broker == *broker && it.detail.starts_with(&about));
        let raised = left.map(|(index, alarm)| (alarm.code.clone().into(), index)).collect();
        Self { silent_after_ms, heard_boot_ms: boot_ms, raised }
    }

    pub(super) async fn record(&mut self, desk: &Desk, name: &Name, offered: &Offered, outcome: Outcome) {
        let now = desk.clock.boot_ms();
        match outcome {
            Outcome::Cosigned(said) => {
                self.heard_boot_ms = now;
                anchored(desk, name, offered, &said).await;
                self.clear(desk, name).await;
            }
            Outcome::Overtaken => self.heard_boot_ms = now,
            Outcome::Contradicts(said) => self.contradicted(desk, name, said).await,
            Outcome::Silent(detail) => {
                tracing::warn!(witness = %name, %detail, "a witness did not sign");
                if now - self.heard_boot_ms >= self.silent_after_ms {
                    self.raise(desk, name, SILENT, &detail, Attached::default()).await;
                }
            }
        }
    }

    async fn contradicted(&mut self, desk: &Desk, name: &Name, said: Contradiction) {
        let digest = Digest::of(&said.evidence);
        let detail = format!("{}; its words are kept as {digest}", said.detail);
        tracing::error!(witness = %name, code = said.code, %detail, "a witness contradicts the log");
        let attached = Attached { objects: vec![(digest, said.evidence)], ..Attached::default() };
        self.raise(desk, name, said.code, &detail, attached).await;
    }

    async fn raise(&mut self, desk: &Desk, name: &Name, code: &'static str, detail: &str, kept: Attached) {
        if self.raised.contains_key(code) {
            return;
        }
        let alarm = alarm(code, AlarmState::Raised, None, name, detail);
        let raised = append(desk, alarm.into(), kept).await;
        self.raised.extend(raised.map(|place| (Cow::Borrowed(code), place.index)));
    }

    /// Whoever signs the newest checkpoint says that it is consistent with all that it saw before.
    async fn clear(&mut self, desk: &Desk, name: &Name) {
        for (code, raised) in std::mem::take(&mut self.raised) {
            let alarm = alarm(&code, AlarmState::Cleared, Some(raised), name, "it signs");
            if append(desk, alarm.into(), Attached::default()).await.is_none() {
                self.raised.insert(code, raised);
            }
        }
    }
}

/// `checkpoint.anchored`; the cosigned note itself is kept as an object, by the digest in the entry.
async fn anchored(desk: &Desk, name: &Name, offered: &Offered, said: &Cosignature) {
    let note = [offered.note.as_slice(), said.line.as_bytes()].concat();
    let evidence = Digest::of(&note);
    let seconds = i64::try_from(said.time_s).unwrap_or(i64::MAX);
    let entry = CheckpointAnchored {
        size: offered.checkpoint.size,
        root: Digest::from_bytes(offered.checkpoint.root),
        kept: format!("witness:{name}"),
        evidence: Some(evidence),
        time_ms: Some(UnixMs::new(seconds.saturating_mul(1000))),
    };
    append(desk, entry.into(), Attached { objects: vec![(evidence, note)], ..Attached::default() }).await;
}

fn about(name: &Name, detail: &str) -> String {
    format!("witness `{name}`: {detail}")
}

fn alarm(code: &str, state: AlarmState, raised: Option<Index>, name: &Name, detail: &str) -> Alarm {
    let detail = about(name, detail).chars().take(DETAIL_LEN_MAX).collect();
    Alarm { code: code.into(), state, raised, detail: Some(detail) }
}

async fn append(desk: &Desk, body: Body, attached: Attached) -> Option<Place> {
    let written = async {
        let drawn = desk.ids.draw(desk.clock.now());
        let id = drawn.map_err(|error| RecordError::Unavailable(error.to_string()))?;
        desk.log.append(vec![NewEntry { id, request: None, by: None, body }], attached).await
    };
    match written.await {
        Ok(places) => places.into_iter().next(),
        Err(error) => {
            tracing::error!(%error, "what a witness said could not be recorded");
            None
        }
    }
}
