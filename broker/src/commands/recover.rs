//! `recover`: what the operator is told of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use daypass_broker::clock::SystemClock;
use daypass_broker::config::Config;
use daypass_broker::recover::{Recovered, Recovery, recover};
use daypass_broker::store::StoreAt;

use super::store::store_at;
use super::{Failure, lifetimes};

pub(super) async fn run(config: &Path, checkpoints: &[PathBuf]) -> Result<(), Failure> {
    let config = Config::read(config)?;
    let StoreAt::File(store) = store_at(&config)? else {
        return Err(Failure::Value(
            "`recover` is not there yet for a store in PostgreSQL: restore the database to its newest point in time, \
             by its own archive of the write-ahead log"
                .into(),
        ));
    };
    let read = |path: &PathBuf| {
        let name = path.display().to_string();
        std::fs::read(path).map(|note| (name.clone(), note)).map_err(|error| Failure::File(name, error))
    };
    let done = recover(&Recovery {
        trust_domain: config.broker.trust_domain.clone(),
        broker: config.broker.name.clone(),
        store: &store,
        kek: &config.keys.kek_file,
        lifetimes: lifetimes(&config),
        anchor: &config.store.anchor,
        checkpoints: checkpoints.iter().map(read).collect::<Result<_, _>>()?,
        clock: Arc::new(SystemClock),
    })
    .await?;
    print(&done, &store);
    Ok(())
}

fn print(done: &Recovered, store: &Path) {
    let Recovered { opened, predecessor, gap, aside, carried } = done;
    println!("log      {}", opened.origin);
    println!("log key  {}   (keep it outside, beside the old one)", opened.log_key);
    println!("store    {}", store.display());
    println!("before   {} of {} entries, in {}", predecessor.origin, predecessor.size, aside.display());
    println!("gap      from entry {}: {}", gap.from, gap.note);
    println!(
        "carried  {} declared objects, {} suspensions, {} credentials whose ends are still to come",
        carried.objects, carried.suspensions, carried.live
    );
    println!(
        "every signing key is new, the root of certificates included: verifiers that follow the published keys and the \
         trust bundle take nothing that was issued before; proofs that buy one credential must be newer than this"
    );
}
