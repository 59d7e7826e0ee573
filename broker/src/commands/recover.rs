//! `recover`: what the operator is told of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use daypass_broker::clock::SystemClock;
use daypass_broker::config::Config;
use daypass_broker::recover::{Recovered, Recovery, recover};
use daypass_broker::store::StoreAt;

use super::store::{owned, store_at};
use super::{Failure, lifetimes};
use crate::args::Owner;

pub(super) async fn run(
    config: &Path,
    checkpoints: &[PathBuf],
    forked: bool,
    owner: &Owner,
) -> Result<(), Failure> {
    let config = Config::read(config)?;
    let store = owned(store_at(&config)?, &config, owner)?;
    let read = |path: &PathBuf| {
        let name = path.display().to_string();
        std::fs::read(path).map(|bytes| (name.clone(), bytes)).map_err(|error| Failure::File(name, error))
    };
    let done = recover(&Recovery {
        trust_domain: config.broker.trust_domain.clone(),
        broker: config.broker.name.clone(),
        store: &store,
        kek: &config.keys.kek_file,
        lifetimes: lifetimes(&config),
        anchor: &config.store.anchor,
        checkpoints: checkpoints.iter().map(read).collect::<Result<_, _>>()?,
        forked,
        clock: Arc::new(SystemClock),
    })
    .await?;
    print(&done, &store);
    Ok(())
}

fn print(done: &Recovered, store: &StoreAt) {
    let Recovered { opened, predecessor, gap, aside, carried } = done;
    println!("log      {}", opened.origin);
    println!("log key  {}   (keep it outside, beside the old one)", opened.log_key);
    println!("store    {store}");
    println!("before   {} of {} entries, in {aside}", predecessor.origin, predecessor.size);
    println!("gap      from entry {}: {}", gap.from, gap.note);
    println!(
        "carried  {} declared objects, {} of them reviewed, {} suspensions, {} credentials whose ends are still to come",
        carried.objects, carried.reviewed, carried.suspensions, carried.live
    );
    println!(
        "every signing key is new, the root of certificates included: verifiers that follow the published keys and the \
         trust bundle take nothing that was issued before; proofs that buy one credential must be newer than this"
    );
    if carried.imported > 0 {
        println!(
            "imported {} key that was brought for RS256 is given up too, and no broker can make another: bring a new one by \
             `daypass-broker import-key`, or tasks that declare `alg = \"RS256\"` get nothing",
            carried.imported
        );
    }
    if carried.held {
        println!(
            "clock    endings wait until a second source agrees with it: a time service, another broker, or \
             `daypass-broker emergency clock-ok`"
        );
    }
}
