//! Floating-point numbers as text: scores, weights, timeouts.

/// A number as Redis 7.2 shows it: the shortest digits that read back as the same number, without exponent where that stays
/// short. Whole numbers up to 2^52 are plain integers; `inf`, `-inf`, `nan`.
#[must_use]
pub fn format_double(value: f64) -> String {
    if value.is_nan() {
        return "nan".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    if value == value.trunc() && value.abs() <= 4_503_599_627_370_495.0 {
        return format!("{value}");
    }
    // `1.2345e-7` → digits `12345`, exponent −7.
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').expect("the format has an exponent");
    let exponent: i32 = exponent.parse().expect("an exponent is a small integer");
    let (sign, mantissa) = match mantissa.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", mantissa),
    };
    let digits: String = mantissa.chars().filter(|it| *it != '.').collect();
    let length = i32::try_from(digits.len()).expect("17 digits at most");
    // The value is `digits` × 10^scale.
    let scale = exponent + 1 - length;
    if scale >= 0 && exponent < length + 7 {
        return format!("{sign}{digits}{}", "0".repeat(scale.unsigned_abs() as usize));
    }
    if scale < 0 && (scale > -7 || exponent.abs() < 4) {
        return match usize::try_from(exponent + 1) {
            Ok(point) if point > 0 => format!("{sign}{}.{}", &digits[..point], &digits[point..]),
            _ => format!("{sign}0.{}{digits}", "0".repeat((exponent + 1).unsigned_abs() as usize)),
        };
    }
    let point = if length > 1 { "." } else { "" };
    let direction = if exponent < 0 { '-' } else { '+' };
    format!("{sign}{}{point}{}e{direction}{}", &digits[..1], &digits[1..], exponent.unsigned_abs())
}

/// A number as C's `strtod` reads it, the whole text: decimal or hexadecimal, with or without exponent, `inf`, `infinity`. None for
/// anything else, for NaN, for spaces, and for what is too large or too small to be told from infinity or zero.
#[must_use]
pub fn parse_double(text: &[u8]) -> Option<f64> {
    if let Some(value) = parse_digits(text) {
        return Some(value);
    }
    let value = parse_any(text)?;
    let overflown = value.is_infinite() && !text.iter().any(|it| matches!(it, b'i' | b'I'));
    let underflown = value == 0.0 && has_nonzero_digit(text);
    (!overflown && !underflown).then_some(value)
}

/// As [`parse_double`], for the ends of a range: what is too large is infinite and what is too small is zero.
#[must_use]
pub fn parse_double_saturating(text: &[u8]) -> Option<f64> {
    parse_any(text.trim_ascii_start())
}

/// A number of one to nine digits and nothing else, as most are: it is exact.
fn parse_digits(text: &[u8]) -> Option<f64> {
    if !(1..=9).contains(&text.len()) {
        return None;
    }
    let digit = |number: u32, byte: &u8| {
        byte.is_ascii_digit().then(|| number * 10 + u32::from(byte - b'0'))
    };
    text.iter().try_fold(0, digit).map(f64::from)
}

fn parse_any(text: &[u8]) -> Option<f64> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    let value = match digits {
        [b'0', b'x' | b'X', rest @ ..] => parse_hexadecimal(rest)?,
        [b'0'..=b'9' | b'.' | b'i' | b'I', ..] => std::str::from_utf8(digits).ok()?.parse().ok()?,
        _ => return None,
    };
    (!value.is_nan()).then_some(if negative { -value } else { value })
}

/// The digits of the significand, without those of an exponent.
fn has_nonzero_digit(text: &[u8]) -> bool {
    let digits = text.strip_prefix(b"-").or_else(|| text.strip_prefix(b"+")).unwrap_or(text);
    let (digits, marks) = match digits {
        [b'0', b'x' | b'X', rest @ ..] => (rest, b"pP"),
        _ => (digits, b"eE"),
    };
    let significand = digits.split(|it| marks.contains(it)).next().unwrap_or_default();
    significand.iter().any(|it| !matches!(it, b'0' | b'.'))
}

/// `1.8p3`: hexadecimal digits, with a point perhaps, times a power of two perhaps. Digits beyond the 60th bit are dropped.
fn parse_hexadecimal(text: &[u8]) -> Option<f64> {
    let mut parts = text.splitn(2, |it| matches!(it, b'p' | b'P'));
    let significand = parts.next()?;
    let mut exponent: i32 = match parts.next() {
        None => 0,
        Some(power) => {
            let power = std::str::from_utf8(power).ok()?;
            let digits = power.strip_prefix(['-', '+']).unwrap_or(power);
            if digits.is_empty() || !digits.bytes().all(|it| it.is_ascii_digit()) {
                return None;
            }
            let limit = if power.starts_with('-') { -100_000 } else { 100_000 };
            power.parse().unwrap_or(limit).clamp(-100_000, 100_000)
        }
    };
    let (mut value, mut seen, mut fraction) = (0u64, false, false);
    for byte in significand {
        if *byte == b'.' && !fraction {
            fraction = true;
            continue;
        }
        let digit = char::from(*byte).to_digit(16)?;
        seen = true;
        if value >> 56 == 0 {
            value = value << 4 | u64::from(digit);
            exponent -= if fraction { 4 } else { 0 };
        } else {
            exponent = exponent.saturating_add(if fraction { 0 } else { 4 });
        }
    }
    #[expect(
        clippy::cast_precision_loss,
        reason = "rounding to the nearest double is what is meant"
    )]
    let mut number = value as f64;
    // In steps, so that neither the power nor what lies between overflows.
    while exponent != 0 && number != 0.0 && number.is_finite() {
        let step = exponent.clamp(-1000, 1000);
        number *= f64::powi(2.0, step);
        exponent -= step;
    }
    seen.then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_shown_as_redis_shows_them() {
        for (value, text) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (-17.0, "-17"),
            (3.1, "3.1"),
            (0.1 + 0.2, "0.30000000000000004"),
            (100_000_000_000.0, "100000000000"),
            (4_503_599_627_370_495.0, "4503599627370495"),
            (1e17, "1e+17"),
            (1e20, "1e+20"),
            (1.234_567_890_123_456_8e20, "123456789012345680000"),
            (1.797_693_134_862_315_7e308, "1.7976931348623157e+308"),
            (0.0001, "0.0001"),
            (1e-6, "0.000001"),
            (1e-7, "1e-7"),
            (1.5e-7, "1.5e-7"),
            (-2.5e-10, "-2.5e-10"),
            (0.000_123_45, "1.2345e-4"),
            (12_345.678_901_234_567, "1.2345678901234567e+4"),
            (1_696_000_000.123_456, "1696000000.123456"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
        ] {
            assert_eq!(format_double(value), text);
        }
    }

    #[test]
    fn what_is_shown_reads_back_as_the_same_number() {
        let mut bits = 0x9E37_79B9_7F4A_7C15u64;
        for _ in 0..20_000 {
            bits = bits
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let value = f64::from_bits(bits);
            if value.is_finite() {
                let text = format_double(value);
                let read = parse_double(text.as_bytes()).unwrap();
                assert_eq!(read.to_bits(), value.to_bits(), "{text}");
            }
        }
    }

    #[test]
    fn numbers_are_read_as_c_reads_them() {
        for (text, value) in [
            ("1", 1.0),
            ("+1.5", 1.5),
            (".5", 0.5),
            ("5.", 5.0),
            ("-1e3", -1000.0),
            ("1E-2", 0.01),
            ("0x10", 16.0),
            ("0x1.8p3", 12.0),
            ("-0X.8P1", -1.0),
            ("inf", f64::INFINITY),
            ("-Infinity", f64::NEG_INFINITY),
            ("0e999999", 0.0),
        ] {
            assert_eq!(parse_double(text.as_bytes()), Some(value), "{text}");
        }
        for text in [
            "",
            " 1",
            "1 ",
            "abc",
            "nan",
            "-nan",
            "1e",
            "e5",
            ".",
            "1_0",
            "--1",
            "+-1",
            "0x",
            "0xp1",
            "0x1p",
            "1e400",
            "-1e400",
            "1e-400",
            "in",
            "0x1p99999",
            "0x1p-99999",
            "1\x002",
            "1,5",
        ] {
            assert_eq!(parse_double(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(parse_double_saturating(b"1e400"), Some(f64::INFINITY));
        assert_eq!(parse_double_saturating(b" 1e-400"), Some(0.0));
        assert_eq!(parse_double_saturating(b"nan"), None);
    }
}
