//! What is written down: prose, commands, and what they said, without what is of one machine.

use std::path::Path;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/walk.md");

const HEAD: &str = "\
# A walk with two brokers

Recorded from a run of the real programs on one machine: `DAYPASS_BLESS=1 cargo test -p daypass-tests --test all walk` writes this
page. Every time the tests run, the walk is taken again. What to do in each case, and why: [operations.md](operations.md).
";

pub(super) struct Record {
    text: String,
    names: Vec<(String, String)>,
}

impl Record {
    pub(super) fn new(folder: &Path) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/verifier/");
        let names = vec![
            (format!("{}/", folder.display()), String::new()),
            (folder.display().to_string(), ".".into()),
            (script.into(), "docs/verifier/".into()),
        ];
        Self { text: HEAD.into(), names }
    }

    /// What a port of loopback is called.
    pub(super) fn names(&mut self, ports: &[(u16, &str)]) {
        for (port, name) in ports {
            self.names.push((format!("127.0.0.1:{port}"), (*name).into()));
            // A list of hosts is shown before its ports.
            self.names.push((format!("localhost:{port}"), (*name).into()));
        }
    }

    pub(super) fn say(&mut self, text: &str) {
        self.text.push_str(&format!("\n{text}\n"));
    }

    pub(super) fn command(&mut self, line: &str, said: &str) {
        let said = said.trim_end();
        let said = if said.is_empty() { String::new() } else { format!("{said}\n") };
        self.text.push_str(&format!("\n```text\n$ {line}\n{said}```\n"));
    }

    /// Writes the page, or compares its commands with those of this run.
    pub(super) fn finish(self) {
        let text = self.names.iter().fold(self.text, |text, (from, to)| text.replace(from, to));
        if std::env::var_os("DAYPASS_BLESS").is_some() {
            std::fs::write(PAGE, &text).unwrap();
        }
        let written = std::fs::read_to_string(PAGE).unwrap();
        assert_eq!(outline(&written), outline(&text), "take the walk again with DAYPASS_BLESS=1");
    }
}

/// Headings and commands, less the keys in them.
fn outline(text: &str) -> Vec<String> {
    let lines = text.lines().filter(|line| line.starts_with('#') || line.starts_with("$ "));
    let word = |word: &str| if word.contains("/evidence/") { "KEY".to_owned() } else { word.to_owned() };
    lines.map(|line| line.split(' ').map(word).collect::<Vec<_>>().join(" ")).collect()
}
