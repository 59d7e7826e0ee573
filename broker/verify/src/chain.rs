//! Paths from a leaf certificate to a trusted root (RFC 5280, section 6): webpki builds and checks them, and
//! what it leaves out is checked here.

use std::cell::Cell;
use std::time::Duration;

use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, TrustAnchor, UnixTime};
use webpki::{
    CertRevocationList, EndEntityCert, ExpirationPolicy, KeyUsage, OwnedCertRevocationList,
    RevocationCheckDepth, RevocationOptionsBuilder, UnknownStatusPolicy, VerifiedPath,
};
use x509_parser::prelude::{CertificateRevocationList, FromDer as _, X509Certificate};

use crate::certificate::CertificateError;
use crate::key::RawKey;
use crate::time::UnixMs;

/// The longest chain in bytes: 64 KiB.
pub const CHAIN_LEN_MAX: usize = 64 * 1024;
/// The most certificates between the leaf and the root.
pub const INTERMEDIATES_MAX: usize = 6;

/// What a leaf is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LeafUsage {
    /// Clients in handshakes.
    Client,
    /// Services in handshakes.
    Server,
    /// A node that asks its broker.
    Node,
}

/// `2.25` and the last arc of [`crate::certificate::NODE_USAGE_OID`], as DER has them.
const NODE_USAGE_DER: &[u8] = &[0x69, 0xe6, 0x94, 0xd8, 0xf0, 0xf2, 0xf1, 0xb3, 0xe9, 0x4e];

impl LeafUsage {
    fn of_webpki(self) -> KeyUsage {
        match self {
            Self::Client => KeyUsage::client_auth(),
            Self::Server => KeyUsage::server_auth(),
            Self::Node => KeyUsage::required_if_present(NODE_USAGE_DER),
        }
    }
}

/// Roots that are trusted, each within its own bounds.
#[derive(Debug, Clone)]
pub struct TrustAnchors {
    anchors: Vec<TrustAnchor<'static>>,
    bounds: Vec<Bounds>,
}

/// What a root says of itself and webpki does not ask: it takes a root as a name and a key alone.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    validity: (UnixMs, UnixMs),
    /// How many CAs may lie between the root and a leaf.
    path_len: Option<u32>,
}

impl TrustAnchors {
    /// Trusts these root certificates.
    ///
    /// # Errors
    /// When there is none, or one is malformed, no CA, may not sign certificates, or has a key that is not
    /// accepted. Nothing is left out in silence.
    pub fn new(ders: Vec<CertificateDer<'static>>) -> Result<Self, CertificateError> {
        let mut trusted = Self { anchors: Vec::new(), bounds: Vec::new() };
        for der in &ders {
            let anchor = webpki::anchor_from_trusted_cert(der).map_err(|_| CertificateError::Malformed)?;
            let root = parse(der)?;
            check_authority(&root, KeyUsageRule::WherePresent)?;
            trusted.anchors.push(anchor.to_owned());
            let constraints = root.basic_constraints().ok().flatten();
            let path_len = constraints.and_then(|it| it.value.path_len_constraint);
            trusted.bounds.push(Bounds { validity: validity(&root), path_len });
        }
        if trusted.anchors.is_empty() { Err(CertificateError::NoAnchor) } else { Ok(trusted) }
    }

    /// The moment after which none of the roots is valid any more.
    #[must_use]
    pub fn not_after(&self) -> UnixMs {
        self.bounds.iter().map(|it| it.validity.1).max().unwrap_or_default()
    }

    /// Checks one of these roots, found by webpki, against its own bounds.
    fn check(&self, path: &VerifiedPath<'_>, now: UnixMs) -> Result<(), CertificateError> {
        let same = |it: &TrustAnchor<'_>| {
            let anchor = path.anchor();
            it.subject == anchor.subject && it.subject_public_key_info == anchor.subject_public_key_info
        };
        let sub_cas = path.intermediate_certificates().count();
        let mut refusal = CertificateError::UnknownIssuer;
        // One root may be there twice, renewed under its old key: either will do.
        for (_, bounds) in self.anchors.iter().zip(&self.bounds).filter(|(it, _)| same(it)) {
            match bounds.check(sub_cas, now) {
                Ok(()) => return Ok(()),
                Err(why) => refusal = why,
            }
        }
        Err(refusal)
    }
}

impl Bounds {
    fn check(self, sub_cas: usize, now: UnixMs) -> Result<(), CertificateError> {
        let (from, until) = self.validity;
        let room = self.path_len.is_none_or(|len| u32::try_from(sub_cas).is_ok_and(|count| count <= len));
        if now < from {
            return Err(CertificateError::NotYetValid);
        }
        if now.floor_second() > until {
            return Err(CertificateError::Expired);
        }
        if room { Ok(()) } else { Err(CertificateError::IssuerNotCa) }
    }
}

/// Revocation lists for every certificate of a chain. Where they are given, a certificate whose status they
/// do not tell is refused, and so is every certificate under a list that is out of date.
#[derive(Debug)]
pub struct Crls(Vec<CertRevocationList<'static>>);

impl Crls {
    /// Takes these lists; of two by one issuer the newer counts.
    ///
    /// # Errors
    /// When there is none, or one is malformed, has no number, or is of a kind that cannot be checked (delta
    /// lists, indirect lists).
    pub fn new(ders: &[CertificateRevocationListDer<'_>]) -> Result<Self, CertificateError> {
        let mut lists = ders.iter().map(|der| read_crl(der)).collect::<Result<Vec<_>, _>>()?;
        if lists.is_empty() {
            return Err(CertificateError::RevocationUnknown);
        }
        lists.sort_by_key(|(updated_s, _)| std::cmp::Reverse(*updated_s));
        Ok(Self(lists.into_iter().map(|(_, list)| list).collect()))
    }
}

fn read_crl(der: &[u8]) -> Result<(i64, CertRevocationList<'static>), CertificateError> {
    let (rest, list) = CertificateRevocationList::from_der(der).map_err(|_| CertificateError::Malformed)?;
    if !rest.is_empty() || list.crl_number().is_none() {
        return Err(CertificateError::Malformed);
    }
    let owned = OwnedCertRevocationList::from_der(der).map_err(|_| CertificateError::Malformed)?;
    Ok((list.last_update().timestamp(), owned.into()))
}

/// Checks that a path leads from the leaf, the first of `chain`, to one of `anchors` at `now`, for `usage`.
pub(crate) fn check_path(
    chain: &[CertificateDer<'_>],
    anchors: &TrustAnchors,
    crls: Option<&Crls>,
    usage: LeafUsage,
    now: UnixMs,
) -> Result<(), CertificateError> {
    let (leaf, intermediates) = chain.split_first().ok_or(CertificateError::Empty)?;
    check_size(chain)?;
    let leaf = EndEntityCert::try_from(leaf).map_err(path_error)?;
    let seconds = u64::try_from(now.seconds()).unwrap_or_default();
    let at = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    let lists: Vec<&CertRevocationList<'_>> = crls.iter().flat_map(|crls| &crls.0).collect();
    let revocation = RevocationOptionsBuilder::new(&lists).ok().map(|options| {
        options
            .with_depth(RevocationCheckDepth::Chain)
            .with_status_policy(UnknownStatusPolicy::Deny)
            .with_expiration_policy(ExpirationPolicy::Enforce)
            .build()
    });
    let own = Cell::new(None);
    let check_ours = |path: &VerifiedPath<'_>| {
        check_authorities(path, anchors, now).map_err(|why| {
            own.set(Some(why));
            webpki::Error::UnknownIssuer
        })
    };
    leaf.verify_for_usage(
        webpki::ALL_VERIFICATION_ALGS,
        &anchors.anchors,
        intermediates,
        at,
        usage.of_webpki(),
        revocation,
        Some(&check_ours),
    )
    .map(|_| ())
    .map_err(|error| own.take().unwrap_or_else(|| path_error(error)))
}

fn check_size(chain: &[CertificateDer<'_>]) -> Result<(), CertificateError> {
    let len: usize = chain.iter().map(|der| der.len()).sum();
    if len > CHAIN_LEN_MAX || chain.len() > INTERMEDIATES_MAX + 1 {
        return Err(CertificateError::TooLarge);
    }
    Ok(())
}

/// What webpki leaves out: the key usage and key size of each CA, and the bounds of the root.
fn check_authorities(
    path: &VerifiedPath<'_>,
    anchors: &TrustAnchors,
    now: UnixMs,
) -> Result<(), CertificateError> {
    anchors.check(path, now)?;
    for intermediate in path.intermediate_certificates() {
        check_authority(&parse(&intermediate.der())?, KeyUsageRule::Always)?;
    }
    Ok(())
}

/// Old roots have no key usage; a CA below a root must say that it signs certificates.
#[derive(Clone, Copy, PartialEq, Eq)]
enum KeyUsageRule {
    Always,
    WherePresent,
}

fn check_authority(authority: &X509Certificate<'_>, rule: KeyUsageRule) -> Result<(), CertificateError> {
    let constraints = authority.basic_constraints().map_err(|_| CertificateError::Malformed)?;
    if !constraints.is_some_and(|it| it.value.ca) {
        return Err(CertificateError::IssuerNotCa);
    }
    let usage = authority.key_usage().map_err(|_| CertificateError::Malformed)?;
    let signs = usage.map_or(rule == KeyUsageRule::WherePresent, |it| it.value.key_cert_sign());
    if !signs {
        return Err(CertificateError::IssuerNotCa);
    }
    RawKey::from_spki(authority.public_key())?;
    Ok(())
}

/// Parses one certificate with nothing behind it and no extension twice.
pub(crate) fn parse(der: &[u8]) -> Result<X509Certificate<'_>, CertificateError> {
    let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| CertificateError::Malformed)?;
    if !rest.is_empty() || certificate.extensions_map().is_err() {
        return Err(CertificateError::Malformed);
    }
    Ok(certificate)
}

/// `notBefore` and `notAfter`; the certificate is valid at both.
pub(crate) fn validity(certificate: &X509Certificate<'_>) -> (UnixMs, UnixMs) {
    let validity = certificate.validity();
    let moment = |at: x509_parser::time::ASN1Time| UnixMs::from_seconds(at.timestamp());
    (moment(validity.not_before), moment(validity.not_after))
}

fn path_error(error: webpki::Error) -> CertificateError {
    use webpki::Error as E;
    match error {
        E::CertExpired { .. } => CertificateError::Expired,
        E::CertNotValidYet { .. } => CertificateError::NotYetValid,
        E::CertRevoked => CertificateError::Revoked,
        E::UnknownRevocationStatus
        | E::CrlExpired { .. }
        | E::IssuerNotCrlSigner
        | E::InvalidCrlSignatureForPublicKey => CertificateError::RevocationUnknown,
        E::UnknownIssuer | E::InvalidSignatureForPublicKey => CertificateError::UnknownIssuer,
        E::EndEntityUsedAsCa | E::PathLenConstraintViolated => CertificateError::IssuerNotCa,
        E::CaUsedAsEndEntity => CertificateError::LeafIsCa,
        E::RequiredEkuNotFoundContext(_) | E::EmptyEkuExtension => CertificateError::ExtendedKeyUsage,
        E::NameConstraintViolation => CertificateError::NameConstraint,
        E::UnsupportedSignatureAlgorithmContext(_)
        | E::UnsupportedSignatureAlgorithmForPublicKeyContext(_)
        | E::SignatureAlgorithmMismatch => CertificateError::SignatureAlgorithm,
        E::UnsupportedCriticalExtension => CertificateError::CriticalExtension,
        E::BadDer | E::BadDerTime | E::TrailingData(_) | E::UnsupportedCertVersion => {
            CertificateError::Malformed
        }
        _ => CertificateError::Path,
    }
}
