//! Tokens of a real issuer whose every byte is chosen: what a thief of its key could sign, and what an attacker
//! without it could send.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use daypass_verify::time::UnixMs;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::{Map, Value, json};

/// An issuer's key, and a token that is good.
pub struct Forge {
    /// The header of a good token.
    pub header: Map<String, Value>,
    /// The claims of a good token.
    pub claims: Map<String, Value>,
    key: EcdsaKeyPair,
}

impl Forge {
    /// Reads the key that the issuer keeps in `folder`; `claims` lack what every token has.
    pub(super) fn open(folder: &Path, mut claims: Map<String, Value>, now: UnixMs) -> Self {
        let saved = std::fs::read(folder.join("dev/issuer.json")).unwrap();
        let saved: Value = serde_json::from_slice(&saved).unwrap();
        let newest = &saved["es256"][0];
        let pkcs8 = STANDARD.decode(newest["pkcs8"].as_str().unwrap()).unwrap();
        let key =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pkcs8, &SystemRandom::new()).unwrap();
        claims.insert("iss".into(), format!("https://127.0.0.1:{}", saved["port"]).into());
        claims.insert("iat".into(), now.seconds().into());
        claims.insert("exp".into(), (now.seconds() + 300).into());
        let header = json!({"alg": "ES256", "typ": "JWT", "kid": newest["kid"]});
        Self { header: header.as_object().unwrap().clone(), claims, key }
    }

    /// A good token; each call makes another, so that none is a replay.
    pub fn good(&self) -> String {
        self.with(|_, _| {})
    }

    /// A token that is well signed over a header and claims in which `spoil` changed something.
    pub fn with(&self, spoil: impl FnOnce(&mut Map<String, Value>, &mut Map<String, Value>)) -> String {
        let (mut header, mut claims) = (self.header.clone(), self.unique());
        spoil(&mut header, &mut claims);
        self.sign(Value::from(header).to_string(), Value::from(claims).to_string())
    }

    /// A token that is well signed over this text, whatever it is.
    pub fn sign(&self, header: impl AsRef<[u8]>, claims: impl AsRef<[u8]>) -> String {
        let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let signature = self.key.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// A good token with other bytes in place of its signature.
    pub fn signed_by(&self, signature: &[u8]) -> String {
        let good = self.good();
        let (message, _) = good.rsplit_once('.').unwrap();
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// The header of a good token as text.
    pub fn header_text(&self) -> String {
        Value::from(self.header.clone()).to_string()
    }

    /// The claims of a good token as text.
    pub fn claims_text(&self) -> String {
        Value::from(self.unique()).to_string()
    }

    /// The public key: the uncompressed point.
    pub fn public(&self) -> &[u8] {
        self.key.public_key().as_ref()
    }

    fn unique(&self) -> Map<String, Value> {
        let mut octets = [0; 16];
        ring::rand::SecureRandom::fill(&SystemRandom::new(), &mut octets).unwrap();
        let mut claims = self.claims.clone();
        claims.insert("jti".into(), URL_SAFE_NO_PAD.encode(octets).into());
        claims
    }
}
