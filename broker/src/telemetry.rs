//! Logs and metrics of the process. Neither ever carries a token, a key or a proof.

use std::io::IsTerminal;

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

/// Calls to issue, by `result`: `issued` or the outward reason of the refusal.
pub const ISSUES: &str = "daypass_issue_total";
/// From the call to its answer, seconds.
pub const ISSUE_SECONDS: &str = "daypass_issue_duration_seconds";
/// Proofs that failed, by inner `reason`.
pub const PROOF_FAILURES: &str = "daypass_proof_failures_total";
/// Entries in one commit.
pub const BATCH_ENTRIES: &str = "daypass_log_batch_entries";
/// Drafts that were decided again, since the state moved under them or they waited too long.
pub const STALE_DRAFTS: &str = "daypass_log_stale_drafts_total";
/// One commit, its sync included, seconds.
pub const COMMIT_SECONDS: &str = "daypass_log_commit_duration_seconds";
/// Entries in the log.
pub const LOG_ENTRIES: &str = "daypass_log_entries";
/// Credentials that were issued and have not ended.
pub const LIVE_CREDENTIALS: &str = "daypass_live_credentials";
/// When the scrubber last came to the end of the log, seconds since the epoch.
pub const SCRUBBED_AT: &str = "daypass_scrub_completed_timestamp_seconds";
/// Entries that the scrubber reads in a second.
pub const SCRUB_RATE: &str = "daypass_scrub_entries_per_second";
/// Fetches of an issuer's keys, by `issuer` and `result`: `ok` or `failed`.
pub const KEY_FETCHES: &str = "daypass_key_fetches_total";
/// Connections that were closed before TLS, being over a cap.
pub const CONNECTIONS_REFUSED: &str = "daypass_connections_refused_total";

/// Alarms that stand, by `code`.
pub const ALARMS: &str = "daypass_alarms";

/// Why logs or metrics could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The level is none.
    #[error(
        "`{level}` is no log level: {source}; expected one such as `info` or `warn,daypass_broker=debug`"
    )]
    Level {
        /// What was given.
        level: String,
        /// What is wrong with it.
        source: ParseError,
    },
    /// Logs are set up already.
    #[error("logs were set up twice")]
    Logs(#[from] TryInitError),
    /// Metrics are set up already, or their buckets are empty.
    #[error("metrics could not be set up: {0}")]
    Metrics(#[from] BuildError),
}

/// Starts the log of operations on standard error: text on a terminal, else one JSON object a line. `level` is a
/// level, or directives such as `warn,daypass_broker=debug`.
///
/// # Errors
/// When `level` is none, or logs are set up already.
pub fn start_logs(level: &str) -> Result<(), TelemetryError> {
    let logs = tracing_subscriber::fmt().with_env_filter(filter(level)?).with_writer(std::io::stderr);
    if std::io::stderr().is_terminal() {
        logs.compact().finish().try_init()?;
    } else {
        logs.json().flatten_event(true).finish().try_init()?;
    }
    Ok(())
}

/// The libraries that see requests could write them out at their chattiest: they are kept at `info`, unless a
/// directive of the operator names them.
fn filter(level: &str) -> Result<EnvFilter, TelemetryError> {
    let calm = "h2=info,hyper=info,hyper_util=info,tonic=info,tower=info,rustls=info,reqwest=info";
    EnvFilter::builder()
        .parse(format!("{calm},{level}"))
        .map_err(|source| TelemetryError::Level { level: level.to_owned(), source })
}

/// Starts counting. The handle renders what was counted, and wants `run_upkeep` every few seconds, which
/// [`crate::ops::serve`] does.
///
/// # Errors
/// When metrics are set up already.
pub fn start_metrics() -> Result<PrometheusHandle, TelemetryError> {
    let handle = recorder()?.install_recorder()?;
    describe();
    Ok(handle)
}

fn recorder() -> Result<PrometheusBuilder, BuildError> {
    let seconds =
        [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];
    let entries = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &seconds)?
        .set_buckets_for_metric(Matcher::Full(BATCH_ENTRIES.to_owned()), &entries)
}

fn describe() {
    describe_counter!(ISSUES, "Calls to issue, by result");
    describe_histogram!(ISSUE_SECONDS, Unit::Seconds, "From the call to issue to its answer");
    describe_counter!(PROOF_FAILURES, "Proofs that failed, by inner reason");
    describe_gauge!(ALARMS, "Alarms that stand");
    describe_histogram!(BATCH_ENTRIES, "Entries in one commit of the log");
    describe_histogram!(COMMIT_SECONDS, Unit::Seconds, "One commit of the log, its sync included");
    describe_counter!(STALE_DRAFTS, "Drafts that were decided again");
    describe_gauge!(LOG_ENTRIES, "Entries in the log");
    describe_gauge!(LIVE_CREDENTIALS, "Credentials that were issued and have not ended");
    describe_gauge!(SCRUBBED_AT, Unit::Seconds, "When the whole log was last read again and found sound");
    describe_gauge!(SCRUB_RATE, "Entries that the scrubber reads in a second");
    describe_counter!(KEY_FETCHES, "Fetches of an issuer's keys, by issuer and result");
    describe_counter!(CONNECTIONS_REFUSED, "Connections closed before TLS because of a cap");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_that_is_none_is_refused_with_an_example() {
        for good in ["info", "warn,daypass_broker=debug", "off"] {
            assert!(filter(good).is_ok(), "{good}");
        }
        let refusal = filter("daypass_broker=loud").unwrap_err().to_string();
        assert!(refusal.starts_with("`daypass_broker=loud` is no log level"), "{refusal}");
    }

    #[test]
    fn latencies_are_rendered_as_buckets_that_can_be_added_over_brokers() {
        let recorder = recorder().unwrap().build_recorder();
        metrics::with_local_recorder(&recorder, || {
            describe();
            metrics::histogram!(ISSUE_SECONDS).record(0.0009);
            metrics::counter!(ISSUES, "result" => "issued").increment(2);
        });
        let text = recorder.handle().render();
        assert!(text.contains(r#"daypass_issue_total{result="issued"} 2"#), "{text}");
        assert!(text.contains(r#"daypass_issue_duration_seconds_bucket{le="0.001"} 1"#), "{text}");
        assert!(text.contains(r#"daypass_issue_duration_seconds_bucket{le="0.0005"} 0"#), "{text}");
    }
}
