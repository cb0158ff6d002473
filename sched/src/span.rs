//! Spans of time as people read them.

use std::fmt;

use crate::Millis;

/// A span in its two largest units: `1h10m`, `23m44s`, `1.5s`, `250ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Millis);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u64, &str); 4] = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s")];
        let millis = self.0.get();
        if millis < 1000 {
            return write!(f, "{millis}ms");
        }
        if millis < 10_000 && millis % 1000 >= 100 {
            return write!(f, "{}.{}s", millis / 1000, millis % 1000 / 100);
        }
        let largest = UNITS.iter().position(|(unit, _)| millis >= *unit).unwrap_or(UNITS.len() - 1);
        let (unit, name) = UNITS[largest];
        write!(f, "{}{name}", millis / unit)?;
        match UNITS.get(largest + 1) {
            Some((smaller, name)) if millis % unit >= *smaller => {
                write!(f, "{}{name}", millis % unit / smaller)
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_units_at_most_and_none_that_is_nought() {
        let cases = [
            (0, "0ms"),
            (250, "250ms"),
            (1000, "1s"),
            (1520, "1.5s"),
            (59_999, "59s"),
            (60_000, "1m"),
            (1_424_000, "23m44s"),
            (4_200_000, "1h10m"),
            (10_800_000, "3h"),
            (10_801_000, "3h"),
            (90_000_000, "1d1h"),
            (u64::MAX, "213503982334d14h"),
        ];
        for (millis, text) in cases {
            assert_eq!(Span(Millis::new(millis)).to_string(), text);
        }
    }
}
