//! Durations on the command line and in tables.

use std::fmt;
use std::time::Duration;

/// Parses `30`, `0.5`, `250ms`, `30s`, `5m`, `2h` or `1d`. A number without a unit is seconds.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text.get(digits.len()..).unwrap_or_default();
    let seconds = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3_600.0,
        "d" => 86_400.0,
        _ => return Err(format!("unknown unit {unit:?}: use ms, s, m, h or d")),
    };
    let number: f64 = digits
        .parse()
        .map_err(|_| "a duration is a number with a unit, such as 30s, 5m or 0.5".to_owned())?;
    Duration::try_from_secs_f64(number * seconds)
        .map_err(|_| "a duration is neither negative nor above 584 billion years".to_owned())
}

/// Parses a pause between two statements, which is at least a millisecond.
pub(crate) fn parse_pause(text: &str) -> Result<Duration, String> {
    let pause = parse(text)?;
    if pause < Duration::from_millis(1) {
        return Err("a pause is at least 1ms".to_owned());
    }
    Ok(pause)
}

/// A duration in its largest unit: `3.2 s`, `12 min`, `5 h`, `2 d`.
pub(crate) struct Shown(pub(crate) Duration);

impl fmt::Display for Shown {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self.0.as_secs() {
            0 => format!("{} ms", self.0.as_millis()),
            1..10 => format!("{:.1} s", self.0.as_secs_f64()),
            seconds @ 10..120 => format!("{seconds} s"),
            seconds @ 120..7_200 => format!("{} min", seconds / 60),
            seconds @ 7_200..172_800 => format!("{} h", seconds / 3_600),
            seconds => format!("{} d", seconds / 86_400),
        };
        formatter.pad(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_seconds_by_default() {
        for (text, millis) in [
            ("30", 30_000),
            ("0.5", 500),
            ("250ms", 250),
            ("30s", 30_000),
            ("5m", 300_000),
            ("2h", 7_200_000),
            ("1d", 86_400_000),
            ("0", 0),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn malformed_duration_is_an_error() {
        for text in ["", "s", "5x", "-1", "nan", "inf", "1e400", "5 s", "1,5"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn pause_below_a_millisecond_is_an_error() {
        for text in ["0", "0ms", "0.9ms"] {
            assert!(parse_pause(text).is_err(), "{text}");
        }
        assert_eq!(parse_pause("1ms"), Ok(Duration::from_millis(1)));
    }

    #[test]
    fn display_uses_the_largest_unit() {
        for (millis, text) in [
            (3, "3 ms"),
            (3_250, "3.2 s"),
            (61_000, "61 s"),
            (725_000, "12 min"),
            (90_000_000, "25 h"),
            (900_000_000, "10 d"),
        ] {
            assert_eq!(Shown(Duration::from_millis(millis)).to_string(), text);
        }
    }
}
