//! `backup`: a copy of the store while it is served, with the files of its sealed entries, verified before it counts.

use std::fs;
use std::path::{Path, PathBuf};

use daypass_broker::config::Config;
use daypass_broker::log::examine_store;
use daypass_broker::seal;
use daypass_broker::serve::ServeError;
use daypass_broker::store::StoreError;
use daypass_broker::store::sqlite::SqliteStore;

use super::store::store_at;
use super::{Failure, print_report};

pub(super) fn run(config: &Path, to: &Path) -> Result<(), Failure> {
    let config = Config::read(config)?;
    let place = store_at(&config)?;
    let Some(store) = place.file() else {
        return Err(Failure::Value(
            "`backup` copies a store in a file: back up a store in PostgreSQL with `pg_basebackup`, and with an archive of \
             the write-ahead log for point-in-time recovery; copy the folder of its sealed entries after that"
                .into(),
        ));
    };
    let folder = beside(to);
    if folder.exists() {
        return Err(Failure::Value(format!("`{}` is there already, and is left as it is", folder.display())));
    }
    SqliteStore::copy_to(store, to).map_err(ServeError::from)?;
    let copied =
        copy_sealed(place.sealed(), to, &folder).and_then(|sealed| Ok((sealed, verified(to, &folder)?)));
    if copied.is_err() {
        drop(fs::remove_file(to));
        drop(fs::remove_dir_all(&folder));
    }
    let (sealed, checkpoint) = copied?;
    let bytes = fs::metadata(to).map_err(|error| Failure::File(to.display().to_string(), error))?.len();
    println!("backup       {}, {bytes} bytes", to.display());
    if sealed > 0 {
        println!("             {}, the {sealed} entries that are sealed", folder.display());
    }
    println!("keep it apart from `{}`: who has both has every key", config.keys.kek_file.display());
    println!(
        "its checkpoint, for `recover --checkpoint` and for whoever wants to hold the log to it:\n\n{checkpoint}"
    );
    Ok(())
}

/// Where the sealed entries of a copy lie.
fn beside(copy: &Path) -> PathBuf {
    let mut path = copy.as_os_str().to_owned();
    path.push(".sealed");
    path.into()
}

/// Files come after the store: what the copy says is sealed was in them before, and stays there. How many entries.
fn copy_sealed(from: Option<&Path>, copy: &Path, to: &Path) -> Result<u64, Failure> {
    let copied =
        shards(copy)?.map(|shard| seal::copy(SqliteStore::open_shard(copy, shard)?.as_ref(), from, to));
    copied.sum::<Result<u64, StoreError>>().map_err(|error| ServeError::from(error).into())
}

/// The logs in a store, the newest last.
fn shards(store: &Path) -> Result<std::ops::RangeInclusive<u32>, Failure> {
    let head = SqliteStore::open_reader(store).and_then(|reader| reader.head()).map_err(ServeError::from)?;
    Ok(0..=head.map_or(0, |head| head.shard))
}

/// The copy's own checkpoint, where all of it is sound.
fn verified(copy: &Path, folder: &Path) -> Result<String, Failure> {
    let mut checkpoint = Vec::new();
    for shard in shards(copy)? {
        let reader =
            SqliteStore::open_shard(copy, shard).and_then(|reader| seal::reading(reader, Some(folder)));
        let reader = reader.map_err(ServeError::from)?;
        let key = super::verify::named_by_log(reader.as_ref())?;
        let started = examine_store(reader.as_ref(), &key, None).map_err(ServeError::from)?;
        print_report(&started.report);
        let changed =
            started.report.findings.iter().filter(|finding| !finding.code.is_of_operation()).count();
        if changed > 0 {
            return Err(Failure::NotVerified(changed));
        }
        checkpoint = started.head.checkpoint;
    }
    Ok(String::from_utf8_lossy(&checkpoint).into_owned())
}
