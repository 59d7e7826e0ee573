//! X.509 client certificates (RFC 5280) and SPIFFE X509-SVIDs. A path to a root is not enough: the leaf must
//! say that it is for clients, sign nothing but handshakes, and have a key that is accepted.

use rustls_pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{ExtendedKeyUsage, GeneralName, ParsedExtension};
use x509_parser::oid_registry::asn1_rs::Oid;

use crate::chain::{self, LeafUsage};
use crate::ids::{Digest, SpiffeId};
use crate::key::{KeyError, RawKey};
use crate::task::TASK_EXTENSION_OID;
use crate::time::UnixMs;

pub use crate::chain::{CHAIN_LEN_MAX, Crls, INTERMEDIATES_MAX, TrustAnchors};

/// The extended key usage of node certificates, and their only one: no stock verifier takes one for a client's. The arc
/// is that of UUIDs (ITU-T X.667).
pub const NODE_USAGE_OID: &[u64] = &[2, 25, 7_361_524_498_160_219_342];

/// Why a certificate is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// There is no certificate.
    #[error("expected a client certificate")]
    Empty,
    /// Over [`CHAIN_LEN_MAX`] or [`INTERMEDIATES_MAX`].
    #[error("expected a chain of at most 64 KiB with at most 6 intermediate certificates")]
    TooLarge,
    /// Not a well-formed certificate or revocation list, or one extension twice.
    #[error("expected well-formed DER certificates and revocation lists")]
    Malformed,
    /// No root is trusted.
    #[error("expected at least one root certificate")]
    NoAnchor,
    /// No path to a trusted root.
    #[error("expected a chain to a trusted root; send the intermediate certificates too")]
    UnknownIssuer,
    /// A certificate of the path has expired.
    #[error("the certificate, or one above it, has expired; renew it")]
    Expired,
    /// A certificate of the path is not yet valid.
    #[error("the certificate, or one above it, is not yet valid; compare the clocks")]
    NotYetValid,
    /// A certificate of the path is revoked.
    #[error("the certificate, or one above it, is revoked")]
    Revoked,
    /// No revocation list that is up to date tells the status.
    #[error("expected a current revocation list for each certificate of the chain")]
    RevocationUnknown,
    /// A certificate that signed another may not do so.
    #[error("expected each issuer of the chain to be a CA that may sign certificates")]
    IssuerNotCa,
    /// The leaf is a CA.
    #[error("expected a leaf certificate, not that of a CA")]
    LeafIsCa,
    /// Extended key usage is missing, empty, any, or without client authentication.
    #[error(
        "expected the extended key usage `clientAuth` of a client, `serverAuth` of a service, and not `anyExtendedKeyUsage`"
    )]
    ExtendedKeyUsage,
    /// Key usage is missing, without digitalSignature, or with keyCertSign or cRLSign.
    #[error("expected the key usage `digitalSignature`, without `keyCertSign` and `cRLSign`")]
    KeyUsage,
    /// A name lies outside what an issuer may name.
    #[error("expected names within the name constraints of the issuers")]
    NameConstraint,
    /// SHA-1, MD5 or another algorithm that is not accepted.
    #[error("expected signatures with SHA-256 or better by RSA, P-256, P-384 or Ed25519 keys")]
    SignatureAlgorithm,
    /// A critical extension that nobody here understands.
    #[error("expected no critical extension beyond those of RFC 5280")]
    CriticalExtension,
    /// A key that is not accepted.
    #[error("the certificate's key is not accepted: {0}")]
    Key(#[from] KeyError),
    /// Another fault of the path.
    #[error("the certificate chain does not hold")]
    Path,
    /// Not exactly one URI name, or one that is no SPIFFE ID.
    #[error("expected exactly one URI among the subject's alternative names, and that a SPIFFE ID")]
    SpiffeId,
}

impl CertificateError {
    /// The stable code for logs and counts; never part of an answer to a stranger.
    #[must_use]
    pub fn inner_reason(&self) -> &'static str {
        match self {
            Self::Empty => "NO_CERTIFICATE",
            Self::TooLarge => "TOO_LARGE",
            Self::Malformed => "MALFORMED",
            Self::NoAnchor => "NO_ANCHOR",
            Self::UnknownIssuer => "UNKNOWN_ISSUER",
            Self::Expired => "EXPIRED",
            Self::NotYetValid => "NOT_YET_VALID",
            Self::Revoked => "REVOKED",
            Self::RevocationUnknown => "REVOCATION_UNKNOWN",
            Self::IssuerNotCa => "ISSUER_NOT_CA",
            Self::LeafIsCa => "LEAF_IS_CA",
            Self::ExtendedKeyUsage => "EXTENDED_KEY_USAGE",
            Self::KeyUsage => "KEY_USAGE",
            Self::NameConstraint => "NAME_CONSTRAINT",
            Self::SignatureAlgorithm => "ALG_NOT_ALLOWED",
            Self::CriticalExtension => "CRIT_UNSUPPORTED",
            Self::Key(_) => "KEY_REFUSED",
            Self::Path => "BAD_CHAIN",
            Self::SpiffeId => "BAD_SPIFFE_ID",
        }
    }
}

/// A leaf certificate that has passed [`verify_client_chain`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedLeaf {
    uri_sans: Vec<String>,
    dns_sans: Vec<String>,
    validity: (UnixMs, UnixMs),
    der_digest: Digest,
    spki_digest: Digest,
    serial: Vec<u8>,
    task_extension: Option<Vec<u8>>,
}

/// Checks a client's chain, leaf first, at `now`. With `crls` every certificate of the path needs a current
/// list that says it is not revoked.
///
/// # Errors
/// When no path leads to one of `anchors`, or the leaf is not one for a client: see [`CertificateError`].
pub fn verify_client_chain(
    chain: &[CertificateDer<'_>],
    anchors: &TrustAnchors,
    crls: Option<&Crls>,
    now: UnixMs,
) -> Result<VerifiedLeaf, CertificateError> {
    verify_chain(chain, anchors, crls, LeafUsage::Client, now)
}

/// Checks the chain of a service, leaf first, at `now`: as a client's, but for `serverAuth`. Whose it is, is the caller's
/// question: no name of a host is compared.
///
/// # Errors
/// When no path leads to one of `anchors`, or the leaf is not one for a service: see [`CertificateError`].
pub fn verify_server_chain(
    chain: &[CertificateDer<'_>],
    anchors: &TrustAnchors,
    now: UnixMs,
) -> Result<VerifiedLeaf, CertificateError> {
    verify_chain(chain, anchors, None, LeafUsage::Server, now)
}

/// Checks the chain of a node certificate, leaf first, at `now`: as a client's, but for [`NODE_USAGE_OID`].
///
/// # Errors
/// When no path leads to one of `anchors`, or the leaf is not one of a node: see [`CertificateError`].
pub fn verify_node_chain(
    chain: &[CertificateDer<'_>],
    anchors: &TrustAnchors,
    now: UnixMs,
) -> Result<VerifiedLeaf, CertificateError> {
    verify_chain(chain, anchors, None, LeafUsage::Node, now)
}

/// Whether a certificate says of itself that it is a node's: nothing in it is believed.
#[must_use]
pub fn says_node(der: &[u8]) -> bool {
    chain::parse(der).is_ok_and(|leaf| check_leaf_usage(&leaf, LeafUsage::Node).is_ok())
}

fn verify_chain(
    chain: &[CertificateDer<'_>],
    anchors: &TrustAnchors,
    crls: Option<&Crls>,
    usage: LeafUsage,
    now: UnixMs,
) -> Result<VerifiedLeaf, CertificateError> {
    chain::check_path(chain, anchors, crls, usage, now)?;
    let der = chain.first().ok_or(CertificateError::Empty)?;
    let leaf = chain::parse(der)?;
    check_leaf_usage(&leaf, usage)?;
    RawKey::from_spki(leaf.public_key())?;
    let (uri_sans, dns_sans) = alternative_names(&leaf)?;
    Ok(VerifiedLeaf {
        uri_sans,
        dns_sans,
        validity: chain::validity(&leaf),
        der_digest: Digest::of(der),
        spki_digest: Digest::of(leaf.public_key().raw),
        serial: leaf.raw_serial().iter().copied().skip_while(|byte| *byte == 0).collect(),
        task_extension: task_extension(&leaf),
    })
}

fn check_leaf_usage(leaf: &X509Certificate<'_>, wanted: LeafUsage) -> Result<(), CertificateError> {
    let extended = leaf.extended_key_usage().map_err(|_| CertificateError::ExtendedKeyUsage)?;
    let extended =
        extended.map(|it| it.value).filter(|it| !it.any).ok_or(CertificateError::ExtendedKeyUsage)?;
    let fits = match wanted {
        LeafUsage::Client => extended.client_auth,
        LeafUsage::Server => extended.server_auth,
        LeafUsage::Node => is_node_usage(extended),
    };
    if !fits {
        return Err(CertificateError::ExtendedKeyUsage);
    }
    let usage = leaf.key_usage().map_err(|_| CertificateError::KeyUsage)?;
    let fits = |it: &x509_parser::extensions::KeyUsage| {
        it.digital_signature() && !it.key_cert_sign() && !it.crl_sign()
    };
    if usage.is_some_and(|it| fits(it.value)) { Ok(()) } else { Err(CertificateError::KeyUsage) }
}

/// The usage of nodes, and no other beside it.
#[must_use]
pub fn is_node_usage(extended: &ExtendedKeyUsage<'_>) -> bool {
    let others = extended.server_auth
        || extended.client_auth
        || extended.code_signing
        || extended.email_protection
        || extended.time_stamping
        || extended.ocsp_signing;
    let own = Oid::from(NODE_USAGE_OID).is_ok_and(|own| extended.other == [own]);
    own && !others && !extended.any
}

/// The URIs and the DNS names among the subject's alternative names.
fn alternative_names(leaf: &X509Certificate<'_>) -> Result<(Vec<String>, Vec<String>), CertificateError> {
    let (mut uris, mut dns) = (Vec::new(), Vec::new());
    let names = leaf.subject_alternative_name().map_err(|_| CertificateError::Malformed)?;
    for name in names.iter().flat_map(|it| &it.value.general_names) {
        match name {
            GeneralName::URI(uri) => uris.push((*uri).to_owned()),
            GeneralName::DNSName(name) => dns.push((*name).to_owned()),
            GeneralName::Invalid(..) => return Err(CertificateError::Malformed),
            _ => {}
        }
    }
    Ok((uris, dns))
}

fn task_extension(leaf: &X509Certificate<'_>) -> Option<Vec<u8>> {
    let wanted = Oid::from(TASK_EXTENSION_OID).ok()?;
    let found = leaf.iter_extensions().find(|it| it.oid == wanted)?;
    let unknown = matches!(found.parsed_extension(), ParsedExtension::UnsupportedExtension { .. });
    unknown.then(|| found.value.to_vec())
}

impl VerifiedLeaf {
    /// The SPIFFE ID: the only URI among the subject's alternative names (X509-SVID, section 2). The trust
    /// domain is folded to lower case, the path is taken as it is.
    ///
    /// # Errors
    /// When there is no URI, more than one, or one that is no SPIFFE ID.
    pub fn spiffe_id(&self) -> Result<SpiffeId, CertificateError> {
        match self.uri_sans.as_slice() {
            [only] => SpiffeId::parse_fold(only).map_err(|_| CertificateError::SpiffeId),
            _ => Err(CertificateError::SpiffeId),
        }
    }

    /// The URIs among the subject's alternative names, as written.
    #[must_use]
    pub fn uri_sans(&self) -> &[String] {
        &self.uri_sans
    }

    /// The DNS names among the subject's alternative names, as written.
    #[must_use]
    pub fn dns_sans(&self) -> &[String] {
        &self.dns_sans
    }

    /// The first moment at which it is valid.
    #[must_use]
    pub fn not_before(&self) -> UnixMs {
        self.validity.0
    }

    /// The last second in which it is valid.
    #[must_use]
    pub fn not_after(&self) -> UnixMs {
        self.validity.1
    }

    /// The SHA-256 of the whole certificate: `x5t#S256` (RFC 8705, section 3.1).
    #[must_use]
    pub fn der_digest(&self) -> Digest {
        self.der_digest
    }

    /// The SHA-256 of the DER `SubjectPublicKeyInfo`.
    #[must_use]
    pub fn spki_digest(&self) -> Digest {
        self.spki_digest
    }

    /// The serial number, its octets without leading zeros.
    #[must_use]
    pub fn serial(&self) -> &[u8] {
        &self.serial
    }

    /// The serial number in lower-case hex.
    #[must_use]
    pub fn serial_hex(&self) -> String {
        self.serial.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The value of the task extension, where the certificate has one.
    #[must_use]
    pub fn task_extension(&self) -> Option<&[u8]> {
        self.task_extension.as_deref()
    }
}

/// Who holds the private key of a certificate that no declared issuer claims. It proves possession only: it
/// can bind a token (RFC 8705, section 2.2) and is never an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder {
    /// The SHA-256 of the whole certificate: `x5t#S256`.
    pub der_digest: Digest,
    /// The SHA-256 of the DER `SubjectPublicKeyInfo`.
    pub spki_digest: Digest,
    /// The first moment at which it is valid.
    pub not_before: UnixMs,
    /// The last second in which it is valid: a token bound to it must not outlive this.
    pub not_after: UnixMs,
}

/// Reads a certificate whose private key the peer has used in the handshake. No name in it is believed.
///
/// # Errors
/// When it is too large, malformed, or has a key that is not accepted.
pub fn self_signed_holder(der: &[u8]) -> Result<Holder, CertificateError> {
    if der.len() > CHAIN_LEN_MAX {
        return Err(CertificateError::TooLarge);
    }
    let certificate = chain::parse(der)?;
    RawKey::from_spki(certificate.public_key())?;
    let (not_before, not_after) = chain::validity(&certificate);
    let spki_digest = Digest::of(certificate.public_key().raw);
    Ok(Holder { der_digest: Digest::of(der), spki_digest, not_before, not_after })
}
