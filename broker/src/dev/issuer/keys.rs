//! The development issuer's signing keys, and the file that keeps them between two starts.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use daypass_verify::ids::{Digest, KeyId};
use daypass_verify::jwks::p256_jwk;
use jsonwebtoken::{Algorithm, EncodingKey};
use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RsaKeyPair};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::super::DevError;

/// How many ES256 keys stay published at most: the signing one and those before it.
const PUBLISHED_MAX: usize = 4;

/// One key that signs ID tokens.
pub(super) struct IssuerKey {
    pub(super) kid: String,
    pub(super) encoding: EncodingKey,
    jwk: Value,
    pkcs8: Vec<u8>,
}

impl IssuerKey {
    fn generate_es256() -> Result<Self, DevError> {
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
            .map_err(|_| DevError::Random)?;
        Self::from_es256(document.as_ref(), None)
    }

    /// `kid` overrides the thumbprint, for an issuer that puts a new key under an old name.
    fn from_es256(pkcs8: &[u8], kid: Option<&str>) -> Result<Self, DevError> {
        const EXPECTED: DevError = DevError::Key("a P-256 key in PKCS#8");
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8, &SystemRandom::new())
            .map_err(|_| EXPECTED)?;
        let point: &[u8; 65] = pair.public_key().as_ref().try_into().map_err(|_| EXPECTED)?;
        let (thumbprint, mut jwk) = p256_jwk(point, "sig");
        let kid = kid.unwrap_or(thumbprint.as_str()).to_owned();
        if let Some(name) = jwk.get_mut("kid") {
            *name = kid.clone().into();
        }
        Ok(Self { kid, encoding: EncodingKey::from_ec_der(pkcs8), jwk, pkcs8: pkcs8.to_vec() })
    }

    fn from_rs256_pem(text: &str) -> Result<Self, DevError> {
        const EXPECTED: DevError = DevError::Key("an RSA key as PEM in PKCS#8");
        let der = pem::parse(text).map_err(|_| EXPECTED)?.into_contents();
        let pair = RsaKeyPair::from_pkcs8(&der).map_err(|_| EXPECTED)?;
        let public = PublicKeyComponents::<Vec<u8>>::from(pair.public());
        let (n, e) = (URL_SAFE_NO_PAD.encode(public.n), URL_SAFE_NO_PAD.encode(public.e));
        let canonical = format!(r#"{{"e":"{e}","kty":"RSA","n":"{n}"}}"#);
        let kid = KeyId::from_thumbprint(*Digest::of(canonical.as_bytes()).as_bytes()).to_string();
        let jwk = json!({"alg": "RS256", "e": e, "kid": kid, "kty": "RSA", "n": n, "use": "sig"});
        Ok(Self { kid, encoding: EncodingKey::from_rsa_der(&der), jwk, pkcs8: der })
    }
}

/// How a new signing key takes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rotation {
    /// The key before it stays published, as it should.
    Overlapping,
    /// The keys before it are gone at once.
    Abrupt,
    /// It replaces the key before it under the same key id.
    SameKid,
}

/// All keys of the issuer: the ES256 ones newest first, and the RS256 one, if it was given one.
pub(super) struct Keys {
    es256: Vec<IssuerKey>,
    rs256: Option<IssuerKey>,
}

/// What is kept between two starts.
#[derive(Serialize, Deserialize)]
pub(super) struct Saved {
    pub(super) port: u16,
    es256: Vec<SavedKey>,
}

#[derive(Serialize, Deserialize)]
struct SavedKey {
    kid: String,
    /// Base64.
    pkcs8: String,
}

impl Keys {
    pub(super) fn new(rs256: Option<&str>) -> Result<Self, DevError> {
        let rs256 = rs256.map(IssuerKey::from_rs256_pem).transpose()?;
        Ok(Self { es256: vec![IssuerKey::generate_es256()?], rs256 })
    }

    pub(super) fn from_saved(saved: &Saved, rs256: Option<&str>) -> Result<Self, DevError> {
        let read = |key: &SavedKey| {
            let der = STANDARD.decode(&key.pkcs8).map_err(|_| DevError::Key("base64"))?;
            IssuerKey::from_es256(&der, Some(&key.kid))
        };
        let es256 = saved.es256.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        if es256.is_empty() {
            return Err(DevError::Key("at least one key"));
        }
        Ok(Self { es256, rs256: rs256.map(IssuerKey::from_rs256_pem).transpose()? })
    }

    pub(super) fn saved(&self, port: u16) -> Saved {
        let save = |key: &IssuerKey| SavedKey { kid: key.kid.clone(), pkcs8: STANDARD.encode(&key.pkcs8) };
        Saved { port, es256: self.es256.iter().map(save).collect() }
    }

    /// The key that signs with `alg` now.
    pub(super) fn signing(&self, alg: Algorithm) -> Result<&IssuerKey, DevError> {
        let key = match alg {
            Algorithm::ES256 => self.es256.first(),
            Algorithm::RS256 => self.rs256.as_ref(),
            _ => None,
        };
        key.ok_or(DevError::Key("an algorithm that this issuer has a key for: ES256, or RS256 where given"))
    }

    pub(super) fn rotate(&mut self, rotation: Rotation) -> Result<(), DevError> {
        let mut new = IssuerKey::generate_es256()?;
        match rotation {
            Rotation::Overlapping => self.es256.truncate(PUBLISHED_MAX - 1),
            Rotation::Abrupt => self.es256.clear(),
            Rotation::SameKid => {
                let kid = self.signing(Algorithm::ES256)?.kid.clone();
                new = IssuerKey::from_es256(&new.pkcs8, Some(&kid))?;
                self.es256.remove(0);
            }
        }
        self.es256.insert(0, new);
        Ok(())
    }

    /// The public key set (RFC 7517).
    pub(super) fn jwks(&self) -> Value {
        let keys: Vec<&Value> = self.es256.iter().chain(&self.rs256).map(|key| &key.jwk).collect();
        json!({ "keys": keys })
    }
}
