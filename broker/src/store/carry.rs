//! From one machine's file to a database that brokers share: the whole store, or nothing.

use std::path::Path;
use std::sync::Arc;

use daypass_core::draft::Mark;

use super::postgres::{PostgresAt, PostgresStore};
use super::sqlite::carry::Moving;
use super::{Batch, Head, Reader, StoreError};

/// Takes a page of what is carried: rows, and marks beside them.
pub(super) type Take<'a> = dyn FnMut(&Batch, &[Mark]) -> Result<(), StoreError> + 'a;

/// Moves the store in the file at `from` into the database, and gives the head that both have.
///
/// The file is marked first: whatever happens from there on, no two places are served. Where it fails, the mark is taken
/// away and the tables are emptied; where it is cut short, running it again goes on. `verify` says whether what came over
/// is whole.
///
/// # Errors
/// When either cannot be used, another log lies in the database, or `verify` says no.
pub fn carry<E: From<StoreError>>(
    from: &Path,
    to: &Arc<PostgresAt>,
    verify: impl FnOnce(Box<dyn Reader>) -> Result<(), E>,
) -> Result<Head, E> {
    let claimed = PostgresStore::claim(to)?;
    let moving = Moving::leave_for(from, &to.to_string())?;
    let Some(claimed) = claimed else {
        // A run that was cut short after its commit.
        let head = moving.head().clone();
        let reader = PostgresStore::open_reader(to)?;
        if reader.head()?.as_ref() != Some(&head) {
            moving.come_back();
            return Err(
                StoreError::Damaged("another log lies in the database: name an empty one".into()).into()
            );
        }
        return verify(reader).map(|()| head);
    };
    let filled = claimed.without(&moving.sealed()?).and_then(|()| fill(&moving, to));
    let came_over = filled.map_err(E::from).and_then(verify);
    match came_over {
        Ok(()) => Ok(moving.head().clone()),
        Err(error) => {
            claimed.undo();
            moving.come_back();
            Err(error)
        }
    }
}

fn fill(moving: &Moving, to: &Arc<PostgresAt>) -> Result<Box<dyn Reader>, StoreError> {
    let filled =
        PostgresStore::connect(to)?.fill(moving.head(), &moving.closed()?, &|take| moving.each(take));
    let reader = PostgresStore::open_reader(to)?;
    match filled {
        Ok(()) => {}
        // The head tells what became of the commit.
        Err(StoreError::Unknown(_)) if reader.head()?.as_ref() == Some(moving.head()) => {}
        Err(error) => return Err(error),
    }
    if reader.head()?.as_ref() != Some(moving.head()) {
        return Err(StoreError::Damaged("the head did not come over as it was".into()));
    }
    Ok(reader)
}

/// Makes or migrates the tables of a database as their owner, and says what the brokers' role may do.
///
/// # Errors
/// When the owner cannot be had, or may not.
pub fn migrate(to: &Arc<PostgresAt>) -> Result<(), StoreError> {
    PostgresStore::claim(to).map(drop)
}
