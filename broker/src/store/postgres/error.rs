//! What the server says, in the words of the store's contract.

use std::error::Error as _;
use std::io;

use rustls::CertificateError;
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

/// The whole chain, of which the library's own text names only the first link, and what to do about a certificate.
fn words(error: &tokio_postgres::Error) -> String {
    let mut text = error.to_string();
    let mut advice = None;
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        let inner = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        advice = advice.or_else(|| inner.and_then(|it| it.downcast_ref()).and_then(advice_on));
        source = cause.source();
    }
    advice.map_or(text.clone(), |advice| format!("{advice} ({text})"))
}

fn advice_on(error: &rustls::Error) -> Option<&'static str> {
    let rustls::Error::InvalidCertificate(why) = error else { return None };
    match why {
        CertificateError::UnknownIssuer => Some(
            "the database's certificate leads to no root that is trusted: name its root in `store.ca_file`",
        ),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            Some("the database's certificate is for another name than the host in the URL")
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            Some("the database's certificate is expired: renew it")
        }
        _ => None,
    }
}
