//! What a credential says of itself. Nothing here is believed until [`Decoded::verify`] has passed.

use daypass_sdk::Published;
use daypass_verify::certificate::TrustAnchors;
use daypass_verify::credential::{TASK_EXTENSION_OID, verify_certificate};
use daypass_verify::ids::{CredentialId, Digest};
use daypass_verify::jose::UnverifiedToken;
use daypass_verify::json::parse_object;
use daypass_verify::time::UnixMs;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::{Map, Value};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use crate::failure::Failure;
use crate::output::{Sheet, plain};

/// A credential, taken apart.
#[derive(Debug)]
pub(crate) struct Decoded {
    /// What it says, for people.
    pub(crate) sheet: Sheet,
    /// The id under which the log would know it.
    pub(crate) id: Option<CredentialId>,
    /// SHA-256 of the bytes that were signed.
    pub(crate) tbs: Digest,
    /// The end of its life.
    pub(crate) expires_at: UnixMs,
    what: What,
}

#[derive(Debug)]
enum What {
    Token(String),
    Certificate { chain: Vec<CertificateDer<'static>>, within: (UnixMs, UnixMs) },
}

/// Tells a token from a certificate, PEM or DER, and takes it apart.
///
/// # Errors
/// When it is neither.
pub(crate) fn decode(bytes: &[u8]) -> Result<Decoded, Failure> {
    let neither = || {
        Failure::Usage(
            "this is no credential: expected a JSON Web Token, or a certificate as PEM or DER".into(),
        )
    };
    let text = std::str::from_utf8(bytes).map(str::trim).unwrap_or_default();
    if text.contains("-----BEGIN CERTIFICATE-----") {
        let chain =
            CertificateDer::pem_slice_iter(bytes).collect::<Result<Vec<_>, _>>().map_err(|_| neither())?;
        return certificate(chain).ok_or_else(neither);
    }
    if text.split('.').count() == 3 {
        return token(text).ok_or_else(neither);
    }
    certificate(vec![CertificateDer::from(bytes.to_vec())]).ok_or_else(neither)
}

/// The claims of a compact token, whoever signed it.
pub(crate) fn unverified_claims(compact: &str) -> Option<Map<String, Value>> {
    let mut parts = compact.split('.');
    let (_, payload, _) = (parts.next()?, parts.next()?, parts.next()?);
    parse_object(&data_encoding::BASE64URL_NOPAD.decode(payload.as_bytes()).ok()?).ok()
}

fn token(text: &str) -> Option<Decoded> {
    let claims = unverified_claims(text)?;
    let header =
        parse_object(&data_encoding::BASE64URL_NOPAD.decode(text.split('.').next()?.as_bytes()).ok()?)
            .ok()?;
    let mut sheet = Sheet::default();
    let said = |name: &str| header.get(name).map(plain).unwrap_or_else(|| "none".into());
    sheet.row("credential", format!("token, typ {}, alg {}, kid {}", said("typ"), said("alg"), said("kid")));
    for (name, value) in &claims {
        sheet.row(name, claim(name, value));
    }
    let seconds = |name: &str| claims.get(name).and_then(Value::as_i64).map(UnixMs::from_seconds);
    let (signed, _) = text.rsplit_once('.')?;
    Some(Decoded {
        sheet,
        id: claims.get("jti").and_then(Value::as_str).and_then(|id| id.parse().ok()),
        tbs: Digest::of(signed.as_bytes()),
        expires_at: seconds("exp").unwrap_or_default(),
        what: What::Token(text.to_owned()),
    })
}

fn claim(name: &str, value: &Value) -> String {
    match (name, value.as_i64()) {
        ("iat" | "nbf" | "exp", Some(seconds)) => UnixMs::from_seconds(seconds).to_string(),
        _ => plain(value),
    }
}

fn certificate(chain: Vec<CertificateDer<'static>>) -> Option<Decoded> {
    let (rest, leaf) = X509Certificate::from_der(chain.first()?).ok()?;
    if !rest.is_empty() {
        return None;
    }
    let at = |time: x509_parser::time::ASN1Time| UnixMs::from_seconds(time.timestamp());
    let within = (at(leaf.validity().not_before), at(leaf.validity().not_after));
    let id = id_of_serial(leaf.raw_serial());
    let mut sheet = Sheet::default();
    sheet.row("credential", "certificate");
    sheet.row("serial", id.map_or_else(|| leaf.raw_serial_as_string(), |id| id.to_string()));
    sheet.row("subject", leaf.subject().to_string());
    for name in names(&leaf) {
        sheet.row("name", name);
    }
    sheet.row("issuer", leaf.issuer().to_string());
    sheet.row("not before", within.0);
    sheet.row("not after", within.1);
    sheet.row("task", task(&leaf).unwrap_or_default());
    let tbs = Digest::of(leaf.tbs_certificate.as_ref());
    Some(Decoded { sheet, id, tbs, expires_at: within.1, what: What::Certificate { chain, within } })
}

fn names(leaf: &X509Certificate<'_>) -> Vec<String> {
    let names = leaf.subject_alternative_name().ok().flatten();
    let shown = |name: &GeneralName<'_>| match name {
        GeneralName::URI(text) | GeneralName::DNSName(text) => (*text).to_owned(),
        other => other.to_string(),
    };
    names.iter().flat_map(|names| names.value.general_names.iter().map(shown)).collect()
}

fn task(leaf: &X509Certificate<'_>) -> Option<String> {
    let wanted = TASK_EXTENSION_OID.iter().map(u64::to_string).collect::<Vec<_>>().join(".");
    let found = leaf.iter_extensions().find(|it| it.oid.to_id_string() == wanted)?;
    std::str::from_utf8(found.value).ok().map(str::to_owned)
}

fn id_of_serial(serial: &[u8]) -> Option<CredentialId> {
    let significant: Vec<u8> = serial.iter().copied().skip_while(|byte| *byte == 0).collect();
    let mut octets = [0; 16];
    let start = octets.len().checked_sub(significant.len())?;
    octets.get_mut(start..)?.copy_from_slice(&significant);
    CredentialId::from_bytes(octets).ok()
}

impl Decoded {
    /// Checks the signature under what the broker publishes; gives whose it is. One that has expired was signed
    /// all the same.
    ///
    /// # Errors
    /// When no published key or root stands behind it.
    pub(crate) fn verify(&self, published: &Published, now: UnixMs) -> Result<String, Failure> {
        match &self.what {
            What::Token(text) => verify_token(text, published),
            What::Certificate { chain, within } => {
                verify_chain(chain, published, now.clamp(within.0, within.1.max(within.0)))
            }
        }
    }
}

fn verify_token(text: &str, published: &Published) -> Result<String, Failure> {
    let refuse = |why: daypass_verify::jose::JoseError| Failure::Verification(why.to_string());
    let token = UnverifiedToken::parse(text).map_err(refuse)?;
    let is_access_token = token.typ().is_some_and(|typ| typ.eq_ignore_ascii_case("at+jwt"));
    let keys = if is_access_token { &published.token_keys } else { &published.svid_keys };
    let key = keys.key_for(&token).map_err(refuse)?;
    let signed = token.verify(key).map_err(refuse)?;
    let issuer = signed.issuer().map_err(refuse)?;
    if issuer != published.issuer {
        let expected = &published.issuer;
        return Err(Failure::Verification(format!("`iss` is `{issuer}`: expected `{expected}`")));
    }
    Ok(format!("verified with a key that {issuer} publishes"))
}

fn verify_chain(
    chain: &[CertificateDer<'static>],
    published: &Published,
    at: UnixMs,
) -> Result<String, Failure> {
    let refuse = |why: String| Failure::Verification(why);
    let anchors = TrustAnchors::new(published.roots.clone()).map_err(|why| refuse(why.to_string()))?;
    let leaf = daypass_verify::certificate::verify_client_chain(chain, &anchors, None, at);
    let subject = leaf.and_then(|leaf| leaf.spiffe_id()).map_err(|why| refuse(why.to_string()))?;
    verify_certificate(chain, &anchors, None, &subject.trust_domain(), at)
        .map_err(|why| refuse(why.to_string()))?;
    Ok(format!("verified up to a root that {} publishes", published.issuer))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compact(claims: &str) -> String {
        let part = |text: &str| data_encoding::BASE64URL_NOPAD.encode(text.as_bytes());
        format!("{}.{}.c2ln", part(r#"{"alg":"ES256","kid":"k1","typ":"at+jwt"}"#), part(claims))
    }

    #[test]
    fn a_token_is_shown_with_its_times_in_words() {
        let text =
            compact(r#"{"jti":"0199f2c1-0000-7000-8000-000000000000","exp":1795316400,"aud":["a","b"]}"#);
        let decoded = decode(format!("{text}\n").as_bytes()).unwrap();
        assert_eq!(decoded.id.unwrap().to_string(), "0199f2c1-0000-7000-8000-000000000000");
        assert_eq!(decoded.expires_at, UnixMs::from_seconds(1_795_316_400));
        let shown = format!("{:?}", decoded.sheet);
        for part in ["token, typ at+jwt, alg ES256, kid k1", "2026-11-22T03:00:00Z", r#"[\"a\",\"b\"]"#] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
        assert_eq!(decoded.tbs, Digest::of(text.rsplit_once('.').unwrap().0.as_bytes()));
    }

    #[test]
    fn a_certificate_is_read_as_pem_or_der_and_its_serial_is_its_id() {
        let id: CredentialId = "0199f2c1-0000-7000-8000-000000000000".parse().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.serial_number = Some(rcgen::SerialNumber::from_slice(id.as_bytes()));
        params.subject_alt_names = vec![rcgen::SanType::URI("spiffe://example.org/x".try_into().unwrap())];
        let certificate = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
        for bytes in [certificate.pem().into_bytes(), certificate.der().to_vec()] {
            let decoded = decode(&bytes).unwrap();
            assert_eq!(decoded.id, Some(id));
            assert!(format!("{:?}", decoded.sheet).contains("spiffe://example.org/x"));
        }
    }

    #[test]
    fn what_is_no_credential_is_refused() {
        for bytes in
            ["", "abc", "a.b.c", "a.b", "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"]
        {
            assert_eq!(decode(bytes.as_bytes()).unwrap_err().exit_code(), 2, "{bytes}");
        }
    }
}
