//! Numbers for people.

/// With commas between thousands; with digits behind the point where it is small and not whole.
pub(super) fn count(number: f64) -> String {
    if number < 10.0 && number.fract() != 0.0 {
        return format!("{number:.1}");
    }
    let digits = format!("{number:.0}");
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// Three digits and a unit.
pub(super) fn bytes(number: f64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB"];
    let (mut number, mut unit) = (number, 0);
    while number >= 999.5 && unit + 1 < units.len() {
        number /= 1000.0;
        unit += 1;
    }
    match unit {
        0 => format!("{number:.0} B"),
        _ => format!("{} {}", digits(number), units[unit]),
    }
}

/// A time in microseconds, in the unit that suits it.
pub(super) fn microseconds(time: f64) -> String {
    match time {
        time if time < 999.5 => format!("{} µs", digits(time)),
        time if time < 999_500.0 => format!("{} ms", digits(time / 1e3)),
        time => format!("{} s", digits(time / 1e6)),
    }
}

/// In percent.
pub(super) fn share(part: f64) -> String {
    format!("{} %", digits(part * 100.0))
}

/// Two or three digits that count.
fn digits(number: f64) -> String {
    match number {
        number if number < 9.95 => format!("{number:.1}"),
        number => format!("{number:.0}"),
    }
}

/// What there is to say of it, if it is there.
pub(super) fn some<T>(value: Option<&T>, say: impl FnOnce(&T) -> String) -> String {
    value.map(say).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_their_unit_and_no_more_digits_than_count() {
        let counts = [0.0, 0.5, 7.0, 999.6, 1_234_567.0].map(count);
        assert_eq!(counts, ["0", "0.5", "7", "1,000", "1,234,567"]);
        let sizes = [64.0, 999.0, 999.6, 1_250.0, 44e6, 2.5e9].map(bytes);
        assert_eq!(sizes, ["64 B", "999 B", "1.0 kB", "1.2 kB", "44 MB", "2.5 GB"]);
        let times = [0.44, 12.3, 999.0, 999.7, 12_345.0, 1.5e6].map(microseconds);
        assert_eq!(times, ["0.4 µs", "12 µs", "999 µs", "1.0 ms", "12 ms", "1.5 s"]);
        assert_eq!(share(0.034), "3.4 %");
    }
}
