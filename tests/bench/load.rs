//! Callers that ask one time after the other, so many at once, for a while.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use daypass_proto::v1 as pb;
use hdrhistogram::Histogram;
use tokio::task::JoinHandle;

use crate::Fault;
use crate::client::Connection;

/// How long the load runs before it is measured.
pub(crate) const WARM_UP: Duration = Duration::from_millis(500);

/// What all callers send.
#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) message: Bytes,
    pub(crate) bearer: Option<Arc<str>>,
}

/// A load that runs.
pub(crate) struct Load(Vec<JoinHandle<Result<Answers, Fault>>>);

#[derive(Default)]
struct Answers {
    micros: Vec<u64>,
    refused: u64,
    refusal: Option<Fault>,
}

/// What came of a load in the time that was measured.
pub(crate) struct Loaded {
    /// From the call to its answer, microseconds.
    pub(crate) latencies: Histogram<u64>,
    pub(crate) refused: u64,
    refusal: Option<Fault>,
}

impl Load {
    /// So many callers, spread over the connections; what begins and ends within `measured` counts.
    pub(crate) fn start(
        connections: &[Connection],
        in_flight: usize,
        call: &Call,
        measured: Range<Instant>,
    ) -> Self {
        let callers = connections.iter().cycle().take(in_flight);
        Self(callers.map(|it| tokio::spawn(ask(it.clone(), call.clone(), measured.clone()))).collect())
    }

    /// What came of it.
    pub(crate) async fn end(self) -> Result<Loaded, Fault> {
        let latencies = Histogram::new_with_bounds(1, 60_000_000, 3)?;
        let mut loaded = Loaded { latencies, refused: 0, refusal: None };
        for caller in self.0 {
            let answers = caller.await??;
            answers.micros.into_iter().for_each(|micros| loaded.latencies.saturating_record(micros));
            loaded.refused += answers.refused;
            loaded.refusal = loaded.refusal.or(answers.refusal);
        }
        Ok(loaded)
    }
}

impl Loaded {
    /// The same, where any refusal is a fault.
    pub(crate) fn without_refusal(mut self) -> Result<Self, Fault> {
        self.refusal.take().map_or(Ok(self), Err)
    }

    /// Milliseconds at a quantile.
    pub(crate) fn ms(&self, quantile: f64) -> f64 {
        self.latencies.value_at_quantile(quantile) as f64 / 1000.0
    }
}

async fn ask(mut connection: Connection, call: Call, measured: Range<Instant>) -> Result<Answers, Fault> {
    let mut answers = Answers::default();
    while Instant::now() < measured.end {
        let began = Instant::now();
        let answer: Result<pb::IssueResponse, Fault> = connection
            .call("/daypass.v1.CredentialService/Issue", &call.message, call.bearer.as_deref())
            .await;
        let ended = Instant::now();
        match answer {
            Ok(answer) if answer.credential.is_none() || answer.receipt.is_none() => {
                return Err("an answer without a credential or without a receipt".into());
            }
            Ok(_) if measured.start <= began && ended <= measured.end => {
                answers.micros.push(u64::try_from((ended - began).as_micros())?);
            }
            Ok(_) => {}
            Err(refusal) => {
                answers.refused += 1;
                answers.refusal = Some(refusal);
            }
        }
    }
    Ok(answers)
}
