//! When an endpoint that refuses wants to be asked again.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use reqwest::header::{HeaderMap, RETRY_AFTER};

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// How long to wait, as the header says it: in seconds, or until a date. `None` when it says neither.
///
/// Source: RFC 9110, section 10.2.3.
pub(crate) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit mean very long.
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    date(text)?.duration_since(now).ok()
}

/// A date such as `Sun, 06 Nov 1994 08:49:37 GMT`; the older forms are not sent any more.
///
/// Source: RFC 9110, section 5.6.7.
fn date(text: &str) -> Option<SystemTime> {
    let words: Vec<_> = text.split(' ').collect();
    let [_, day, month, year, time, "GMT"] = words[..] else { return None };
    let month = MONTHS.iter().position(|name| *name == month)?;
    let (day, year): (u64, u64) = (day.parse().ok()?, year.parse().ok()?);
    let clock: Vec<u64> = time.split(':').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    let [hour, minute, second] = clock[..] else { return None };
    let is_date = (1..=31).contains(&day) && (1970..=9999).contains(&year);
    if !is_date || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let is_leap =
        |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let days_before = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334][month];
    let leap_days = (1970..year).filter(|year| is_leap(*year)).count() as u64;
    let leap_day = u64::from(month > 1 && is_leap(year));
    let days = (year - 1970) * 365 + leap_days + days_before + leap_day + day - 1;
    UNIX_EPOCH.checked_add(Duration::from_secs(((days * 24 + hour) * 60 + minute) * 60 + second))
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    fn asked(text: &str, now_s: u64) -> Option<Duration> {
        let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_str(text).unwrap())]);
        retry_after(&headers, UNIX_EPOCH + Duration::from_secs(now_s))
    }

    #[test]
    fn it_is_seconds_or_a_date() {
        let long = "9".repeat(99);
        for (text, seconds) in [("0", 0), (" 7 ", 7), ("1000000000", 1_000_000_000), (&*long, u64::MAX)] {
            assert_eq!(asked(text, 5), Some(Duration::from_secs(seconds)), "{text}");
        }
        // The date of the RFC, and others that `date -ud DATE +%s` tells.
        for (text, at_s) in [
            ("Sun, 06 Nov 1994 08:49:37 GMT", 784_111_777),
            ("Thu, 29 Feb 2024 23:59:60 GMT", 1_709_251_200),
            ("Fri, 01 Mar 2024 00:00:00 GMT", 1_709_251_200),
            ("Fri, 31 Dec 9999 23:59:59 GMT", 253_402_300_799),
        ] {
            assert_eq!(asked(text, at_s - 9), Some(Duration::from_secs(9)), "{text}");
            assert_eq!(asked(text, at_s + 1), None, "{text} is over");
        }
    }

    #[test]
    fn anything_else_is_nothing() {
        for text in [
            "",
            "-1",
            "1.5",
            "soon",
            "+1",
            "Sun, 06 Nov 1994",
            "Sun, 00 Nov 2994 08:49:37 GMT",
            "Sun, 06 Foo 2994 08:49:37 GMT",
            "Sun, 06 Nov 99999999999 08:49:37 GMT",
            "Sun, 06 Nov 2994 25:49:37 GMT",
            "Sun, 06 Nov 2994 08:49:37 CET",
            "Sun, 06 Nov 2994 08:49 GMT",
            "Sun, 18446744073709551615 Nov 2994 08:49:37 GMT",
        ] {
            assert_eq!(asked(text, 5), None, "{text}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), UNIX_EPOCH), None);
    }
}
