//! What is declared, changed for a test.

use daypass_broker::dev::organisation::sample;
use daypass_core::bundle::SourceFile;

/// Changes the file whose path ends with `name`.
///
/// # Panics
/// When there is none, or nothing in it changes.
pub fn edited(files: &mut [SourceFile], name: &str, edit: &dyn Fn(&str) -> String) {
    let file = files.iter_mut().find(|file| file.path.ends_with(name)).unwrap();
    let text = edit(&file.text);
    assert_ne!(text, file.text, "{name}");
    file.text = text;
}

/// The sample organisation with one file changed.
///
/// # Panics
/// As for [`edited`].
#[must_use]
pub fn sample_with(name: &str, edit: impl Fn(&str) -> String) -> Vec<SourceFile> {
    let mut files = sample();
    edited(&mut files, name, &edit);
    files
}
