//! Canonical JSON (RFC 8785), narrowed to what entries may hold: no float, no null, no empty string, integers
//! that every JSON reader keeps. A value has one spelling, so its bytes can be hashed, stored and compared.
//!
//! Values are written once, in the order in which they come, and each object's members are put in order by
//! moving their bytes when the object closes: no tree of values in between.

mod check;
mod reader;
mod serializer;
mod writer;

use serde::Serialize;

use writer::Writer;

/// The longest entry, in bytes.
pub const MAX_ENTRY: usize = 16 * 1024;

/// Why a value has no canonical form here, or why bytes are not the canonical form of what they say.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CanonicalError {
    /// A floating-point number.
    #[error("a number with a fraction or an exponent: expected a whole number")]
    Float,
    /// A null.
    #[error("a null: leave the member out instead")]
    Null,
    /// An empty string.
    #[error("an empty string: leave the member out instead")]
    EmptyString,
    /// An integer that a reader with 64-bit floats would change.
    #[error("`{0}` is out of range: expected a whole number between -(2^53-1) and 2^53-1")]
    IntegerRange(i128),
    /// One object names a member twice.
    #[error("member `{0}` occurs twice: expected each name once")]
    Duplicate(String),
    /// A member's name is no string.
    #[error("a member's name is not a string")]
    NameNotString,
    /// Something that JSON has no form for here.
    #[error("{0}")]
    Unsupported(String),
    /// Longer than an entry may be.
    #[error("{0} bytes: expected at most {MAX_ENTRY}")]
    TooLong(usize),
    /// A kind that this version does not write.
    #[error("an entry of an unknown kind cannot be written")]
    UnknownKind,
    /// The bytes are no JSON.
    #[error("not JSON: {0}")]
    Malformed(String),
    /// The bytes are JSON in another spelling than the canonical one.
    #[error("not in canonical form (RFC 8785): first differs at byte {0}")]
    NotCanonical(usize),
}

impl serde::ser::Error for CanonicalError {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        Self::Unsupported(message.to_string())
    }
}

/// The canonical bytes of an entry: at most [`MAX_ENTRY`] of them.
///
/// # Errors
/// When the value holds what an entry may not hold, or is too long.
pub fn to_vec<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, CanonicalError> {
    let bytes = to_vec_unbounded(value)?;
    if bytes.len() > MAX_ENTRY { Err(CanonicalError::TooLong(bytes.len())) } else { Ok(bytes) }
}

/// The canonical bytes of any other object, of whatever length.
///
/// # Errors
/// When the value holds what canonical JSON may not hold here.
pub fn to_vec_unbounded<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, CanonicalError> {
    let mut writer = Writer::new();
    value.serialize(&mut writer)?;
    Ok(writer.into_bytes())
}

/// Whether `bytes` are the canonical form of the value that they say.
///
/// # Errors
/// When they are no JSON, hold what canonical JSON may not hold here, or are spelled otherwise.
pub fn is_canonical(bytes: &[u8]) -> Result<(), CanonicalError> {
    if check::is_plainly_canonical(bytes) {
        return Ok(());
    }
    let written = reader::rewrite(bytes)?;
    if written == bytes {
        return Ok(());
    }
    let same = written.iter().zip(bytes).take_while(|(a, b)| a == b).count();
    Err(CanonicalError::NotCanonical(same))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn text(value: &impl Serialize) -> String {
        String::from_utf8(to_vec(value).unwrap()).unwrap()
    }

    #[test]
    fn members_are_sorted_by_utf_16_code_units() {
        // RFC 8785, section 3.2.3: U+1F600 is a surrogate pair and so sorts before U+FB33.
        let sample = json!({
            "\u{20ac}": "Euro Sign", "\r": "Carriage Return", "\u{fb33}": "Hebrew Letter Dalet With Dagesh",
            "1": "One", "\u{1f600}": "Emoji: Grinning Face", "\u{80}": "Control", "\u{f6}": "Latin Small Letter O",
        });
        let expected = "{\"\\r\":\"Carriage Return\",\"1\":\"One\",\"\u{80}\":\"Control\",\"\u{f6}\":\"Latin Small Letter O\",\
             \"\u{20ac}\":\"Euro Sign\",\"\u{1f600}\":\"Emoji: Grinning Face\",\"\u{fb33}\":\"Hebrew Letter Dalet With Dagesh\"}";
        assert_eq!(text(&sample), expected);
    }

    #[test]
    fn a_string_is_escaped_only_where_it_must_be() {
        let sample = json!(["\u{20ac}$\u{0f}\nA'\u{42}\"\\\\\"/", "\u{8}\t\u{c}\r\u{7f}\u{2028}\u{1f}"]);
        let expected = "[\"\u{20ac}$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\",\"\\b\\t\\f\\r\u{7f}\u{2028}\\u001f\"]";
        assert_eq!(text(&sample), expected);
    }

    #[test]
    fn structs_enums_and_flattened_members_are_sorted_too() {
        #[derive(Serialize)]
        struct Inner {
            y: u8,
            a: bool,
        }
        #[derive(Serialize)]
        #[serde(rename_all = "snake_case")]
        enum Choice {
            Plain,
            Wrapped(Inner),
            Pair(u8, i64),
            Fields { z: u8, b: char },
        }
        #[derive(Serialize)]
        struct Outer {
            z: Vec<Choice>,
            #[serde(flatten)]
            inner: Inner,
            #[serde(flatten)]
            rest: BTreeMap<String, u64>,
            b: Option<&'static str>,
        }
        let value = Outer {
            z: vec![
                Choice::Plain,
                Choice::Wrapped(Inner { y: 1, a: false }),
                Choice::Pair(1, -2),
                Choice::Fields { z: 1, b: 'x' },
            ],
            inner: Inner { y: 2, a: true },
            rest: BTreeMap::from([("c".into(), 3), ("A".into(), 4)]),
            b: Some("s"),
        };
        assert_eq!(
            text(&value),
            r#"{"A":4,"a":true,"b":"s","c":3,"y":2,"z":["plain",{"wrapped":{"a":false,"y":1}},{"pair":[1,-2]},{"fields":{"b":"x","z":1}}]}"#
        );
    }

    #[test]
    fn what_an_entry_may_not_hold_is_refused() {
        let max = (1_i64 << 53) - 1;
        assert_eq!(text(&json!([max, -max, 0])), format!("[{max},-{max},0]"));
        // The floats of RFC 8785, appendix B and section 3.2.2, are refused like any other.
        let floats =
            [333_333_333.333_333_3, 1e30, 4.50, 2e-3, 1e-27, 0.0, -0.0, 5e-324, 1.797_693_134_862_315_7e308];
        for float in floats {
            assert_eq!(to_vec(&json!({ "numbers": [float] })), Err(CanonicalError::Float), "{float}");
        }
        assert_eq!(to_vec(&f64::NAN), Err(CanonicalError::Float));
        assert_eq!(to_vec(&json!({"a": null})), Err(CanonicalError::Null));
        assert_eq!(to_vec(&Option::<u8>::None), Err(CanonicalError::Null));
        assert_eq!(to_vec(&json!({"a": ""})), Err(CanonicalError::EmptyString));
        assert_eq!(to_vec(&json!({"": 1})), Err(CanonicalError::EmptyString));
        assert_eq!(to_vec(&(max + 1)), Err(CanonicalError::IntegerRange(i128::from(max) + 1)));
        assert_eq!(to_vec(&(-max - 1)), Err(CanonicalError::IntegerRange(-i128::from(max) - 1)));
        assert!(matches!(to_vec(&u64::MAX), Err(CanonicalError::IntegerRange(_))));
        assert_eq!(to_vec(&BTreeMap::from([(1, 2)])), Err(CanonicalError::NameNotString));
    }

    #[test]
    fn a_member_named_twice_is_refused() {
        #[derive(Serialize)]
        struct Twice {
            kind: u8,
            #[serde(flatten)]
            rest: BTreeMap<&'static str, u8>,
        }
        let twice = |name| Twice { kind: 1, rest: BTreeMap::from([(name, 2), ("z\n", 3)]) };
        assert_eq!(to_vec(&twice("kind")), Err(CanonicalError::Duplicate("kind".into())));
        assert!(to_vec(&twice("kinds")).is_ok());
    }

    #[test]
    fn an_entry_is_at_most_16_kib_and_other_objects_are_not_bounded() {
        let fits = "a".repeat(MAX_ENTRY - 2);
        assert_eq!(to_vec(&fits).unwrap().len(), MAX_ENTRY);
        let long = "a".repeat(MAX_ENTRY - 1);
        assert_eq!(to_vec(&long), Err(CanonicalError::TooLong(MAX_ENTRY + 1)));
        assert!(to_vec_unbounded(&long).is_ok());
    }

    #[test]
    fn any_other_spelling_is_told_from_the_canonical_one() {
        assert_eq!(is_canonical(br#"{"a":[1,"x",true],"b":{"c":-1}}"#), Ok(()));
        let spoiled: &[&[u8]] = &[
            br#"{"b":1,"a":1}"#,
            br#"{"a": 1}"#,
            br#"{"a":1} "#,
            br#"{"a":1,"a":1}"#,
            br#"{"a":1,"a":2}"#,
            br#"{"a":01}"#,
            br#"{"a":-0}"#,
            br#"{"a":1e3}"#,
            br#"{"a":1.0}"#,
            br#"{"a":9007199254740992}"#,
            br#"{"a":"\u0041"}"#,
            br#"{"a":"\/"}"#,
            br#"{"a":"\u000A"}"#,
            br#"{"a":""}"#,
            br#"{"a":null}"#,
            br#"{"a":"\ud800"}"#,
            b"{\"a\":\"\xff\"}",
            br#"{"a":1}{"#,
            b"\xef\xbb\xbf{}",
            b"",
        ];
        assert_eq!(is_canonical(br#"{"a":1,"a":2}"#), Err(CanonicalError::Duplicate("a".into())));
        assert_eq!(is_canonical(br#"{"a": 1}"#), Err(CanonicalError::NotCanonical(5)));
        for bytes in spoiled {
            assert!(is_canonical(bytes).is_err(), "{}", String::from_utf8_lossy(bytes));
        }
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            (-(1_i64 << 53) + 1..1_i64 << 53).prop_map(Value::from),
            "\\PC{1,8}".prop_map(Value::from),
            "[\\x00-\\x22\\\\a]{1,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 48, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map("[\\x00-\\x22\\\\a-c\u{fb33}\u{1f600}]{1,3}", inner, 0..6)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    /// The same rules as the writer's, the slow and obvious way.
    fn oracle(value: &Value) -> String {
        match value {
            Value::Array(items) => format!("[{}]", items.iter().map(oracle).collect::<Vec<_>>().join(",")),
            Value::Object(members) => {
                let mut members: Vec<_> = members.iter().collect();
                members.sort_by_key(|(name, _)| name.encode_utf16().collect::<Vec<_>>());
                let members: Vec<_> = members
                    .iter()
                    .map(|(name, value)| format!("{}:{}", json!(name), oracle(value)))
                    .collect();
                format!("{{{}}}", members.join(","))
            }
            scalar => scalar.to_string(),
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back_and_agrees_with_an_obvious_writer(value in any_value()) {
            let bytes = to_vec_unbounded(&value).unwrap();
            prop_assert_eq!(std::str::from_utf8(&bytes).unwrap(), oracle(&value));
            prop_assert_eq!(serde_json::from_slice::<Value>(&bytes).unwrap(), value);
            prop_assert_eq!(is_canonical(&bytes), Ok(()));
        }

        #[test]
        fn a_changed_byte_is_canonical_only_where_a_rewritten_tree_of_it_is_the_same(
            value in any_value(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
        ) {
            let mut bytes = to_vec_unbounded(&value).unwrap();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let tree = serde_json::from_slice::<Value>(&bytes).ok().and_then(|value| to_vec_unbounded(&value).ok());
            prop_assert_eq!(is_canonical(&bytes).is_ok(), tree.as_ref() == Some(&bytes));
        }
    }
}
