//! The files of the project, as they lie on the disk.

use std::path::{Path, PathBuf};

/// What the top level holds that is ours.
const TOP: &[&str] = &["agent", "broker", "docs", "policies", "proto", "sdk", "tests"];

/// One file, by its path from the top.
pub(super) struct Source {
    pub(super) path: String,
    pub(super) text: String,
}

impl Source {
    /// The lines before the tests within the file.
    pub(super) fn code(&self) -> Vec<&str> {
        let lines: Vec<&str> = self.text.lines().collect();
        let inline = |pair: &[&str]| {
            pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod ") && pair[1].ends_with('{')
        };
        let end = lines.windows(2).position(inline).unwrap_or(lines.len());
        lines[..end].to_vec()
    }

    /// Whether all of it is test code.
    pub(super) fn is_test(&self) -> bool {
        let path = &self.path;
        path.starts_with("tests/")
            || path.contains("/tests/")
            || path.ends_with("tests.rs")
            || is_declared_as_test(path)
    }

    pub(super) fn is_under(&self, places: &[&str]) -> bool {
        places.iter().any(|place| self.path == *place || self.path.starts_with(&format!("{place}/")))
    }
}

/// Whether the module above declares this file, or a folder that it lies in, with `#[cfg(test)]`.
fn is_declared_as_test(path: &str) -> bool {
    let mut module = path.strip_suffix(".rs").unwrap_or(path);
    while let Some((folder, name)) = module.rsplit_once('/') {
        let parents = [format!("{folder}.rs"), format!("{folder}/lib.rs"), format!("{folder}/main.rs")];
        let declared = |text: String| {
            let lines: Vec<&str> = text.lines().collect();
            let ends = [format!("mod {name};")];
            lines
                .windows(2)
                .any(|pair| pair[0] == "#[cfg(test)]" && ends.iter().any(|end| pair[1].ends_with(end)))
        };
        if parents.iter().any(|parent| std::fs::read_to_string(top().join(parent)).is_ok_and(declared)) {
            return true;
        }
        module = folder;
    }
    false
}

pub(super) fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

pub(super) fn read(path: &str) -> String {
    std::fs::read_to_string(top().join(path)).unwrap_or_else(|error| panic!("`{path}`: {error}"))
}

/// All files of text, those of the top level included.
pub(super) fn all() -> Vec<Source> {
    let mut found = Vec::new();
    let files = std::fs::read_dir(top()).unwrap().map(|entry| entry.unwrap().path());
    // In a second worktree `.git` is a file, and names the first.
    files.filter(|path| path.is_file() && !path.ends_with(".git")).for_each(|path| keep(&path, &mut found));
    let mut folders: Vec<PathBuf> = TOP.iter().map(|name| top().join(name)).collect();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { keep(&path, &mut found) }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn keep(path: &Path, found: &mut Vec<Source>) {
    // What is no text has no words in it.
    if let Ok(text) = std::fs::read_to_string(path) {
        let path = path.strip_prefix(top()).unwrap().to_str().unwrap().to_owned();
        found.push(Source { path, text });
    }
}

/// All Rust sources.
pub(super) fn rust() -> Vec<Source> {
    let sources: Vec<_> = all().into_iter().filter(|source| source.path.ends_with(".rs")).collect();
    assert!(sources.len() > 200, "only {} sources were found", sources.len());
    sources
}

/// Those of the program below `folder`, less their tests.
pub(super) fn program(folder: &str) -> Vec<Source> {
    rust().into_iter().filter(|source| source.is_under(&[folder]) && !source.is_test()).collect()
}
