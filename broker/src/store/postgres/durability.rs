//! What a commit survives, as the server says.

use std::fmt;
use std::str::FromStr;

use tokio_postgres::Row;

use crate::store::StoreError;

/// What a commit must survive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// The loss of power at the server: `fsync`, `full_page_writes`, and `synchronous_commit` other than `off`.
    Local,
    /// The loss of the server: on return a synchronous standby has it on its disk too.
    Standby,
}

impl FromStr for Durability {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "local" => Ok(Self::Local),
            "standby" => Ok(Self::Standby),
            _ => Err(format!("`{text}`: expected `local` or `standby`")),
        }
    }
}

/// The settings that decide, as columns of a query.
macro_rules! settings {
    () => {
        "current_setting('fsync'), current_setting('full_page_writes'), \
         current_setting('synchronous_commit'), current_setting('synchronous_standby_names')"
    };
}
pub(super) use settings;

/// The settings as found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    fsync: String,
    full_page_writes: String,
    synchronous_commit: String,
    standbys: String,
}

impl Found {
    /// Reads `settings` where they begin at column `first`.
    pub(super) fn read(row: &Row, first: usize) -> Result<Self, tokio_postgres::Error> {
        Ok(Self {
            fsync: row.try_get(first)?,
            full_page_writes: row.try_get(first + 1)?,
            synchronous_commit: row.try_get(first + 2)?,
            standbys: row.try_get(first + 3)?,
        })
    }

    /// # Errors
    /// When a commit survives less than `demanded`.
    pub(super) fn check(&self, demanded: Durability) -> Result<(), StoreError> {
        #[cfg(feature = "sabotage")]
        if crate::sabotage::breaks("p1-standby") {
            return Ok(());
        }
        let waits = matches!(self.synchronous_commit.as_str(), "on" | "remote_apply");
        let wanting = if self.fsync != "on" {
            "`fsync` is off: what is committed can be lost; switch it on"
        } else if self.full_page_writes != "on" {
            "`full_page_writes` is off: a crash can tear pages; switch it on"
        } else if self.synchronous_commit == "off" {
            "`synchronous_commit` is off: what is committed can be lost; set it to `on`"
        } else if demanded == Durability::Standby && (self.standbys.trim().is_empty() || !waits) {
            "`store.durability` demands a synchronous standby: name one in `synchronous_standby_names`, with \
             `synchronous_commit` at `on` or `remote_apply`"
        } else {
            return Ok(());
        };
        Err(StoreError::Unavailable(format!("the database is less durable than it must be: {wanting}")))
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "fsync={} full_page_writes={} synchronous_commit={} synchronous_standby_names='{}'",
            self.fsync, self.full_page_writes, self.synchronous_commit, self.standbys
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(fsync: &str, pages: &str, commit: &str, standbys: &str) -> Found {
        Found {
            fsync: fsync.into(),
            full_page_writes: pages.into(),
            synchronous_commit: commit.into(),
            standbys: standbys.into(),
        }
    }

    #[test]
    fn less_than_was_demanded_is_refused() {
        for (settings, local, standby) in [
            (found("on", "on", "on", ""), true, false),
            (found("on", "on", "on", "FIRST 1 (b)"), true, true),
            (found("on", "on", "remote_apply", "b"), true, true),
            (found("on", "on", "remote_write", "b"), true, false),
            (found("on", "on", "local", "b"), true, false),
            (found("on", "on", "off", "b"), false, false),
            (found("off", "on", "on", "b"), false, false),
            (found("on", "off", "on", "b"), false, false),
        ] {
            assert_eq!(settings.check(Durability::Local).is_ok(), local, "{settings}");
            assert_eq!(settings.check(Durability::Standby).is_ok(), standby, "{settings}");
        }
    }
}
