//! The revocation lists of the broker's CAs in a file, for a server that reads one and learns of it by a command.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tracing::error;

use super::names::each;
use crate::hook::Hook;

/// A file that always holds all lists of one moment.
pub(super) struct Lists {
    file: PathBuf,
    hook: Option<Hook>,
    written: Vec<u8>,
}

impl Lists {
    /// To be called within a tokio runtime.
    pub(super) fn new(file: PathBuf, reload: Vec<String>) -> Self {
        Self { file, hook: Hook::new(reload), written: Vec::new() }
    }

    /// Replaces the file where the lists (DER, one after another) are others than before, and has them read.
    pub(super) fn put(&mut self, lists: &[u8]) {
        if lists.is_empty() || lists == self.written {
            return;
        }
        let pem = |list: &&[u8]| pem::encode(&pem::Pem::new("X509 CRL", *list));
        let text: String = each(lists).iter().map(pem).collect();
        match replace(&self.file, text.as_bytes()) {
            Ok(()) => {
                self.written = lists.to_vec();
                if let Some(hook) = &self.hook {
                    hook.call();
                }
            }
            Err(failed) => {
                error!("the revocation lists cannot be written to `{}`: {failed}", self.file.display())
            }
        }
    }
}

/// Nothing in it is secret: whoever runs the server may read it.
fn replace(file: &Path, text: &[u8]) -> std::io::Result<()> {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".next");
    let next = file.with_file_name(name);
    match std::fs::remove_file(&next) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut written = std::fs::File::options().write(true).create_new(true).open(&next)?;
    // Whatever this process's mask leaves of it.
    written.set_permissions(std::fs::Permissions::from_mode(0o644))?;
    written.write_all(text)?;
    written.sync_all()?;
    std::fs::rename(next, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_replaced_whole_and_anybody_may_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("daypass.crl");
        // What was left by one that was killed is in nobody's way.
        std::fs::write(folder.path().join("daypass.crl.next"), "half").unwrap();
        for text in ["one", "another"] {
            replace(&file, text.as_bytes()).unwrap();
            assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
            assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o644);
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(replace(&folder.path().join("nowhere/daypass.crl"), b"").is_err());
    }
}
