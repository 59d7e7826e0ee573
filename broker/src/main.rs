//! The broker's program: `dev`, `init`, `serve`, `check`, `verify`.

mod args;
mod commands;

use std::process::ExitCode;

use clap::Parser as _;

/// Issuance makes and drops many small values; this allocator spends about half as much on each as the system's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    let args = args::Args::parse();
    match commands::run(args.command).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("daypass-broker: {failure}");
            failure.exit_code()
        }
    }
}
