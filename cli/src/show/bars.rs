//! Bars, sizes and times as text.

/// Bytes in Lotus's style: `9.1 TiB`, `512 B`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let rounded = (value * 10.0).round() / 10.0;
    if rounded.fract() == 0.0 {
        format!("{rounded:.0} {}", UNITS[unit])
    } else {
        format!("{rounded:.1} {}", UNITS[unit])
    }
}

/// A bar of `width` columns; each part is a share of `total` drawn with its character.
pub fn bar(width: usize, total: f64, parts: &[(f64, char)]) -> String {
    let mut drawn = String::new();
    let mut sum = 0.0;
    for (share, mark) in parts {
        sum += share.max(0.0);
        let end = if total > 0.0 { (sum / total * width as f64).round() as usize } else { 0 };
        while drawn.chars().count() < end.min(width) {
            drawn.push(*mark);
        }
    }
    format!("{drawn:<width$}")
}

/// A span of milliseconds: `3.2s`, `4m05s`, `2h03m`.
pub fn age(ms: u64) -> String {
    match ms {
        0..1000 => format!("{ms}ms"),
        1000..60_000 => format!("{}.{}s", ms / 1000, ms % 1000 / 100),
        60_000..3_600_000 => format!("{}m{:02}s", ms / 60_000, ms % 60_000 / 1000),
        _ => format!("{}h{:02}m", ms / 3_600_000, ms % 3_600_000 / 60_000),
    }
}

/// A Unix time in milliseconds as UTC, to the second.
pub fn clock(ms: u64) -> String {
    let instant = time::OffsetDateTime::from_unix_timestamp((ms / 1000) as i64)
        .unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    format!("{} {:02}:{:02}:{:02}", instant.date(), instant.hour(), instant.minute(), instant.second())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_people_write_them() {
        let table =
            [(0, "0 B"), (2048, "2 KiB"), (1536, "1.5 KiB"), (32 << 30, "32 GiB"), (u64::MAX, "16 EiB")];
        for (count, text) in table {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn bars_never_overflow_and_never_divide_by_zero() {
        assert_eq!(bar(10, 100.0, &[(50.0, '#'), (20.0, '*')]), "#####**   ");
        assert_eq!(bar(4, 0.0, &[(1.0, '#')]), "    ");
        assert_eq!(bar(4, 1.0, &[(9.0, '#')]), "####");
    }

    #[test]
    fn spans_keep_two_units_at_most() {
        let table = [(12, "12ms"), (3_250, "3.2s"), (245_000, "4m05s"), (7_380_000, "2h03m")];
        for (ms, text) in table {
            assert_eq!(age(ms), text);
        }
    }
}
