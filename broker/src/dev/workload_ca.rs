//! A CA that gives workloads SPIFFE client certificates (X.509-SVID), for development and tests.

use std::path::Path;

use daypass_verify::ids::{SpiffeId, TrustDomain};
use daypass_verify::time::{Seconds, UnixMs};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, SanType};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use super::authority::{Authority, leaf_params};
use super::{DevError, files};

/// How far before `now` a certificate begins, for receivers whose clocks are behind.
const SKEW_S: i64 = 30;

/// A root, and the key that signs workloads' certificates.
pub struct WorkloadCa {
    authority: Authority,
}

/// A workload's certificate and private key.
pub struct WorkloadCertificate {
    /// The leaf alone: it is signed by the root itself.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its private key.
    pub key: PrivatePkcs8KeyDer<'static>,
}

impl WorkloadCa {
    /// The CA for `trust_domain` that is kept in `dev/workload-ca.json` under the state directory; at the first
    /// start a new one is written there.
    ///
    /// # Errors
    /// When the file cannot be read or written, or is damaged.
    pub fn load_or_new(state: &Path, trust_domain: &TrustDomain, now: UnixMs) -> Result<Self, DevError> {
        let directory = state.join("dev");
        files::private_directory(&directory)?;
        let uri = format!("spiffe://{trust_domain}");
        let path = directory.join("workload-ca.json");
        Authority::load_or_new(&path, "Daypass development workloads", Some(&uri), now)
            .map(|authority| Self { authority })
    }

    /// A CA for `trust_domain` that lives in memory only.
    ///
    /// # Errors
    /// When no key could be made.
    pub fn new(trust_domain: &TrustDomain, now: UnixMs) -> Result<Self, DevError> {
        let uri = format!("spiffe://{trust_domain}");
        Authority::new("Daypass development workloads", Some(&uri), now).map(|authority| Self { authority })
    }

    /// The root, to be declared as a client CA.
    #[must_use]
    pub fn root(&self) -> &CertificateDer<'static> {
        self.authority.root()
    }

    /// A client certificate with `id` as its only URI SAN, valid for `ttl_s` from `now`.
    ///
    /// # Errors
    /// When no key could be made.
    pub fn issue(&self, id: &SpiffeId, now: UnixMs, ttl_s: Seconds) -> Result<WorkloadCertificate, DevError> {
        self.issue_odd(id, now, ttl_s, |_| {})
    }

    /// The same, with `change` applied to everything that will be signed: how tests make one thing wrong.
    ///
    /// # Errors
    /// When no key could be made, or what `change` leaves cannot be a certificate.
    pub fn issue_odd(
        &self,
        id: &SpiffeId,
        now: UnixMs,
        ttl_s: Seconds,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Result<WorkloadCertificate, DevError> {
        let mut params = leaf_params(now.plus_millis(-SKEW_S * 1000), now.plus(ttl_s))?;
        params.subject_alt_names = vec![SanType::URI(id.as_str().try_into()?)];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let issued = self.authority.issue(&params)?;
        Ok(WorkloadCertificate { chain: vec![issued.certificate], key: issued.key })
    }
}

impl WorkloadCertificate {
    /// The chain as PEM.
    #[must_use]
    pub fn chain_pem(&self) -> String {
        self.chain.iter().map(|der| pem::encode(&pem::Pem::new("CERTIFICATE", der.as_ref()))).collect()
    }

    /// The private key as PEM (PKCS#8).
    #[must_use]
    pub fn key_pem(&self) -> String {
        pem::encode(&pem::Pem::new("PRIVATE KEY", self.key.secret_pkcs8_der()))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use daypass_verify::certificate::{CertificateError, TrustAnchors, verify_client_chain};
    use rcgen::IsCa;

    use super::*;

    const NOW: UnixMs = UnixMs::new(1_800_000_000_000);

    fn billing() -> SpiffeId {
        "spiffe://acme.example/billing".parse().unwrap()
    }

    fn check(
        ca: &WorkloadCa,
        shown: &WorkloadCertificate,
        now: UnixMs,
    ) -> Result<SpiffeId, CertificateError> {
        let anchors = TrustAnchors::new(vec![ca.root().clone()]).unwrap();
        verify_client_chain(&shown.chain, &anchors, None, now)?.spiffe_id()
    }

    fn ca() -> WorkloadCa {
        WorkloadCa::new(&"acme.example".parse().unwrap(), NOW).unwrap()
    }

    #[test]
    fn a_workloads_certificate_is_its_spiffe_id_for_as_long_as_it_says() {
        let ca = ca();
        let shown = ca.issue(&billing(), NOW, Seconds::new(60)).unwrap();
        assert_eq!(check(&ca, &shown, NOW), Ok(billing()));
        assert_eq!(check(&ca, &shown, NOW.plus_millis(60_000)), Ok(billing()));
        assert!(check(&ca, &shown, NOW.plus_millis(61_000)).is_err());
    }

    #[test]
    fn a_certificate_made_odd_is_refused() {
        let ca = ca();
        let odd: [fn(&mut CertificateParams); 3] = [
            |params| params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained),
            |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth],
            |params| params.subject_alt_names.clear(),
        ];
        for (i, change) in odd.into_iter().enumerate() {
            let shown = ca.issue_odd(&billing(), NOW, Seconds::new(60), change).unwrap();
            assert!(check(&ca, &shown, NOW).is_err(), "{i}");
        }
    }

    #[test]
    fn a_second_start_signs_under_the_same_root_from_a_private_file() {
        let state = tempfile::tempdir().unwrap();
        let start = || WorkloadCa::load_or_new(state.path(), &"acme.example".parse().unwrap(), NOW).unwrap();
        let (first, second) = (start(), start());
        let shown = second.issue(&billing(), NOW, Seconds::new(60)).unwrap();
        assert_eq!(check(&first, &shown, NOW), Ok(billing()));
        let mode =
            |path: &str| std::fs::metadata(state.path().join(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("dev"), mode("dev/workload-ca.json")), (0o700, 0o600));
    }

    #[test]
    fn a_damaged_state_file_is_named_and_not_replaced() {
        let state = tempfile::tempdir().unwrap();
        let path = state.path().join("dev/workload-ca.json");
        std::fs::create_dir(state.path().join("dev")).unwrap();
        std::fs::write(&path, b"{}").unwrap();
        let started = WorkloadCa::load_or_new(state.path(), &"acme.example".parse().unwrap(), NOW);
        assert!(matches!(started.err(), Some(DevError::Damaged(named)) if named == path));
        assert_eq!(std::fs::read(&path).unwrap(), b"{}");
    }
}
