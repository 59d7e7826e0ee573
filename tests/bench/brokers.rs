//! Two brokers on one PostgreSQL against one: nothing is kept on a core of its own, since server, brokers and callers
//! share what the machine has.

use std::sync::Arc;
use std::time::{Duration, Instant};

use daypass_broker::dev::caller::client_config;
use daypass_tests::harness::postgres::Postgres;
use serde::Serialize;

use crate::Fault;
use crate::broker::{Broker, Deployment};
use crate::case::CASES;
use crate::client::Connection;
use crate::load::{Load, WARM_UP};

/// How much is in flight at once, over all brokers.
const IN_FLIGHT: [usize; 3] = [16, 64, 256];

/// How many requests one connection carries at once: half of what a broker allows.
const STREAMS: usize = 32;

const STALE: &str = "daypass_log_stale_drafts_total";

#[derive(Serialize)]
struct Row {
    brokers: usize,
    in_flight: usize,
    per_s: f64,
    p50_ms: f64,
    p99_ms: f64,
    refused: u64,
    /// Drafts that were decided again, of all that were issued.
    stale_share: f64,
    commits_per_s: f64,
}

pub(crate) async fn run(json: bool, load: Duration) -> Result<(), Fault> {
    let server = Postgres::start_with("shared_buffers = 256MB\nmax_wal_size = 4GB");
    let database = server.any_database();
    let mut deployment = Deployment::start_on_postgres(&database).await?;
    let one: Vec<Row> = rows(&deployment, &[], load).await?;
    let mut second = deployment.another("b2").await?;
    let two = rows(&deployment, &[&second], load).await?;
    if !json {
        println!("brokers  in flight     per s    p50 ms    p99 ms   refused   stale drafts   commits/s");
    }
    for row in one.iter().chain(&two) {
        if json {
            println!("{}", serde_json::to_string(row)?);
        } else {
            println!(
                "{:>7} {:>10} {:>9.0} {:>9.2} {:>9.2} {:>9} {:>12.3} % {:>11.0}",
                row.brokers,
                row.in_flight,
                row.per_s,
                row.p50_ms,
                row.p99_ms,
                row.refused,
                row.stale_share * 100.0,
                row.commits_per_s
            );
        }
    }
    second.stop().await?;
    deployment.broker.stop().await
}

async fn rows(deployment: &Deployment, others: &[&Broker], load: Duration) -> Result<Vec<Row>, Fault> {
    let brokers: Vec<&Broker> = std::iter::once(&deployment.broker).chain(others.iter().copied()).collect();
    let mut rows = Vec::new();
    for in_flight in IN_FLIGHT {
        rows.push(row(deployment, &brokers, in_flight, load).await?);
    }
    Ok(rows)
}

async fn row(
    deployment: &Deployment,
    brokers: &[&Broker],
    in_flight: usize,
    load: Duration,
) -> Result<Row, Fault> {
    let [case, ..] = &CASES;
    let call = case.call(deployment)?;
    let tls = Arc::new(client_config(&deployment.ca, Some(&case.certificate(deployment)?))?);
    let mut connections = Vec::new();
    for _ in 0..in_flight.div_ceil(STREAMS * brokers.len()) {
        for broker in brokers {
            connections.push(Connection::open(broker.api, Arc::clone(&tls)).await?);
        }
    }
    let starts = Instant::now() + WARM_UP;
    let loading = Load::start(&connections, in_flight, &call, starts..starts + load);
    tokio::time::sleep_until(starts.into()).await;
    let before = counted(brokers).await?;
    tokio::time::sleep_until((starts + load).into()).await;
    let after = counted(brokers).await?;
    let loaded = loading.end().await?;
    let issued = loaded.latencies.len() as f64;
    Ok(Row {
        brokers: brokers.len(),
        in_flight,
        per_s: issued / load.as_secs_f64(),
        p50_ms: loaded.ms(0.5),
        p99_ms: loaded.ms(0.99),
        refused: loaded.refused,
        stale_share: (after.0 - before.0) / issued,
        commits_per_s: (after.1 - before.1) / load.as_secs_f64(),
    })
}

/// Stale drafts and commits of all brokers.
async fn counted(brokers: &[&Broker]) -> Result<(f64, f64), Fault> {
    let mut sum = (0.0, 0.0);
    for broker in brokers {
        sum.0 += broker.counted(STALE).await?.unwrap_or_default();
        sum.1 += broker.commits().await?;
    }
    Ok(sum)
}
