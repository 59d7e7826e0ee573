//! Very many credentials that end in the same moment: how long until each is called ended, and what whoever asks for
//! one meanwhile has to wait.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use daypass_broker::clock::{Clock as _, SystemClock};
use daypass_broker::dev::caller::client_config;
use daypass_broker::store::Reader;
use daypass_broker::store::sqlite::SqliteStore;
use daypass_proto::v1 as pb;
use daypass_verify::time::UnixMs;
use serde::Serialize;

use crate::Fault;
use crate::broker::Deployment;
use crate::case::CASES;
use crate::client::{Connection, framed};
use crate::load::{Call, Load, Loaded};

/// How many issuances fill the store at once.
const FILLING: usize = 128;

/// How many are asked for at once while the others end.
const IN_FLIGHT: usize = 16;

/// How many requests one connection carries at once: half of what the broker allows.
const STREAMS: usize = 32;

/// How long it is measured what issuing is like before.
const NORMAL: Duration = Duration::from_secs(5);

/// How long one round of asking takes.
const ROUND: Duration = Duration::from_secs(2);

/// The longest lifetime that the sample's task grants.
const TTL_MAX_S: i64 = 900;

/// Of the rate that was measured, what filling the store is trusted to reach.
const TRUSTED: f64 = 0.5;

/// Endings wait out the leeway that receivers may give.
const LEEWAY_MS: i64 = 30_000;

#[derive(Serialize)]
struct Figures {
    credentials: u64,
    issued_per_s: f64,
    /// How far apart their ends lie.
    ends_within_s: f64,
    /// From the end of the last until its ending was in the log: the leeway of 30 s is part of it.
    last_ending_s: f64,
    /// From when the first could be ended until the last was.
    sweeping_s: f64,
    normal_p50_ms: f64,
    normal_p99_ms: f64,
    meanwhile_p50_ms: f64,
    meanwhile_p99_ms: f64,
    meanwhile_max_ms: f64,
    /// The slowest hundredth meanwhile, in times of what it was before.
    p99_times: f64,
    memory_mib: f64,
}

pub(crate) async fn run(json: bool, credentials: u64) -> Result<(), Fault> {
    let mut deployment = Deployment::start().await?;
    let callers = Callers::new(&deployment).await?;
    let normal = callers.load(60, NORMAL).await?;
    // What was issued so far has ended by then, and is no part of what is measured.
    let per_s = normal.latencies.len() as f64 / NORMAL.as_secs_f64() * TRUSTED;
    let filling = Duration::try_from_secs_f64(credentials as f64 / per_s)?;
    let ends_s = SystemClock.now().seconds() + (i64::try_from(filling.as_secs())? + 30).max(150);
    let began = Instant::now();
    let issued = callers.fill(credentials, ends_s).await?;
    let issued_per_s = issued as f64 / began.elapsed().as_secs_f64();
    let reader = SqliteStore::open_reader(&deployment.store())?;
    let (first, last) = span(reader.as_ref(), ends_s)?;
    let due = first.plus_millis(LEEWAY_MS);
    sleep_until(due.plus_millis(-1_000)).await?;
    let over = Cell::new(false);
    let ended = async {
        let ended = all_ended(reader.as_ref(), last).await;
        over.set(true);
        ended
    };
    let (meanwhile, ended) = tokio::try_join!(callers.load_until(&over), ended)?;
    let figures = Figures {
        credentials: issued,
        issued_per_s,
        ends_within_s: seconds(last.millis_since(first)),
        last_ending_s: seconds(ended.millis_since(last)),
        sweeping_s: seconds(ended.millis_since(due)),
        normal_p50_ms: normal.ms(0.5),
        normal_p99_ms: normal.ms(0.99),
        meanwhile_p50_ms: meanwhile.ms(0.5),
        meanwhile_p99_ms: meanwhile.ms(0.99),
        meanwhile_max_ms: meanwhile.ms(1.0),
        p99_times: meanwhile.ms(0.99) / normal.ms(0.99),
        memory_mib: deployment.broker.process.memory_kib()? as f64 / 1024.0,
    };
    if json {
        println!("{}", serde_json::to_string(&figures)?)
    } else {
        figures.print()
    }
    deployment.broker.stop().await
}

impl Figures {
    fn print(&self) {
        println!("credentials       {}, issued at {:.0} a second", self.credentials, self.issued_per_s);
        println!("their ends        within {:.0} s", self.ends_within_s);
        println!("the last ending   {:.1} s after its end, the leeway of 30 s included", self.last_ending_s);
        println!("all endings       within {:.1} s of when the first was due", self.sweeping_s);
        let at = format!("at {IN_FLIGHT} in flight");
        println!("issuance {at}: p50 {:.2} ms, p99 {:.2} ms before", self.normal_p50_ms, self.normal_p99_ms);
        println!(
            "issuance {at}: p50 {:.2} ms, p99 {:.2} ms ({:.1} times), at most {:.0} ms meanwhile",
            self.meanwhile_p50_ms, self.meanwhile_p99_ms, self.p99_times, self.meanwhile_max_ms
        );
        println!("memory            {:.0} MiB", self.memory_mib);
    }
}

struct Callers(Vec<Connection>);

impl Callers {
    async fn new(deployment: &Deployment) -> Result<Self, Fault> {
        let [case, ..] = &CASES;
        let tls = Arc::new(client_config(&deployment.ca, Some(&case.certificate(deployment)?))?);
        let mut connections = Vec::new();
        for _ in 0..FILLING.div_ceil(STREAMS) {
            connections.push(Connection::open(deployment.broker.api, Arc::clone(&tls)).await?);
        }
        Ok(Self(connections))
    }

    async fn load(&self, ttl_s: i64, load: Duration) -> Result<Loaded, Fault> {
        let starts = Instant::now();
        let call = call(ttl_s)?;
        let loaded = Load::start(&self.0, IN_FLIGHT, &call, starts..starts + load).end().await?;
        loaded.without_refusal()
    }

    /// In rounds until it is over: only what was asked for by then counts.
    async fn load_until(&self, over: &Cell<bool>) -> Result<Loaded, Fault> {
        let mut all = self.load(TTL_MAX_S, ROUND).await?;
        while !over.get() {
            all.latencies.add(self.load(TTL_MAX_S, ROUND).await?.latencies)?;
        }
        Ok(all)
    }

    /// Issues so many credentials that end at `ends_s`, in rounds of a second that ask for what is left until then.
    async fn fill(&self, credentials: u64, ends_s: i64) -> Result<u64, Fault> {
        let mut issued = 0;
        while issued < credentials {
            let left_s = ends_s - SystemClock.now().seconds();
            if left_s < 20 {
                return Err(format!("only {issued} were issued by then: ask for fewer").into());
            }
            let call = call(left_s)?;
            let now = Instant::now();
            let round = Load::start(&self.0, FILLING, &call, now..now + Duration::from_secs(1));
            issued += round.end().await?.without_refusal()?.latencies.len();
        }
        Ok(issued)
    }
}

fn call(ttl_s: i64) -> Result<Call, Fault> {
    let [case, ..] = &CASES;
    let ttl = prost_types::Duration { seconds: ttl_s, nanos: 0 };
    let request = pb::IssueRequest { ttl: Some(ttl), ..case.request()? };
    Ok(Call { message: framed(&request), bearer: None })
}

/// The first and the last end of those that end about `ends_s`.
fn span(reader: &dyn Reader, ends_s: i64) -> Result<(UnixMs, UnixMs), Fault> {
    let from = UnixMs::new((ends_s - 5) * 1000);
    let after = daypass_broker::store::Live { exp: from, index: 0 };
    let first = reader.live_after(Some(after), 1)?.pop().ok_or("none is live")?.exp;
    let mut last = daypass_broker::store::Live { exp: first, index: 0 };
    while let Some(next) = reader.live_after(Some(last), 10_000)?.pop() {
        last = next;
    }
    Ok((first, last.exp))
}

/// When none that ends by `last` is live any more.
async fn all_ended(reader: &dyn Reader, last: UnixMs) -> Result<UnixMs, Fault> {
    let patience = last.plus_millis(120_000);
    while SystemClock.now() < patience {
        if reader.live_after(None, 1)?.first().is_none_or(|live| live.exp > last) {
            return Ok(SystemClock.now());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err("they were not ended within 120 s of their end".into())
}

async fn sleep_until(time: UnixMs) -> Result<(), Fault> {
    let ms = u64::try_from(time.millis_since(SystemClock.now()))
        .map_err(|_| "issuing took longer than their lives")?;
    tokio::time::sleep(Duration::from_millis(ms)).await;
    Ok(())
}

fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}
