//! Strict JSON: one meaning for every accepted text, and a bound on what a stranger can make us hold.
//! Common parsers keep the last of two equal members; here such a text is no JSON at all.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// Bounds on one JSON text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Arrays and objects within each other; the top-level object is the first.
    pub depth: usize,
    /// Members of all objects together.
    pub members: usize,
}

impl Limits {
    /// For a token's header and claims.
    pub const TOKEN: Self = Self { depth: 16, members: 128 };
    /// For key sets and discovery documents: 64 keys of at most 64 members each.
    pub const DOCUMENT: Self = Self { depth: 16, members: 4096 };
}

/// Why a text is not one strict JSON object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// Not UTF-8, or not JSON, or something follows the object.
    #[error("expected one JSON object in UTF-8, with nothing before or after it")]
    Malformed,
    /// The top level is another JSON value.
    #[error("expected a JSON object at the top level")]
    NotAnObject,
    /// Two members of one object have the same name.
    #[error("expected each member of an object once")]
    DuplicateMember,
    /// Over [`Limits::depth`].
    #[error("arrays and objects lie too deep within each other")]
    TooDeep,
    /// Over [`Limits::members`].
    #[error("there are too many members")]
    TooManyMembers,
}

/// Parses the JSON object of a token, within [`Limits::TOKEN`].
///
/// # Errors
/// When `bytes` are anything but one object in UTF-8 whose members are told apart at every depth.
pub fn parse_object(bytes: &[u8]) -> Result<Map<String, Value>, JsonError> {
    parse_limited(bytes, &Limits::TOKEN)
}

/// Parses one JSON object within `limits`.
///
/// # Errors
/// As [`parse_object`].
pub fn parse_limited(bytes: &[u8], limits: &Limits) -> Result<Map<String, Value>, JsonError> {
    let text = std::str::from_utf8(bytes).map_err(|_| JsonError::Malformed)?;
    let state = State { limits, members: Cell::new(0), refusal: Cell::new(None) };
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = Strict { state: &state, depth: 0 }
        .deserialize(&mut deserializer)
        .map_err(|_| state.refusal.get().unwrap_or(JsonError::Malformed))?;
    deserializer.end().map_err(|_| JsonError::Malformed)?;
    match value {
        Value::Object(map) => Ok(map),
        _ => Err(JsonError::NotAnObject),
    }
}

struct State<'a> {
    limits: &'a Limits,
    members: Cell<usize>,
    /// The error type of the parser holds only text, so that the reason is kept beside it.
    refusal: Cell<Option<JsonError>>,
}

impl State<'_> {
    fn refuse<E: serde::de::Error>(&self, why: JsonError) -> E {
        self.refusal.set(Some(why));
        E::custom(why)
    }

    fn count_member<E: serde::de::Error>(&self) -> Result<(), E> {
        self.members.set(self.members.get() + 1);
        if self.members.get() > self.limits.members {
            return Err(self.refuse(JsonError::TooManyMembers));
        }
        Ok(())
    }
}

#[derive(Clone, Copy)]
struct Strict<'a> {
    state: &'a State<'a>,
    depth: usize,
}

impl Strict<'_> {
    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.depth >= self.state.limits.depth {
            return Err(self.state.refuse(JsonError::TooDeep));
        }
        Ok(Self { depth: self.depth + 1, ..self })
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        serde_json::Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("not finite"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(inner)? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut map = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            self.state.count_member()?;
            if map.contains_key(&name) {
                return Err(self.state.refuse(JsonError::DuplicateMember));
            }
            let value = members.next_value_seed(inner)?;
            map.insert(name, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_with_two_meanings_is_no_json() {
        let depth = |n: usize| format!("{}{}", r#"{"a":"#.repeat(n), "1") + &"}".repeat(n);
        let members = |n: usize| {
            let all: Vec<String> = (0..n).map(|i| format!("\"k{i}\":[{{}}]")).collect();
            format!("{{{}}}", all.join(","))
        };
        assert!(parse_object(depth(16).as_bytes()).is_ok());
        assert!(parse_object(members(128).as_bytes()).is_ok());
        let spoiled: [(&[u8], JsonError); 19] = [
            (br#"{"a":1,"a":1}"#, JsonError::DuplicateMember),
            (br#"{"a":1,"\u0061":2}"#, JsonError::DuplicateMember),
            (br#"{"x":[{"a":{"b":1,"b":2}}]}"#, JsonError::DuplicateMember),
            (b"\xef\xbb\xbf{}", JsonError::Malformed),
            (b"{} {}", JsonError::Malformed),
            (b"{}x", JsonError::Malformed),
            (b"{\"a\":\"\xff\"}", JsonError::Malformed),
            (b"{\"a\":\"\xc0\x80\"}", JsonError::Malformed),
            (br#"{"a":"\ud800"}"#, JsonError::Malformed),
            (br#"{"a":"\udc00\ud800"}"#, JsonError::Malformed),
            (br#"{"a":NaN}"#, JsonError::Malformed),
            (br#"{"a":1e999}"#, JsonError::Malformed),
            (br#"{"a":1,}"#, JsonError::Malformed),
            (b"", JsonError::Malformed),
            (b"[]", JsonError::NotAnObject),
            (b"null", JsonError::NotAnObject),
            (&depth(17).into_bytes(), JsonError::TooDeep),
            (&depth(100_000).into_bytes(), JsonError::TooDeep),
            (&members(129).into_bytes(), JsonError::TooManyMembers),
        ];
        for (bytes, why) in spoiled {
            let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]);
            assert_eq!(parse_object(bytes), Err(why), "{shown}");
        }
    }

    #[test]
    fn every_kind_of_value_is_kept_as_written() {
        let text = r#"{"a":[1,-2,1.5,"x\n",true,null,{"b":18446744073709551615}]}"#;
        let parsed = Value::Object(parse_object(text.as_bytes()).unwrap());
        assert_eq!(parsed, serde_json::from_str::<Value>(text).unwrap());
    }
}
