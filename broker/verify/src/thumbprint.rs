//! Public keys as JWKs, named by their RFC 7638 thumbprints.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::ids::{Digest, KeyId};
use crate::key::RawKey;

/// The public JWK of an ES256 key from its uncompressed point (`04 || x || y`), with its thumbprint as `kid`.
/// `use_` is `sig` in a key set, `jwt-svid` or `x509-svid` in a SPIFFE bundle.
#[must_use]
pub fn p256_jwk(point: &[u8; 65], use_: &str) -> (KeyId, Value) {
    let kid = thumbprint_p256(point);
    let (x, y) = coordinates(point);
    let jwk = json!({
        "alg": "ES256", "crv": "P-256", "kid": kid, "kty": "EC", "use": use_, "x": x, "y": y,
    });
    (kid, jwk)
}

/// The RFC 7638 thumbprint of a P-256 key from its uncompressed point.
#[must_use]
pub fn thumbprint_p256(point: &[u8; 65]) -> KeyId {
    let (x, y) = coordinates(point);
    thumbprint(&format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#))
}

/// The RFC 7638 thumbprint of an Ed25519 key (RFC 8037, appendix A.3).
#[must_use]
pub fn thumbprint_ed25519(public: &[u8; 32]) -> KeyId {
    let x = URL_SAFE_NO_PAD.encode(public);
    thumbprint(&format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#))
}

/// The public JWK of an RS256 key from its modulus and exponent (big-endian, no leading zero), with its thumbprint as
/// `kid`. `use_` is `sig` in a key set, `jwt-svid` in a SPIFFE bundle.
#[must_use]
pub fn rsa_jwk(modulus: &[u8], exponent: &[u8], use_: &str) -> (KeyId, Value) {
    let kid = thumbprint_rsa(modulus, exponent);
    let (n, e) = (URL_SAFE_NO_PAD.encode(modulus), URL_SAFE_NO_PAD.encode(exponent));
    let jwk = json!({ "alg": "RS256", "e": e, "kid": kid, "kty": "RSA", "n": n, "use": use_ });
    (kid, jwk)
}

/// The RFC 7638 thumbprint of an RSA key from its modulus and exponent (big-endian, no leading zero).
#[must_use]
pub fn thumbprint_rsa(modulus: &[u8], exponent: &[u8]) -> KeyId {
    let (n, e) = (URL_SAFE_NO_PAD.encode(modulus), URL_SAFE_NO_PAD.encode(exponent));
    thumbprint(&format!(r#"{{"e":"{e}","kty":"RSA","n":"{n}"}}"#))
}

/// The public JWK of any key that is accepted, with its thumbprint as `kid`. It names no algorithm: what is signed with the
/// key of a CA are certificates.
pub(crate) fn public_jwk(key: &RawKey<'_>, use_: &str) -> (KeyId, Value) {
    let encode = |octets: &[u8]| URL_SAFE_NO_PAD.encode(octets);
    let of_curve = |crv: &str, point: &[u8]| {
        let (x, y) = point.get(1..).unwrap_or_default().split_at(point.len() / 2);
        let (x, y) = (encode(x), encode(y));
        let kid = thumbprint(&format!(r#"{{"crv":"{crv}","kty":"EC","x":"{x}","y":"{y}"}}"#));
        let jwk = json!({ "crv": crv, "kid": kid, "kty": "EC", "use": use_, "x": x, "y": y });
        (kid, jwk)
    };
    match key {
        RawKey::P256(point) => of_curve("P-256", point),
        RawKey::P384(point) => of_curve("P-384", point),
        RawKey::Rsa { n, e } => {
            let kid = thumbprint_rsa(n, e);
            (kid.clone(), json!({ "e": encode(e), "kid": kid, "kty": "RSA", "n": encode(n), "use": use_ }))
        }
        RawKey::Ed25519(public) => {
            let x = encode(public);
            let kid = thumbprint(&format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#));
            (kid.clone(), json!({ "crv": "Ed25519", "kid": kid, "kty": "OKP", "use": use_, "x": x }))
        }
    }
}

fn thumbprint(canonical_jwk: &str) -> KeyId {
    KeyId::from_thumbprint(*Digest::of(canonical_jwk.as_bytes()).as_bytes())
}

fn coordinates(point: &[u8; 65]) -> (String, String) {
    let [_, both @ ..] = point;
    let (x, y) = both.split_at(32);
    (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_thumbprint_of_an_rsa_key_is_that_of_the_standards_example() {
        // RFC 7638, section 3.1.
        let modulus = concat!(
            "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMst",
            "n64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajr",
            "n1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"
        );
        let modulus = URL_SAFE_NO_PAD.decode(modulus).unwrap();
        let kid = thumbprint_rsa(&modulus, &[1, 0, 1]);
        assert_eq!(kid.as_str(), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
    }

    #[test]
    fn a_thumbprint_is_that_of_the_standards_example() {
        // RFC 8037, appendix A.3.
        let public = URL_SAFE_NO_PAD.decode("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo").unwrap();
        let kid = thumbprint_ed25519(&public.try_into().unwrap());
        assert_eq!(kid.as_str(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    }
}
