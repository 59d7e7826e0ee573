//! `[node]`: the agent's own proof is the certificate of its machine.

use std::path::{Path, PathBuf};

use daypass_verify::ids::Name;

use super::CertificateFiles;
use super::section::Section;

/// What a node's certificate is called within its directory.
const CERTIFICATE: &str = "node.pem";

/// How the machine proves itself as a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Where its certificate and key are kept.
    pub directory: PathBuf,
    /// Where the one-time code is put that lets it in.
    pub code_file: Option<PathBuf>,
    /// The task by which it gets its certificate.
    pub task: Name,
}

impl Node {
    /// The certificate and its key, in one file, so that they are replaced together.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.directory.join(CERTIFICATE)
    }

    /// The same as what a client reads.
    #[must_use]
    pub fn files(&self) -> CertificateFiles {
        CertificateFiles { chain: self.certificate(), key: self.certificate() }
    }
}

pub(super) fn read(mut section: Section<'_>, folder: &Path) -> Option<Node> {
    let directory = section.required::<PathBuf>("dir", "a directory for the node's certificate and key");
    let code_file = section.optional::<PathBuf>("code_file");
    let task = section.optional::<Name>("task");
    section.finish();
    let task = task.or_else(|| "node".parse().ok())?;
    Some(Node { directory: folder.join(directory?), code_file: code_file.map(|it| folder.join(it)), task })
}
