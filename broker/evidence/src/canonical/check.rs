//! Tells most canonical bytes from others at the speed of reading them. What it does not know it leaves to
//! [`super::reader`]: it never takes what that would refuse.

/// The deepest nesting that is followed here: entries stay far below it.
const DEPTH_MAX: u32 = 32;
/// The largest integer that a reader with 64-bit floats keeps: 2^53 - 1, of 16 digits.
const INTEGER_MAX: u64 = (1 << 53) - 1;
const DIGITS_MAX: usize = 16;

/// Whether `bytes` are certainly canonical. False says nothing: escapes, names that are not ASCII and deep nesting
/// are not looked at here.
pub(super) fn is_plainly_canonical(bytes: &[u8]) -> bool {
    let mut rest = Rest { bytes, at: 0 };
    std::str::from_utf8(bytes).is_ok() && rest.value(DEPTH_MAX).is_some() && rest.at == bytes.len()
}

struct Rest<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Rest<'a> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn take(&mut self, wanted: u8) -> Option<()> {
        (self.peek()? == wanted).then(|| self.at += 1)
    }

    fn literal(&mut self, text: &[u8]) -> Option<()> {
        self.bytes.get(self.at..)?.starts_with(text).then(|| self.at += text.len())
    }

    fn value(&mut self, depth: u32) -> Option<()> {
        match self.peek()? {
            b'"' => self.string().map(drop),
            b'{' => self.object(depth.checked_sub(1)?),
            b'[' => self.array(depth.checked_sub(1)?),
            b't' => self.literal(b"true"),
            b'f' => self.literal(b"false"),
            _ => self.integer(),
        }
    }

    /// The bytes between the quotes: at least one, and none that is or needs an escape.
    fn string(&mut self) -> Option<&'a [u8]> {
        self.take(b'"')?;
        let rest = self.bytes.get(self.at..)?;
        let end = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20))?;
        let text = rest.get(..end)?;
        self.at += end;
        self.take(b'"')?;
        (!text.is_empty()).then_some(text)
    }

    /// Names rise: ASCII bytes sort like UTF-16 code units (RFC 8785, section 3.2.3).
    fn object(&mut self, depth: u32) -> Option<()> {
        self.take(b'{')?;
        let mut last: &[u8] = &[];
        while self.peek()? != b'}' {
            if !last.is_empty() {
                self.take(b',')?;
            }
            let name = self.string().filter(|name| name.is_ascii() && *name > last)?;
            self.take(b':')?;
            self.value(depth)?;
            last = name;
        }
        self.take(b'}')
    }

    fn array(&mut self, depth: u32) -> Option<()> {
        self.take(b'[')?;
        let mut first = true;
        while self.peek()? != b']' {
            if !std::mem::take(&mut first) {
                self.take(b',')?;
            }
            self.value(depth)?;
        }
        self.take(b']')
    }

    fn integer(&mut self) -> Option<()> {
        let negative = self.take(b'-').is_some();
        let rest = self.bytes.get(self.at..)?;
        let length = rest.iter().take(DIGITS_MAX + 1).take_while(|byte| byte.is_ascii_digit()).count();
        let digits = rest.get(..length).filter(|digits| !digits.is_empty() && length <= DIGITS_MAX)?;
        let value = digits.iter().fold(0, |value: u64, digit| value * 10 + u64::from(digit - b'0'));
        let zero = digits.first() == Some(&b'0');
        self.at += length;
        (value <= INTEGER_MAX && (!zero || (length == 1 && !negative))).then_some(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::canonical::reader::rewrite;

    /// Text over the few bytes that JSON's form hangs on, so that much of it is nearly JSON.
    fn nearly_json() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            Just("{"),
            Just("}"),
            Just("["),
            Just("]"),
            Just(","),
            Just(":"),
            Just("\"a\""),
            Just("\"b\":"),
            Just("\"c\":1"),
            Just("\"\""),
            Just("0"),
            Just("-"),
            Just("12"),
            Just("9007199254740991"),
            Just("9007199254740992"),
            Just("true"),
            Just("null"),
            Just(" "),
            Just("\\"),
            Just("é"),
            Just("\"é\":2"),
        ];
        prop::collection::vec(piece, 0..9).prop_map(|pieces| pieces.concat().into_bytes())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]
        #[test]
        fn what_is_plainly_canonical_is_its_own_canonical_form(bytes in nearly_json()) {
            if is_plainly_canonical(&bytes) {
                prop_assert_eq!(rewrite(&bytes), Ok(bytes));
            }
        }
    }

    #[test]
    fn every_golden_entry_is_plainly_canonical() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/golden");
        for file in std::fs::read_dir(folder).unwrap() {
            let bytes = std::fs::read(file.unwrap().path()).unwrap();
            let entry = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
            assert!(is_plainly_canonical(entry), "{}", String::from_utf8_lossy(entry));
        }
    }
}
