//! The little of DAG-CBOR that messages to the miner actor and its answers are made of: whole numbers, byte strings,
//! arrays, booleans, null and CIDs, each in its shortest form. Knows no message; those are in [`crate::params`].

/// Tag of a CID; its byte string begins with a zero (multibase "identity").
const CID_TAG: u64 = 42;
/// Arrays in arrays, at most: what the actors answer has three.
const DEPTH_MAX: usize = 16;

/// The major types in use.
mod major {
    pub(super) const UNSIGNED: u8 = 0;
    pub(super) const NEGATIVE: u8 = 1;
    pub(super) const BYTES: u8 = 2;
    pub(super) const ARRAY: u8 = 4;
    pub(super) const TAG: u8 = 6;
    pub(super) const SIMPLE: u8 = 7;
}

const FALSE: u64 = 20;
const TRUE: u64 = 21;
const NULL: u64 = 22;

/// Encodes by appending.
#[derive(Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn finish(self) -> Vec<u8> {
        self.0
    }

    /// The first byte and the number behind it, as short as it goes.
    fn head(&mut self, major: u8, number: u64) -> &mut Self {
        let major = major << 5;
        let bytes = number.to_be_bytes();
        let (kind, width) = match number {
            0..=23 => return self.push(major | bytes[7]),
            24..=0xff => (24, 1),
            0x100..=0xffff => (25, 2),
            0x1_0000..=0xffff_ffff => (26, 4),
            _ => (27, 8),
        };
        self.push(major | kind);
        self.0.extend_from_slice(&bytes[8 - width..]);
        self
    }

    fn push(&mut self, byte: u8) -> &mut Self {
        self.0.push(byte);
        self
    }

    pub(crate) fn unsigned(&mut self, number: u64) -> &mut Self {
        self.head(major::UNSIGNED, number)
    }

    pub(crate) fn signed(&mut self, number: i64) -> &mut Self {
        // In two's complement, -1 - n is !n.
        let (major, number) = if number < 0 { (major::NEGATIVE, !number) } else { (major::UNSIGNED, number) };
        self.head(major, number.unsigned_abs())
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.head(major::BYTES, bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }

    /// The head of an array; its `len` elements are written next.
    pub(crate) fn array(&mut self, len: usize) -> &mut Self {
        self.head(major::ARRAY, len as u64)
    }

    pub(crate) fn boolean(&mut self, value: bool) -> &mut Self {
        self.head(major::SIMPLE, if value { TRUE } else { FALSE })
    }

    pub(crate) fn null(&mut self) -> &mut Self {
        self.head(major::SIMPLE, NULL)
    }

    /// A CID given in its binary form.
    pub(crate) fn cid(&mut self, cid: &[u8]) -> &mut Self {
        self.head(major::TAG, CID_TAG).head(major::BYTES, cid.len() as u64 + 1).push(0);
        self.0.extend_from_slice(cid);
        self
    }
}

/// A decoded value. What is not here is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Unsigned(u64),
    /// -1 - n.
    Negative(u64),
    Bytes(Vec<u8>),
    Array(Vec<Value>),
    Boolean(bool),
    Null,
    /// In its binary form.
    Cid(Vec<u8>),
}

/// Reads one value that fills the bytes; `None`: they are something else.
pub(crate) fn read(bytes: &[u8]) -> Option<Value> {
    let mut rest = bytes;
    let value = value(&mut rest, DEPTH_MAX)?;
    rest.is_empty().then_some(value)
}

fn value(rest: &mut &[u8], depth: usize) -> Option<Value> {
    let (first, after) = rest.split_first()?;
    *rest = after;
    let number = match first & 0x1f {
        small @ 0..=23 => u64::from(small),
        24 => be(rest, 1)?,
        25 => be(rest, 2)?,
        26 => be(rest, 4)?,
        27 => be(rest, 8)?,
        _ => return None,
    };
    match first >> 5 {
        major::UNSIGNED => Some(Value::Unsigned(number)),
        major::BYTES => take(rest, usize::try_from(number).ok()?).map(|bytes| Value::Bytes(bytes.to_vec())),
        major::ARRAY => {
            let depth = depth.checked_sub(1)?;
            // Every element takes a byte at least, so the input's length bounds what is made room for.
            let len = usize::try_from(number).ok().filter(|len| *len <= rest.len())?;
            (0..len).map(|_| value(rest, depth)).collect::<Option<_>>().map(Value::Array)
        }
        major::TAG if number == CID_TAG => match value(rest, depth.checked_sub(1)?)? {
            Value::Bytes(bytes) => bytes.strip_prefix(&[0]).map(|cid| Value::Cid(cid.to_vec())),
            _ => None,
        },
        major::NEGATIVE => Some(Value::Negative(number)),
        major::SIMPLE => match number {
            FALSE | TRUE => Some(Value::Boolean(number == TRUE)),
            NULL => Some(Value::Null),
            _ => None,
        },
        _ => None,
    }
}

fn be(rest: &mut &[u8], width: usize) -> Option<u64> {
    Some(take(rest, width)?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, after) = rest.split_at_checked(len)?;
    *rest = after;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of RFC 8949, appendix A.
    #[test]
    fn the_standards_examples() {
        let unsigned = |number| Writer::default().unsigned(number).0.clone();
        let signed = |number| Writer::default().signed(number).0.clone();
        for (number, hex) in [
            (0, "00"),
            (23, "17"),
            (24, "1818"),
            (100, "1864"),
            (1000, "1903e8"),
            (1_000_000, "1a000f4240"),
            (1_000_000_000_000, "1b000000e8d4a51000"),
            (u64::MAX, "1bffffffffffffffff"),
        ] {
            assert_eq!(hex::encode(unsigned(number)), hex);
            assert_eq!(read(&unsigned(number)), Some(Value::Unsigned(number)));
        }
        for (number, hex) in [(-1, "20"), (-10, "29"), (-1000, "3903e7"), (i64::MIN, "3b7fffffffffffffff")] {
            assert_eq!(hex::encode(signed(number)), hex);
        }
        assert_eq!(hex::encode(&Writer::default().bytes(&[1, 2, 3, 4]).0), "4401020304");
        assert_eq!(hex::encode(&Writer::default().boolean(true).boolean(false).null().0), "f5f4f6");
        let nested = hex::decode("8301820203820405").expect("digits");
        let two = |a, b| Value::Array(vec![Value::Unsigned(a), Value::Unsigned(b)]);
        assert_eq!(read(&nested), Some(Value::Array(vec![Value::Unsigned(1), two(2, 3), two(4, 5)])));
    }

    #[test]
    fn bytes_that_are_none_of_it_are_refused() {
        for bad in
            ["", "18", "1b00", "45010203", "9bffffffffffffffff", "8201", "0000", "a0", "61", "fb", "1f"]
        {
            assert_eq!(read(&hex::decode(bad).expect("digits")), None, "{bad}");
        }
        assert_eq!(read(&[0x81; 4000]), None, "a tower of arrays");
    }
}
