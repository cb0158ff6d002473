//! The `Range` header as Lotus's clients send it: `bytes=0-18446744073709551615`, ends past the file, one range.

/// Which part of a file is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// All of it, status 200.
    Whole,
    /// Bytes `first` to `last`, both included, status 206.
    Slice {
        /// The first byte's offset.
        first: u64,
        /// The last byte's offset.
        last: u64,
    },
    /// Nothing of the file is in the range, or it is malformed: status 416.
    Unsatisfiable,
}

/// Several ranges in one header are answered with the whole file, which HTTP allows.
pub(super) fn parse(header: Option<&str>, length: u64) -> Part {
    let Some(header) = header else { return Part::Whole };
    let Some(ranges) = header.strip_prefix("bytes=") else { return Part::Unsatisfiable };
    if ranges.contains(',') {
        return Part::Whole;
    }
    slice(ranges.trim(), length).map_or(Part::Unsatisfiable, |(first, last)| Part::Slice { first, last })
}

fn slice(range: &str, length: u64) -> Option<(u64, u64)> {
    let (first, last) = range.split_once('-')?;
    let end = length.checked_sub(1)?;
    if first.is_empty() {
        let count = number(last)?;
        return (count > 0).then(|| (length.saturating_sub(count), end));
    }
    let first = number(first)?;
    let last = if last.is_empty() { end } else { number(last)? };
    (first <= last && first <= end).then(|| (first, last.min(end)))
}

/// Digits only; what is too large for 64 bits is past every file's end.
fn number(digits: &str) -> Option<u64> {
    let all_digits = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    all_digits.then(|| digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn range_table() {
        let slice = |first, last| Part::Slice { first, last };
        let table = [
            (None, 10, Part::Whole),
            (Some("bytes=0-9"), 10, slice(0, 9)),
            (Some("bytes=2-3"), 10, slice(2, 3)),
            (Some("bytes=0-18446744073709551615"), 10, slice(0, 9)),
            (Some("bytes=0-99999999999999999999999"), 10, slice(0, 9)),
            (Some("bytes=5-100"), 10, slice(5, 9)),
            (Some("bytes=5-"), 10, slice(5, 9)),
            (Some("bytes=-3"), 10, slice(7, 9)),
            (Some("bytes=-30"), 10, slice(0, 9)),
            (Some("bytes=-0"), 10, Part::Unsatisfiable),
            (Some("bytes=10-12"), 10, Part::Unsatisfiable),
            (Some("bytes=3-2"), 10, Part::Unsatisfiable),
            (Some("bytes=a-2"), 10, Part::Unsatisfiable),
            (Some("bytes=+1-2"), 10, Part::Unsatisfiable),
            (Some("bytes=-"), 10, Part::Unsatisfiable),
            (Some("bytes"), 10, Part::Unsatisfiable),
            (Some("lines=0-1"), 10, Part::Unsatisfiable),
            (Some("bytes=0-1,3-4"), 10, Part::Whole),
            (Some("bytes=0-0"), 0, Part::Unsatisfiable),
        ];
        for (header, length, expected) in table {
            assert_eq!(parse(header, length), expected, "{header:?} of {length}");
        }
    }
}
