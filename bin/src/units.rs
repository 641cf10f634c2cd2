//! Sizes and durations as people write and read them.

use std::num::NonZeroU64;
use std::time::Duration;

const BINARY_UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];

/// Reads a size: a whole number of bytes, or one with a unit: `B`, `KiB`, `MiB`, `GiB`, `TiB`.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let refuse =
        || format!("expected a whole number and a unit, such as 256MiB or 2GiB; units are {BINARY_UNITS:?}");
    let (number, unit) = split(text).ok_or_else(refuse)?;
    let power = match unit {
        "" => 0,
        _ => BINARY_UNITS.iter().position(|known| *known == unit).ok_or_else(refuse)?,
    };
    (0..power).try_fold(number, |size, _| size.checked_mul(1024)).ok_or_else(|| "too large".to_owned())
}

/// Reads a rate, in bytes a second: a size that is not 0.
pub(crate) fn parse_rate(text: &str) -> Result<NonZeroU64, String> {
    let rate = NonZeroU64::new(parse_size(text)?);
    rate.ok_or_else(|| "expected more than 0 bytes a second; leave it out for no limit".to_owned())
}

/// Reads a duration: a whole number and a unit: `ms`, `s`, `m`, `h`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let refuse = || "expected a whole number and a unit (ms, s, m, h), such as 30s or 5m".to_owned();
    let (number, unit) = split(text).ok_or_else(refuse)?;
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(refuse()),
    };
    number.checked_mul(unit_ms).map(Duration::from_millis).ok_or_else(|| "too long".to_owned())
}

fn split(text: &str) -> Option<(u64, &str)> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit.trim_start_matches(' ')))
}

/// A size with three digits or so: `1.00 GiB`.
pub(crate) fn show_size(bytes: u64) -> String {
    let mut unit = 0;
    let mut size = bytes as f64;
    while size >= 1000.0 && unit + 1 < BINARY_UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    let decimals = match size {
        _ if unit == 0 => 0,
        ..10.0 => 2,
        ..100.0 => 1,
        _ => 0,
    };
    format!("{size:.decimals$} {}", BINARY_UNITS[unit])
}

/// So many of something: `1 peer`, `2 peers`.
pub(crate) fn show_count(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// A rate in MB/s, 10^6 bytes a second, as networks and disks are rated.
pub(crate) fn show_rate(bytes: u64, elapsed: Duration) -> String {
    format!("{:.0} MB/s", bytes as f64 / elapsed.as_secs_f64().max(0.001) / 1e6)
}

/// A duration with what matters of it: `0.4 s`, `12 s`, `3 min 20 s`, `2 h 5 min`.
pub(crate) fn show_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..10 => format!("{:.1} s", duration.as_secs_f64()),
        10..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_and_without_units() {
        for (text, bytes) in
            [("0", 0), ("17", 17), ("17B", 17), ("64KiB", 65_536), ("256MiB", 1 << 28), ("2 GiB", 2 << 30)]
        {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for bad in ["", "MiB", "1.5GiB", "-1", "1MB", "1 mib", "99999999999999999999", "18014398509481984KiB"]
        {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_need_a_unit() {
        for (text, ms) in [("0s", 0), ("250ms", 250), ("30s", 30_000), ("5m", 300_000), ("1h", 3_600_000)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for bad in ["", "30", "s", "1d", "1.5s", "18446744073709551615h"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_and_durations_are_shown_short() {
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "0.98 KiB"),
            (1 << 20, "1.00 MiB"),
            (300 << 20, "300 MiB"),
            (u64::MAX, "16777216 TiB"),
        ] {
            assert_eq!(show_size(bytes), text);
        }
        for (ms, text) in [
            (0, "0.0 s"),
            (9_940, "9.9 s"),
            (10_000, "10 s"),
            (200_000, "3 min 20 s"),
            (7_500_000, "2 h 5 min"),
        ] {
            assert_eq!(show_duration(Duration::from_millis(ms)), text);
        }
        assert_eq!([0, 1, 2].map(|count| show_count(count, "peer")), ["0 peers", "1 peer", "2 peers"]);
        assert_eq!(show_rate(50_000_000, Duration::from_millis(500)), "100 MB/s");
    }
}
