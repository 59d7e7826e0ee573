//! The certificate that a listener shows, read again whenever its files change.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::crypto::ring;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_util::sync::CancellationToken;

/// No certificate chain or key that is honest comes near it.
const FILE_LEN_MAX: u64 = 256 * 1024;

/// Why a certificate or its key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateFileError {
    /// A file could not be read.
    #[error("cannot read `{}`: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others than the owner may read or write the key.
    #[error("`{}` has mode {mode:04o}, expected 0600 or 0400: run `chmod 600` on it", path.display())]
    Exposed {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file holds no certificate in PEM.
    #[error("expected a chain of certificates in PEM in `{}`, its own first", .0.display())]
    Certificate(PathBuf),
    /// The file holds no private key in PEM, or one of a kind that is not accepted.
    #[error("expected one RSA, P-256, P-384 or Ed25519 private key in PEM in `{}`", .0.display())]
    Key(PathBuf),
    /// The key is another certificate's.
    #[error("the key in `{}` does not belong to the certificate in `{}`", key.display(), certificate.display())]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
}

/// A certificate chain and its key in two PEM files. Connections that are open keep what they began with.
#[derive(Debug)]
pub struct ReloadableCertificate {
    certificate: PathBuf,
    key: PathBuf,
    shown: ArcSwap<CertifiedKey>,
    read: Mutex<[Stamp; 2]>,
}

impl ReloadableCertificate {
    /// Reads both files.
    ///
    /// # Errors
    /// When either cannot be read or used, or the key's file is open to others than its owner.
    pub fn open(certificate: &Path, key: &Path) -> Result<Self, CertificateFileError> {
        let (pair, stamps) = read_pair(certificate, key)?;
        Ok(Self {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            shown: ArcSwap::from_pointee(pair),
            read: Mutex::new(stamps),
        })
    }

    /// Reads the files again if either changed; tells whether what is shown changed.
    ///
    /// # Errors
    /// As for [`Self::open`]; the old certificate stays, and the next call tries again.
    pub fn reload(&self) -> Result<bool, CertificateFileError> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if *read == [stamp_of(&self.certificate)?, stamp_of(&self.key)?] {
            return Ok(false);
        }
        let (pair, stamps) = read_pair(&self.certificate, &self.key)?;
        self.shown.store(Arc::new(pair));
        *read = stamps;
        Ok(true)
    }

    /// Looks for changes `every` so often until `shutdown`. A fault is logged once, not each time it is met.
    pub async fn watch(self: Arc<Self>, every: Duration, shutdown: CancellationToken) {
        let mut last_fault = None;
        while shutdown.run_until_cancelled(tokio::time::sleep(every)).await.is_some() {
            let certificate = Arc::clone(&self);
            let Ok(outcome) = tokio::task::spawn_blocking(move || certificate.reload()).await else {
                continue;
            };
            last_fault = report(&self.certificate, outcome, last_fault);
        }
    }
}

impl ResolvesServerCert for ReloadableCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.shown.load_full())
    }
}

/// As a client each connection reads the files first: a certificate that was renewed is shown from then on.
impl ResolvesClientCert for ReloadableCertificate {
    fn resolve(&self, _roots: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        if let Err(error) = self.reload() {
            tracing::error!(%error, "the client certificate stays as it was");
        }
        Some(self.shown.load_full())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

fn report(
    path: &Path,
    outcome: Result<bool, CertificateFileError>,
    last_fault: Option<String>,
) -> Option<String> {
    match outcome {
        Ok(changed) => {
            if changed || last_fault.is_some() {
                tracing::info!(certificate = %path.display(), "the server certificate is up to date");
            }
            None
        }
        Err(fault) => {
            let fault = fault.to_string();
            if last_fault.as_ref() != Some(&fault) {
                tracing::error!(%fault, "the server certificate was not reloaded; the old one stays");
            }
            Some(fault)
        }
    }
}

/// What tells one version of a file from the next, whether it was written in place or put in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    len: u64,
    modified: Option<SystemTime>,
    mode: u32,
}

impl Stamp {
    fn new(metadata: &std::fs::Metadata) -> Self {
        Self {
            inode: metadata.ino(),
            len: metadata.len(),
            modified: metadata.modified().ok(),
            mode: metadata.mode() & 0o7777,
        }
    }
}

fn stamp_of(path: &Path) -> Result<Stamp, CertificateFileError> {
    let metadata = std::fs::metadata(path).map_err(|source| read_error(path, source))?;
    Ok(Stamp::new(&metadata))
}

fn read_error(path: &Path, source: io::Error) -> CertificateFileError {
    CertificateFileError::Read { path: path.to_owned(), source }
}

/// The stamp is of the very file that was read, taken before its bytes: a later write is met as a change.
fn read_file(path: &Path) -> Result<(zeroize::Zeroizing<Vec<u8>>, Stamp), CertificateFileError> {
    let read = || {
        let file = File::open(path)?;
        let stamp = Stamp::new(&file.metadata()?);
        let mut bytes = zeroize::Zeroizing::new(Vec::new());
        file.take(FILE_LEN_MAX).read_to_end(&mut bytes)?;
        Ok((bytes, stamp))
    };
    read().map_err(|source| read_error(path, source))
}

fn read_pair(certificate: &Path, key: &Path) -> Result<(CertifiedKey, [Stamp; 2]), CertificateFileError> {
    let (chain_pem, chain_stamp) = read_file(certificate)?;
    let (key_pem, key_stamp) = read_file(key)?;
    if key_stamp.mode & 0o077 != 0 {
        return Err(CertificateFileError::Exposed { path: key.to_owned(), mode: key_stamp.mode });
    }
    let chain = CertificateDer::pem_slice_iter(&chain_pem)
        .collect::<Result<Vec<_>, _>>()
        .ok()
        .filter(|chain| !chain.is_empty())
        .ok_or_else(|| CertificateFileError::Certificate(certificate.to_owned()))?;
    let signing_key = PrivateKeyDer::from_pem_slice(&key_pem)
        .ok()
        .and_then(|der| ring::sign::any_supported_type(&der).ok())
        .ok_or_else(|| CertificateFileError::Key(key.to_owned()))?;
    let pair = CertifiedKey::new(chain, signing_key);
    pair.keys_match().map_err(|fault| match fault {
        rustls::Error::InconsistentKeys(_) => {
            CertificateFileError::Mismatch { certificate: certificate.to_owned(), key: key.to_owned() }
        }
        _ => CertificateFileError::Certificate(certificate.to_owned()),
    })?;
    Ok((pair, [chain_stamp, key_stamp]))
}
