use data_encoding::BASE64URL_NOPAD;
use daypass_evidence::tree::{Frontier, leaf_hash, node_hash};
use daypass_verify::jwks::{KeySet, p256_jwk};
use daypass_verify::task::{TASK_EXTENSION_OID, TaskDetail};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
use serde_json::{Value, json};

use super::*;

const NOW: UnixMs = UnixMs::new(1_795_316_400_123);
const ISSUER: &str = "https://daypass.example.org";
const SUBJECT: &str = "spiffe://example.org/prod/billing/nightly";

/// One thing spoiled.
type Spoil<T> = fn(&mut T);

/// A log in memory, of at most two entries where proofs are asked of it.
pub(crate) struct Log {
    key: Ed25519KeyPair,
    origin: String,
    leaves: Vec<Hash>,
}

impl Log {
    pub(crate) fn new(origin: &str) -> Self {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let key = Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap();
        Self { key, origin: origin.to_owned(), leaves: Vec::new() }
    }

    pub(crate) fn append(&mut self, entry: &[u8]) {
        self.leaves.push(leaf_hash(entry));
    }

    pub(crate) fn key(&self) -> VerifierKey {
        VerifierKey::of(&self.origin, &self.key).unwrap()
    }

    pub(crate) fn newest(&self) -> Newest {
        let mut frontier = Frontier::empty();
        self.leaves.iter().for_each(|leaf| frontier.append(*leaf));
        let checkpoint =
            Checkpoint { origin: self.origin.clone(), size: frontier.size(), root: frontier.root() };
        Newest { note: checkpoint.sign(&self.key).unwrap().into(), checkpoint }
    }
}

fn id() -> CredentialId {
    CredentialId::new(NOW, [7; 10])
}

fn request() -> IssueRequest {
    IssueRequest {
        scope: Scope {
            audiences: ["https://ledger.example.org".parse().unwrap()].into(),
            actions: ["invoice:write".parse().unwrap()].into(),
            resources: ["eu/*".parse().unwrap()].into(),
        },
        identity: Some("prod/billing/nightly".parse().unwrap()),
        ttl: Some(Seconds::new(600)),
        ..IssueRequest::token("post-invoices".parse().unwrap())
    }
}

fn wire_grant() -> v1::Grant {
    let at = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
    v1::Grant {
        subject: SUBJECT.into(),
        task: "post-invoices".into(),
        audiences: vec!["https://ledger.example.org".into()],
        actions: vec!["invoice:write".into()],
        resources: vec!["eu/de/*".into()],
        issued_at: at(NOW.seconds()),
        not_before: at(NOW.seconds() - 10),
        expires_at: at(NOW.seconds() + 600),
        reach: v1::Reach::Feed.into(),
    }
}

fn answer() -> v1::IssueResponse {
    v1::IssueResponse { granted: Some(wire_grant()), ..v1::IssueResponse::default() }
}

fn grant() -> Grant {
    granted(&request(), &answer()).unwrap()
}

#[test]
fn a_grant_is_for_what_was_asked_and_no_more() {
    let spoiled: [(&str, Spoil<v1::Grant>); 9] = [
        ("granted.task", |it| it.task = "deploy-web".into()),
        ("granted.subject", |it| it.subject = "spiffe://example.org/prod/other".into()),
        ("granted.subject", |it| it.subject = "prod/billing/nightly".into()),
        ("granted.audiences", |it| it.audiences.push("https://other.example.org".into())),
        ("granted.actions", |it| it.actions.push("invoice:delete".into())),
        ("granted.resources", |it| it.resources.push("us/x".into())),
        ("granted.resources", |it| it.resources = vec!["../x".into()]),
        ("granted.expires_at", |it| it.expires_at.as_mut().unwrap().seconds += 1),
        ("granted.expires_at", |it| it.expires_at = None),
    ];
    for (what, spoil) in spoiled {
        let mut answer = answer();
        spoil(answer.granted.as_mut().unwrap());
        let error = granted(&request(), &answer).unwrap_err().to_string();
        assert!(error.contains(&format!("`{what}`")), "{what}: {error}");
    }
}

#[test]
fn less_than_asked_is_taken_only_where_that_is_allowed() {
    let answer = v1::IssueResponse { narrowed: vec!["ttl".into()], ..answer() };
    assert!(granted(&request(), &answer).is_err());
    assert!(granted(&IssueRequest { allow_narrowed: true, ..request() }, &answer).is_ok());
}

struct Minter {
    key: EcdsaKeyPair,
    published: Published,
    kid: String,
}

impl Minter {
    fn new() -> Self {
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let key =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random).unwrap();
        let (kid, jwk) = p256_jwk(key.public_key().as_ref().try_into().unwrap(), "sig");
        let set = json!({ "keys": [jwk] }).to_string();
        let (token_keys, _) = KeySet::parse(set.as_bytes()).unwrap();
        let published =
            Published { issuer: ISSUER.into(), token_keys, svid_keys: KeySet::default(), roots: Vec::new() };
        Self { key, published, kid: kid.to_string() }
    }

    fn mint(&self, claims: &Value) -> String {
        let header = json!({ "alg": "ES256", "kid": self.kid, "typ": "at+jwt" }).to_string();
        let part = |text: &str| BASE64URL_NOPAD.encode(text.as_bytes());
        let input = format!("{}.{}", part(&header), part(&claims.to_string()));
        let signature = self.key.sign(&SystemRandom::new(), input.as_bytes()).unwrap();
        format!("{input}.{}", BASE64URL_NOPAD.encode(signature.as_ref()))
    }

    fn check(&self, claims: &Value, request: &IssueRequest) -> Result<(), VerifyError> {
        token(&self.mint(claims), id(), &grant(), request, holder(), &self.published, NOW)
    }
}

fn holder() -> Digest {
    Digest::of(b"the client's certificate")
}

fn claims() -> Value {
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
    minter.check(&claims(), &request()).unwrap();
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
    minter.check(&unbound, &IssueRequest { kind, ..request() }).unwrap();
}

#[test]
fn a_token_by_another_key_or_of_another_profile_is_refused() {
    let value = Minter::new().mint(&claims());
    let published = Minter::new().published;
    assert!(token(&value, id(), &grant(), &request(), holder(), &published, NOW).is_err());
    let kind = Kind::Token { profile: Some(Profile::JwtSvid), binding: Binding::Certificate };
    assert!(Minter::new().check(&claims(), &IssueRequest { kind, ..request() }).is_err());
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    published: Published,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap();
        let published = Published { roots: vec![root.der().clone()], ..Minter::new().published };
        Self { issuer: Issuer::new(params, key), published }
    }

    fn leaf(&self, key: &KeyPair, spoil: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
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
    let check = |leaf| certificate(&[leaf], id(), &grant(), spki_digest(&key), &authority.published, NOW);
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

fn two_entries() -> (Log, v1::Receipt) {
    let mut log = Log::new("example.org/evidence/2027h1");
    log.append(b"one");
    log.append(b"two");
    let receipt = v1::Receipt {
        entry: Some(v1::EntryRef { log: log.origin.clone(), index: 1 }),
        leaf_hash: leaf_hash(b"two").to_vec().into(),
        checkpoint: log.newest().note,
        inclusion: vec![leaf_hash(b"one").to_vec().into()],
    };
    (log, receipt)
}

#[test]
fn a_receipt_that_proves_nothing_is_refused() {
    let (log, good) = two_entries();
    let read = receipt(&good, &log.key()).unwrap();
    assert_eq!((read.index, read.checkpoint.size), (1, 2));
    let spoiled: [Spoil<v1::Receipt>; 6] = [
        |it| it.entry = None,
        |it| it.entry.as_mut().unwrap().index = 0,
        |it| it.entry.as_mut().unwrap().log.push('x'),
        |it| it.leaf_hash = vec![1; 32].into(),
        |it| it.leaf_hash = vec![1; 31].into(),
        |it| it.inclusion.clear(),
    ];
    for (at, spoil) in spoiled.iter().enumerate() {
        let mut wire = good.clone();
        spoil(&mut wire);
        assert!(receipt(&wire, &log.key()).is_err(), "spoiled {at}");
    }
    assert!(receipt(&good, &Log::new(&log.origin).key()).is_err());
}

#[test]
fn a_log_that_went_back_or_forked_is_refused() {
    let mut log = Log::new("example.org/evidence/2027h1");
    log.append(b"one");
    let small = log.newest();
    log.append(b"two");
    let large = log.newest();
    assert!(matches!(
        not_behind(&large, &small.checkpoint),
        Err(VerifyError::WentBack { kept: 2, found: 1, .. })
    ));
    assert!(!not_behind(&large, &large.checkpoint).unwrap());
    assert!(not_behind(&small, &large.checkpoint).unwrap());
    consistent(&small, &large.checkpoint, &[leaf_hash(b"two")]).unwrap();
    assert!(consistent(&small, &large.checkpoint, &[leaf_hash(b"three")]).is_err());
    let mut fork = large.checkpoint.clone();
    fork.root = node_hash(&leaf_hash(b"other"), &leaf_hash(b"two"));
    assert!(matches!(not_behind(&large, &fork), Err(VerifyError::Forked { kept: 2, .. })));
}

#[test]
fn a_subject_of_another_trust_domain_than_the_logs_is_refused() {
    trust_domain(&grant(), &Log::new("example.org/evidence/2027h1").key()).unwrap();
    assert!(trust_domain(&grant(), &Log::new("example.com/evidence/2027h1").key()).is_err());
}
