//! Copies JSON from a strict parser straight into the writer, without a tree of values in between.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::CanonicalError;
use super::writer::{Array, Writer};

/// The canonical form of the one value that `bytes` hold.
pub(super) fn rewrite(bytes: &[u8]) -> Result<Vec<u8>, CanonicalError> {
    let (mut writer, mut refused) = (Writer::new(), None);
    let mut parser = serde_json::Deserializer::from_slice(bytes);
    let copied = Copied { writer: &mut writer, refused: &mut refused }.deserialize(&mut parser);
    match copied.and_then(|()| parser.end()) {
        Ok(()) => Ok(writer.into_bytes()),
        Err(error) => Err(refused.unwrap_or_else(|| CanonicalError::Malformed(error.to_string()))),
    }
}

/// The place that the next value is written to, and the reason for which the writer refused one.
struct Copied<'w> {
    writer: &'w mut Writer,
    refused: &'w mut Option<CanonicalError>,
}

/// The name of a member: borrowed where it holds no escape.
#[derive(Deserialize)]
struct MemberName<'a>(#[serde(borrow)] Cow<'a, str>);

/// Keeps the writer's reason, and stops the parser.
fn kept<T, E: Error>(
    result: Result<T, CanonicalError>,
    refused: &mut Option<CanonicalError>,
) -> Result<T, E> {
    result.map_err(|error| {
        *refused = Some(error);
        E::custom("refused")
    })
}

impl<'de> DeserializeSeed<'de> for Copied<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, parser: D) -> Result<(), D::Error> {
        parser.deserialize_any(self)
    }
}

/// The next item of an array, if there is one: only then may a comma be written.
struct Item<'w, 'a> {
    array: &'w mut Array<'a>,
    refused: &'w mut Option<CanonicalError>,
}

impl<'de> DeserializeSeed<'de> for Item<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, parser: D) -> Result<(), D::Error> {
        Copied { writer: self.array.item_place(), refused: self.refused }.deserialize(parser)
    }
}

impl<'de> Visitor<'de> for Copied<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.writer.boolean(value);
        Ok(())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        kept(self.writer.integer(value.into()), self.refused)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        kept(self.writer.integer(value.into()), self.refused)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        kept(Err(CanonicalError::Float), self.refused)
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        kept(Err(CanonicalError::Null), self.refused)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        kept(self.writer.string(value), self.refused)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let mut array = self.writer.array(None);
        while items.next_element_seed(Item { array: &mut array, refused: self.refused })?.is_some() {}
        kept(array.close(), self.refused)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let mut object = self.writer.object(None);
        while let Some(MemberName(name)) = members.next_key()? {
            kept(object.name(&*name), self.refused)?;
            members.next_value_seed(Copied { writer: object.value_place(), refused: self.refused })?;
            object.close_value();
        }
        kept(object.close(), self.refused)
    }
}
