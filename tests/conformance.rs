//! What every store must keep, as the `Store` trait says it: one suite, run for each store over places of its own.

mod contract;
mod postgres;
mod samples;
mod sealing;
mod shards;
mod sqlite;

use daypass_broker::store::{Reader, Sealer, Store, StoreError};
use daypass_tests::memory::Memory;

/// Where one store lies: it can be opened again and again, as another process would.
trait Place: Sync {
    /// Opens the store; a new one at first.
    fn open(&self) -> Result<Box<dyn Store>, StoreError>;
    /// A reader of one shard.
    fn shard(&self, shard: u32) -> Result<Box<dyn Reader>, StoreError>;
    /// What seals it, where nobody else does.
    fn sealer(&self) -> Result<Option<Box<dyn Sealer>>, StoreError>;
}

mod promises {
    pub(super) use super::contract::*;
    pub(super) use super::sealing::*;
    pub(super) use super::shards::*;
}

impl Place for Memory {
    fn open(&self) -> Result<Box<dyn Store>, StoreError> {
        Ok(Box::new(self.clone()))
    }

    fn sealer(&self) -> Result<Option<Box<dyn Sealer>>, StoreError> {
        Ok(Some(Box::new(self.clone())))
    }

    fn shard(&self, _first: u32) -> Result<Box<dyn Reader>, StoreError> {
        self.reader()
    }
}

/// Declares the suite for one kind of store.
macro_rules! suite {
    ($store:ident, $place:expr, [$($promise:ident),+ $(,)?]) => {
        mod $store {
            $(#[test]
            fn $promise() {
                super::promises::$promise(&$place);
            })+
        }
    };
}

/// The suite for every kind of store.
macro_rules! suites {
    ($promises:tt) => {
        suite!(sqlite_store, super::sqlite::File::new(), $promises);
        suite!(postgres_store, super::postgres::Tables::new(), $promises);
        suite!(memory_store, super::Memory::default(), $promises);
    };
}

suites!([
    a_log_is_opened_once,
    a_store_without_a_log_takes_no_transaction,
    the_lock_keeps_a_second_writer_out,
    a_writer_that_waits_too_long_is_told_so,
    a_dropped_transaction_leaves_no_trace,
    a_commit_that_fails_leaves_no_trace,
    what_was_committed_is_there_after_opening_again,
    a_reader_sees_what_is_committed_and_nothing_else,
    a_mark_is_fresh_once,
    marks_are_spent_together_or_not_at_all,
    marks_of_a_whole_batch_are_spent_as_one_after_another,
    a_mark_is_found_in_the_bucket_before,
    a_mark_is_remembered_until_it_expires,
    what_expired_comes_oldest_first_and_no_more_than_asked,
    what_ended_is_not_live,
    what_was_found_live_is_asked_again_under_the_lock,
    all_that_lives_is_found_page_by_page,
    a_key_that_is_kept_again_is_replaced,
    entries_are_read_from_where_and_as_many_as_asked,
    a_batch_of_thousands_is_committed_whole,
    only_what_is_sealed_and_not_folded_leaves_the_store,
    entries_are_sealed_one_after_another_and_none_that_is_not_there,
    sealing_goes_on_beside_a_writer,
]);

/// What only stores that keep logs for years must keep.
macro_rules! shard_suites {
    ($promises:tt) => {
        suite!(sqlite_shards, super::sqlite::File::new(), $promises);
        suite!(postgres_shards, super::postgres::Tables::new(), $promises);
    };
}

shard_suites!([
    a_turn_moves_both_heads_or_none,
    each_shard_is_read_alone_and_what_lives_is_shared,
    each_shard_is_sealed_by_itself,
]);
