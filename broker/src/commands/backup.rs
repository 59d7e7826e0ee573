//! `backup`: a copy of the store while it is served, verified before it counts.

use std::path::Path;

use daypass_broker::config::Config;
use daypass_broker::log::examine_store;
use daypass_broker::serve::ServeError;
use daypass_broker::store::StoreAt;
use daypass_broker::store::sqlite::SqliteStore;

use super::store::store_at;
use super::{Failure, print_report};

pub(super) fn run(config: &Path, to: &Path) -> Result<(), Failure> {
    let config = Config::read(config)?;
    let StoreAt::File(store) = store_at(&config)? else {
        return Err(Failure::Value(
            "`backup` copies a store in a file: back up a store in PostgreSQL with `pg_basebackup`, and with an archive of \
             the write-ahead log for point-in-time recovery"
                .into(),
        ));
    };
    SqliteStore::copy_to(&store, to).map_err(ServeError::from)?;
    let verified = verified(to);
    if verified.is_err() {
        drop(std::fs::remove_file(to));
    }
    let checkpoint = verified?;
    let bytes = std::fs::metadata(to).map_err(|error| Failure::File(to.display().to_string(), error))?.len();
    println!("backup       {}, {bytes} bytes", to.display());
    println!("keep it apart from `{}`: who has both has every key", config.keys.kek_file.display());
    println!(
        "its checkpoint, for `recover --checkpoint` and for whoever wants to hold the log to it:\n\n{checkpoint}"
    );
    Ok(())
}

/// The copy's own checkpoint, where all of it is sound.
fn verified(copy: &Path) -> Result<String, Failure> {
    let reader = SqliteStore::open_reader(copy).map_err(ServeError::from)?;
    let key = super::verify::named_by_log(reader.as_ref())?;
    let started = examine_store(reader.as_ref(), &key, None).map_err(ServeError::from)?;
    print_report(&started.report);
    let changed = started.report.findings.iter().filter(|finding| !finding.code.is_of_operation()).count();
    if changed > 0 {
        return Err(Failure::NotVerified(changed));
    }
    Ok(String::from_utf8_lossy(&started.head.checkpoint).into_owned())
}
