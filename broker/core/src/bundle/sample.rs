//! The sample organisation under `policies/`, for tests.

use std::path::{Path, PathBuf};

use super::{Bundle, SourceFile, compile};

/// The folder of the sample organisation.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../policies")
}

/// Its files.
pub(crate) fn files() -> Vec<SourceFile> {
    let mut files = Vec::new();
    let mut folders = vec![folder()];
    while let Some(inner) = folders.pop() {
        for entry in std::fs::read_dir(inner).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let relative = path.strip_prefix(folder()).unwrap().to_str().unwrap().to_owned();
                files.push(SourceFile { path: relative, text: std::fs::read_to_string(path).unwrap() });
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

/// The sample organisation, compiled.
pub(crate) fn bundle() -> Bundle {
    compile(&files()).unwrap_or_else(|findings| panic!("{}", lines(&findings)))
}

/// Its files, with `from` in one of them replaced by `to`.
pub(crate) fn spoiled(path: &str, from: &str, to: &str) -> Vec<SourceFile> {
    let mut files = files();
    let file = files.iter_mut().find(|file| file.path == path).unwrap();
    assert!(file.text.contains(from), "{path} holds no `{from}`");
    file.text = file.text.replacen(from, to, 1);
    files
}

/// Findings, one a line.
pub(crate) fn lines(findings: &[super::Finding]) -> String {
    findings.iter().map(|finding| format!("{finding}\n")).collect()
}

#[test]
fn the_sample_organisation_is_without_fault() {
    let bundle = bundle();
    assert_eq!(lines(bundle.warnings()), "");
}
