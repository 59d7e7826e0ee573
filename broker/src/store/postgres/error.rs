//! What the server says, in the words of the store's contract.

use tokio_postgres::error::SqlState;

use crate::store::StoreError;

/// A statement failed, and its transaction with it.
pub(super) fn failed(error: &tokio_postgres::Error) -> StoreError {
    let Some(db) = error.as_db_error() else { return StoreError::Unavailable(words(error)) };
    let said = format!("{} ({})", db.message(), db.code().code());
    match db.code() {
        &SqlState::DISK_FULL => StoreError::Full(said),
        &SqlState::DATA_CORRUPTED | &SqlState::INDEX_CORRUPTED | &SqlState::UNIQUE_VIOLATION => {
            StoreError::Damaged(said)
        }
        &SqlState::LOCK_NOT_AVAILABLE => {
            StoreError::Unavailable(format!("another holds the log's lock: {said}"))
        }
        &SqlState::UNDEFINED_TABLE | &SqlState::INVALID_SCHEMA_NAME | &SqlState::INVALID_CATALOG_NAME => {
            StoreError::Damaged(format!(
                "this is not a store of daypass, run `daypass-broker init` first: {said}"
            ))
        }
        // So fails the statement that moves the head, where it does not find the one that was read.
        &SqlState::DIVISION_BY_ZERO => StoreError::HeadMoved { expected: 0, found: u64::MAX },
        _ => StoreError::Unavailable(said),
    }
}

/// A statement that went with a COMMIT failed: what is known of the commit.
pub(super) fn failed_with_commit(error: &tokio_postgres::Error, is_commit: bool) -> StoreError {
    match error.as_db_error() {
        // What the server answers before it comes to the COMMIT ends the transaction.
        Some(_) if !is_commit => failed(error),
        Some(db) if db.severity() == "ERROR" => failed(error),
        _ => StoreError::Unknown(words(error)),
    }
}

/// The server did not answer in time.
pub(super) fn late(what: &str) -> StoreError {
    StoreError::Unavailable(format!("the database did not {what} in time"))
}

/// The whole chain: the library's own text names only the first link.
fn words(error: &tokio_postgres::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
