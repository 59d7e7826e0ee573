//! Questions to the claims of a signed token. Each accessor takes one JSON type and no other: a time that is
//! text and an issuer that is a list are refused where a lenient reader would pass over them.

use serde_json::Value;

use crate::jose::{JoseError, SignedToken};
use crate::time::{Seconds, UnixMs};

const SUBJECT_LEN_MAX: usize = 1024;
const WRONG_TYPE: JoseError = JoseError::Malformed("each claim in the type that RFC 7519 gives it");

/// When a token lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetime {
    /// `iat`.
    pub issued_at: UnixMs,
    /// `nbf`, where the token has one.
    pub not_before: Option<UnixMs>,
    /// `exp`.
    pub expires_at: UnixMs,
}

impl SignedToken {
    /// A claim that is text; none when it is missing.
    ///
    /// # Errors
    /// When it has another type, null included.
    pub fn string(&self, name: &str) -> Result<Option<&str>, JoseError> {
        match self.claims().get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(WRONG_TYPE),
        }
    }

    /// A claim that is an integer of 64 bits; none when it is missing.
    ///
    /// # Errors
    /// When it has another type or a fraction.
    pub fn integer(&self, name: &str) -> Result<Option<i64>, JoseError> {
        match self.claims().get(name) {
            None => Ok(None),
            Some(value) => value.as_i64().map(Some).ok_or(WRONG_TYPE),
        }
    }

    /// A claim that is a list of texts, or one text in place of such a list; none when it is missing.
    ///
    /// # Errors
    /// When it, or an item, has another type.
    pub fn strings(&self, name: &str) -> Result<Option<Vec<&str>>, JoseError> {
        match self.claims().get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(vec![text])),
            Some(Value::Array(items)) => {
                items.iter().map(|it| it.as_str().ok_or(WRONG_TYPE)).collect::<Result<_, _>>().map(Some)
            }
            Some(_) => Err(WRONG_TYPE),
        }
    }

    /// Whether `typ` is the media type `expected`, such as `at+jwt`; `application/` may stand before it and
    /// case does not matter (RFC 7515, section 4.1.9).
    #[must_use]
    pub fn typ_is(&self, expected: &str) -> bool {
        let short = |typ: &str| {
            let head = typ.get(.."application/".len());
            let long = head.is_some_and(|head| head.eq_ignore_ascii_case("application/"));
            typ.get(if long { "application/".len() } else { 0 }..).unwrap_or_default().to_ascii_lowercase()
        };
        self.typ().is_some_and(|typ| short(typ) == short(expected))
    }

    /// `iss`.
    ///
    /// # Errors
    /// When it is missing or no text.
    pub fn issuer(&self) -> Result<&str, JoseError> {
        self.string("iss").ok().flatten().ok_or(JoseError::BadIssuer)
    }

    /// `sub`: 1 to 1,024 bytes without control characters.
    ///
    /// # Errors
    /// When it is missing or has another form.
    pub fn subject(&self) -> Result<&str, JoseError> {
        let fits =
            |sub: &&str| (1..=SUBJECT_LEN_MAX).contains(&sub.len()) && !sub.chars().any(char::is_control);
        self.string("sub").ok().flatten().filter(fits).ok_or(JoseError::BadSubject)
    }

    /// All of `aud`, at least one, none empty.
    ///
    /// # Errors
    /// When it is missing, empty, or no text or list of texts.
    pub fn audiences(&self) -> Result<Vec<&str>, JoseError> {
        let all = self.strings("aud").ok().flatten();
        all.filter(|all| !all.is_empty() && !all.contains(&"")).ok_or(JoseError::BadAudience)
    }

    /// The one audience; a list of one is fine.
    ///
    /// # Errors
    /// When there is none or more than one.
    pub fn single_audience(&self) -> Result<&str, JoseError> {
        match self.audiences()?.as_slice() {
            [only] => Ok(only),
            _ => Err(JoseError::BadAudience),
        }
    }

    /// Checks `exp`, `iat` and `nbf` against `now` and returns them. `leeway` is added on the side of the
    /// token: it is good while `now < exp + leeway`, and once `nbf` and `iat` are at most `now + leeway`.
    ///
    /// # Errors
    /// When `exp` or `iat` is missing or no integer, the token has expired or is not yet valid, was issued
    /// before `nbf`, or lives longer than `life_max`.
    pub fn lifetime(&self, now: UnixMs, leeway: Seconds, life_max: Seconds) -> Result<Lifetime, JoseError> {
        let moment = |name| self.integer(name).map(|it| it.map(UnixMs::from_seconds));
        let expires_at = moment("exp")?.ok_or(WRONG_TYPE)?;
        let issued_at = moment("iat")?.ok_or(WRONG_TYPE)?;
        let not_before = moment("nbf")?;
        if now >= expires_at.plus(leeway) {
            return Err(JoseError::Expired);
        }
        let latest = now.plus(leeway);
        let nbf = not_before.unwrap_or(issued_at);
        if issued_at > latest || nbf > latest || issued_at < nbf {
            return Err(JoseError::NotYetValid);
        }
        if expires_at <= issued_at {
            return Err(JoseError::Malformed("an `exp` after `iat`"));
        }
        if expires_at.millis_since(issued_at) > life_max.millis() {
            return Err(JoseError::ProofTooLong);
        }
        Ok(Lifetime { issued_at, not_before, expires_at })
    }
}
