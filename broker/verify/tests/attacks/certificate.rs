//! Client certificates.

use daypass_verify::certificate::{CertificateError, TrustAnchors, self_signed_holder, verify_client_chain};
use daypass_verify::ids::Digest;
use daypass_verify::key::KeyError;
use daypass_verify::time::UnixMs;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa,
    KeyPair, KeyUsagePurpose, NameConstraints, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256,
    PublicKeyData, SanType, SerialNumber, SignatureAlgorithm, date_time_ymd,
};
use rustls_pki_types::CertificateDer;

use crate::authorities::{Authorities, Authority, NOW, authority_params, key, leaf_params, uri};
use crate::minting::{openssl, rsa_pkcs8};

type Change = fn(&mut CertificateParams);

fn constrain(params: &mut CertificateParams, subtree: GeneralSubtree) {
    params.name_constraints =
        Some(NameConstraints { permitted_subtrees: vec![subtree], excluded_subtrees: Vec::new() });
}

#[test]
fn a_sound_leaf_tells_what_it_is() {
    let authorities = Authorities::new();
    let mut params = leaf_params();
    params.serial_number = Some(SerialNumber::from_slice(&[0, 0xab, 1]));
    params.subject_alt_names.push(SanType::DnsName("db1.example".try_into().unwrap()));
    let pair = key();
    let leaf = params.signed_by(&pair, &authorities.middle).unwrap();
    let chain = [leaf.der().clone(), authorities.middle.der().clone()];
    let verified = authorities.check(&chain).unwrap();
    assert_eq!(verified.spiffe_id().unwrap().as_str(), "spiffe://example.org/prod/billing");
    assert_eq!(verified.dns_sans(), ["db1.example"]);
    assert_eq!(verified.serial_hex(), "ab01");
    assert_eq!(verified.der_digest(), Digest::of(leaf.der()));
    assert_eq!(verified.spki_digest(), Digest::of(&pair.subject_public_key_info()));
    assert_eq!(verified.not_before().to_string(), "2026-12-31T00:00:00Z");
    assert_eq!(verified.not_after().to_string(), "2027-01-02T00:00:00Z");
    assert_eq!(verified.task_extension(), None);
}

#[test]
fn a_leaf_is_for_clients_and_signs_only_handshakes() {
    use CertificateError as E;
    use ExtendedKeyUsagePurpose as Eku;
    let spoiled: [(&str, Change, E); 13] = [
        ("serverAuth only", |p| p.extended_key_usages = vec![Eku::ServerAuth], E::ExtendedKeyUsage),
        ("anyEKU only", |p| p.extended_key_usages = vec![Eku::Any], E::ExtendedKeyUsage),
        ("anyEKU too", |p| p.extended_key_usages.push(Eku::Any), E::ExtendedKeyUsage),
        ("no EKU", |p| p.extended_key_usages.clear(), E::ExtendedKeyUsage),
        (
            "empty EKU",
            |p| {
                p.extended_key_usages.clear();
                p.custom_extensions.push(CustomExtension::from_oid_content(&[2, 5, 29, 37], vec![0x30, 0]));
            },
            E::ExtendedKeyUsage,
        ),
        ("keyCertSign", |p| p.key_usages.push(KeyUsagePurpose::KeyCertSign), E::KeyUsage),
        ("cRLSign", |p| p.key_usages.push(KeyUsagePurpose::CrlSign), E::KeyUsage),
        ("no digitalSignature", |p| p.key_usages = vec![KeyUsagePurpose::KeyAgreement], E::KeyUsage),
        ("no key usage", |p| p.key_usages.clear(), E::KeyUsage),
        ("a CA", |p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained), E::LeafIsCa),
        (
            "an unknown critical extension",
            |p| {
                let mut odd = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99_999, 1], vec![5, 0]);
                odd.set_criticality(true);
                p.custom_extensions.push(odd);
            },
            E::CriticalExtension,
        ),
        ("expired", |p| p.not_after = date_time_ymd(2026, 12, 31), E::Expired),
        ("not yet valid", |p| p.not_before = date_time_ymd(2027, 1, 2), E::NotYetValid),
    ];
    let authorities = Authorities::new();
    assert!(authorities.check(&authorities.chain(|_| ())).is_ok());
    for (what, change, refusal) in spoiled {
        assert_eq!(authorities.check(&authorities.chain(change)), Err(refusal), "{what}");
    }
}

#[test]
fn an_extension_that_comes_twice_is_malformed() {
    let authorities = Authorities::new();
    let twice = authorities.chain(|params| {
        for _ in 0..2 {
            let odd = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99_999, 1], vec![5, 0]);
            params.custom_extensions.push(odd);
        }
    });
    assert_eq!(authorities.check(&twice), Err(CertificateError::Malformed));
}

#[test]
fn a_spiffe_id_is_the_only_uri() {
    let authorities = Authorities::new();
    let id = |names: &[&str]| {
        let chain = authorities.chain(|params| {
            params.subject_alt_names = names.iter().map(|name| uri(name)).collect();
        });
        authorities.check(&chain).and_then(|leaf| leaf.spiffe_id())
    };
    assert_eq!(id(&["spiffe://EXAMPLE.org/Prod"]).unwrap().as_str(), "spiffe://example.org/Prod");
    let long = format!("spiffe://td/{}", "a".repeat(2049 - "spiffe://td/".len()));
    let spoiled: [&[&str]; 16] = [
        &[],
        &["spiffe://td/a", "spiffe://td/b"],
        &["spiffe://td/a", "spiffe://td/a"],
        &["spiffe://td/a", "https://td/a"],
        &["https://td/a"],
        &["spiffe://td/a/../b"],
        &["spiffe://td/a//b"],
        &["spiffe://td/a/"],
        &["spiffe://td/%2e"],
        &["spiffe://td:443/a"],
        &["spiffe://user@td/a"],
        &["spiffe://td/a?b"],
        &["spiffe://td/a#b"],
        &["spiffe://td"],
        &["spiffe://td/"],
        &[&long],
    ];
    for names in spoiled {
        assert_eq!(id(names), Err(CertificateError::SpiffeId), "{names:?}");
    }
}

#[test]
fn an_issuer_must_be_allowed_to_issue() {
    use CertificateError as E;
    let spoiled: [(&str, Change, E); 8] = [
        ("CA:false", |p| p.is_ca = IsCa::ExplicitNoCa, E::IssuerNotCa),
        ("no basic constraints", |p| p.is_ca = IsCa::NoCa, E::IssuerNotCa),
        ("no keyCertSign", |p| p.key_usages = vec![KeyUsagePurpose::CrlSign], E::IssuerNotCa),
        ("no key usage", |p| p.key_usages.clear(), E::IssuerNotCa),
        ("expired", |p| p.not_after = date_time_ymd(2026, 12, 31), E::Expired),
        ("not for clients", |p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth], {
            E::ExtendedKeyUsage
        }),
        (
            "names a wildcard does not keep within",
            |p| constrain(p, GeneralSubtree::DnsName("sub.example.org".to_owned())),
            E::NameConstraint,
        ),
        (
            "an unknown critical extension",
            |p| {
                let mut odd = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99_999, 1], vec![5, 0]);
                odd.set_criticality(true);
                p.custom_extensions.push(odd);
            },
            E::CriticalExtension,
        ),
    ];
    let chain_under = |change: Change| {
        let authorities = Authorities::with(|_, middle| change(middle));
        let chain = authorities.chain(|params| {
            params.subject_alt_names.push(SanType::DnsName("*.example.org".try_into().unwrap()));
        });
        authorities.check(&chain)
    };
    assert!(chain_under(|_| ()).is_ok());
    for (what, change, refusal) in spoiled {
        assert_eq!(chain_under(change), Err(refusal), "{what}");
    }
    let no_room = Authorities::with(|root, _| root.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)));
    assert_eq!(no_room.check(&no_room.chain(|_| ())), Err(E::IssuerNotCa));
}

#[test]
fn a_uri_name_constraint_refuses_the_chain() {
    // NameConstraints { permitted { URI ".example.org" } }
    let content = [&[0x30, 0x12, 0xa0, 0x10, 0x30, 0x0e, 0x86, 0x0c][..], b".example.org"].concat();
    let authorities = Authorities::with(|_, middle| {
        let mut constraint = CustomExtension::from_oid_content(&[2, 5, 29, 30], content);
        constraint.set_criticality(true);
        middle.custom_extensions.push(constraint);
    });
    assert!(authorities.check(&authorities.chain(|_| ())).is_err());
}

#[test]
fn a_chain_leads_to_a_trusted_root_or_nowhere() {
    let (ours, theirs) = (Authorities::new(), Authorities::new());
    let chain = ours.chain(|_| ());
    // The same names, other keys: a comparison of names alone would accept them.
    assert_eq!(theirs.check(&chain), Err(CertificateError::UnknownIssuer));
    assert_eq!(ours.check(&chain[..1]), Err(CertificateError::UnknownIssuer));
    assert_eq!(ours.check(&[]), Err(CertificateError::Empty));
    let mixed = [chain[0].clone(), theirs.middle.der().clone()];
    assert_eq!(ours.check(&mixed), Err(CertificateError::UnknownIssuer));
    let alone = leaf_params().self_signed(&key()).unwrap();
    assert!(ours.check(&[alone.der().clone()]).is_err());
    let trailing = CertificateDer::from([&chain[0][..], &[0]].concat());
    assert_eq!(ours.check(&[trailing, chain[1].clone()]), Err(CertificateError::Malformed));
    for at in 0..chain[0].len() {
        let mut spoiled = chain[0].to_vec();
        spoiled[at] ^= 1;
        assert!(ours.check(&[spoiled.into(), chain[1].clone()]).is_err(), "byte {at}");
        let cut = CertificateDer::from(chain[0][..at].to_vec());
        assert!(ours.check(&[cut.clone(), chain[1].clone()]).is_err(), "cut at {at}");
        assert!(self_signed_holder(&cut).is_err(), "cut at {at}");
    }
}

#[test]
fn an_expired_root_is_trusted_no_more() {
    let authorities = Authorities::with(|root, _| root.not_after = date_time_ymd(2026, 12, 31));
    assert_eq!(authorities.check(&authorities.chain(|_| ())), Err(CertificateError::Expired));
    let anchors = authorities.anchors();
    assert_eq!(anchors.not_after().to_string(), "2026-12-31T00:00:00Z");
}

#[test]
fn a_long_chain_is_refused_by_its_size() {
    let authorities = Authorities::new();
    let chain = authorities.chain(|_| ());
    let padded = |n: usize| [&chain[..], &vec![chain[1].clone(); n]].concat();
    assert!(authorities.check(&padded(5)).is_ok());
    assert_eq!(authorities.check(&padded(6)), Err(CertificateError::TooLarge));
    let junk = CertificateDer::from(vec![0; 16 << 20]);
    assert_eq!(authorities.check(&[chain[0].clone(), junk.clone()]), Err(CertificateError::TooLarge));
    assert_eq!(self_signed_holder(&junk), Err(CertificateError::TooLarge));
}

#[test]
fn only_a_ca_can_be_trusted() {
    let sound = Authority::self_signed(authority_params("root"), key()).unwrap().der().clone();
    let old = |change: Change| {
        let mut params = authority_params("root");
        change(&mut params);
        params.self_signed(&key()).unwrap().der().clone()
    };
    assert!(TrustAnchors::new(vec![sound.clone(), old(|params| params.key_usages.clear())]).is_ok());
    let leaf = leaf_params().self_signed(&key()).unwrap().der().clone();
    let no_sign = old(|params| params.key_usages = vec![KeyUsagePurpose::CrlSign]);
    for (bad, refusal) in [
        (leaf, CertificateError::IssuerNotCa),
        (no_sign, CertificateError::IssuerNotCa),
        (CertificateDer::from(b"junk".to_vec()), CertificateError::Malformed),
        (CertificateDer::from([&sound[..], &[0]].concat()), CertificateError::Malformed),
    ] {
        assert_eq!(TrustAnchors::new(vec![sound.clone(), bad]).unwrap_err(), refusal);
    }
    assert_eq!(TrustAnchors::new(vec![]).unwrap_err(), CertificateError::NoAnchor);
}

/// A public key of any size, which a CA was made to sign.
struct AnyKey {
    public: Vec<u8>,
    algorithm: &'static SignatureAlgorithm,
}

impl PublicKeyData for AnyKey {
    fn der_bytes(&self) -> &[u8] {
        &self.public
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.algorithm
    }
}

#[test]
fn a_leaf_has_a_key_that_is_accepted() {
    let authorities = Authorities::new();
    let check = |public: Vec<u8>, algorithm| {
        let leaf = leaf_params().signed_by(&AnyKey { public, algorithm }, &authorities.middle).unwrap();
        let chain = [leaf.der().clone(), authorities.middle.der().clone()];
        verify_client_chain(&chain, &authorities.anchors(), None, NOW).map(|_| ())
    };
    let rsa = |bits| {
        let der = rsa_pkcs8(bits);
        // `-RSAPublicKey_out` writes PKCS#1, which is what the bit string holds.
        openssl(&["rsa", "-inform", "DER", "-RSAPublicKey_out", "-outform", "DER"], &der)
    };
    assert_eq!(check(rsa(2048), &PKCS_RSA_SHA256), Ok(()));
    assert_eq!(check(rsa(1024), &PKCS_RSA_SHA256), Err(KeyError::RsaSize.into()));
    for algorithm in [&PKCS_ECDSA_P384_SHA384, &PKCS_ED25519] {
        let pair = KeyPair::generate_for(algorithm).unwrap();
        assert_eq!(check(pair.public_key_raw().to_vec(), algorithm), Ok(()));
    }
    let weak = [vec![1], vec![0; 31]].concat();
    assert_eq!(check(weak, &PKCS_ED25519), Err(KeyError::WeakPoint.into()));
    assert_eq!(check(vec![4; 64], &rcgen::PKCS_ECDSA_P256_SHA256), Err(KeyError::Malformed.into()));
}

#[test]
fn a_holder_needs_a_key_that_is_accepted_and_nothing_else() {
    let pair = key();
    let certificate = leaf_params().self_signed(&pair).unwrap();
    let holder = self_signed_holder(certificate.der()).unwrap();
    assert_eq!(holder.der_digest, Digest::of(certificate.der()));
    assert_eq!(holder.spki_digest, Digest::of(&pair.subject_public_key_info()));
    assert_eq!(holder.not_after, UnixMs::parse("2027-01-02T00:00:00Z").unwrap());
    let made = |key_args: &[&str]| {
        let pem = openssl(key_args, b"");
        openssl(&["req", "-x509", "-new", "-subj", "/CN=x", "-key", "/dev/stdin", "-outform", "DER"], &pem)
    };
    let ec = |args: &[&str]| made(&[&["ecparam", "-genkey", "-noout", "-name"], args].concat());
    assert!(self_signed_holder(&ec(&["prime256v1"])).is_ok());
    let dsa = openssl(&["dsaparam", "-genkey", "-noout", "1024"], b"");
    let dsa =
        openssl(&["req", "-x509", "-new", "-subj", "/CN=x", "-key", "/dev/stdin", "-outform", "DER"], &dsa);
    let weak = [
        (made(&["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"]), KeyError::RsaSize),
        (ec(&["prime192v1"]), KeyError::Kind),
        (ec(&["secp521r1"]), KeyError::Kind),
        (ec(&["prime256v1", "-param_enc", "explicit"]), KeyError::Kind),
        (dsa, KeyError::Kind),
    ];
    for (der, refusal) in weak {
        assert_eq!(self_signed_holder(&der), Err(refusal.into()));
    }
    assert_eq!(self_signed_holder(b""), Err(CertificateError::Malformed));
}

#[test]
fn a_signature_with_sha_1_or_md5_is_refused() {
    let pem = openssl(&["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"], b"");
    let args =
        ["req", "-x509", "-new", "-subj", "/CN=root", "-key", "/dev/stdin", "-outform", "DER", "-days", "30"];
    let root = openssl(&args, &pem);
    let anchors = TrustAnchors::new(vec![root.into()]).unwrap();
    for (hash, accepted) in [("-sha256", true), ("-sha1", false), ("-md5", false)] {
        let extensions = [
            "-subj",
            "/CN=root",
            "-key",
            "/dev/stdin",
            "-outform",
            "DER",
            "-days",
            "7",
            hash,
            "-addext",
            "keyUsage=critical,digitalSignature",
            "-addext",
            "extendedKeyUsage=clientAuth",
        ];
        // Self-issued under the root's own key: a leaf that the root signed.
        let leaf = openssl(
            &[&["req", "-x509", "-new", "-addext", "basicConstraints=CA:FALSE"], &extensions[..]].concat(),
            &pem,
        );
        let (_, parsed) = x509_parser::parse_x509_certificate(&leaf).unwrap();
        let now = UnixMs::from_seconds(parsed.validity().not_before.timestamp());
        let checked = verify_client_chain(&[leaf.clone().into()], &anchors, None, now);
        let expected = if accepted { Ok(()) } else { Err(CertificateError::SignatureAlgorithm) };
        assert_eq!(checked.map(|_| ()), expected, "{hash}");
    }
}
