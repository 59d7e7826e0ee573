//! Tokens and certificates against what was granted.

use data_encoding::BASE64URL_NOPAD;
use daypass_verify::ids::KeyId;
use daypass_verify::jwks::{KeySet, p256_jwk};
use daypass_verify::task::{TASK_EXTENSION_OID, TaskDetail};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::{Value, json};

use super::*;

pub(crate) const ISSUER: &str = "https://daypass.example.org";

pub(crate) struct Minter {
    key: EcdsaKeyPair,
    pub(crate) published: Published,
    kid: String,
}

impl Minter {
    pub(crate) fn new() -> Self {
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let key =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random).unwrap();
        let (kid, jwk) = p256_jwk(key.public_key().as_ref().try_into().unwrap(), "sig");
        let set = json!({ "keys": [jwk] }).to_string();
        let (token_keys, _) = KeySet::parse(set.as_bytes()).unwrap();
        let published = Published {
            issuer: ISSUER.into(),
            token_keys,
            svid_keys: KeySet::default(),
            svid_jwks: String::new(),
            roots: Vec::new(),
        };
        Self { key, published, kid: kid.to_string() }
    }

    pub(crate) fn mint(&self, claims: &Value) -> String {
        let header = json!({ "alg": "ES256", "kid": self.kid, "typ": "at+jwt" }).to_string();
        let part = |text: &str| BASE64URL_NOPAD.encode(text.as_bytes());
        self.sign(format!("{}.{}", part(&header), part(&claims.to_string())))
    }

    pub(crate) fn kid(&self) -> KeyId {
        self.kid.parse().unwrap()
    }

    pub(crate) fn sign(&self, input: String) -> String {
        let signature = self.key.sign(&SystemRandom::new(), input.as_bytes()).unwrap();
        format!("{input}.{}", BASE64URL_NOPAD.encode(signature.as_ref()))
    }

    fn check(&self, claims: &Value, request: &IssueRequest) -> Result<Option<Digest>, VerifyError> {
        token(&self.mint(claims), id(), &grant(), request, holder(), &self.published, NOW)
    }
}

pub(crate) fn holder() -> Digest {
    Digest::of(b"the client's certificate")
}

pub(crate) fn claims() -> Value {
    let scope = grant().scope;
    let detail = TaskDetail::new("post-invoices".parse().unwrap(), &scope);
    json!({
        "iss": ISSUER, "sub": SUBJECT, "client_id": SUBJECT, "aud": "https://ledger.example.org",
        "jti": id().to_string(), "iat": NOW.seconds(), "nbf": NOW.seconds() - 10, "exp": NOW.seconds() + 600,
        "cnf": { "x5t#S256": BASE64URL_NOPAD.encode(holder().as_bytes()) },
        "authorization_details": [detail],
    })
}

#[test]
fn a_token_is_handed_out_only_if_it_says_what_was_granted() {
    let minter = Minter::new();
    assert_eq!(minter.check(&claims(), &request()).unwrap(), Some(holder()));
    let other = BASE64URL_NOPAD.encode(Digest::of(b"another").as_bytes());
    let spoiled = [
        ("/iss", json!("https://other.example.org")),
        ("/sub", json!("spiffe://example.org/prod/other")),
        ("/aud", json!("https://other.example.org")),
        ("/aud", json!(["https://ledger.example.org", "https://other.example.org"])),
        ("/jti", json!(CredentialId::new(NOW, [8; 10]).to_string())),
        ("/exp", json!(NOW.seconds() + 601)),
        ("/exp", json!(NOW.seconds() + 599)),
        ("/cnf", json!({ "x5t#S256": other })),
        ("/authorization_details/0/identifier", json!("deploy-web")),
        ("/authorization_details/0/actions", json!(["invoice:write", "invoice:delete"])),
        ("/authorization_details/0/resources", json!(["eu/*"])),
    ];
    for (pointer, value) in spoiled {
        let mut claims = claims();
        *claims.pointer_mut(pointer).unwrap() = value.clone();
        assert!(minter.check(&claims, &request()).is_err(), "{pointer} {value}");
    }
}

#[test]
fn a_token_without_a_binding_is_taken_only_where_a_bearer_token_was_asked_for() {
    let minter = Minter::new();
    let mut unbound = claims();
    unbound.as_object_mut().unwrap().remove("cnf");
    assert!(minter.check(&unbound, &request()).is_err());
    let kind = Kind::Token { profile: None, binding: Binding::Bearer };
    assert_eq!(minter.check(&unbound, &IssueRequest { kind, ..request() }).unwrap(), None);
}

#[test]
fn a_token_by_another_key_or_of_another_profile_is_refused() {
    let value = Minter::new().mint(&claims());
    let published = Minter::new().published;
    assert!(token(&value, id(), &grant(), &request(), holder(), &published, NOW).is_err());
    let kind = Kind::Token { profile: Some(Profile::JwtSvid), binding: Binding::Certificate };
    assert!(Minter::new().check(&claims(), &IssueRequest { kind, ..request() }).is_err());
}

pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) published: Published,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap();
        let published = Published { roots: vec![root.der().clone()], ..Minter::new().published };
        Self { issuer: Issuer::new(params, key), published }
    }

    pub(crate) fn leaf(
        &self,
        key: &KeyPair,
        spoil: impl FnOnce(&mut CertificateParams),
    ) -> CertificateDer<'static> {
        let mut params = leaf_params();
        spoil(&mut params);
        params.signed_by(key, &self.issuer).unwrap().der().clone()
    }
}

fn leaf_params() -> CertificateParams {
    let at = |seconds| time::OffsetDateTime::from_unix_timestamp(seconds).unwrap();
    let detail = TaskDetail::new("post-invoices".parse().unwrap(), &grant().scope);
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.serial_number = Some(SerialNumber::from_slice(id().as_bytes()));
    params.subject_alt_names = vec![SanType::URI(SUBJECT.try_into().unwrap())];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.is_ca = IsCa::ExplicitNoCa;
    params.not_before = at(NOW.seconds() - 10);
    params.not_after = at(NOW.seconds() + 600);
    let value = detail.to_json().unwrap().into_bytes();
    params.custom_extensions = vec![CustomExtension::from_oid_content(TASK_EXTENSION_OID, value)];
    params
}

fn spki_digest(key: &KeyPair) -> Digest {
    Digest::of(&rcgen::PublicKeyData::subject_public_key_info(key))
}

#[test]
fn a_certificate_is_handed_out_only_if_it_says_what_was_granted() {
    let authority = Authority::new();
    let key = KeyPair::generate().unwrap();
    let check =
        |leaf| certificate(&[leaf], (id(), false), &grant(), spki_digest(&key), &authority.published, NOW);
    check(authority.leaf(&key, |_| {})).unwrap();
    let spoiled: [(&str, Spoil<CertificateParams>); 5] = [
        ("subject", |it| {
            it.subject_alt_names = vec![SanType::URI("spiffe://example.org/x".try_into().unwrap())]
        }),
        ("serial number", |it| {
            it.serial_number = Some(CredentialId::new(NOW, [8; 10]).as_bytes().to_vec().into())
        }),
        ("notAfter", |it| it.not_after += time::Duration::SECOND),
        ("one task", |it| it.custom_extensions.clear()),
        ("clientAuth", |it| it.extended_key_usages.clear()),
    ];
    for (what, spoil) in spoiled {
        let error = check(authority.leaf(&key, spoil)).unwrap_err().to_string();
        assert!(error.contains(what), "{what}: {error}");
    }
    let stranger = Authority::new().leaf(&key, |_| {});
    assert!(check(stranger).is_err());
    let other_key = check(authority.leaf(&KeyPair::generate().unwrap(), |_| {})).unwrap_err().to_string();
    assert!(other_key.contains("public key"), "{other_key}");
}
