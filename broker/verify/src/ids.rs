//! Names and ids. Each is a type with one constructor that checks its form, so that a bare string never
//! stands for an identity.

mod digest;
mod drawn;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use digest::Digest;
pub use drawn::{CredentialId, RequestId};

/// Text that has not the form of what it should name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not {what}: expected {expected}", .input.escape_debug())]
pub struct ParseError {
    /// What was wanted, with its article: `an identity name`.
    pub what: &'static str,
    /// What was given, cut at 80 characters.
    pub input: String,
    /// The form that would have been accepted.
    pub expected: &'static str,
}

impl ParseError {
    /// An error about `input`, which is kept to its first 80 characters.
    #[must_use]
    pub fn new(what: &'static str, input: &str, expected: &'static str) -> Self {
        Self { what, input: input.chars().take(80).collect(), expected }
    }
}

/// Defines a newtype over `Arc<str>` whose only constructor is `FromStr`, checked by `$check`.
macro_rules! checked_text {
    ($(#[$doc:meta])* $name:ident, $what:literal, $expected:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The checked text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = $crate::ids::ParseError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let check: fn(&str) -> bool = $check;
                if check(text) {
                    Ok(Self(text.into()))
                } else {
                    Err($crate::ids::ParseError::new($what, text, $expected))
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use checked_text;

fn is_segment(text: &str) -> bool {
    (1..=63).contains(&text.len()) && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}

checked_text!(
    /// The name of a task, target, issuer, supplier, exception, owner or operator: one segment of
    /// `[a-z0-9-]{1,63}`.
    Name,
    "a name",
    "1 to 63 of a-z, 0-9 and `-`",
    is_segment
);

checked_text!(
    /// The name of an identity: 1 to 8 segments of `[a-z0-9-]{1,63}` joined by `/`.
    IdentityName,
    "an identity name",
    "1 to 8 segments of a-z, 0-9 and `-`, joined by `/`",
    |text| text.split('/').count() <= 8 && text.split('/').all(is_segment)
);

checked_text!(
    /// A SPIFFE trust domain in its normal form: lower-case letters, digits, `.`, `-`, `_`; 1 to 255 bytes
    /// (SPIFFE-ID, section 2.1).
    TrustDomain,
    "a trust domain",
    "1 to 255 of a-z, 0-9, `.`, `-` and `_`",
    |text| (1..=255).contains(&text.len())
        && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_'))
);

checked_text!(
    /// A key id: the RFC 7638 SHA-256 thumbprint of the public key, 43 characters of base64url.
    KeyId,
    "a key id",
    "43 characters of base64url (an RFC 7638 thumbprint)",
    |text| text.len() == 43 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
);

impl KeyId {
    /// The key id for a thumbprint (SHA-256 of the canonical JWK, RFC 7638 section 3).
    #[must_use]
    pub fn from_thumbprint(sha256: [u8; 32]) -> Self {
        Self(URL_SAFE_NO_PAD.encode(sha256).into())
    }
}

impl IdentityName {
    /// The SPIFFE ID of this identity in `trust_domain`: `spiffe://TD/NAME`.
    #[must_use]
    pub fn spiffe_id(&self, trust_domain: &TrustDomain) -> SpiffeId {
        SpiffeId(format!("spiffe://{trust_domain}/{self}").into())
    }
}

checked_text!(
    /// A SPIFFE ID: `spiffe://` + trust domain + path of `[a-zA-Z0-9._-]` segments, at most 2048 bytes, no
    /// empty, `.` or `..` segment, no port, user, query or fragment (SPIFFE-ID, section 2).
    ///
    /// The trust domain must be in lower case here; [`SpiffeId::parse_fold`] folds it first.
    SpiffeId,
    "a SPIFFE ID",
    "`spiffe://` + lower-case trust domain + a path of segments of letters, digits, `.`, `-`, `_`",
    is_spiffe_id
);

fn is_spiffe_id(text: &str) -> bool {
    let Some((domain, path)) = text.strip_prefix("spiffe://").and_then(|rest| rest.split_once('/')) else {
        return false;
    };
    let segment = |s: &str| {
        !matches!(s, "" | "." | "..")
            && s.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
    };
    text.len() <= 2048 && domain.parse::<TrustDomain>().is_ok() && path.split('/').all(segment)
}

impl SpiffeId {
    /// Parses an ID whose scheme and trust domain may be in upper case, and folds those parts alone
    /// (SPIFFE-ID, section 2: both are case-insensitive, the path is not).
    ///
    /// # Errors
    /// When the text is no SPIFFE ID even after folding.
    pub fn parse_fold(text: &str) -> Result<Self, ParseError> {
        let prefix_len = "spiffe://".len();
        let end =
            text.get(prefix_len..).and_then(|rest| rest.find('/')).map_or(text.len(), |at| prefix_len + at);
        match (text.get(..end), text.get(end..)) {
            (Some(head), Some(path)) => format!("{}{path}", head.to_ascii_lowercase()).parse(),
            _ => text.parse(),
        }
    }

    /// The trust domain part.
    #[must_use]
    pub fn trust_domain(&self) -> TrustDomain {
        TrustDomain(self.parts().0.into())
    }

    /// The path without its leading `/`.
    #[must_use]
    pub fn path(&self) -> &str {
        self.parts().1
    }

    fn parts(&self) -> (&str, &str) {
        self.0.strip_prefix("spiffe://").and_then(|rest| rest.split_once('/')).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::UnixMs;

    #[test]
    fn an_identity_name_has_one_normal_form() {
        for good in ["a", "prod/billing/nightly", "a/b/c/d/e/f/g/h"] {
            assert!(good.parse::<IdentityName>().is_ok(), "{good}");
        }
        let long = "a".repeat(64);
        for bad in ["", "/", "a//b", "A", "a b", "a/", "/a", "a/b/c/d/e/f/g/h/i", "a_b", "ä", long.as_str()]
        {
            assert!(bad.parse::<IdentityName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_spiffe_id_folds_only_scheme_and_trust_domain() {
        let id = SpiffeId::parse_fold("SPIFFE://Example.ORG/Prod/x").unwrap();
        assert_eq!(id.as_str(), "spiffe://example.org/Prod/x");
        assert_eq!((id.trust_domain().as_str(), id.path()), ("example.org", "Prod/x"));
        let long = format!("spiffe://td/{}", "a".repeat(2048));
        for bad in [
            "spiffe://td",
            "spiffe://td/",
            "spiffe:///x",
            "spiffe://td/a//b",
            "spiffe://td/a/../b",
            "spiffe://td/./b",
            "spiffe://td/a/",
            "spiffe://td/%2e",
            "spiffe://td:80/a",
            "spiffe://u@td/a",
            "spiffe://td/a?q",
            "spiffe://td/a#f",
            "https://td/a",
            "spiffe://té/a",
            "",
            long.as_str(),
        ] {
            assert!(SpiffeId::parse_fold(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_credential_id_carries_its_time_and_one_spelling() {
        let id = CredentialId::new(UnixMs::new(1_795_310_000_123), [7; 10]);
        assert_eq!(id.drawn_at(), UnixMs::new(1_795_310_000_123));
        assert_eq!(id.to_string().parse::<CredentialId>().unwrap(), id);
        assert_eq!(CredentialId::from_bytes(*id.as_bytes()).unwrap(), id);
        assert!(id.to_string().to_uppercase().parse::<CredentialId>().is_err());
        assert!("00000000-0000-4000-8000-000000000000".parse::<CredentialId>().is_err());
    }

    #[test]
    fn a_digest_reads_what_it_writes() {
        let digest = Digest::of(b"abc");
        assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
        assert!("sha256:zz".parse::<Digest>().is_err());
        assert!(digest.to_string().to_uppercase().parse::<Digest>().is_err());
    }
}
