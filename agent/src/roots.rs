//! The roots that a configuration names, as they are now.

use std::path::Path;

use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

/// The certificates in a file, PEM.
///
/// # Errors
/// When it cannot be read, or holds none or something else, in words.
pub(crate) fn read(path: &Path) -> Result<RootCertStore, String> {
    let wrong = |why: String| format!("`{}`: {why}", path.display());
    let pem = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    for der in CertificateDer::pem_slice_iter(&pem) {
        let der = der.map_err(|error| wrong(error.to_string()))?;
        roots.add(der).map_err(|error| wrong(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(wrong("expected one or more PEM blocks `CERTIFICATE`".into()));
    }
    Ok(roots)
}
