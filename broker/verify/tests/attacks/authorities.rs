//! Roots, intermediates and leaves for the tests.

use daypass_verify::certificate::{CertificateError, TrustAnchors, VerifiedLeaf, verify_client_chain};
use daypass_verify::time::UnixMs;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
};
use rustls_pki_types::CertificateDer;

pub(crate) type Authority = CertifiedIssuer<'static, KeyPair>;

/// 2027-01-01T00:00:00Z: within the life of every certificate made here.
pub(crate) const NOW: UnixMs = UnixMs::new(1_798_761_600_000);

pub(crate) fn key() -> KeyPair {
    KeyPair::generate().unwrap()
}

pub(crate) fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

pub(crate) fn authority_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = date_time_ymd(2026, 1, 1);
    params.not_after = date_time_ymd(2036, 1, 1);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

pub(crate) fn leaf_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = date_time_ymd(2026, 12, 31);
    params.not_after = date_time_ymd(2027, 1, 2);
    params.distinguished_name = DistinguishedName::new();
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    params.subject_alt_names = vec![uri("spiffe://example.org/prod/billing")];
    params.use_authority_key_identifier_extension = true;
    params
}

/// A root and one CA under it.
pub(crate) struct Authorities {
    pub(crate) root: Authority,
    pub(crate) middle: Authority,
}

impl Authorities {
    pub(crate) fn new() -> Self {
        Self::with(|_, _| ())
    }

    /// `change` may spoil the parameters of the root and of the CA under it.
    pub(crate) fn with(change: impl FnOnce(&mut CertificateParams, &mut CertificateParams)) -> Self {
        let (mut root, mut middle) = (authority_params("root"), authority_params("middle"));
        change(&mut root, &mut middle);
        let root = Authority::self_signed(root, key()).unwrap();
        let middle = Authority::signed_by(middle, key(), &root).unwrap();
        Self { root, middle }
    }

    pub(crate) fn anchors(&self) -> TrustAnchors {
        TrustAnchors::new(vec![self.root.der().clone()]).unwrap()
    }

    /// A leaf under the CA whose parameters are spoiled by `change`, and the CA.
    pub(crate) fn chain(&self, change: impl FnOnce(&mut CertificateParams)) -> Vec<CertificateDer<'static>> {
        let mut params = leaf_params();
        change(&mut params);
        let leaf = params.signed_by(&key(), &self.middle).unwrap();
        vec![leaf.der().clone(), self.middle.der().clone()]
    }

    pub(crate) fn check(&self, chain: &[CertificateDer<'_>]) -> Result<VerifiedLeaf, CertificateError> {
        verify_client_chain(chain, &self.anchors(), None, NOW)
    }
}
