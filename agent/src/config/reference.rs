//! The reference page.

use super::keys::keys;

const INTRODUCTION: &str = "# The agent's configuration

`daypass-agent --config FILE` reads one TOML file, and `daypass-agent check --config FILE` says all that is wrong with it.
Unknown keys are refused. Relative paths are relative to the file's folder. What the agent is for, and what it does with
what is configured here, is told in [agent/README.md](../agent/README.md).
This page is written from the program's own table of keys (`agent/src/config/keys.rs`).
";

/// The reference page, in Markdown.
#[must_use]
pub fn reference() -> String {
    let mut page = String::from(INTRODUCTION);
    let mut section = None;
    for key in keys() {
        if section != Some(key.section) {
            section = Some(key.section);
            let title = match key.section {
                "" => "At the top".to_owned(),
                section => format!("`{section}`"),
            };
            page += &format!("\n## {title}\n\n| key | default | example | meaning |\n|---|---|---|---|\n");
        }
        let default = key.default.unwrap_or("required");
        page += &format!("| `{}` | {default} | `{}` | {} |\n", key.name, key.example, key.meaning);
    }
    page
}
