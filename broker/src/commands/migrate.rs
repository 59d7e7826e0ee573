//! `migrate`: the tables of a database, and a store that moves into it.

use std::path::Path;
use std::sync::Arc;

use daypass_broker::config::{Config, ConfigError};
use daypass_broker::log::{Anchor, StartError, verify_store};
use daypass_broker::seal;
use daypass_broker::serve::ServeError;
use daypass_broker::store::postgres::PostgresAt;
use daypass_broker::store::{Reader, StoreAt, carry};

use super::Failure;
use super::store::{owned, store_at};
use super::verify::named_by_log;
use crate::args::Owner;

pub(super) fn run(config: &Path, from: Option<&Path>, owner: &Owner) -> Result<(), Failure> {
    let config = Config::read(config)?;
    let place = owned(store_at(&config)?, &config, owner)?;
    let Some(at) = place.postgres() else {
        let detail = "expected the URL of a PostgreSQL database: a file needs no migration".into();
        return Err(ConfigError::Value { key: "store.url", detail }.into());
    };
    match from {
        None => carry::migrate(at).map_err(ServeError::from)?,
        Some(from) => move_from(&Config::read(from)?, &config, &place, at)?,
    }
    println!("migrated {at}: {} may write there", at.role());
    Ok(())
}

fn move_from(from: &Config, to: &Config, place: &StoreAt, at: &Arc<PostgresAt>) -> Result<(), Failure> {
    if (&from.broker.trust_domain, &from.broker.issuer) != (&to.broker.trust_domain, &to.broker.issuer) {
        return Err(Failure::Value(
            "the two configurations name another trust domain or issuer: a log keeps its own".into(),
        ));
    }
    let old = store_at(from)?;
    let Some(file) = old.file() else {
        return Err(Failure::Value("only a store in a file is moved: --from names a database".into()));
    };
    let anchor = Some(&from.store.anchor).filter(|path| path.exists());
    // What is sealed stays in its files: whoever serves the database reads them there.
    let head = carry::carry(file, at, |reader| {
        let reader = seal::reading(reader, place.sealed()).map_err(ServeError::from)?;
        verify(reader.as_ref(), anchor.map(AsRef::as_ref))
    })?;
    println!("moved    {} entries of {}, verified", head.size, head.origin);
    println!("left     {}: it is marked, and no broker serves it again", file.display());
    Ok(())
}

/// All of what came over, against the newest checkpoint that was kept outside.
fn verify(reader: &dyn Reader, anchor: Option<&Path>) -> Result<(), Failure> {
    let key = named_by_log(reader)?;
    let anchor = anchor.map(Anchor::open).transpose().map_err(ServeError::from)?;
    match verify_store(reader, &key, anchor.as_ref()) {
        Ok(_) => Ok(()),
        Err(StartError::Refused(report)) if report.findings.iter().all(|it| it.code.is_of_operation()) => {
            Ok(())
        }
        Err(error) => Err(ServeError::from(error).into()),
    }
}
