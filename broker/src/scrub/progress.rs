//! How far the scrubber came, in a file beside the anchor: a restart goes on from there, and damage that was found
//! is not forgotten.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use daypass_evidence::tree::Frontier;
use daypass_verify::ids::Digest;
use daypass_verify::time::UnixMs;
use serde::{Deserialize, Serialize};

/// What the file holds. A file that cannot be read is as none: a pass then begins anew.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The newest log.
    pub origin: String,
    /// The closed one that the pass under way is in; none: the newest, or it has not begun.
    #[serde(default)]
    log: Option<String>,
    /// When a pass last came to its end.
    #[serde(default)]
    pub done_ms: Option<UnixMs>,
    /// How many entries of the pass under way were read.
    #[serde(default)]
    size: u64,
    /// The tree over them.
    #[serde(default)]
    frontier: Vec<Digest>,
    /// What was found to be changed.
    #[serde(default)]
    pub damage: Option<String>,
}

impl Progress {
    /// The file beside an anchor.
    #[must_use]
    pub fn file(anchor: &Path) -> PathBuf {
        let mut name = anchor.as_os_str().to_owned();
        name.push(".scrub");
        name.into()
    }

    /// What the file at `path` says of a store with the logs `origins`, the newest last.
    #[must_use]
    pub fn read(path: &Path, origins: &[&str]) -> Self {
        let newest = origins.last().copied().unwrap_or_default().to_owned();
        let read = fs::read(path).ok().and_then(|bytes| serde_json::from_slice::<Self>(&bytes).ok());
        match read.filter(|read| origins.contains(&read.origin.as_str())) {
            // It was closed since: where a pass was in it, it still is.
            Some(read) if read.origin != newest && read.size > 0 && read.log.is_none() => {
                Self { log: Some(read.origin), origin: newest, ..read }
            }
            Some(read) => Self { origin: newest, ..read },
            None => Self { origin: newest, ..Self::default() },
        }
    }

    /// How many of the logs `closed` the pass under way has read.
    pub fn logs_done<'a>(&self, mut closed: impl ExactSizeIterator<Item = &'a str>) -> usize {
        match &self.log {
            Some(log) => closed.position(|origin| origin == log).unwrap_or(0),
            None if self.size == 0 => 0,
            None => closed.len(),
        }
    }

    /// The pass under way is in `log`: from its first entry on, where it was in another.
    pub fn is_in(&mut self, log: Option<&str>) {
        if self.log.as_deref() != log {
            self.log = log.map(str::to_owned);
            self.came_to(&Frontier::empty());
        }
    }

    /// The next pass begins with the first entry of the first log.
    pub fn begin_again(&mut self) {
        self.log = None;
        self.came_to(&Frontier::empty());
    }

    /// The tree of the pass under way.
    #[must_use]
    pub fn tree(&self) -> Frontier {
        let nodes = self.frontier.iter().map(|node| *node.as_bytes()).collect();
        Frontier::from_parts(self.size, nodes).unwrap_or_default()
    }

    /// Notes how far the pass under way came.
    pub fn came_to(&mut self, tree: &Frontier) {
        self.size = tree.size();
        self.frontier = tree.nodes().iter().copied().map(Digest::from_bytes).collect();
    }

    /// Writes it: the file is the old one or the new one, whole.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let mut new = path.as_os_str().to_owned();
        new.push(".new");
        let mut file = fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.sync_data()?;
        fs::rename(&new, path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = "example.org/evidence/2026h2";
    const NEXT: &str = "example.org/evidence/2027h1";

    #[test]
    fn a_pass_goes_on_where_the_file_says_and_anew_where_it_says_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = Progress::file(&folder.path().join("anchor"));
        let mut tree = Frontier::empty();
        (0..300_u16).for_each(|i| tree.append(Digest::of(&i.to_be_bytes()).as_bytes().to_owned()));
        let mut progress = Progress::read(&path, &[FIRST]);
        progress.came_to(&tree);
        progress.damage = Some("entry 7".into());
        progress.write(&path).unwrap();
        let read = Progress::read(&path, &[FIRST]);
        assert_eq!((&read, read.tree()), (&progress, tree.clone()));
        assert_eq!(Progress::read(&path, &[NEXT]).tree(), Frontier::empty());

        // The log was closed while a pass was in it.
        let mut read = Progress::read(&path, &["example.org/evidence/2026h1", FIRST, NEXT]);
        assert_eq!((read.tree(), read.damage.as_deref()), (tree, Some("entry 7")));
        assert_eq!(read.logs_done(["example.org/evidence/2026h1", FIRST].into_iter()), 1);
        read.is_in(Some(FIRST));
        assert_eq!(read.tree().size(), 300);
        read.is_in(None);
        assert_eq!(read.tree(), Frontier::empty());

        fs::write(&path, "{").unwrap();
        assert_eq!(Progress::read(&path, &[FIRST]).damage, None);
    }
}
