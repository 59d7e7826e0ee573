//! The header of a token: what it may say, and what makes it refused.

use serde_json::{Map, Value};

use crate::alg::Alg;
use crate::jose::JoseError;

const KID_LEN_MAX: usize = 128;

#[derive(Debug)]
pub(crate) struct Header {
    pub(crate) alg: Alg,
    pub(crate) kid: Option<Box<str>>,
    pub(crate) typ: Option<Box<str>>,
    pub(crate) foreign_keys: Vec<&'static str>,
}

impl Header {
    pub(crate) fn read(members: &Map<String, Value>) -> Result<Self, JoseError> {
        let alg = text(members, "alg")?.ok_or_else(|| JoseError::AlgNotAllowed(String::new()))?.parse()?;
        if members.contains_key("crit") || members.contains_key("b64") {
            return Err(JoseError::CritUnsupported);
        }
        if members.contains_key("jwk") || members.contains_key("x5c") {
            return Err(JoseError::EmbeddedKey);
        }
        if members.contains_key("zip") || members.contains_key("enc") {
            return Err(JoseError::Malformed("a signed token that is neither compressed nor encrypted"));
        }
        refuse_case_twins(members, &["alg", "kid", "typ", "crit"])?;
        let kid = text(members, "kid")?;
        if kid.is_some_and(|kid| !is_kid(kid)) {
            return Err(JoseError::Malformed("a `kid` of 1 to 128 printable ASCII characters"));
        }
        let typ = text(members, "typ")?;
        if typ.is_some_and(|typ| !is_kid(typ)) {
            return Err(JoseError::Malformed("a `typ` of 1 to 128 printable ASCII characters"));
        }
        let foreign_keys = ["jku", "x5u"].into_iter().filter(|name| members.contains_key(*name)).collect();
        Ok(Self { alg, kid: kid.map(Into::into), typ: typ.map(Into::into), foreign_keys })
    }
}

fn text<'a>(members: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, JoseError> {
    match members.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(JoseError::Malformed("a string for each of `alg`, `kid` and `typ`")),
    }
}

pub(crate) fn is_kid(text: &str) -> bool {
    (1..=KID_LEN_MAX).contains(&text.len()) && text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

/// Refuses names that differ from one of `used` only by case, such as `SUB` or `ſub`: another parser might
/// take them for the same.
pub(crate) fn refuse_case_twins(members: &Map<String, Value>, used: &[&str]) -> Result<(), JoseError> {
    let twin = |name: &str| {
        if name.is_ascii() {
            used.iter().any(|it| name != *it && name.eq_ignore_ascii_case(it))
        } else {
            let folded = fold_case(name);
            used.iter().any(|it| folded == fold_case(it))
        }
    };
    if members.keys().any(|name| twin(name)) {
        return Err(JoseError::Malformed(
            "no name that differs from a used one only by upper and lower case",
        ));
    }
    Ok(())
}

fn fold_case(text: &str) -> String {
    text.chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect()
}
