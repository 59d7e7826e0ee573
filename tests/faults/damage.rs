//! Store and write-ahead log as somebody left them who can write to the disk: each change is refused, or changes
//! nothing that the log says.

use daypass_broker::log::{Anchor, verify_store};
use daypass_broker::store::Store as _;
use daypass_broker::store::sqlite::SqliteStore;
use daypass_tests::harness::{Deployment, nightly};

use super::child::{Child, Files, contents};
use super::load::Client;
use super::report::stood;
use crate::simulation::op::Random;

const WAL_HEADER: usize = 32;
const FRAME: usize = 24 + 8192;

/// All entries and the head's checkpoint, of a store that is accepted; else why it is refused.
fn judge(files: &Files, deployment: &Deployment) -> Result<(Vec<Vec<u8>>, Vec<u8>), String> {
    let [store, _, anchor] = files.durable();
    let store = SqliteStore::open_file(&store, false).map_err(|error| error.to_string())?;
    let reader = store.reader().map_err(|error| error.to_string())?;
    let anchor = Anchor::open(&anchor).map_err(|error| error.to_string())?;
    let started = verify_store(reader.as_ref(), &deployment.log_key, Some(&anchor));
    let head = started.map_err(|error| error.to_string())?.head;
    let rows = reader.rows(0, u32::MAX).map_err(|error| error.to_string())?;
    Ok((rows.into_iter().map(|row| row.bytes.to_vec()).collect(), head.checkpoint.to_vec()))
}

/// A log that was killed in the middle of its work, and what its files hold.
async fn left_behind() -> (Deployment, Files, [Vec<u8>; 3]) {
    let deployment = Deployment::stopped(daypass_broker::dev::organisation::sample()).await;
    let files = Files::of(&deployment);
    let child = Child::start(&files, &[]).await;
    let client = Client::of(&deployment, files.api, 300);
    for _ in 0..4 {
        client.once().await.unwrap();
    }
    child.kill();
    let left = contents(&files);
    assert!(left[1].len() > WAL_HEADER + 4 * FRAME, "the write-ahead log holds {} bytes", left[1].len());
    (deployment, files, left)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_byte_that_was_flipped_is_found_or_changes_nothing_that_the_log_says() {
    let (deployment, files, left) = left_behind().await;
    let whole = judge(&files.of_contents(&left), &deployment).unwrap();
    let (mut random, mut refused) = (Random::new(11), 0);
    let flips = if nightly() { 6_000 } else { 100 };
    for _ in 0..flips {
        let mut changed = left.clone();
        let file = random.below(2);
        let byte = random.below(changed[file].len());
        changed[file][byte] ^= 1 << random.below(8);
        match judge(&files.of_contents(&changed), &deployment) {
            Err(_) => refused += 1,
            Ok(other) => {
                assert!(other == whole, "byte {byte} of file {file} makes another log, and is accepted")
            }
        }
    }
    assert!(refused > flips / 20, "of {flips} changes only {refused} were refused");
    stood("P4", "a byte of database or write-ahead log flipped", flips);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_ahead_log_that_was_cut_at_any_frame_is_refused() {
    let (deployment, files, left) = left_behind().await;
    let whole = judge(&files.of_contents(&left), &deployment).unwrap();
    let frames = (left[1].len() - WAL_HEADER) / FRAME;
    let (mut refused, step) = (0, if nightly() { 1 } else { frames.div_ceil(40) });
    for frame in (0..frames).step_by(step) {
        let mut cut = left.clone();
        cut[1].truncate(WAL_HEADER + frame * FRAME);
        match judge(&files.of_contents(&cut), &deployment) {
            Err(_) => refused += 1,
            Ok(other) => assert!(other == whole, "cut before frame {frame} of {frames}, and accepted"),
        }
    }
    assert!(refused > 0, "no cut of {frames} frames was refused");
    stood("P4", "write-ahead log cut at a frame", frames.div_ceil(step));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaves_that_changed_places_are_named() {
    let (deployment, files, left) = left_behind().await;
    let last = judge(&files.of_contents(&left), &deployment).unwrap().0.len() as u64 - 1;
    let mut swapped = 0;
    for index in (0..last).step_by(if nightly() { 1 } else { 9 }) {
        let copy = files.of_contents(&left);
        copy.swap(index, index + 1);
        let why = judge(&copy, &deployment).unwrap_err();
        assert!(why.contains(&format!("entry {index}")) || why.contains("ROOT_MISMATCH"), "{index}: {why}");
        swapped += 1;
    }
    stood("P4", "two leaves swapped", swapped);
}
