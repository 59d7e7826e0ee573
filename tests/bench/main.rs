//! `bench`: what the broker does in a second, beside what its parts cost alone, measured in one run.

mod agent;
mod broker;
mod brokers;
mod case;
mod client;
mod expiry;
mod load;
mod log;
mod process;
mod raw;
mod table;
mod token;
mod verify;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};

use broker::Deployment;
use case::{CASES, Case};

/// How much is in flight at once.
const IN_FLIGHT: [usize; 4] = [1, 16, 64, 256];

/// What went wrong; a benchmark that cannot measure says so and ends.
pub(crate) type Fault = Box<dyn std::error::Error + Send + Sync>;

#[derive(Parser)]
#[command(name = "bench", about = "Measures the broker, with what its parts cost alone, in one run")]
struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Issuance: broker on one core, clients on the other, mTLS gRPC, durable before the answer
    Issue {
        /// One JSON object a row instead of the table
        #[arg(long)]
        json: bool,
        /// Seconds of load for each row
        #[arg(long, default_value_t = 5)]
        seconds: u64,
        /// Only this case
        #[arg(long)]
        case: Option<String>,
        /// Only this many in flight
        #[arg(long)]
        in_flight: Option<usize>,
    },
    /// The log alone: bytes, memory, restart, verification, lookups and proofs at a size
    Log {
        /// How many entries
        #[arg(long, default_value_t = 10_000_000)]
        entries: u64,
        /// Where to write it for the while: about 1.7 KB an entry [default: beside this program]
        #[arg(long, value_name = "DIR")]
        folder: Option<PathBuf>,
        /// One JSON object instead of lines
        #[arg(long)]
        json: bool,
    },
    /// Two brokers on one PostgreSQL against one: rate, refusals, drafts that were decided again
    Brokers {
        /// One JSON object a row instead of the table
        #[arg(long)]
        json: bool,
        /// Seconds of load for each row
        #[arg(long, default_value_t = 5)]
        seconds: u64,
    },
    /// Very many credentials that end in the same moment: until the last ending, and issuance meanwhile
    Expiry {
        /// How many
        #[arg(long, default_value_t = 1_000_000)]
        credentials: u64,
        /// One JSON object instead of lines
        #[arg(long)]
        json: bool,
    },
    /// Tokens by HTTP/1.1 and HTTP/2 beside gRPC, by either proof
    Token {
        /// One JSON object a row instead of the table
        #[arg(long)]
        json: bool,
        /// Seconds of load for each row
        #[arg(long, default_value_t = 5)]
        seconds: u64,
        /// Only this many in flight
        #[arg(long)]
        in_flight: Option<usize>,
    },
    /// Agents that renew at one broker, each on a connection of its own, and one agent alone: its memory, its syncs
    Agent {
        /// One JSON object a row instead of the table
        #[arg(long)]
        json: bool,
        /// How many
        #[arg(long, default_value_t = 5_000)]
        agents: usize,
    },
    /// What a receiver of credentials verifies, on one core: the SDK's layer against the signature alone
    Verify {
        /// One JSON object instead of lines
        #[arg(long)]
        json: bool,
        /// Seconds of load for each of both
        #[arg(long, default_value_t = 5)]
        seconds: u64,
        /// How many revocations the feed lists
        #[arg(long, default_value_t = 10_000)]
        revocations: u32,
    },
    /// A start on a log that `log` wrote
    #[command(hide = true)]
    LogStart { folder: PathBuf },
    /// The broker itself: what the others start
    #[command(hide = true)]
    Broker { seat: PathBuf },
}

/// As the broker's own program has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<(), Fault> {
    match Args::parse().what {
        What::Log { entries, folder, json } => log::run(entries, folder, json),
        What::LogStart { folder } => log::start(&folder),
        What::Broker { seat } => broker::serve(&seat),
        What::Brokers { json, seconds } => tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(brokers::run(json, Duration::from_secs(seconds))),
        What::Expiry { credentials, json } => {
            process::stay_on_core(1)?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(expiry::run(json, credentials))
        }
        What::Token { json, seconds, in_flight } => {
            process::stay_on_core(1)?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(token::run(json, Duration::from_secs(seconds), &sizes(in_flight)))
        }
        What::Agent { json, agents } => {
            process::stay_on_core(1)?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(agent::run(json, agents))
        }
        What::Verify { json, seconds, revocations } => {
            process::stay_on_core(1)?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(verify::run(json, revocations, Duration::from_secs(seconds)))
        }
        What::Issue { json, seconds, case, in_flight } => {
            let wanted = |it: &&Case| case.as_deref().is_none_or(|name| it.name == name);
            issue(json, Duration::from_secs(seconds), CASES.iter().filter(wanted), &sizes(in_flight))
        }
    }
}

fn sizes(only: Option<usize>) -> Vec<usize> {
    IN_FLIGHT.into_iter().filter(|size| only.is_none_or(|one| one == *size)).collect()
}

fn issue<'a>(
    json: bool,
    load: Duration,
    cases: impl Iterator<Item = &'a Case>,
    sizes: &[usize],
) -> Result<(), Fault> {
    process::stay_on_core(1)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut deployment = Deployment::start().await?;
        let raw = raw::measure(&deployment).await?;
        if !json {
            raw.print();
            table::head();
        }
        let idle = deployment.broker.process.memory_kib()?;
        for case in cases {
            for in_flight in sizes {
                let row = case::run(case, *in_flight, load, &deployment, &raw).await?;
                if json { println!("{}", serde_json::to_string(&row)?) } else { row.print() }
            }
        }
        let after = deployment.broker.process.memory_kib()?;
        if !json {
            println!("memory of the broker: {} MiB idle, {} MiB after all of it", idle / 1024, after / 1024);
        }
        deployment.broker.stop().await
    })
}
