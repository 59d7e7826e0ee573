//! `application/x-www-form-urlencoded`, read strictly: what two readers could take for two things is refused.

/// More parameters than any request has a use for.
const PARAMETERS_MAX: usize = 128;

/// The parameters that may come more than once (RFC 8693, section 2.1; RFC 8707, section 2).
const REPEATED: [&str; 2] = ["audience", "resource"];

/// The parameters of a request. One without a value counts as absent (RFC 6749, section 3.1).
#[derive(Default)]
pub(super) struct Form(Vec<(String, String)>);

impl Form {
    /// Reads the content of a request.
    ///
    /// # Errors
    /// When it is not such a form, or names a parameter twice that may come once.
    pub(super) fn parse(content: &[u8]) -> Result<Self, String> {
        let mut found: Vec<(String, String)> = Vec::new();
        for pair in content.split(|&octet| octet == b'&').filter(|pair| !pair.is_empty()) {
            let mut halves = pair.splitn(2, |&octet| octet == b'=');
            let mut next = || decode(halves.next().unwrap_or_default());
            let (Some(name), Some(value)) = (next(), next()) else {
                return Err("expected `name=value` pairs in percent-encoded UTF-8 without controls".into());
            };
            if !REPEATED.contains(&name.as_str()) && found.iter().any(|(known, _)| *known == name) {
                return Err(format!("`{:.32}` came twice: expected each parameter once", name));
            }
            found.push((name, value));
            if found.len() > PARAMETERS_MAX {
                return Err(format!("expected {PARAMETERS_MAX} parameters at most"));
            }
        }
        found.retain(|(_, value)| !value.is_empty());
        Ok(Self(found))
    }

    /// The value of a parameter.
    pub(super) fn one(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The values of a parameter that may come more than once.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

fn decode(text: &[u8]) -> Option<String> {
    let digit = |octet: &u8| char::from(*octet).to_digit(16);
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.iter();
    while let Some(octet) = rest.next() {
        decoded.push(match octet {
            b'+' => b' ',
            b'%' => {
                let (high, low) = (digit(rest.next()?)?, digit(rest.next()?)?);
                u8::try_from(high * 16 + low).ok()?
            }
            0x21..=0x7e => *octet,
            _ => return None,
        });
    }
    let text = String::from_utf8(decoded).ok()?;
    (!text.chars().any(char::is_control)).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_read_as_it_was_written() {
        let form =
            Form::parse(b"grant_type=a%3Ab+c&resource=x&audience=&&resource=y%2B&empty&k=v=w").unwrap();
        assert_eq!(form.one("grant_type"), Some("a:b c"));
        assert_eq!(form.all("resource").collect::<Vec<_>>(), ["x", "y+"]);
        assert_eq!((form.one("audience"), form.one("empty"), form.one("k")), (None, None, Some("v=w")));
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for bad in [
            &b"grant_type=a&grant_type=b"[..],
            b"grant_type=a&grant_type=",
            b"grant%5ftype=a&grant_type=b",
            b"unknown=1&unknown=2",
            b"a=%",
            b"a=%4",
            b"a=%zz",
            b"a=%+1",
            b"a=%00",
            b"a=%0d%0a",
            b"a=%ff",
            b"a=%c0%af",
            b"a=b c",
            b"a=\xc3\xa4",
            b"a=b\n",
        ] {
            assert!(Form::parse(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
        assert!(Form::parse("x=1&".repeat(2).as_bytes()).is_err());
        let many: Vec<String> = (0..=PARAMETERS_MAX).map(|n| format!("p{n}=1")).collect();
        assert!(Form::parse(many.join("&").as_bytes()).is_err());
    }
}
