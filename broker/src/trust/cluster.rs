//! The keys of the Kubernetes cluster that the broker runs in. They are not published: the API server gives them to
//! pods, by its own certificate and to the broker's own service account. Where that server, its CA and the token are
//! is fixed, so that nothing that is declared can send the token, or any other file, elsewhere.

use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;
use std::sync::Arc;

use reqwest::header::HeaderValue;
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use zeroize::Zeroizing;

/// A CA bundle, or a token: each far below this.
const FILE_LEN_MAX: u64 = 256 * 1024;

/// Where a pod finds what it needs to speak to its API server.
#[derive(Debug, Clone)]
pub(super) struct Cluster {
    /// The key set.
    pub(super) keys_url: String,
    /// The CA of the API server, PEM.
    pub(super) ca: PathBuf,
    /// The token of the pod's service account; the kubelet replaces it from time to time.
    pub(super) token: PathBuf,
}

impl Cluster {
    pub(super) fn in_pod() -> Self {
        let account = PathBuf::from("/var/run/secrets/kubernetes.io/serviceaccount");
        Self {
            keys_url: "https://kubernetes.default.svc/openid/v1/jwks".to_owned(),
            ca: account.join("ca.crt"),
            token: account.join("token"),
        }
    }

    pub(super) fn roots(&self) -> Result<Arc<RootCertStore>, String> {
        let pem = read(&self.ca)?;
        let mut roots = RootCertStore::empty();
        for der in CertificateDer::pem_slice_iter(&pem) {
            let der =
                der.map_err(|_| format!("`{}` is not PEM: expected the cluster's CA", self.ca.display()))?;
            roots.add(der).map_err(|_| format!("`{}` holds what is no CA certificate", self.ca.display()))?;
        }
        match roots.is_empty() {
            true => Err(format!("`{}` holds no certificate: expected the cluster's CA", self.ca.display())),
            false => Ok(Arc::new(roots)),
        }
    }

    /// `Bearer` and the token, marked so that it is never shown.
    pub(super) fn authorization(&self) -> Result<HeaderValue, String> {
        let token = read(&self.token)?;
        let token = token.trim_ascii();
        let expected = || {
            format!(
                "`{}` holds no token: expected that of the broker's service account",
                self.token.display()
            )
        };
        if token.is_empty() {
            return Err(expected());
        }
        let whole = Zeroizing::new([b"Bearer ", token].concat());
        let mut value = HeaderValue::from_bytes(&whole).map_err(|_| expected())?;
        value.set_sensitive(true);
        Ok(value)
    }
}

fn read(path: &PathBuf) -> Result<Zeroizing<Vec<u8>>, String> {
    let mut bytes = Zeroizing::new(Vec::new());
    File::open(path)
        .and_then(|file| file.take(FILE_LEN_MAX).read_to_end(&mut bytes))
        .map_err(|error| format!("cannot read `{}`: {error}; expected to run in a pod", path.display()))?;
    Ok(bytes)
}
