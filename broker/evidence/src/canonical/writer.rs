//! The writer: one buffer, in which the members of an object are put in order when it closes.

use std::ops::Range;

use serde::Serialize;

use super::CanonicalError;

/// The largest integer that a reader with 64-bit floats keeps: 2^53 - 1.
const MAX_INTEGER: u64 = (1 << 53) - 1;

/// One member of an object that is still open: `"name":value` at `bytes`, of which `name` lies within the quotes.
#[derive(Debug, Clone)]
struct Member {
    bytes: Range<usize>,
    name: Range<usize>,
    /// The name is ASCII without escapes, so its bytes sort like its UTF-16 code units.
    plain: bool,
}

/// Writes one value.
#[derive(Debug)]
pub(super) struct Writer {
    out: Vec<u8>,
    /// The members of all open objects, innermost last.
    members: Vec<Member>,
    /// Where an object's members are put in order.
    scratch: Vec<u8>,
    /// Whether the string written last was ASCII without escapes.
    plain: bool,
}

impl Writer {
    pub(super) fn new() -> Self {
        Self {
            out: Vec::with_capacity(2048),
            members: Vec::with_capacity(64),
            scratch: Vec::with_capacity(2048),
            plain: false,
        }
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.out
    }

    pub(super) fn integer(&mut self, value: i128) -> Result<(), CanonicalError> {
        let size = u64::try_from(value.unsigned_abs()).ok().filter(|size| *size <= MAX_INTEGER);
        let mut rest = size.ok_or(CanonicalError::IntegerRange(value))?;
        let mut digits = [0_u8; 16];
        let mut used = 0;
        for slot in digits.iter_mut().rev() {
            *slot = b'0' + u8::try_from(rest % 10).unwrap_or_default();
            rest /= 10;
            used += 1;
            if rest == 0 {
                break;
            }
        }
        if value < 0 {
            self.out.push(b'-');
        }
        self.out.extend_from_slice(digits.get(digits.len() - used..).unwrap_or_default());
        Ok(())
    }

    pub(super) fn string(&mut self, text: &str) -> Result<(), CanonicalError> {
        if text.is_empty() {
            return Err(CanonicalError::EmptyString);
        }
        self.out.push(b'"');
        // Without an early exit this compiles to vector instructions.
        let escapes = text.bytes().fold(false, |found, byte| found | needs_escape(byte));
        if escapes {
            text.bytes().for_each(|byte| self.escaped(byte));
        } else {
            self.out.extend_from_slice(text.as_bytes());
        }
        self.out.push(b'"');
        self.plain = !escapes && text.is_ascii();
        Ok(())
    }

    /// One byte of a string (RFC 8785, section 3.2.2.2).
    fn escaped(&mut self, byte: u8) {
        let short = match byte {
            0x08 => b'b',
            b'\t' => b't',
            b'\n' => b'n',
            0x0c => b'f',
            b'\r' => b'r',
            b'"' | b'\\' => byte,
            0..0x20 => return self.out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => return self.out.push(byte),
        };
        self.out.extend([b'\\', short]);
    }

    fn open_member<T: Serialize + ?Sized>(&mut self, name: &T) -> Result<(), CanonicalError> {
        let start = self.out.len();
        name.serialize(&mut *self)?;
        if self.out.get(start) != Some(&b'"') {
            return Err(CanonicalError::NameNotString);
        }
        let end = self.out.len();
        self.members.push(Member { bytes: start..end, name: start + 1..end - 1, plain: self.plain });
        self.out.push(b':');
        Ok(())
    }

    fn close_member(&mut self) {
        if let Some(member) = self.members.last_mut() {
            member.bytes.end = self.out.len();
        }
    }

    /// Puts the members that were written since `start` in order, and takes them off the list.
    fn close_object(&mut self, start: usize, first_member: usize) -> Result<(), CanonicalError> {
        let Self { out, members, scratch, .. } = self;
        let open = members.get_mut(first_member..).unwrap_or_default();
        sort(open, out)?;
        scratch.clear();
        for member in &*open {
            scratch.push(b',');
            scratch.extend_from_slice(out.get(member.bytes.clone()).unwrap_or_default());
        }
        out.truncate(start);
        out.push(b'{');
        out.extend_from_slice(scratch.get(1..).unwrap_or_default());
        out.push(b'}');
        members.truncate(first_member);
        Ok(())
    }

    pub(super) fn boolean(&mut self, value: bool) {
        self.out.extend_from_slice(if value { b"true" } else { b"false" });
    }

    /// Begins an object, which may be the value of an enum's variant.
    pub(super) fn object(&mut self, inside: Option<Variant>) -> Object<'_> {
        Object { start: self.out.len(), first_member: self.members.len(), inside, writer: self }
    }

    /// Begins an array, which may be the value of an enum's variant.
    pub(super) fn array(&mut self, inside: Option<Variant>) -> Array<'_> {
        self.out.push(b'[');
        Array { empty: true, inside, writer: self }
    }

    /// Begins an object whose only member is the variant of an enum; [`Self::close_variant`] ends it.
    pub(super) fn open_variant(&mut self, variant: &str) -> Result<Variant, CanonicalError> {
        let opened = Variant { start: self.out.len(), first_member: self.members.len() };
        self.open_member(variant)?;
        Ok(opened)
    }

    pub(super) fn close_variant(&mut self, opened: Variant) -> Result<(), CanonicalError> {
        self.close_member();
        self.close_object(opened.start, opened.first_member)
    }
}

fn needs_escape(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

/// Sorts members by the UTF-16 code units of their names (RFC 8785, section 3.2.3) and refuses two of one name.
fn sort(members: &mut [Member], out: &[u8]) -> Result<(), CanonicalError> {
    let name = |member: &Member| out.get(member.name.clone()).unwrap_or_default();
    if members.iter().all(|member| member.plain) {
        members.sort_unstable_by(|a, b| name(a).cmp(name(b)));
    } else {
        members.sort_by_cached_key(|member| utf16(name(member)));
    }
    let twice = members.windows(2).find_map(|pair| match pair {
        [a, b] if name(a) == name(b) => Some(name(a)),
        _ => None,
    });
    twice.map_or(Ok(()), |name| Err(CanonicalError::Duplicate(String::from_utf8_lossy(name).into_owned())))
}

/// The UTF-16 code units of a name as it was written, escapes undone.
fn utf16(escaped: &[u8]) -> Vec<u16> {
    let quoted = [b"\"", escaped, b"\""].concat();
    let name: String = serde_json::from_slice(&quoted).unwrap_or_default();
    name.encode_utf16().collect()
}

/// The open object whose only member is the variant of an enum.
#[derive(Debug)]
pub(super) struct Variant {
    start: usize,
    first_member: usize,
}

/// An open object.
#[derive(Debug)]
pub(super) struct Object<'a> {
    writer: &'a mut Writer,
    start: usize,
    first_member: usize,
    inside: Option<Variant>,
}

impl Object<'_> {
    pub(super) fn name<T: Serialize + ?Sized>(&mut self, name: &T) -> Result<(), CanonicalError> {
        self.writer.open_member(name)
    }

    pub(super) fn value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), CanonicalError> {
        value.serialize(self.value_place())?;
        self.close_value();
        Ok(())
    }

    /// Where the value of the member named last is written, before [`Self::close_value`].
    pub(super) fn value_place(&mut self) -> &mut Writer {
        self.writer
    }

    pub(super) fn close_value(&mut self) {
        self.writer.close_member();
    }

    pub(super) fn close(self) -> Result<(), CanonicalError> {
        self.writer.close_object(self.start, self.first_member)?;
        self.inside.map_or(Ok(()), |variant| self.writer.close_variant(variant))
    }
}

/// An open array.
#[derive(Debug)]
pub(super) struct Array<'a> {
    writer: &'a mut Writer,
    empty: bool,
    inside: Option<Variant>,
}

impl Array<'_> {
    pub(super) fn item<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), CanonicalError> {
        value.serialize(self.item_place())
    }

    /// Where the next item is written.
    pub(super) fn item_place(&mut self) -> &mut Writer {
        if !std::mem::take(&mut self.empty) {
            self.writer.out.push(b',');
        }
        self.writer
    }

    pub(super) fn close(self) -> Result<(), CanonicalError> {
        self.writer.out.push(b']');
        self.inside.map_or(Ok(()), |variant| self.writer.close_variant(variant))
    }
}
