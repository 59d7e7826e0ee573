//! The real straight line, log and store under lists of operations: callers, time, crashes, and a store and a signer
//! that fail. Everything but the order within one batch follows from the list, so that a list that fails is kept.
//!
//! What counts as failure, after every operation:
//! - a credential that somebody holds has no entry, or one that says other bytes, or its receipt does not verify;
//! - a key signed bytes that the log did not hold at that moment;
//! - a credential that somebody holds is called void, or one that nobody got is called released;
//! - a credential ends twice, before its end and the leeway, or not at all within 90 s of its end;
//! - one proof of a `once` issuer, or one request id within ten minutes, bought two credentials;
//! - a proof is called spent, and nothing was bought with it;
//! - something suspended got a credential, one was decided under an older state, or more was granted than asked;
//! - entry times go back, or a checkpoint in a caller's hand is not of this log;
//! - a checkpoint left a broker that is not of this log, or a broker that is reached does not see what others wrote;
//! - a log does not go on where the one before was closed, or something ends in none of them;
//! - the broker does not start again on its own store, or issues nothing once all faults are over.

mod callers;
pub(crate) mod check;
mod faults;
mod fork;
mod found;
mod ground;
mod many;
pub(crate) mod op;
mod operators;
mod people;
mod seat;
mod turns;
mod world;

use daypass_tests::harness::nightly;
use ground::Kind;
use op::Op;

/// Seeds that always run; `DAYPASS_SEEDS` runs more.
const SEEDS: u64 = 36;

/// Seeds that run on a real PostgreSQL, of which each takes a database of its own, and in memory.
const SEEDS_ELSEWHERE: u64 = 8;

/// Operations of one seed.
const LENGTH: usize = 60;

#[test]
fn no_list_of_operations_leads_to_a_credential_without_its_record() {
    run_seeds(SEEDS, |seed| run_seed(seed, 1, Kind::File, op::list));
}

#[test]
fn no_list_of_operations_makes_several_brokers_disagree() {
    run_seeds(SEEDS, |seed| run_seed(seed, several(seed), Kind::File, op::list_of_many));
}

#[test]
fn no_list_of_operations_makes_several_brokers_disagree_on_a_real_postgres() {
    // Other lists than those that the file has.
    run_seeds(elsewhere(), |seed| run_seed(1_000 + seed, several(seed), Kind::Postgres, op::list_of_many));
}

#[test]
fn no_list_of_operations_makes_brokers_on_a_store_in_memory_disagree() {
    run_seeds(elsewhere(), |seed| {
        run_seed(2_000 + seed, 1 + several(seed) % 3, Kind::Memory, op::list_of_many)
    });
}

#[test]
fn no_list_of_operations_loses_anything_where_a_log_follows_another() {
    run_seeds(elsewhere(), |seed| run_seed(3_000 + seed, several(seed), Kind::File, op::list_of_turns));
}

#[test]
fn no_list_of_operations_loses_anything_where_logs_follow_each_other_on_a_real_postgres() {
    run_seeds(elsewhere() / 4, |seed| {
        run_seed(4_000 + seed, several(seed), Kind::Postgres, op::list_of_turns)
    });
}

fn elsewhere() -> u64 {
    if nightly() { 20 * SEEDS_ELSEWHERE } else { SEEDS_ELSEWHERE }
}

fn several(seed: u64) -> usize {
    if seed.is_multiple_of(3) { 3 } else { 2 }
}

fn run_seeds(standard: u64, run: impl Fn(u64) + Sync) {
    let seeds = std::env::var("DAYPASS_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(standard);
    let run = &run;
    std::thread::scope(|scope| {
        for lane in 0..2 {
            scope.spawn(move || (lane..seeds).step_by(2).for_each(run));
        }
    });
}

#[test]
fn what_was_once_found_stays_mended() {
    let alone = found::LISTS.iter().map(|found| (found, 1));
    let together = found::LISTS_OF_MANY.iter().map(|found| (found, 3));
    let failures: Vec<String> = alone
        .chain(together)
        .filter_map(|((name, ops), brokers)| {
            Some(format!("{name}: {}", world::run(ops, 1, brokers, Kind::File).err()?))
        })
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn a_store_that_says_durable_and_forgets_is_found() {
    use op::What::ReadInvoices;
    let ops = [Op::StoreForgets, Op::Issue { what: ReadInvoices, ttl_s: 60 }];
    let failure = world::run(&ops, 1, 1, Kind::File).unwrap_err();
    assert!(failure.contains("signed bytes that the log did not hold"), "{failure}");
}

fn run_seed(seed: u64, brokers: usize, kind: Kind, list: fn(u64, usize) -> Vec<Op>) {
    let ops = list(seed, LENGTH);
    if let Err(failure) = world::run(&ops, seed, brokers, kind) {
        eprintln!("seed {seed}, {brokers} brokers, {kind:?}: {failure}\nleaving out what it does not need");
        let (ops, failure) = shortest(ops, failure, |ops| world::run(ops, seed, brokers, kind));
        panic!(
            "seed {seed}, {brokers} brokers, {kind:?}: {failure}\nkeep it in tests/simulation/found.rs: {ops:?}"
        );
    }
}

/// Leaves out what the failure does not need, until each operation is needed.
fn shortest(
    mut ops: Vec<Op>,
    mut failure: String,
    run: impl Fn(&[Op]) -> Result<(), String>,
) -> (Vec<Op>, String) {
    loop {
        let before = ops.len();
        for at in (0..before).rev() {
            let mut fewer = ops.clone();
            fewer.remove(at);
            if let Err(still) = run(&fewer) {
                (ops, failure) = (fewer, still);
            }
        }
        if ops.len() == before {
            return (ops, failure);
        }
    }
}
