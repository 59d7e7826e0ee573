//! `daypass`: gets credentials, and reads and verifies the evidence of them.

mod args;
mod ask;
mod check;
mod errors;
mod explain;
mod failure;
mod get;
mod inspect;
mod log;
mod node;
mod output;
mod pages;
mod profile;
mod revoke;
mod rotate;
mod selector;
mod status;
mod suspend;

use std::process::ExitCode;

use clap::Parser as _;
use daypass_verify::time::UnixMs;

use args::{Args, Command};
use failure::Failure;
use output::Output;

fn main() -> ExitCode {
    let args = Args::parse();
    let outcome = run(args);
    if let Err(failure) = &outcome {
        failure.show();
    }
    ExitCode::from(outcome.map_or_else(|failure| failure.exit_code(), |()| 0))
}

fn run(args: Args) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Usage(format!("cannot start: {error}")))?;
    runtime.block_on(dispatch(args))
}

async fn dispatch(args: Args) -> Result<(), Failure> {
    let out = Output::new(args.format);
    let profile = || profile::load(&args.connection);
    match &args.command {
        Command::Get(get) => get::run(get, &profile()?, &out).await,
        Command::Inspect { file } => inspect::run(file, profile(), &out).await,
        Command::Explain(explain) => explain::run(explain, &profile()?, &out).await,
        Command::Log(log) => log::run(log, &args.connection, &out).await,
        Command::Check { directory } => check::run(directory, &out),
        Command::Revoke(revoke) => revoke::run(revoke, &profile()?, &out).await,
        Command::Rotate(rotate) => rotate::run(rotate, &profile()?, &out).await,
        Command::Suspend(order) => suspend::suspend(order, &profile()?, &out).await,
        Command::Resume(order) => suspend::resume(order, &profile()?, &out).await,
        Command::Node(node) => node::run(node, &profile()?, &out).await,
        Command::Status => status::run(&profile()?, &out).await,
        Command::Error { code } => errors::run(code.as_deref(), &out),
        Command::Completions { shell } => pages::completions(*shell, &out),
        Command::Man { command } => pages::man(command, &out),
    }
}

/// The only place where the program reads a clock.
fn now() -> UnixMs {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    UnixMs::new(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
