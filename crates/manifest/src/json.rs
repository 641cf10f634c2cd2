//! Strict reading of JSON objects, with errors that name the field.
//!
//! serde's own errors name a line and a column. So a visitor that refuses something leaves a [`ManifestError`] behind,
//! and the error that serde_json passes up only ends the reading.

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::ops::RangeInclusive;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::{Digest, ManifestError, limits};

/// Reads one JSON object from the whole of `text`.
pub(crate) fn read<T: Object>(text: &str) -> Result<T, ManifestError> {
    let refusal = Cell::new(None);
    let at = At { place: Place::Top, key: None, refusal: &refusal };
    let mut json = serde_json::Deserializer::from_str(text);
    let value = Reading { shape: ObjectAt::new(Place::Top), at }
        .deserialize(&mut json)
        .and_then(|value| json.end().map(|()| value));
    value.map_err(|source| refusal.take().unwrap_or(ManifestError::NotJson { source }))
}

/// A JSON object of the manifest.
pub(crate) trait Object: Default {
    /// The fields it must have.
    const REQUIRED: &'static [&'static str];
    /// The fields it may have besides.
    const OPTIONAL: &'static [&'static str] = &[];

    /// Takes the value of a field, unknown ones included.
    fn take<'de, A: MapAccess<'de>>(&mut self, key: &str, value: Value<'_, A>) -> Result<(), A::Error>;
}

/// The value of a field that has not been read yet.
pub(crate) struct Value<'c, A> {
    map: &'c mut A,
    at: At<'c>,
}

impl<'de, A: MapAccess<'de>> Value<'_, A> {
    pub(crate) fn read<S: Shape>(self, shape: S) -> Result<S::Output, A::Error> {
        self.map.next_value_seed(Reading { shape, at: self.at })
    }

    pub(crate) fn ignore(self) -> Result<(), A::Error> {
        self.map.next_value::<IgnoredAny>().map(|_| ())
    }
}

/// Where in the manifest a value stands, and where to leave the error when it is refused.
#[derive(Clone, Copy)]
pub(crate) struct At<'c> {
    place: Place,
    /// The field of the object at `place`; none for that object itself.
    key: Option<&'static str>,
    refusal: &'c Cell<Option<ManifestError>>,
}

#[derive(Clone, Copy)]
pub(crate) enum Place {
    Top,
    In(&'static str),
    Shard(u32),
    File(u32),
}

impl At<'_> {
    pub(crate) fn field(&self) -> String {
        match (self.place, self.key) {
            (Place::Top, None) => "the manifest".to_owned(),
            (Place::Top, Some(key)) | (Place::In(key), None) => key.to_owned(),
            (Place::In(parent), Some(key)) => format!("{parent}.{key}"),
            (Place::Shard(index), None) => format!("shards[{index}]"),
            (Place::Shard(index), Some(key)) => format!("shards[{index}].{key}"),
            (Place::File(index), None) => format!("files[{index}]"),
            (Place::File(index), Some(key)) => format!("files[{index}].{key}"),
        }
    }

    pub(crate) fn refuse<E: Error>(&self, error: ManifestError) -> E {
        self.refusal.set(Some(error));
        E::custom("refused")
    }
}

/// What a value should be. Whatever a shape does not take is refused as of the wrong type.
pub(crate) trait Shape: Sized {
    type Output;
    const EXPECTED: &'static str;

    fn scalar(self, found: Scalar<'_>, at: At<'_>) -> Result<Self::Output, ManifestError> {
        Err(wrong_type::<Self>(at, &found.to_string()))
    }

    fn list<'de, A: SeqAccess<'de>>(self, _list: A, at: At<'_>) -> Result<Self::Output, A::Error> {
        Err(at.refuse(wrong_type::<Self>(at, "a list")))
    }

    fn object<'de, A: MapAccess<'de>>(self, _object: A, at: At<'_>) -> Result<Self::Output, A::Error> {
        Err(at.refuse(wrong_type::<Self>(at, "an object")))
    }
}

pub(crate) fn wrong_type<S: Shape>(at: At<'_>, found: &str) -> ManifestError {
    ManifestError::WrongType { field: at.field(), found: found.to_owned(), expected: S::EXPECTED }
}

pub(crate) enum Scalar<'a> {
    Null,
    Flag(bool),
    Integer(u64),
    Negative(i64),
    Float(f64),
    Text(&'a str),
}

impl fmt::Display for Scalar<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Flag(flag) => write!(f, "{flag}"),
            Self::Integer(number) => write!(f, "the number {number}"),
            Self::Negative(number) => write!(f, "the number {number}"),
            Self::Float(number) => write!(f, "the floating-point number {number:?}"),
            Self::Text(text) => write!(f, "the text {:?}", limits::excerpt(text)),
        }
    }
}

/// An integer in these limits.
pub(crate) struct Integer<T>(pub(crate) RangeInclusive<T>);

impl<T: Copy + TryFrom<u64> + Into<u64> + PartialOrd> Shape for Integer<T> {
    type Output = T;
    const EXPECTED: &'static str = "an integer of 0 or more";

    fn scalar(self, found: Scalar<'_>, at: At<'_>) -> Result<T, ManifestError> {
        let Scalar::Integer(found) = found else {
            return Err(wrong_type::<Self>(at, &found.to_string()));
        };
        let inside = T::try_from(found).ok().filter(|number| self.0.contains(number));
        inside.ok_or_else(|| limits::out_of_range(at.field(), found, &self.0))
    }
}

pub(crate) struct Flag;

impl Shape for Flag {
    type Output = bool;
    const EXPECTED: &'static str = "true or false";

    fn scalar(self, found: Scalar<'_>, at: At<'_>) -> Result<bool, ManifestError> {
        match found {
            Scalar::Flag(flag) => Ok(flag),
            _ => Err(wrong_type::<Self>(at, &found.to_string())),
        }
    }
}

pub(crate) struct Text;

impl Shape for Text {
    type Output = String;
    const EXPECTED: &'static str = "a text";

    fn scalar(self, found: Scalar<'_>, at: At<'_>) -> Result<String, ManifestError> {
        match found {
            Scalar::Text(text) => Ok(text.to_owned()),
            _ => Err(wrong_type::<Self>(at, &found.to_string())),
        }
    }
}

pub(crate) struct Hex;

impl Shape for Hex {
    type Output = Digest;
    const EXPECTED: &'static str = "a digest, a text of 64 lower-case hexadecimal characters";

    fn scalar(self, found: Scalar<'_>, at: At<'_>) -> Result<Digest, ManifestError> {
        match found {
            Scalar::Text(text) => {
                text.parse().map_err(|source| ManifestError::BadDigest { field: at.field(), source })
            }
            _ => Err(wrong_type::<Self>(at, &found.to_string())),
        }
    }
}

pub(crate) struct ObjectAt<T> {
    place: Place,
    object: PhantomData<T>,
}

impl<T> ObjectAt<T> {
    pub(crate) fn new(place: Place) -> Self {
        Self { place, object: PhantomData }
    }
}

impl<T: Object> Shape for ObjectAt<T> {
    type Output = T;
    const EXPECTED: &'static str = "an object";

    fn object<'de, A: MapAccess<'de>>(self, mut map: A, at: At<'_>) -> Result<T, A::Error> {
        let fields = || T::REQUIRED.iter().chain(T::OPTIONAL).copied();
        let mut object = T::default();
        let mut seen = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            let known = fields().find(|field| *field == key);
            let at = At { place: self.place, key: known, ..at };
            if let Some(known) = known {
                if seen.contains(&known) {
                    return Err(at.refuse(ManifestError::Duplicate { field: at.field() }));
                }
                seen.push(known);
            }
            object.take(&key, Value { map: &mut map, at })?;
        }
        match T::REQUIRED.iter().find(|field| !seen.contains(field)) {
            None => Ok(object),
            Some(field) => {
                let at = At { place: self.place, key: Some(field), ..at };
                Err(at.refuse(ManifestError::Missing { field: at.field() }))
            }
        }
    }
}

/// A value about to be read as `shape`.
pub(crate) struct Reading<'c, S> {
    shape: S,
    at: At<'c>,
}

impl<'c, T: Object> Reading<'c, ObjectAt<T>> {
    /// An element of the list at `at`, an object known as `place`.
    pub(crate) fn element(at: At<'c>, place: Place) -> Self {
        Self { shape: ObjectAt::new(place), at: At { place, key: None, ..at } }
    }
}

impl<S: Shape> Reading<'_, S> {
    fn scalar<E: Error>(self, found: Scalar<'_>) -> Result<S::Output, E> {
        self.shape.scalar(found, self.at).map_err(|error| self.at.refuse(error))
    }
}

impl<'de, S: Shape> DeserializeSeed<'de> for Reading<'_, S> {
    type Value = S::Output;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Output, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, S: Shape> Visitor<'de> for Reading<'_, S> {
    type Value = S::Output;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(S::EXPECTED)
    }

    fn visit_unit<E: Error>(self) -> Result<S::Output, E> {
        self.scalar(Scalar::Null)
    }

    fn visit_bool<E: Error>(self, flag: bool) -> Result<S::Output, E> {
        self.scalar(Scalar::Flag(flag))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<S::Output, E> {
        self.scalar(Scalar::Integer(number))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<S::Output, E> {
        self.scalar(Scalar::Negative(number))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<S::Output, E> {
        self.scalar(Scalar::Float(number))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<S::Output, E> {
        self.scalar(Scalar::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<S::Output, A::Error> {
        self.shape.list(list, self.at)
    }

    fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<S::Output, A::Error> {
        self.shape.object(object, self.at)
    }
}
