//! What the tests of this crate decide over: a small organisation, its keys made anew for each run, and the log
//! that declares it.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use daypass_evidence::entry::{
    Body, BundleActivated, Change, Index, KeyChanged, KeyState, KeyUse, LogOpened, OpenReason,
    RegistryChanged,
};
use daypass_verify::certificate::TrustAnchors;
use daypass_verify::csr::{CsrKey, key_of_csr};
use daypass_verify::ids::{CredentialId, Digest, KeyId, Name, RequestId};
use daypass_verify::jose::UnverifiedToken;
use daypass_verify::jwks::{KeySet, VerifyingKey, thumbprint_p256};
use daypass_verify::time::UnixMs;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData as _, SanType,
};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use rustls_pki_types::CertificateDer;
use serde_json::{Value, json};

use crate::bundle::Bundle;
use crate::bundle::object::Declared;
use crate::policy;
use crate::proof::{IssuerKeys, KnownKeys, Principal, ProofError, UnverifiedProof};
use crate::request::{Bind, Form, Request};
use crate::state::State;

pub(crate) const NOW: UnixMs = UnixMs::new(1_795_310_000_123);
pub(crate) const OURS: &str = "https://broker.example.org";
pub(crate) const CI: &str = "https://ci.example.org";
const DAY_MS: i64 = 86_400_000;

/// A P-256 key that signs tokens.
pub(crate) struct TokenKey {
    pair: EcdsaKeyPair,
    pub(crate) id: KeyId,
}

impl TokenKey {
    pub(crate) fn generate() -> Self {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let pair =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).unwrap();
        let id = thumbprint_p256(&Self::point_of(&pair));
        Self { pair, id }
    }

    fn point_of(pair: &EcdsaKeyPair) -> [u8; 65] {
        pair.public_key().as_ref().try_into().unwrap()
    }

    pub(crate) fn verifying(&self) -> VerifyingKey {
        VerifyingKey::from_p256_point(self.id.as_str(), &Self::point_of(&self.pair))
    }

    pub(crate) fn key_set(&self) -> KeySet {
        [self.verifying()].into_iter().collect()
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.pair.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec()
    }

    pub(crate) fn mint(&self, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let input = format!("{}.{}", part(header), part(claims));
        format!("{input}.{}", URL_SAFE_NO_PAD.encode(self.sign(input.as_bytes())))
    }
}

/// A CA and its key.
pub(crate) struct Authority {
    pub(crate) der: CertificateDer<'static>,
    pub(crate) issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn generate(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let der = params.self_signed(&key).unwrap().der().clone();
        Self { issuer: Issuer::from_ca_cert_der(&der, key).unwrap(), der }
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Vec<u8> {
        rcgen::SigningKey::sign(self.issuer.key(), message).unwrap()
    }

    /// A client certificate with these URI SANs, valid for an hour around [`NOW`].
    pub(crate) fn leaf(
        &self,
        sans: Vec<SanType>,
        spoil: impl Fn(&mut CertificateParams),
    ) -> CertificateDer<'static> {
        let key = KeyPair::generate().unwrap();
        let mut params = leaf_params(sans);
        spoil(&mut params);
        params.signed_by(&key, &self.issuer).unwrap().der().clone()
    }
}

fn leaf_params(sans: Vec<SanType>) -> CertificateParams {
    let moment = |at: UnixMs| time::OffsetDateTime::from_unix_timestamp(at.seconds()).unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.subject_alt_names = sans;
    params.not_before = moment(NOW.plus_millis(-1_800_000));
    params.not_after = moment(NOW.plus_millis(1_800_000));
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}

/// A certificate that nobody issued but its holder.
pub(crate) fn self_signed() -> CertificateDer<'static> {
    let key = KeyPair::generate().unwrap();
    let mut params = leaf_params(vec![SanType::URI("spiffe://example.org/prod/other".try_into().unwrap())]);
    params.distinguished_name.push(DnType::CommonName, "just me");
    params.self_signed(&key).unwrap().der().clone()
}

pub(crate) fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

/// A certificate request by a fresh key.
pub(crate) fn csr() -> CsrKey {
    let key = KeyPair::generate().unwrap();
    let request = CertificateParams::default().serialize_request(&key).unwrap();
    key_of_csr(request.der()).unwrap()
}

pub(crate) struct World {
    pub(crate) ci: TokenKey,
    pub(crate) workloads: Authority,
    pub(crate) token_key: TokenKey,
    pub(crate) svid_key: TokenKey,
    pub(crate) ca: Authority,
    pub(crate) ca_id: KeyId,
}

/// The keys of one run: making them costs more than any test does.
pub(crate) static WORLD: LazyLock<World> = LazyLock::new(|| {
    let ca = Authority::generate("issuing ca");
    let point: [u8; 65] = ca.issuer.key().der_bytes().try_into().unwrap();
    World {
        ci: TokenKey::generate(),
        workloads: Authority::generate("workloads"),
        token_key: TokenKey::generate(),
        svid_key: TokenKey::generate(),
        ca_id: thumbprint_p256(&point),
        ca,
    }
});

/// A small organisation, with everything in it that decisions look at.
pub(crate) fn declared() -> Declared {
    let expires = NOW.plus_millis(300 * DAY_MS).get();
    let roots = vec![STANDARD.encode(&WORLD.workloads.der)];
    let target = |kind: &str, audiences: Value, reach: &str| json!({"kind": kind, "environment": "prod", "audiences": audiences, "reach": reach, "enforcement": "connect"});
    let task = |targets: Value, kinds: Value, profile: &str| json!({"targets": targets, "kinds": kinds, "profile": profile, "alg": "ES256", "ttl_s": 900, "ttl_max_s": 900});
    let with = |mut value: Value, more: Value| {
        value.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        value
    };
    let identity = |proofs: Value, tasks: Value| {
        json!({"class": "service", "privilege": "standard", "purpose": "tests", "business_owner": "finance",
               "technical_owner": "platform", "environment": "prod", "expires_ms": expires, "review_days": 90,
               "proofs": proofs, "tasks": tasks})
    };
    let subject =
        |subject: &str| json!({"issuer": "ci", "subject": subject, "claims": {"repository_id": ["42"]}});
    let spiffe =
        |name: &str| json!({"issuer": "workloads", "spiffe_id": format!("spiffe://example.org/{name}")});
    let all = json!(["post", "mesh", "db", "several", "approved"]);
    let invoices = json!({"audiences": ["https://ledger.example.org"], "actions": ["invoice:read", "invoice:write"],
                          "resources": ["eu/*", "us/*"], "claims": {"tenant": {"constant": "example"}, "run": {"proof": "run_id"}}});
    let both = json!({"audiences": ["https://ledger.example.org", "mesh"], "actions": ["call"]});
    let value = json!({
        "settings": {"overdue_ttl_max_s": 60, "overdue_refuse_days": 30, "environments": ["prod"]},
        "identities": {
            "prod/billing/nightly": identity(json!([subject("job:nightly"), spiffe("prod/billing/nightly")]), all.clone()),
            "prod/billing/twin": identity(json!([spiffe("prod/billing/twin"), subject("job:twin")]), json!(["post"])),
            "prod/billing/other": identity(json!([subject("job:twin")]), json!(["post"])),
            "prod/acme/connector": with(identity(json!([subject("job:acme")]), json!(["post"])), json!({"supplier": "acme"})),
        },
        "tasks": {
            "post": with(task(json!(["ledger"]), json!(["at+jwt"]), "at+jwt"), invoices.clone()),
            "mesh": with(task(json!(["mesh"]), json!(["x509-svid", "jwt-svid"]), "x509-svid"),
                         json!({"audiences": ["mesh", "mesh-2"], "actions": ["call"], "dns_names": ["nightly.example.org"]})),
            "db": with(task(json!(["ledger-db"]), json!(["common-name"]), "common-name"), json!({"common_name": "billing_nightly"})),
            "several": with(task(json!(["ledger", "mesh"]), json!(["at+jwt"]), "at+jwt"), with(both, json!({"bearer": true}))),
            "approved": with(with(task(json!(["ledger"]), json!(["at+jwt"]), "at+jwt"), invoices),
                             json!({"approval": {"n": 1, "roles": ["decide"]}})),
        },
        "targets": {
            "ledger": target("http", json!(["https://ledger.example.org"]), "feed"),
            "mesh": target("grpc", json!(["mesh", "mesh-2"]), "none"),
            "ledger-db": target("postgresql", json!([]), "crl"),
        },
        "issuers": {
            "ci": {"kind": "oidc", "url": CI, "keys": "discovery", "algs": ["ES256"], "typs": ["JWT"],
                   "proof_ttl_max_s": 3600, "instance_claim": "run_id", "environment": "prod", "replay": "once", "actor": "workload"},
            "workloads": {"kind": "client_ca", "ca": roots, "trust_domain": "example.org", "environment": "prod",
                          "replay": "until_expiry", "actor": "workload"},
        },
        "suppliers": {"acme": {"contract": "C-1", "ends_ms": expires, "audiences": ["https://ledger.example.org"],
                               "actions": ["invoice:read"], "resources": ["eu/de/*"], "ttl_max_s": 300}},
        "owners": {"finance": {"kind": "team", "status": "active"}, "platform": {"kind": "team", "status": "active"}},
        "operators": {"alice": {"proofs": [subject("person:alice")], "roles": ["read_evidence"], "expires_ms": expires}},
    });
    serde_json::from_value(value).unwrap()
}

pub(crate) const PERMIT_ALL: &str = r#"@id("all") permit (principal, action == Action::"issue", resource);"#;

pub(crate) fn bundle(declared: &Declared, rules: &str) -> Arc<Bundle> {
    let object = json!({"v": 1, "declared": declared, "schema": Digest::of(policy::SCHEMA.as_bytes()),
                        "rules": [{"path": "rules/test.cedar", "text": rules}]});
    let bytes = daypass_evidence::canonical::to_vec_unbounded(&object).unwrap();
    Arc::new(Bundle::from_object(&bytes).unwrap())
}

pub(crate) fn key_entry(id: &KeyId, usage: KeyUse) -> KeyChanged {
    KeyChanged {
        key: id.clone(),
        usage,
        alg: "ES256".into(),
        public: Digest::of(id.as_str().as_bytes()),
        state: KeyState::Prepared,
        publish_from_ms: NOW.plus_millis(-DAY_MS),
        sign_from_ms: NOW.plus_millis(-DAY_MS),
        sign_until_ms: NOW.plus_millis(5 * DAY_MS),
        publish_until_ms: NOW.plus_millis(7 * DAY_MS),
        certificate: None,
        chain: Vec::new(),
        origin: "generated".into(),
        reason: None,
    }
}

/// The entries that open a log and declare `bundle`, each with its time.
pub(crate) fn genesis(bundle: &Bundle) -> Vec<(Index, UnixMs, Body)> {
    let opened = LogOpened {
        origin: "example.org/evidence/2026b".into(),
        key: "example.org/evidence/2026b+0+key".into(),
        reason: OpenReason::First,
        predecessor: None,
        gap: None,
        earlier: Vec::new(),
    };
    let world = &*WORLD;
    let keys = [
        (&world.token_key.id, KeyUse::Token),
        (&world.svid_key.id, KeyUse::Svid),
        (&world.ca_id, KeyUse::Ca),
    ];
    let keys = keys.into_iter().map(|(id, usage)| Body::from(key_entry(id, usage)));
    let digest = bundle.digest();
    let changes = bundle.objects().map(|(object, name, declared)| {
        let declared = Some(declared);
        Body::from(RegistryChanged {
            object,
            name,
            change: Change::Added,
            was: None,
            bundle: digest,
            declared,
            since_ms: None,
            next_due_ms: None,
        })
    });
    let activated =
        BundleActivated { digest, previous: None, proposed: None, decided: vec![], bootstrap: true };
    let bodies =
        std::iter::once(Body::from(opened)).chain(keys).chain(changes).chain([Body::from(activated)]);
    let time = NOW.plus_millis(-DAY_MS);
    (0..).zip(bodies).map(|(index, body)| (index, time, body)).collect()
}

pub(crate) fn state(bundle: &Arc<Bundle>) -> State {
    let mut state = State::empty();
    for (index, time, body) in genesis(bundle) {
        state.apply(index, time, &body, &|_| Some(Arc::clone(bundle))).unwrap();
    }
    state
}

pub(crate) fn known() -> KnownKeys {
    let name = |text: &str| text.parse::<Name>().unwrap();
    let anchors = TrustAnchors::new(vec![WORLD.workloads.der.clone()]).unwrap();
    KnownKeys::new(HashMap::from([
        (name("ci"), IssuerKeys::Jwks(Arc::new(WORLD.ci.key_set()))),
        (name("workloads"), IssuerKeys::Ca { anchors: Arc::new(anchors), crls: None }),
    ]))
}

pub(crate) fn header() -> Value {
    json!({"alg": "ES256", "kid": WORLD.ci.id, "typ": "JWT"})
}

pub(crate) fn claims(subject: &str) -> Value {
    json!({"iss": CI, "sub": subject, "aud": OURS, "iat": NOW.seconds() - 10, "exp": NOW.seconds() + 300,
           "repository_id": 42, "run_id": "88123"})
}

pub(crate) fn id_token(subject: &str) -> UnverifiedProof {
    let token = WORLD.ci.mint(&header(), &claims(subject));
    UnverifiedProof::IdToken { token: UnverifiedToken::parse(&token).unwrap(), holder: None }
}

pub(crate) fn verify(proof: UnverifiedProof, bundle: &Bundle) -> Result<Principal, ProofError> {
    proof.verify(bundle, &known(), OURS, NOW)
}

/// The principal of an ID token on a connection with a certificate of its own.
pub(crate) fn bound_principal(subject: &str, bundle: &Bundle) -> Principal {
    let UnverifiedProof::IdToken { token, .. } = id_token(subject) else { unreachable!() };
    verify(UnverifiedProof::Both { token, chain: vec![self_signed()] }, bundle).unwrap()
}

pub(crate) fn id() -> CredentialId {
    CredentialId::new(NOW, [7; 10])
}

pub(crate) fn request(task: &str) -> Request {
    Request {
        id: RequestId::from(id()),
        id_is_callers: false,
        task: task.into(),
        identity: None,
        audiences: [].into(),
        actions: [].into(),
        resources: [].into(),
        ttl_s: None,
        form: Form::Token { profile: None, bind: Bind::Auto },
        run: None,
        supersedes: None,
        refuse_narrowed: false,
        client: None,
        approval: None,
        emergency: None,
        for_workload: false,
    }
}

pub(crate) fn certificate_request(task: &str) -> Request {
    Request { form: Form::Certificate { profile: None, key: csr() }, ..request(task) }
}
