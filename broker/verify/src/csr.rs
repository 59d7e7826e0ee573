//! Certificate requests (PKCS#10, RFC 2986). Only the public key is taken, with the proof that the requester
//! holds its private key; every name and extension that a request asks for is ignored, because a
//! certificate's names come from the verified identity alone.

use rustls_pki_types::SubjectPublicKeyInfoDer;
use webpki::RawPublicKeyEntity;
use x509_parser::asn1_rs::{Any, FromDer as _};
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::ids::Digest;
use crate::key::{KeyError, KeyKind, RawKey};

/// The longest request: 8 KiB.
pub const CSR_LEN_MAX: usize = 8 * 1024;

// Contents of OBJECT IDENTIFIERs of RFC 2985: 1.2.840.113549.1.9.14 and 1.2.840.113549.1.9.7.
const EXTENSION_REQUEST: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x0e];
const CHALLENGE_PASSWORD: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x07];

/// Why a certificate request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    /// Over [`CSR_LEN_MAX`].
    #[error("expected a certificate request of at most 8 KiB")]
    TooLarge,
    /// Not a well-formed request.
    #[error("expected one PKCS#10 request in DER, with each attribute and extension once")]
    Malformed,
    /// It holds a password in the clear.
    #[error("expected a request without a challenge password; leave it out")]
    ChallengePassword,
    /// Its key is not accepted.
    #[error("the key of the request is not accepted: {0}")]
    Key(#[from] KeyError),
    /// Its signature is not by its own key.
    #[error("expected a request that is signed with its own private key")]
    PopFailed,
}

impl CsrError {
    /// The stable code for logs and counts.
    #[must_use]
    pub fn inner_reason(&self) -> &'static str {
        match self {
            Self::TooLarge => "TOO_LARGE",
            Self::Malformed | Self::ChallengePassword => "MALFORMED",
            Self::Key(_) => "KEY_REFUSED",
            Self::PopFailed => "CSR_POP_FAILED",
        }
    }
}

/// The public key of a request whose private key the requester holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CsrKey {
    spki_der: Box<[u8]>,
    spki_digest: Digest,
    kind: KeyKind,
}

impl CsrKey {
    /// The DER `SubjectPublicKeyInfo`.
    #[must_use]
    pub fn spki_der(&self) -> &[u8] {
        &self.spki_der
    }

    /// Its SHA-256.
    #[must_use]
    pub fn spki_digest(&self) -> Digest {
        self.spki_digest
    }

    /// The kind of key.
    #[must_use]
    pub fn kind(&self) -> KeyKind {
        self.kind
    }
}

/// Takes the key from a DER request, once the request's own signature proves possession of it.
///
/// # Errors
/// When the request is too large, malformed, has a key that is not accepted, or is not signed by it.
pub fn key_of_csr(der: &[u8]) -> Result<CsrKey, CsrError> {
    let csr = Csr::parse(der)?;
    let key = csr.key()?;
    csr.check_possession()?;
    Ok(key)
}

/// As [`key_of_csr`], for a requester that has already proven possession of the key whose SPKI has the
/// digest `held_spki`, such as its connection's client key: the request's signature is checked only when its
/// key is another one.
///
/// # Errors
/// As [`key_of_csr`].
pub fn key_of_csr_held(der: &[u8], held_spki: &Digest) -> Result<CsrKey, CsrError> {
    let csr = Csr::parse(der)?;
    let key = csr.key()?;
    if key.spki_digest != *held_spki {
        csr.check_possession()?;
    }
    Ok(key)
}

/// The parts of a request that matter, each in DER.
struct Csr<'a> {
    /// `CertificationRequestInfo`: what is signed.
    signed: &'a [u8],
    spki: &'a [u8],
    /// `AlgorithmIdentifier` without its SEQUENCE header.
    algorithm: &'a [u8],
    signature: &'a [u8],
}

impl<'a> Csr<'a> {
    fn parse(der: &'a [u8]) -> Result<Self, CsrError> {
        if der.len() > CSR_LEN_MAX {
            return Err(CsrError::TooLarge);
        }
        let [request] = exactly(der)?;
        let [info, algorithm, signature] = exactly(request.content(SEQUENCE)?)?;
        let mut fields = elements(info.content(SEQUENCE)?)?;
        // The attributes are tagged [0] and, by the letter, always there; some makers leave an empty set out.
        if let [_, _, _, attributes] = fields.as_slice() {
            check_attributes(attributes.content(ATTRIBUTES)?)?;
            fields.pop();
        }
        let [version, subject, spki] = fields.try_into().map_err(|_| CsrError::Malformed)?;
        if version.content(INTEGER)? != [0] {
            return Err(CsrError::Malformed);
        }
        subject.content(SEQUENCE)?;
        let signature = match signature.content(BIT_STRING)?.split_first() {
            Some((0, signature)) => signature,
            _ => return Err(CsrError::Malformed),
        };
        let algorithm = algorithm.content(SEQUENCE)?;
        Ok(Self { signed: info.der, spki: spki.der, algorithm, signature })
    }

    fn key(&self) -> Result<CsrKey, CsrError> {
        let (rest, spki) = SubjectPublicKeyInfo::from_der(self.spki).map_err(|_| CsrError::Malformed)?;
        if !rest.is_empty() {
            return Err(CsrError::Malformed);
        }
        let kind = RawKey::from_spki(&spki)?.kind();
        Ok(CsrKey { spki_der: self.spki.into(), spki_digest: Digest::of(self.spki), kind })
    }

    fn check_possession(&self) -> Result<(), CsrError> {
        let spki = SubjectPublicKeyInfoDer::from(self.spki);
        let key = RawPublicKeyEntity::try_from(&spki).map_err(|_| CsrError::Malformed)?;
        let fits = webpki::ALL_VERIFICATION_ALGS
            .iter()
            .filter(|it| it.signature_alg_id().as_ref() == self.algorithm)
            .any(|it| key.verify_signature(*it, self.signed, self.signature).is_ok());
        if fits { Ok(()) } else { Err(CsrError::PopFailed) }
    }
}

/// Each attribute once; one set of extensions, each once; no password.
fn check_attributes(attributes: &[u8]) -> Result<(), CsrError> {
    let mut types = Vec::new();
    for attribute in elements(attributes)? {
        let [oid, values] = exactly(attribute.content(SEQUENCE)?)?;
        let oid = oid.content(OBJECT_IDENTIFIER)?;
        let values = values.content(SET)?;
        if oid == CHALLENGE_PASSWORD {
            return Err(CsrError::ChallengePassword);
        }
        if oid == EXTENSION_REQUEST {
            let [extensions] = exactly(values)?;
            check_extensions(extensions.content(SEQUENCE)?)?;
        }
        types.push(oid);
    }
    all_differ(types)
}

fn check_extensions(extensions: &[u8]) -> Result<(), CsrError> {
    let mut types = Vec::new();
    for extension in elements(extensions)? {
        let fields = elements(extension.content(SEQUENCE)?)?;
        let oid = fields.first().ok_or(CsrError::Malformed)?;
        types.push(oid.content(OBJECT_IDENTIFIER)?);
    }
    all_differ(types)
}

fn all_differ(mut types: Vec<&[u8]>) -> Result<(), CsrError> {
    let count = types.len();
    types.sort_unstable();
    types.dedup();
    if types.len() == count { Ok(()) } else { Err(CsrError::Malformed) }
}

// Identifier octets (X.690, section 8.1.2).
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OBJECT_IDENTIFIER: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const ATTRIBUTES: u8 = 0xa0;

/// One DER element: its whole encoding, and its content.
struct Element<'a> {
    der: &'a [u8],
    content: &'a [u8],
}

impl<'a> Element<'a> {
    /// What it holds, when it has this identifier.
    fn content(&self, identifier: u8) -> Result<&'a [u8], CsrError> {
        if self.der.first() == Some(&identifier) { Ok(self.content) } else { Err(CsrError::Malformed) }
    }
}

/// Splits DER into its elements, with nothing left over.
fn elements(mut der: &[u8]) -> Result<Vec<Element<'_>>, CsrError> {
    let mut all = Vec::new();
    while !der.is_empty() {
        let (rest, any) = Any::from_der(der).map_err(|_| CsrError::Malformed)?;
        let whole = der.get(..der.len() - rest.len()).ok_or(CsrError::Malformed)?;
        if whole.len() != header_len(any.data.len()) + any.data.len() {
            return Err(CsrError::Malformed);
        }
        all.push(Element { der: whole, content: any.data });
        der = rest;
    }
    Ok(all)
}

/// One identifier octet and the fewest length octets; the parser takes longer forms too, DER does not.
fn header_len(content_len: usize) -> usize {
    match content_len {
        0..=0x7f => 2,
        0x80..=0xff => 3,
        _ => 4,
    }
}

fn exactly<const N: usize>(der: &[u8]) -> Result<[Element<'_>; N], CsrError> {
    elements(der)?.try_into().map_err(|_| CsrError::Malformed)
}
