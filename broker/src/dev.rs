//! A whole organisation on one machine, for development and for tests: an issuer of ID tokens and a CA for
//! workloads, each a real one on loopback with keys of its own.

use std::path::PathBuf;

mod authority;
mod files;
pub mod issuer;
pub mod workload_ca;

/// Why a part of the development organisation did not start or could not sign.
#[derive(Debug, thiserror::Error)]
pub enum DevError {
    /// A file could not be read or written.
    #[error("cannot use `{}`: {source}; check its owner and the space on its disk", path.display())]
    File {
        /// Which file or directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A state file is not what an earlier start wrote.
    #[error("`{}` is damaged; remove it to begin with new keys", .0.display())]
    Damaged(PathBuf),
    /// The port is taken.
    #[error("cannot listen on 127.0.0.1:{port}: {source}; stop what holds the port, or name another")]
    Port {
        /// Which port.
        port: u16,
        /// What the system said.
        source: std::io::Error,
    },
    /// A key is malformed or of another kind than expected.
    #[error("expected {0}")]
    Key(&'static str),
    /// A certificate could not be made.
    #[error("cannot make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// A token could not be signed.
    #[error("cannot sign a token: {0}")]
    Token(#[from] jsonwebtoken::errors::Error),
    /// The TLS listener could not be set up.
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The system gave no random bytes.
    #[error("the system gave no random bytes")]
    Random,
}
