//! Where the store lies, from the configuration and what was said beside it.

use std::path::Path;
use std::sync::Arc;

use daypass_broker::config::{Config, ConfigError};
use daypass_broker::store::StoreAt;
use daypass_broker::store::postgres::{Password, PostgresAt};

use super::Failure;
use crate::args::Owner;

/// Where the configuration says that the store lies.
pub(super) fn store_at(config: &Config) -> Result<StoreAt, Failure> {
    let folder = Some(config.log.seal_dir.as_path()).filter(|path| !path.as_os_str().is_empty());
    Ok(unsealed(config)?.sealed_in(folder))
}

fn unsealed(config: &Config) -> Result<StoreAt, Failure> {
    let store = &config.store;
    if store.url.is_empty() {
        return Ok(StoreAt::File(store.path.clone()));
    }
    let refused = |detail| ConfigError::Value { key: "store.url", detail };
    let mut at = postgres_at(config, &store.url, password("DAYPASS_STORE_PASSWORD", &store.password_file))?;
    if !store.sealer_url.is_empty() {
        let password = password("DAYPASS_STORE_SEALER_PASSWORD", &store.sealer_password_file);
        at = at.sealed_by(postgres_at(config, &store.sealer_url, password)?);
    }
    let durability = store.durability.parse().map_err(refused)?;
    Ok(StoreAt::Postgres(Arc::new(at.demanding(durability))))
}

/// The same with the owner of its tables.
pub(super) fn owned(store: StoreAt, config: &Config, owner: &Owner) -> Result<StoreAt, Failure> {
    match (store, &owner.owner) {
        (StoreAt::Postgres(at), Some(url)) => {
            let file = owner.owner_password_file.as_deref().unwrap_or(Path::new(""));
            let owner = postgres_at(config, url, password("DAYPASS_STORE_OWNER_PASSWORD", file))?;
            Ok(StoreAt::Postgres(Arc::new(Arc::unwrap_or_clone(at).owned_by(owner))))
        }
        (StoreAt::Sealed { at, folder }, Some(_)) => Ok(owned(*at, config, owner)?.sealed_in(Some(&folder))),
        (store, _) => Ok(store),
    }
}

fn postgres_at(config: &Config, url: &str, password: Password) -> Result<PostgresAt, Failure> {
    let store = &config.store;
    let ca = Some(store.ca_file.as_path()).filter(|path| !path.as_os_str().is_empty());
    PostgresAt::new(url, password, ca, store.plaintext)
        .map_err(|detail| ConfigError::Value { key: "store.url", detail }.into())
}

fn password(variable: &str, file: &Path) -> Password {
    match std::env::var(variable) {
        _ if !file.as_os_str().is_empty() => Password::File(file.to_owned()),
        Ok(text) => Password::Given(text.into()),
        Err(_) => Password::None,
    }
}
