//! What the table of keys is good for: defaults, and the reference page.

use super::keys::KEYS;

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
    use crate::config::{Config, Key};

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
