//! The configuration of `serve`: raw text in, values out. Only `main` and what it calls first see this type; parts
//! of the broker receive values.

mod keys;
mod reference;
mod sections;

use std::collections::BTreeSet;
use std::path::Path;

use daypass_verify::ids::{Digest, Name};
use serde::Deserialize;
use url::Url;

use crate::seal::is_seal_size;
use crate::store::postgres::Durability;

pub use keys::{KEYS, Key};
pub use reference::reference;
pub use sections::{Broker, Clock, Emergency, Keys, Limits, Listener, Log, Ops, Output, Store, Web, Witness};

/// The most witnesses: with all their signatures a checkpoint is still a note of a few KiB.
const WITNESSES_MAX: usize = 16;

/// What went wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("the configuration `{0}` could not be read: {1}")]
    File(String, std::io::Error),
    /// It is not valid TOML, lacks a key, or holds one that is unknown.
    #[error(
        "the configuration `{path}` is refused: {detail}; every key is described in docs/configuration.md"
    )]
    Form {
        /// Where.
        path: String,
        /// What, with its line.
        detail: String,
    },
    /// A value cannot be.
    #[error("`{key}` in the configuration is refused: {detail}")]
    Value {
        /// Which key.
        key: &'static str,
        /// Why, and what was expected.
        detail: String,
    },
}

/// A configuration whose every value was checked.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Who this broker is.
    pub broker: Broker,
    /// Where the log lies.
    pub store: Store,
    /// Where keys are unsealed from.
    pub keys: Keys,
    /// The gRPC listener.
    pub api: Listener,
    /// The HTTP listener.
    pub web: Web,
    /// What happens to the log.
    pub log: Log,
    /// Who signs its checkpoints too.
    #[serde(default)]
    pub witness: Vec<Witness>,
    /// The listener for operators on the same host.
    pub ops: Ops,
    /// Whose word is taken for the time.
    pub clock: Clock,
    /// Where orders in an emergency are taken.
    pub emergency: Emergency,
    /// How much is served at once.
    pub limits: Limits,
    /// What is written to standard error.
    pub output: Output,
    /// SHA-256 of the file, for `broker.started`.
    #[serde(skip)]
    pub digest: Option<Digest>,
}

/// A second beyond what brokers need to show a key: copies of what they publish may then be used for that second.
const AHEAD_LEAST_S: u32 = 6;

/// Two years: nothing should sign for longer.
const LIFE_MOST_S: u32 = 2 * 365 * 86_400;

impl Config {
    /// Reads and checks the file at `path`; relative paths in it are relative to its folder.
    ///
    /// # Errors
    /// When it cannot be read, parsed, or a value cannot be.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError::File(path.display().to_string(), error))?;
        let mut config = Self::parse(&text, &path.display().to_string())?;
        config.relative_to(path.parent().unwrap_or(Path::new(".")));
        Ok(config)
    }

    /// Checks the text of a configuration; `name` is what errors call it.
    ///
    /// # Errors
    /// When it cannot be parsed, or a value cannot be.
    pub fn parse(text: &str, name: &str) -> Result<Self, ConfigError> {
        let form = |detail: String| ConfigError::Form { path: name.into(), detail };
        let given: toml::Table = toml::from_str(text).map_err(|error| form(error.to_string()))?;
        let whole = reference::with_defaults(given);
        let mut config: Self =
            whole.try_into().map_err(|error: toml::de::Error| form(error.message().into()))?;
        config.digest = Some(Digest::of(text.as_bytes()));
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let refuse = |key, detail: &str| Err(ConfigError::Value { key, detail: detail.into() });
        match Url::parse(&self.broker.issuer) {
            Ok(url)
                if url.scheme() == "https"
                    && url.path() == "/"
                    && !self.broker.issuer.ends_with('/')
                    && url.query().is_none()
                    && url.fragment().is_none()
                    && url.username().is_empty() => {}
            _ => {
                return refuse(
                    "broker.issuer",
                    &format!(
                        "`{}`: expected `https://HOST` or `https://HOST:PORT`, without a path or a `/` at its end; it is for ever",
                        self.broker.issuer
                    ),
                );
            }
        }
        if let Err(error) = self.store.durability.parse::<Durability>() {
            return refuse("store.durability", &error);
        }
        if !self.ops.listen.ip().is_loopback() {
            return refuse(
                "ops.listen",
                &format!("`{}`: expected a loopback address such as `127.0.0.1:9090`", self.ops.listen),
            );
        }
        if !(1..=3600).contains(&self.log.witness_every_s) {
            return refuse("log.witness_every_s", "expected 1 to 3600 seconds");
        }
        if !is_seal_size(self.log.seal_entries) {
            return refuse("log.seal_entries", "expected a power of two from 256 to 16777216, such as 65536");
        }
        if self.log.witness_silent_s < self.log.witness_every_s {
            return refuse("log.witness_silent_s", "expected at least `log.witness_every_s`");
        }
        let named: BTreeSet<&Name> = self.witness.iter().map(|witness| &witness.name).collect();
        if named.len() < self.witness.len() || named.len() > WITNESSES_MAX {
            return refuse("witness", "expected at most 16 witnesses, each under a name of its own");
        }
        if self.limits.connections == 0 || self.limits.connections_per_address == 0 {
            return refuse("limits", "a limit of 0 connections would serve nobody: expected 1 or more");
        }
        let keys = &self.keys;
        if keys.ahead_s < AHEAD_LEAST_S {
            return refuse("keys.ahead_s", &format!("`{}`: expected {AHEAD_LEAST_S} or more", keys.ahead_s));
        }
        for (key, life) in [("keys.token_life_s", keys.token_life_s), ("keys.ca_life_s", keys.ca_life_s)] {
            if life < keys.ahead_s || life > LIFE_MOST_S {
                let expected = format!(
                    "`{life}`: expected at least `keys.ahead_s` ({}) and at most {LIFE_MOST_S}",
                    keys.ahead_s
                );
                return refuse(key, &expected);
            }
        }
        Ok(())
    }

    fn relative_to(&mut self, folder: &Path) {
        let paths = [
            &mut self.store.path,
            &mut self.store.anchor,
            &mut self.keys.kek_file,
            &mut self.api.certificate,
            &mut self.api.key,
            &mut self.web.certificate,
            &mut self.web.key,
            &mut self.emergency.socket,
        ];
        for path in paths {
            *path = folder.join(&*path);
        }
        let store = &mut self.store;
        let optional = [
            &mut store.password_file,
            &mut store.sealer_password_file,
            &mut store.ca_file,
            &mut self.log.seal_dir,
        ];
        for path in optional {
            if !path.as_os_str().is_empty() {
                *path = folder.join(&*path);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALLEST: &str =
        "[broker]\ntrust_domain = \"example.org\"\nissuer = \"https://daypass.example.org\"\n";

    const WITNESS: &str =
        "[[witness]]\nname = \"w1\"\nurl = \"https://w.example\"\nvkey = \"w+00000000+x\"\n";

    #[test]
    fn the_smallest_configuration_names_only_what_has_no_default() {
        let config = Config::parse(SMALLEST, "test").unwrap();
        assert_eq!(config.limits.connections, 8192);
        assert!(config.ops.listen.ip().is_loopback());
    }

    #[test]
    fn the_sample_configuration_is_accepted_as_it_is_written() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/examples/daypass.toml");
        let config = Config::read(Path::new(path)).unwrap();
        assert_ne!(config.store.path.parent(), config.store.anchor.parent(), "the anchor lies elsewhere");
    }

    #[test]
    fn a_configuration_with_one_fault_is_refused_and_says_which() {
        for (fault, expected) in [
            ("[broker]\nissuer = \"https://x\"", "trust_domain"),
            ("[broker]\ntrust_domain = \"example.org\"\nissuer = \"http://x\"", "broker.issuer"),
            ("[broker]\ntrust_domain = \"example.org\"\nissuer = \"https://x/\"", "broker.issuer"),
            ("[broker]\ntrust_domain = \"Example\"\nissuer = \"https://x\"", "trust domain"),
            (&format!("{SMALLEST}[ops]\nlisten = \"0.0.0.0:9\""), "ops.listen"),
            (&format!("{SMALLEST}[opps]\nlisten = \"127.0.0.1:9\""), "opps"),
            (&format!("{SMALLEST}[store]\npaht = \"x\""), "paht"),
            (&format!("{SMALLEST}[store]\ndurability = \"maybe\""), "store.durability"),
            (&format!("{SMALLEST}[limits]\nconnections = 0"), "limits"),
            (&format!("{SMALLEST}[log]\nwitness_every_s = 0"), "log.witness_every_s"),
            (&format!("{SMALLEST}[log]\nseal_entries = 1000"), "log.seal_entries"),
            (&format!("{SMALLEST}{}", WITNESS.repeat(2)), "a name of its own"),
            (&format!("{SMALLEST}{WITNESS}vky = \"x\""), "vky"),
            (&format!("{SMALLEST}[keys]\nahead_s = 5"), "keys.ahead_s"),
            (&format!("{SMALLEST}[keys]\ntoken_life_s = 3600"), "keys.token_life_s"),
            (&format!("{SMALLEST}[keys]\nca_life_s = 999999999"), "keys.ca_life_s"),
        ] {
            let error = Config::parse(fault, "test").unwrap_err().to_string();
            assert!(error.contains(expected), "{fault}\n{error}");
        }
    }
}
