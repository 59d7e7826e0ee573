//! The roots of client CAs, which are in the bundle, and their revocation lists, which are files.

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use daypass_verify::certificate::{Crls, TrustAnchors};
use daypass_verify::ids::Digest;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};

/// A file of revocation lists: some 400,000 revoked certificates.
const CRL_LEN_MAX: u64 = 16 * 1024 * 1024;

const DER_SEQUENCE: u8 = 0x30;

/// The roots, from base64 of DER.
pub(super) fn anchors(ca: &[String]) -> Result<Arc<TrustAnchors>, String> {
    let decode = |text: &String| STANDARD.decode(text).map(CertificateDer::from);
    let ders = ca.iter().map(decode).collect::<Result<Vec<_>, _>>();
    let ders = ders.map_err(|_| "expected base64 of DER in `ca`")?;
    TrustAnchors::new(ders).map(Arc::new).map_err(|error| format!("the client CA is refused: {error}"))
}

/// Reads the lists of a file: PEM, any number, or one in DER. The digest tells whether they have changed.
pub(super) fn read_crls(path: &Path) -> Result<(Arc<Crls>, Digest), String> {
    let refuse = |why: String| format!("`{}` is refused: {why}", path.display());
    let bytes = read_bounded(path).map_err(|error| refuse(error.to_string()))?;
    let is_der = bytes.first() == Some(&DER_SEQUENCE);
    let lists = if is_der { vec![bytes.clone()] } else { from_pem(&bytes).map_err(refuse)? };
    let ders: Vec<_> = lists.into_iter().map(CertificateRevocationListDer::from).collect();
    let crls = Crls::new(&ders).map_err(|error| refuse(error.to_string()))?;
    Ok((Arc::new(crls), Digest::of(&bytes)))
}

fn read_bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    // Reading from a pipe or a device might never end.
    if !fs::metadata(path)?.is_file() {
        return Err(std::io::Error::other("expected a regular file"));
    }
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(CRL_LEN_MAX + 1).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > CRL_LEN_MAX {
        return Err(std::io::Error::other("expected at most 16 MiB"));
    }
    Ok(bytes)
}

fn from_pem(bytes: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    let blocks = pem::parse_many(bytes).map_err(|error| error.to_string())?;
    if blocks.iter().any(|block| block.tag() != "X509 CRL") {
        return Err("expected PEM blocks `X509 CRL` only".to_owned());
    }
    Ok(blocks.into_iter().map(pem::Pem::into_contents).collect())
}
