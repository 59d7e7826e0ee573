//! Public keys as JWKs, named by their RFC 7638 thumbprints.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::ids::{Digest, KeyId};

/// The public JWK of an ES256 key from its uncompressed point (`04 || x || y`), with its thumbprint as `kid`.
/// `use_` is `sig` in a key set, `jwt-svid` or `x509-svid` in a SPIFFE bundle.
#[must_use]
pub fn p256_jwk(point: &[u8; 65], use_: &str) -> (KeyId, Value) {
    let kid = thumbprint_p256(point);
    let (x, y) = coordinates(point);
    let jwk = serde_json::json!({
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
    fn a_thumbprint_is_that_of_the_standards_example() {
        // RFC 8037, appendix A.3.
        let public = URL_SAFE_NO_PAD.decode("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo").unwrap();
        let kid = thumbprint_ed25519(&public.try_into().unwrap());
        assert_eq!(kid.as_str(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    }
}
