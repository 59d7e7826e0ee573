//! `daypass-agent`: keeps credentials fresh for workloads that cannot ask a broker themselves.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use daypass_agent::config::Config;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use daypass_agent::{Failure, enrol, keep_memory_private, run, run_once};

/// Keeps credentials fresh for workloads that cannot ask a broker themselves: in files, at a Unix socket, to a child
/// process, on requests to a service. Every key of its configuration is described in docs/agent.md.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// The configuration, a TOML file.
    #[arg(long, global = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Says all that is wrong with the configuration, and changes nothing.
    Check,
    /// Trades the one-time code on standard input for the certificate of this machine as a node.
    Enrol,
    /// Fetches each credential once, puts it into its files, runs a command, and ends with its code; the files are taken
    /// away then, and what can be revoked is revoked. Without a command the files stay.
    Oneshot {
        /// The program and its arguments; those of `[exec]` where there are none.
        #[arg(last = true)]
        command: Vec<String>,
    },
}

/// As for `daypass`: the way the program was called, or its configuration, cannot be.
const USAGE: u8 = 2;
/// It could not begin.
const FAILED: u8 = 1;

fn main() -> ExitCode {
    let args = Args::parse();
    ExitCode::from(begin(&args).unwrap_or_else(|(code, what)| {
        eprintln!("daypass-agent: {what}");
        code
    }))
}

fn begin(args: &Args) -> Result<u8, (u8, String)> {
    let path = args.config.as_ref().ok_or((USAGE, "`--config FILE` is missing".to_owned()))?;
    let config = Config::read(path).map_err(|error| (USAGE, error.to_string()))?;
    match &args.command {
        Some(Command::Check) => {
            let (credentials, sockets) = (config.credentials.len(), config.sockets.len());
            let (shown, enforcers) = (path.display(), config.enforcers.len());
            let (proxies, auths) = (config.proxies.len(), config.auths.len());
            println!(
                "{shown}: as it should be: {credentials} credentials, {sockets} sockets, {proxies} proxies, {auths} auths, {enforcers} enforcers"
            );
            Ok(0)
        }
        Some(Command::Enrol) => start(&config, enrol(&config.connection)),
        Some(Command::Oneshot { command }) => start(&config, run_once(&config, command.clone())),
        None => start(&config, run(&config)),
    }
}

fn start(config: &Config, work: impl Future<Output = Result<u8, Failure>>) -> Result<u8, (u8, String)> {
    let failed = |what: &str, error: std::io::Error| (FAILED, format!("{what}: {error}"));
    keep_memory_private().map_err(|error| failed("cannot keep the memory private", error))?;
    // Only what this program and the client say: a library that talks to others may show what it sends.
    let own = Targets::new().with_targets([("daypass_agent", config.level), ("daypass_sdk", config.level)]);
    let output = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    tracing_subscriber::registry().with(output).with(own).init();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(2).build();
    let runtime = runtime.map_err(|error| failed("cannot start", error))?;
    let ended = runtime.block_on(work).map_err(|failure| (failure.exit_code(), failure.to_string()));
    // Nothing that still reads or writes may hold up the end.
    runtime.shutdown_background();
    ended
}
