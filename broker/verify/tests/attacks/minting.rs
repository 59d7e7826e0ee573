//! Keys, key sets and tokens for the tests; every key is made when it is needed.

use std::process::{Command, Stdio};
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use daypass_verify::jose::{SignedToken, UnverifiedToken};
use daypass_verify::jwks::{KeySet, p256_jwk};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
    RSA_PSS_SHA256, RsaEncoding, RsaKeyPair,
};
use serde_json::{Value, json};

pub(crate) fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Runs `openssl` and returns its standard output.
pub(crate) fn openssl(args: &[&str], input: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut child = Command::new("openssl")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "openssl {args:?}");
    output.stdout
}

/// A PKCS#8 RSA key of `bits`.
pub(crate) fn rsa_pkcs8(bits: u32) -> Vec<u8> {
    let size = format!("rsa_keygen_bits:{bits}");
    let pem = openssl(&["genpkey", "-algorithm", "RSA", "-pkeyopt", &size], b"");
    openssl(&["pkcs8", "-topk8", "-nocrypt", "-outform", "DER"], &pem)
}

/// A P-256, an Ed25519 and an RSA key, whose ids are `ec`, `ed` and `rsa`.
pub(crate) struct Issuer {
    pub(crate) ec: EcdsaKeyPair,
    pub(crate) ed: Ed25519KeyPair,
    pub(crate) rsa: RsaKeyPair,
}

pub(crate) static ISSUER: LazyLock<Issuer> = LazyLock::new(|| {
    let random = SystemRandom::new();
    let ec = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
    let ed = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
    Issuer {
        ec: EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, ec.as_ref(), &random).unwrap(),
        ed: Ed25519KeyPair::from_pkcs8(ed.as_ref()).unwrap(),
        rsa: RsaKeyPair::from_pkcs8(&rsa_pkcs8(2048)).unwrap(),
    }
});

impl Issuer {
    pub(crate) fn ec_point(&self) -> [u8; 65] {
        self.ec.public_key().as_ref().try_into().unwrap()
    }

    pub(crate) fn ec_jwk(&self) -> Value {
        let (_, mut jwk) = p256_jwk(&self.ec_point(), "sig");
        jwk["kid"] = json!("ec");
        jwk
    }

    pub(crate) fn ed_jwk(&self) -> Value {
        json!({"kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": b64(self.ed.public_key().as_ref())})
    }

    pub(crate) fn rsa_jwk(&self) -> Value {
        let public: ring::rsa::PublicKeyComponents<Vec<u8>> = self.rsa.public().into();
        let n = b64(public.n);
        json!({"kty": "RSA", "kid": "rsa", "n": n, "e": "AQAB"})
    }

    pub(crate) fn keys(&self) -> KeySet {
        key_set(&[self.ec_jwk(), self.ed_jwk(), self.rsa_jwk()])
    }

    pub(crate) fn es256(&self, message: &[u8]) -> Vec<u8> {
        self.ec.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec()
    }

    pub(crate) fn eddsa(&self, message: &[u8]) -> Vec<u8> {
        self.ed.sign(message).as_ref().to_vec()
    }

    pub(crate) fn rs256(&self, message: &[u8]) -> Vec<u8> {
        self.rsa_signature(&RSA_PKCS1_SHA256, message)
    }

    pub(crate) fn ps256(&self, message: &[u8]) -> Vec<u8> {
        self.rsa_signature(&RSA_PSS_SHA256, message)
    }

    fn rsa_signature(&self, encoding: &'static dyn RsaEncoding, message: &[u8]) -> Vec<u8> {
        let mut signature = vec![0; self.rsa.public().modulus_len()];
        self.rsa.sign(encoding, &SystemRandom::new(), message, &mut signature).unwrap();
        signature
    }
}

pub(crate) fn key_set(keys: &[Value]) -> KeySet {
    KeySet::parse(json!({ "keys": keys }).to_string().as_bytes()).unwrap().0
}

/// A token of these two texts, whatever they are, signed with `sign`.
pub(crate) fn mint(
    header: impl AsRef<[u8]>,
    claims: impl AsRef<[u8]>,
    sign: impl Fn(&[u8]) -> Vec<u8>,
) -> String {
    let message = format!("{}.{}", b64(header), b64(claims));
    let signature = b64(sign(message.as_bytes()));
    format!("{message}.{signature}")
}

/// An ES256 token with these claims.
pub(crate) fn es256(claims: impl AsRef<[u8]>) -> String {
    mint(r#"{"alg":"ES256","kid":"ec"}"#, claims, |message| ISSUER.es256(message))
}

/// What becomes of a token under the issuer's keys: the signed token, or the inner reason.
pub(crate) fn check(compact: &str) -> Result<SignedToken, &'static str> {
    check_with(compact, &ISSUER.keys())
}

pub(crate) fn check_with(compact: &str, keys: &KeySet) -> Result<SignedToken, &'static str> {
    let checked = UnverifiedToken::parse(compact).and_then(|token| {
        let key = keys.key_for(&token)?;
        token.verify(key)
    });
    checked.map_err(|error| error.inner_reason())
}
