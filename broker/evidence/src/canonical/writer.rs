//! The writer: one buffer, in which the members of an object are put in order when it closes.

use std::ops::Range;

use serde::ser::{self, Serialize};

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

    fn integer(&mut self, value: i128) -> Result<(), CanonicalError> {
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
        self.out.extend(digits.iter().skip(digits.len() - used));
        Ok(())
    }

    fn string(&mut self, text: &str) -> Result<(), CanonicalError> {
        if text.is_empty() {
            return Err(CanonicalError::EmptyString);
        }
        self.out.push(b'"');
        let escapes = text.bytes().any(needs_escape);
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

    fn member<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) -> Result<(), CanonicalError> {
        self.open_member(name)?;
        value.serialize(&mut *self)?;
        self.close_member();
        Ok(())
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

    fn object(&mut self) -> Object<'_> {
        Object { start: self.out.len(), first_member: self.members.len(), inside: None, writer: self }
    }

    fn array(&mut self) -> Array<'_> {
        self.out.push(b'[');
        Array { empty: true, inside: None, writer: self }
    }

    /// Begins an object whose only member is the variant of an enum; [`Self::close_variant`] ends it.
    fn open_variant(&mut self, variant: &str) -> Result<(usize, usize), CanonicalError> {
        let opened = (self.out.len(), self.members.len());
        self.open_member(variant)?;
        Ok(opened)
    }

    fn close_variant(&mut self, (start, first_member): (usize, usize)) -> Result<(), CanonicalError> {
        self.close_member();
        self.close_object(start, first_member)
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

/// An open object.
#[derive(Debug)]
pub(super) struct Object<'a> {
    writer: &'a mut Writer,
    start: usize,
    first_member: usize,
    /// The object of an enum's variant that this one is the value of.
    inside: Option<(usize, usize)>,
}

impl Object<'_> {
    fn close(self) -> Result<(), CanonicalError> {
        self.writer.close_object(self.start, self.first_member)?;
        self.inside.map_or(Ok(()), |variant| self.writer.close_variant(variant))
    }
}

/// An open array.
#[derive(Debug)]
pub(super) struct Array<'a> {
    writer: &'a mut Writer,
    empty: bool,
    /// The object of an enum's variant that this array is the value of.
    inside: Option<(usize, usize)>,
}

impl Array<'_> {
    fn item<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), CanonicalError> {
        if !std::mem::take(&mut self.empty) {
            self.writer.out.push(b',');
        }
        value.serialize(&mut *self.writer)
    }

    fn close(self) -> Result<(), CanonicalError> {
        self.writer.out.push(b']');
        self.inside.map_or(Ok(()), |variant| self.writer.close_variant(variant))
    }
}

macro_rules! integers {
    ($($method:ident: $type:ty),+) => {
        $(fn $method(self, value: $type) -> Result<(), CanonicalError> {
            self.integer(i128::from(value))
        })+
    };
}

impl<'a> ser::Serializer for &'a mut Writer {
    type Ok = ();
    type Error = CanonicalError;
    type SerializeSeq = Array<'a>;
    type SerializeTuple = Array<'a>;
    type SerializeTupleStruct = Array<'a>;
    type SerializeTupleVariant = Array<'a>;
    type SerializeMap = Object<'a>;
    type SerializeStruct = Object<'a>;
    type SerializeStructVariant = Object<'a>;

    integers!(serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64, serialize_i128: i128);
    integers!(serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64);

    fn serialize_u128(self, value: u128) -> Result<(), CanonicalError> {
        self.integer(i128::try_from(value).unwrap_or(i128::MAX))
    }

    fn serialize_bool(self, value: bool) -> Result<(), CanonicalError> {
        self.out.extend_from_slice(if value { b"true" } else { b"false" });
        Ok(())
    }

    fn serialize_f32(self, _: f32) -> Result<(), CanonicalError> {
        Err(CanonicalError::Float)
    }

    fn serialize_f64(self, _: f64) -> Result<(), CanonicalError> {
        Err(CanonicalError::Float)
    }

    fn serialize_char(self, value: char) -> Result<(), CanonicalError> {
        self.string(value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, value: &str) -> Result<(), CanonicalError> {
        self.string(value)
    }

    fn serialize_bytes(self, _: &[u8]) -> Result<(), CanonicalError> {
        Err(CanonicalError::Unsupported("bytes: expected text, such as base64url or hex".into()))
    }

    fn serialize_none(self) -> Result<(), CanonicalError> {
        Err(CanonicalError::Null)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), CanonicalError> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), CanonicalError> {
        Err(CanonicalError::Null)
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), CanonicalError> {
        Err(CanonicalError::Null)
    }

    fn serialize_unit_variant(self, _: &str, _: u32, variant: &'static str) -> Result<(), CanonicalError> {
        self.string(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), CanonicalError> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), CanonicalError> {
        let opened = self.open_variant(variant)?;
        value.serialize(&mut *self)?;
        self.close_variant(opened)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Array<'a>, CanonicalError> {
        Ok(self.array())
    }

    fn serialize_tuple(self, _: usize) -> Result<Array<'a>, CanonicalError> {
        Ok(self.array())
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Array<'a>, CanonicalError> {
        Ok(self.array())
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Array<'a>, CanonicalError> {
        let opened = self.open_variant(variant)?;
        Ok(Array { inside: Some(opened), ..self.array() })
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Object<'a>, CanonicalError> {
        Ok(self.object())
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Object<'a>, CanonicalError> {
        Ok(self.object())
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Object<'a>, CanonicalError> {
        let opened = self.open_variant(variant)?;
        Ok(Object { inside: Some(opened), ..self.object() })
    }
}

macro_rules! arrays {
    ($($trait:ident::$method:ident),+) => {
        $(impl ser::$trait for Array<'_> {
            type Ok = ();
            type Error = CanonicalError;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), CanonicalError> {
                self.item(value)
            }

            fn end(self) -> Result<(), CanonicalError> {
                self.close()
            }
        })+
    };
}
arrays!(
    SerializeSeq::serialize_element,
    SerializeTuple::serialize_element,
    SerializeTupleStruct::serialize_field,
    SerializeTupleVariant::serialize_field
);

macro_rules! structs {
    ($($trait:ident),+) => {
        $(impl ser::$trait for Object<'_> {
            type Ok = ();
            type Error = CanonicalError;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                name: &'static str,
                value: &T,
            ) -> Result<(), CanonicalError> {
                self.writer.member(name, value)
            }

            fn end(self) -> Result<(), CanonicalError> {
                self.close()
            }
        })+
    };
}
structs!(SerializeStruct, SerializeStructVariant);

impl ser::SerializeMap for Object<'_> {
    type Ok = ();
    type Error = CanonicalError;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, name: &T) -> Result<(), CanonicalError> {
        self.writer.open_member(name)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), CanonicalError> {
        value.serialize(&mut *self.writer)?;
        self.writer.close_member();
        Ok(())
    }

    fn end(self) -> Result<(), CanonicalError> {
        self.close()
    }
}
