//! Every key of the configuration, once: its default, and what it means. The reference page is written from here.

/// One key.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Its section.
    pub section: &'static str,
    /// Its name.
    pub name: &'static str,
    /// Its default, as TOML; none: it must be given.
    pub default: Option<&'static str>,
    /// An example, as TOML.
    pub example: &'static str,
    /// What it means.
    pub meaning: &'static str,
}

const fn key(
    section: &'static str,
    name: &'static str,
    default: Option<&'static str>,
    example: &'static str,
    meaning: &'static str,
) -> Key {
    Key { section, name, default, example, meaning }
}

/// All of them, in the order of the reference.
pub const KEYS: &[Key] = &[
    key(
        "broker",
        "trust_domain",
        None,
        r#""example.org""#,
        "The trust domain: one deployment, one trust domain, one log. It is part of every identity and cannot change.",
    ),
    key(
        "broker",
        "issuer",
        None,
        r#""https://daypass.example.org""#,
        "The issuer URL, byte for byte the `iss` of every token and the only audience that a proof may name. No path, no `/` at its end. It is for ever.",
    ),
    key(
        "broker",
        "name",
        Some(r#""b1""#),
        r#""b1""#,
        "This broker's name in the log: one segment of a-z, 0-9 and `-`.",
    ),
    key(
        "store",
        "path",
        Some(r#""daypass.db""#),
        r#""/var/lib/daypass/daypass.db""#,
        "The SQLite file that holds the log, the sealed keys and what is live, where `url` names no database. `init` makes it.",
    ),
    key(
        "store",
        "url",
        Some(r#""""#),
        r#""postgresql://daypass@db.example.org/daypass?sslmode=verify-full""#,
        "The PostgreSQL database that brokers share, instead of `path`: role, host and database, without a password. To another machine only with TLS and its name verified (`sslmode=verify-full`, the default there). Several hosts may be named (`host1,host2`): the one that takes writes is used.",
    ),
    key(
        "store",
        "password_file",
        Some(r#""""#),
        r#""/etc/daypass/store-password""#,
        "A file whose first line is the password of that role, read at each connection. Without one, the environment's `DAYPASS_STORE_PASSWORD`, or none.",
    ),
    key(
        "store",
        "ca_file",
        Some(r#""""#),
        r#""/etc/daypass/store-ca.pem""#,
        "The roots (PEM) that the database's certificate must lead to; without it those of the system.",
    ),
    key(
        "store",
        "plaintext",
        Some("false"),
        "false",
        "Whether a database on another machine may be spoken to in the clear. Whoever is on the way can then change what is recorded.",
    ),
    key(
        "store",
        "durability",
        Some(r#""local""#),
        r#""standby""#,
        "What a commit in PostgreSQL must survive, or the broker does not write: `local`, the loss of power at the server; `standby`, the loss of the server, by a synchronous standby. `fsync`, `full_page_writes` and `synchronous_commit` at `off` are refused always.",
    ),
    key(
        "store",
        "anchor",
        Some(r#""daypass.anchor""#),
        r#""/var/lib/daypass-anchor/anchor""#,
        "A file that keeps the newest checkpoint outside the store, so that a store that was put back is found. Keep it on another disk or in another backup.",
    ),
    key(
        "store",
        "scrub_every_s",
        Some("86400"),
        "86400",
        "How long after the whole log was read again and held to its hashes that is done once more, in seconds; 0: never. A changed entry stops issuance.",
    ),
    key(
        "store",
        "scrub_entries_per_s",
        Some("20000"),
        "20000",
        "How many entries are read again in a second at most.",
    ),
    key(
        "keys",
        "kek_file",
        Some(r#""kek""#),
        r#""/etc/daypass/kek""#,
        "The key-encryption key, mode 0600: the only secret file. `init` makes it. Whoever has it and the store has every key.",
    ),
    key(
        "keys",
        "token_life_s",
        Some("2592000"),
        "2592000",
        "How long a key for tokens or JWT-SVIDs signs, in seconds, before the next one does by itself. No token outlives it by more than this.",
    ),
    key(
        "keys",
        "ca_life_s",
        Some("7776000"),
        "7776000",
        "How long an issuing CA signs, in seconds. A certificate lives at most a sixth of its CA's life.",
    ),
    key(
        "keys",
        "ahead_s",
        Some("86400"),
        "86400",
        "How long before it signs a key is published, in seconds. Caches may keep the published keys for five seconds less, and for five minutes at most. The same on all brokers.",
    ),
    key(
        "api",
        "listen",
        Some(r#""127.0.0.1:8443""#),
        r#""0.0.0.0:8443""#,
        "The address of the gRPC listener (TLS 1.3, HTTP/2; client certificates are asked for).",
    ),
    key(
        "api",
        "certificate",
        Some(r#""server.pem""#),
        r#""/etc/daypass/server.pem""#,
        "Its certificate chain, PEM. Read again when the file changes.",
    ),
    key("api", "key", Some(r#""server.key""#), r#""/etc/daypass/server.key""#, "Its key, PEM, mode 0600."),
    key("api", "reflection", Some("false"), "true", "Whether gRPC reflection is served."),
    key(
        "web",
        "listen",
        Some(r#""127.0.0.1:8444""#),
        r#""0.0.0.0:443""#,
        "The address of the HTTP listener: discovery, keys, bundle, checkpoint.",
    ),
    key(
        "web",
        "certificate",
        Some(r#""server.pem""#),
        r#""/etc/daypass/web.pem""#,
        "Its certificate chain, PEM.",
    ),
    key("web", "key", Some(r#""server.key""#), r#""/etc/daypass/web.key""#, "Its key, PEM, mode 0600."),
    key(
        "web",
        "checkpoint",
        Some("false"),
        "true",
        "Whether the newest checkpoint is served to anybody (hashes and a size, never an entry).",
    ),
    key(
        "web",
        "tiles",
        Some("false"),
        "true",
        "Whether the hashes of the log's tree are served to anybody, as C2SP tlog-tiles: with the checkpoint they prove that an entry is in the log, and that the log only grew. Never an entry.",
    ),
    key(
        "log",
        "witness_every_s",
        Some("60"),
        "60",
        "How often the newest checkpoint is shown to the witnesses, in seconds: each cosignature is an entry.",
    ),
    key(
        "log",
        "witness_silent_s",
        Some("600"),
        "600",
        "After how many seconds without a cosignature the alarm WITNESS_SILENT is raised. For as long the last cosigned checkpoint is the one that `web` serves.",
    ),
    key(
        "log",
        "seal_dir",
        Some(r#""""#),
        r#""/var/lib/daypass-sealed""#,
        "The folder into which old entries go as files (C2SP tlog-tiles, a folder for each log in it), once they were verified there. Empty: they stay in the store. SQLite only. Once there are any, every program that reads the store needs it, and a backup is both.",
    ),
    key(
        "log",
        "seal_entries",
        Some("65536"),
        "65536",
        "How many entries are sealed at once: a power of two from 256 to 16777216.",
    ),
    key(
        "[witness]",
        "name",
        None,
        r#""w1""#,
        "What entries and alarms call this witness. Each witness has a section of its own.",
    ),
    key(
        "[witness]",
        "url",
        None,
        r#""https://witness.example.com/w1""#,
        "Where checkpoints are submitted to it (C2SP tlog-witness): the part before `/add-checkpoint`. HTTPS, or HTTP on a loopback address.",
    ),
    key(
        "[witness]",
        "vkey",
        None,
        r#""witness.example.com/w1+34dfd9ec+BHMwCHH0TBaOfJSd4sdQ5gwsm7j/UwAXxaJnI06ctNuO""#,
        "Its key for cosignatures, as it publishes it: `name+id+key`, of type 4.",
    ),
    key(
        "ops",
        "listen",
        Some(r#""127.0.0.1:9090""#),
        r#""127.0.0.1:9090""#,
        "The address of metrics, health and readiness: loopback only.",
    ),
    key(
        "clock",
        "trust",
        Some(r#""kernel""#),
        r#""kernel""#,
        "Whose word is taken, after the machine booted, that its clock is right, before any credential is ended by it. `kernel`: a time service that keeps the kernel's clock synchronised, else the store's clock, another broker's entry, or `daypass-broker emergency clock-ok`. `own`: nobody else's, for a machine without a time service whose clock you set yourself.",
    ),
    key(
        "emergency",
        "socket",
        Some(r#""daypass.emergency""#),
        r#""/run/daypass/emergency""#,
        "A Unix socket (0600; root and the broker's own user) that takes the orders of `daypass-broker emergency`. The same path with `.halted` is the marker that keeps a halted broker halted: put it where it outlives a reboot.",
    ),
    key("limits", "connections", Some("8192"), "8192", "Connections in all, counted before TLS."),
    key(
        "limits",
        "connections_per_address",
        Some("512"),
        "512",
        "Connections of one address, counted before TLS.",
    ),
    key(
        "limits",
        "issue_per_s",
        Some("100"),
        "100",
        "Calls to issue a second, of one instance of an identity, or of the identity where its proofs name none. 0: no limit.",
    ),
    key("limits", "issue_burst", Some("500"), "500", "How many of them may come at once."),
    key(
        "limits",
        "failed_proofs_per_s",
        Some("50"),
        "50",
        "Proofs that fail a second, of one address: past that none of it is looked at for a moment. 0: no limit, for brokers behind what hides addresses.",
    ),
    key("limits", "failed_proofs_burst", Some("500"), "500", "How many of them may come at once."),
    key("limits", "handshake_timeout_s", Some("5"), "5", "How long a TLS handshake may take, in seconds."),
    key(
        "limits",
        "connection_age_s",
        Some("900"),
        "900",
        "How old a connection gets before it is closed in order, in seconds.",
    ),
    key(
        "output",
        "level",
        Some(r#""info""#),
        r#""info,daypass_broker::trust=debug""#,
        "What is written to standard error: `error`, `warn`, `info`, `debug`, or a filter by module. Never a token, a proof or a key.",
    ),
];

/// What is given, and the defaults for what is not.
pub(super) fn with_defaults(given: toml::Table) -> toml::Table {
    let mut whole = given;
    // A list has no defaults: there may be none of it.
    for key in KEYS.iter().filter(|key| !key.section.starts_with('[')) {
        let section = whole.entry(key.section).or_insert_with(|| toml::Table::new().into());
        let Some(section) = section.as_table_mut() else { continue };
        let default = key.default.and_then(|text| toml::from_str::<toml::Table>(&format!("v = {text}")).ok());
        if let Some(value) = default.and_then(|mut table| table.remove("v")) {
            section.entry(key.name).or_insert(value);
        }
    }
    whole
}

/// The reference page, in Markdown.
#[must_use]
pub fn reference() -> String {
    let mut page = String::from(
        "# Configuration\n\n`daypass-broker serve --config FILE` reads one TOML file. Unknown keys are refused. Relative paths are relative to the\n\
         file's folder. What is declared about identities, tasks and targets is not here but in the bundle (`policies/`).\n\
         This page is written from the program's own table of keys (`broker/src/config/keys.rs`).\n",
    );
    let mut section = "";
    for key in KEYS {
        if key.section != section {
            section = key.section;
            page +=
                &format!("\n## `[{section}]`\n\n| key | default | example | meaning |\n|---|---|---|---|\n");
        }
        let default = key.default.map_or_else(|| "required".into(), |text| format!("`{text}`"));
        page += &format!("| `{}` | {default} | `{}` | {} |\n", key.name, key.example, key.meaning);
    }
    page
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;
    use crate::config::Config;

    fn example() -> String {
        let mut text = String::new();
        let mut section = "";
        for key in KEYS {
            if key.section != section {
                section = key.section;
                writeln!(text, "[{section}]").unwrap();
            }
            writeln!(text, "{} = {}", key.name, key.example).unwrap();
        }
        text
    }

    #[test]
    fn every_documented_key_is_understood_and_no_other() {
        Config::parse(&example(), "the reference's examples").unwrap();
        for key in KEYS {
            let without: Vec<Key> = KEYS
                .iter()
                .copied()
                .filter(|other| (other.section, other.name) != (key.section, key.name))
                .collect();
            assert_eq!(without.len() + 1, KEYS.len(), "`{}.{}` is there twice", key.section, key.name);
        }
    }

    #[test]
    fn the_reference_page_is_the_one_that_the_program_writes() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");
        if std::env::var_os("DAYPASS_BLESS").is_some() {
            std::fs::write(path, reference()).unwrap();
        }
        assert_eq!(
            std::fs::read_to_string(path).unwrap(),
            reference(),
            "run the test with DAYPASS_BLESS=1 to write it anew"
        );
    }
}
