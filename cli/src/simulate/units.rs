//! Amounts as people write them: "512 GiB", "3h30m", "10 Gbit/s", "12.5". Exact or refused: nothing is rounded, nothing is
//! guessed, and a number without its unit is an error.

use sched::Millis;

/// Digits that a number may have before and after its point, together. Enough for every amount here, and far from where
/// the arithmetic below could overflow.
const DIGITS_MAX: usize = 18;

/// Binary and decimal sizes, by their usual names.
const SIZES: &[(&str, u64)] = &[
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("PiB", 1 << 50),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("PB", 1_000_000_000_000_000),
];

/// Bits per second, in bits.
const BIT_RATES: &[(&str, u64)] =
    &[("kbit/s", 1_000), ("Mbit/s", 1_000_000), ("Gbit/s", 1_000_000_000), ("Tbit/s", 1_000_000_000_000)];

/// Spans of time, in milliseconds.
const SPANS: &[(&str, u64)] = &[
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("min", 60_000),
    ("h", 3_600_000),
    ("hour", 3_600_000),
    ("hours", 3_600_000),
    ("d", 86_400_000),
    ("day", 86_400_000),
    ("days", 86_400_000),
];

/// A size in bytes.
pub fn bytes(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    scaled(number, factor(SIZES, unit)?)
}

/// A rate in bytes per second, from bytes or bits per second.
pub fn bytes_per_second(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    if let Some(bits) = factor(BIT_RATES, unit) {
        let bits = scaled(number, bits)?;
        return bits.is_multiple_of(8).then_some(bits / 8);
    }
    scaled(number, factor(SIZES, unit.strip_suffix("/s")?)?)
}

/// A span of time: one or several numbers with units, each unit smaller than the one before.
pub fn span(text: &str) -> Option<Millis> {
    let mut rest = text.trim();
    let mut sum: u64 = 0;
    let mut last = u64::MAX;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(number_end);
        let after = after.trim_start();
        let unit_end = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let unit = factor(SPANS, &after[..unit_end])?;
        if unit >= last {
            return None;
        }
        sum = sum.checked_add(scaled(number, unit)?)?;
        last = unit;
        rest = after[unit_end..].trim_start();
    }
    (last != u64::MAX).then_some(Millis::new(sum))
}

/// A share such as "10%" or "2.5 %", in thousandths.
pub fn percent(text: &str) -> Option<u64> {
    scaled(text.trim().strip_suffix('%')?.trim_end(), 10)
}

/// A plain decimal number in thousandths.
pub fn thousandths(text: &str) -> Option<u64> {
    scaled(text.trim(), 1000)
}

fn split(text: &str) -> Option<(&str, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    Some((&text[..end], text[end..].trim_start()))
}

fn factor(units: &[(&str, u64)], name: &str) -> Option<u64> {
    units.iter().find(|(unit, _)| *unit == name).map(|(_, factor)| *factor)
}

/// `number` times `factor`, if that is a whole number that 64 bits hold.
fn scaled(number: &str, factor: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) || number.ends_with('.') {
        return None;
    }
    if whole.len() + fraction.len() > DIGITS_MAX {
        return None;
    }
    let scale = 10u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
    let product = digits.checked_mul(factor.into())?;
    if !product.is_multiple_of(scale) {
        return None;
    }
    u64::try_from(product / scale).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_exact_or_refused() {
        let table = [
            ("512 GiB", Some(512 << 30)),
            ("1.5TiB", Some(3 << 39)),
            ("0 B", Some(0)),
            ("14 TB", Some(14_000_000_000_000)),
            ("0.1 B", None),
            ("0.3 KiB", None),
            ("512", None),
            ("512 gib", None),
            ("-1 GiB", None),
            ("1e3 GiB", None),
            ("1. GiB", None),
            (".5 GiB", None),
            ("GiB", None),
            ("", None),
            ("99999999999 PiB", None),
            ("1 GiB 2", None),
        ];
        for (text, expected) in table {
            assert_eq!(bytes(text), expected, "{text:?}");
        }
    }

    #[test]
    fn spans_add_up_from_large_to_small() {
        let table = [
            ("3h30m", Some(12_600_000)),
            ("3h03m17s", Some(10_997_000)),
            ("100.6s", Some(100_600)),
            ("330ms", Some(330)),
            ("2 days 4h", Some(187_200_000)),
            ("1d", Some(86_400_000)),
            ("0s", Some(0)),
            ("30m 3h", None),
            ("3h3h", None),
            ("3", None),
            ("3 weeks", None),
            ("0.0001s", None),
            ("", None),
            ("h", None),
        ];
        for (text, expected) in table {
            assert_eq!(span(text).map(Millis::get), expected, "{text:?}");
        }
    }

    #[test]
    fn rates_know_bits_and_bytes() {
        let table = [
            ("10 Gbit/s", Some(1_250_000_000)),
            ("500 MiB/s", Some(500 << 20)),
            ("1.25 GB/s", Some(1_250_000_000)),
            ("10 Gb", None),
            ("10 GB", None),
            ("0.001 kbit/s", None),
        ];
        for (text, expected) in table {
            assert_eq!(bytes_per_second(text), expected, "{text:?}");
        }
    }

    #[test]
    fn shares_and_factors_keep_three_digits() {
        assert_eq!(percent("10%"), Some(100));
        assert_eq!(percent("2.5 %"), Some(25));
        assert_eq!(percent("0.25%"), None);
        assert_eq!(percent("10"), None);
        assert_eq!(thousandths("1.25"), Some(1250));
        assert_eq!(thousandths("7"), Some(7000));
        assert_eq!(thousandths("0.0001"), None);
    }
}
