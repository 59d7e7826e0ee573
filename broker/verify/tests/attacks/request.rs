//! Certificate requests.

use daypass_verify::csr::{CsrError, key_of_csr, key_of_csr_held};
use daypass_verify::ids::Digest;
use daypass_verify::key::{KeyError, KeyKind};
use rcgen::{
    Attribute, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256, PublicKeyData as _,
    SanType, SignatureAlgorithm,
};

use crate::minting::{openssl, rsa_pkcs8};

const EXTENSION_REQUEST: &[u64] = &[1, 2, 840, 113_549, 1, 9, 14];
const CHALLENGE_PASSWORD: &[u64] = &[1, 2, 840, 113_549, 1, 9, 7];
const UNSTRUCTURED_NAME: &[u64] = &[1, 2, 840, 113_549, 1, 9, 2];
/// SET { SEQUENCE { SEQUENCE { subjectAltName, OCTET STRING { SEQUENCE { dNSName "a" } } } } }
const ONE_SAN: [u8; 18] = [
    0x31, 0x10, 0x30, 0x0e, 0x30, 0x0c, 0x06, 0x03, 0x55, 0x1d, 0x11, 0x04, 0x05, 0x30, 0x03, 0x82, 0x01,
    0x61,
];

fn key(algorithm: &'static SignatureAlgorithm) -> KeyPair {
    KeyPair::generate_for(algorithm).unwrap()
}

fn request(params: &CertificateParams, key: &KeyPair, attributes: Vec<Attribute>) -> Vec<u8> {
    params.serialize_request_with_attributes(key, attributes).unwrap().der().to_vec()
}

fn plain(key: &KeyPair) -> Vec<u8> {
    request(&CertificateParams::default(), key, vec![])
}

/// A DER element with a length of two or three bytes.
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let len = content.len();
    match len {
        0..=0x7f => [&[tag, len as u8], content].concat(),
        0x80..=0xff => [&[tag, 0x81, len as u8], content].concat(),
        _ => [&[tag, 0x82, (len >> 8) as u8, len as u8], content].concat(),
    }
}

#[test]
fn the_key_of_a_request_is_taken_once_its_holder_has_proven_it() {
    let rsa = KeyPair::from_pkcs8_der_and_sign_algo(&rsa_pkcs8(2048).as_slice().into(), &PKCS_RSA_SHA256);
    let keys = [
        (key(&PKCS_ECDSA_P256_SHA256), KeyKind::P256),
        (key(&PKCS_ECDSA_P384_SHA384), KeyKind::P384),
        (key(&PKCS_ED25519), KeyKind::Ed25519),
        (rsa.unwrap(), KeyKind::Rsa),
    ];
    for (pair, kind) in keys {
        let taken = key_of_csr(&plain(&pair)).unwrap();
        assert_eq!(taken.kind(), kind);
        assert_eq!(taken.spki_der(), pair.subject_public_key_info());
        assert_eq!(taken.spki_digest(), Digest::of(&pair.subject_public_key_info()));
    }
}

#[test]
fn whatever_a_request_asks_for_changes_nothing() {
    let pair = key(&PKCS_ECDSA_P256_SHA256);
    let mut params = CertificateParams::default();
    for name in ["admin", "*.x", "a,CN=root/x\n", &"n".repeat(65)] {
        params.distinguished_name.push(DnType::CommonName, name);
    }
    let ia5 = |text: &str| rcgen::string::Ia5String::try_from(text).unwrap();
    params.subject_alt_names = vec![
        SanType::DnsName(ia5("*")),
        SanType::URI(ia5("spiffe://other/admin")),
        SanType::Rfc822Name(ia5("root@example.org")),
        SanType::IpAddress([127, 0, 0, 1].into()),
    ];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::Any, ExtendedKeyUsagePurpose::CodeSigning];
    params.is_ca = IsCa::ExplicitNoCa;
    let mut critical = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99_999, 1], b"\xff".to_vec());
    critical.set_criticality(true);
    let must_staple =
        CustomExtension::from_oid_content(&[1, 3, 6, 1, 5, 5, 7, 1, 24], vec![0x30, 3, 2, 1, 5]);
    params.custom_extensions = vec![critical, must_staple];
    let name = Attribute { oid: UNSTRUCTURED_NAME, values: der(0x31, &der(0x0c, b"x")) };
    let taken = key_of_csr(&request(&params, &pair, vec![name])).unwrap();
    assert_eq!(taken, key_of_csr(&plain(&pair)).unwrap());
}

#[test]
fn an_attribute_or_extension_that_comes_twice_is_malformed() {
    let pair = key(&PKCS_ECDSA_P256_SHA256);
    let params = || {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
    };
    let attribute = |oid, values: Vec<u8>| Attribute { oid, values };
    let asked = |attributes| key_of_csr(&request(&params(), &pair, attributes));
    let san = &ONE_SAN[4..];
    let one_set = |sans: &[&[u8]]| der(0x31, &der(0x30, &sans.concat()));
    assert!(asked(vec![attribute(EXTENSION_REQUEST, ONE_SAN.to_vec())]).is_ok());
    assert_eq!(one_set(&[san]), ONE_SAN);
    let two_values = der(0x31, &[der(0x30, san), der(0x30, san)].concat());
    let spoiled = [
        vec![attribute(EXTENSION_REQUEST, ONE_SAN.to_vec()), attribute(EXTENSION_REQUEST, ONE_SAN.to_vec())],
        vec![attribute(EXTENSION_REQUEST, one_set(&[san, san]))],
        vec![attribute(EXTENSION_REQUEST, two_values)],
        vec![attribute(EXTENSION_REQUEST, der(0x31, b""))],
        vec![attribute(EXTENSION_REQUEST, der(0x30, &der(0x30, san)))],
        vec![attribute(UNSTRUCTURED_NAME, der(0x31, b"")), attribute(UNSTRUCTURED_NAME, der(0x31, b""))],
    ];
    for attributes in spoiled {
        assert_eq!(asked(attributes.clone()), Err(CsrError::Malformed), "{attributes:?}");
    }
    let password = attribute(CHALLENGE_PASSWORD, der(0x31, &der(0x0c, b"secret")));
    assert_eq!(asked(vec![password]), Err(CsrError::ChallengePassword));
}

#[test]
fn a_request_has_one_encoding() {
    let good = plain(&key(&PKCS_ECDSA_P256_SHA256));
    assert!(key_of_csr(&good).is_ok());
    let header_len = 2 + usize::from(good[1] & 0x7f);
    let inner = &good[header_len..];
    let indefinite = [&[0x30, 0x80], inner, &[0, 0]].concat();
    let long_length = [&[0x30, 0x83, 0, (inner.len() >> 8) as u8, inner.len() as u8], inner].concat();
    let spoiled = [
        Vec::new(),
        vec![0x30, 0],
        good[..good.len() - 1].to_vec(),
        [&good[..], &[0]].concat(),
        der(0x30, &[inner, &[5, 0]].concat()),
        der(0x31, inner),
        der(0x10, inner),
        indefinite,
        long_length,
        b"-----BEGIN CERTIFICATE REQUEST-----".to_vec(),
    ];
    for bytes in spoiled {
        assert_eq!(key_of_csr(&bytes), Err(CsrError::Malformed), "{bytes:02x?}");
    }
    let padded = der(0x30, &[inner, &vec![0; 8192]].concat());
    assert_eq!(key_of_csr(&padded), Err(CsrError::TooLarge));
}

#[test]
fn a_changed_request_never_verifies() {
    let good = plain(&key(&PKCS_ECDSA_P256_SHA256));
    for at in 0..good.len() {
        let mut spoiled = good.clone();
        spoiled[at] ^= 1;
        assert!(key_of_csr(&spoiled).is_err(), "byte {at}");
        assert!(key_of_csr(&good[..at]).is_err(), "cut at {at}");
    }
}

#[test]
fn a_key_must_sign_for_itself() {
    let (mine, theirs) = (key(&PKCS_ECDSA_P256_SHA256), key(&PKCS_ECDSA_P256_SHA256));
    let (own, other) = (mine.subject_public_key_info(), theirs.subject_public_key_info());
    let good = plain(&mine);
    let at = good.windows(own.len()).position(|window| window == own).unwrap();
    let mut swapped = good.clone();
    swapped[at..at + other.len()].copy_from_slice(&other);
    assert_eq!(key_of_csr(&swapped), Err(CsrError::PopFailed));
    // Possession of the connection's key is proven already, and of no other.
    assert!(key_of_csr_held(&swapped, &Digest::of(&other)).is_ok());
    assert_eq!(key_of_csr_held(&swapped, &Digest::of(&own)), Err(CsrError::PopFailed));
    assert!(key_of_csr_held(&good, &Digest::of(&other)).is_ok());
}

#[test]
fn a_weak_key_or_hash_is_refused() {
    let made = |key_args: &[&str], hash: &str| {
        let pem = openssl(key_args, b"");
        openssl(&["req", "-new", "-subj", "/CN=x", hash, "-key", "/dev/stdin", "-outform", "DER"], &pem)
    };
    let rsa = |bits: &str| made(&["genpkey", "-algorithm", "RSA", "-pkeyopt", bits], "-sha256");
    let ec = |args: &[&str]| made(&[&["ecparam", "-genkey", "-noout", "-name"], args].concat(), "-sha256");
    let good = made(&["ecparam", "-genkey", "-noout", "-name", "prime256v1"], "-sha384");
    assert!(key_of_csr(&good).is_ok());
    let sha1 = made(&["ecparam", "-genkey", "-noout", "-name", "prime256v1"], "-sha1");
    let table = [
        (rsa("rsa_keygen_bits:1024"), CsrError::Key(KeyError::RsaSize)),
        (ec(&["secp521r1"]), CsrError::Key(KeyError::Kind)),
        (ec(&["secp256k1"]), CsrError::Key(KeyError::Kind)),
        (ec(&["prime192v1"]), CsrError::Key(KeyError::Kind)),
        (ec(&["prime256v1", "-param_enc", "explicit"]), CsrError::Key(KeyError::Kind)),
        (sha1, CsrError::PopFailed),
    ];
    for (csr, refusal) in table {
        assert_eq!(key_of_csr(&csr), Err(refusal));
    }
}
