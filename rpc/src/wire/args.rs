//! Positional parameters as they come in: counted, then taken one by one, each named for the error.

use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::WireError;

/// The parameters of one call, not yet decoded.
pub(crate) struct Args {
    values: std::vec::IntoIter<Box<RawValue>>,
}

impl Args {
    /// `None`, `null` and `[]` are all no parameters; an object is refused, since Go has positions only.
    pub(crate) fn parse(text: Option<&str>) -> Result<Self, WireError> {
        let values: Option<Vec<Box<RawValue>>> = match text {
            None => None,
            Some(text) => serde_json::from_str(text)
                .map_err(|error| WireError::new("params", format!("expected an array: {error}")))?,
        };
        Ok(Self { values: values.unwrap_or_default().into_iter() })
    }

    /// How many are left.
    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }

    /// The next one, as it stands on the wire.
    pub(crate) fn next<T: DeserializeOwned>(&mut self, field: &'static str) -> Result<T, WireError> {
        let value = self.values.next().ok_or_else(|| WireError::new(field, "it is missing"))?;
        serde_json::from_str(value.get()).map_err(super::of(field))
    }

    /// The next one; `null` is Go's zero value.
    pub(crate) fn next_or_zero<T: DeserializeOwned + Default>(
        &mut self,
        field: &'static str,
    ) -> Result<T, WireError> {
        Ok(self.next::<Option<T>>(field)?.unwrap_or_default())
    }

    /// The next one, converted from its wire shape `W` to ours.
    pub(crate) fn next_as<W, T>(&mut self, field: &'static str) -> Result<T, WireError>
    where
        W: DeserializeOwned + TryInto<T>,
        W::Error: ToString,
    {
        self.next::<W>(field)?.try_into().map_err(super::of(field))
    }

    /// The next one, a list whose members are converted; `null` is the empty list.
    pub(crate) fn next_list<W, T>(&mut self, field: &'static str) -> Result<Vec<T>, WireError>
    where
        W: DeserializeOwned + TryInto<T>,
        W::Error: ToString,
    {
        let values = self.next_or_zero::<Vec<W>>(field)?;
        values.into_iter().map(|value| value.try_into().map_err(super::of(field))).collect()
    }

    /// The next one, a CID of one of our two kinds.
    pub(crate) fn next_cid<T>(&mut self, field: &'static str) -> Result<T, WireError>
    where
        T: std::str::FromStr,
        T::Err: ToString,
    {
        super::cid(field, self.next(field)?)
    }
}
