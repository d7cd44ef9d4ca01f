//! Numbers that are kept as their decimal text: integers, and the floating-point sums of `INCRBYFLOAT` and `HINCRBYFLOAT`.
//!
//! Redis adds in C's `long double`, which on its usual machines is the 80-bit extended format, and shows 17 digits behind the
//! point. Both can be seen by clients (0.1 + 0.2 is 0.3, yet 3000 + 0.2 is 3000.19999999999999996), so [`Extended`] computes
//! just that, in integers: 64 bits of mantissa, each step rounded to the nearest and to even in a tie. It differs from the C
//! library in one corner: there are no denormal numbers (they show as 0 in either case).

use std::cmp::Ordering;
use std::fmt;

/// Room for the text of an integer, so that none is allocated.
#[derive(Clone, Copy, Debug, Default)]
pub struct Buffer([u8; 20]);

impl Buffer {
    /// The text of `value`.
    pub fn integer(&mut self, value: i64) -> &[u8] {
        let mut at = self.0.len();
        let mut rest = value.unsigned_abs();
        loop {
            at -= 1;
            self.0[at] = b'0' + u8::try_from(rest % 10).expect("a digit");
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        if value < 0 {
            at -= 1;
            self.0[at] = b'-';
        }
        &self.0[at..]
    }
}

/// An integer as Redis reads it: decimal, no sign but `-`, no leading zero, no space, within 64 bits.
#[must_use]
pub fn parse_integer(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    match digits {
        [b'0'] if digits.len() == text.len() => return Some(0),
        [b'1'..=b'9', ..] if digits.len() <= 19 => {}
        _ => return None,
    }
    // Downwards, since the least integer has no positive counterpart.
    let below = digits.iter().try_fold(0i64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| i64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_sub(digit)
    })?;
    if digits.len() < text.len() { Some(below) } else { below.checked_neg() }
}

/// The longest text that is read as a number, in bytes. Redis has the same bound.
const TEXT_MAX: usize = 5 * 1024 - 1;

/// A number is infinite from two to the power of this on.
const EXPONENT_MAX: i64 = 16_384;

/// Below ten to the power of this everything is nothing.
const DECIMAL_MIN: i64 = -4_951;

/// Two to the power of more than this is not computed: it is out of range whatever it is multiplied with.
const SCALE_MAX: i64 = 50_000;

/// A number in the 80-bit extended format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extended {
    /// `mantissa` × 2^`exponent`. The mantissa's highest bit is set, unless it is 0.
    Finite {
        /// Whether it is below zero.
        negative: bool,
        /// Its 64 significant bits.
        mantissa: u64,
        /// What they are to be scaled by.
        exponent: i64,
    },
    /// Larger than any, or with `true` smaller than any.
    Infinite(bool),
}

impl Extended {
    /// 0.
    pub const ZERO: Self = Self::Finite { negative: false, mantissa: 0, exponent: 0 };

    /// The number in `text`: decimal, with or without sign, point and exponent, or `inf`. None if it is no number, or
    /// none that can be held.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        if text.len() > TEXT_MAX {
            return None;
        }
        let (negative, unsigned) = match text {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            rest => (false, rest),
        };
        if unsigned.eq_ignore_ascii_case(b"inf") || unsigned.eq_ignore_ascii_case(b"infinity") {
            return Some(Self::Infinite(negative));
        }
        let number = match unsigned {
            [b'0', b'x' | b'X', rest @ ..] => Positional::read(rest, 16, b"pP")?,
            _ => Positional::read(unsigned, 10, b"eE")?,
        };
        let Positional { mut digits, base, mut scale } = number;
        if digits.is_zero() {
            return Some(Self::Finite { negative, mantissa: 0, exponent: 0 });
        }
        if base == 16 {
            scale = scale.clamp(-SCALE_MAX, SCALE_MAX);
        } else if !(DECIMAL_MIN..=-DECIMAL_MIN).contains(&(scale + digits.bits() * 3 / 10)) {
            return None;
        }
        let mut one = Natural::from(1);
        let scaled = if scale < 0 { &mut one } else { &mut digits };
        let power = u32::try_from(scale.unsigned_abs()).expect("bounded above");
        if base == 16 {
            scaled.shift(power);
        } else {
            scaled.scale_by_power_of_ten(power);
        }
        match quotient(digits, one, negative) {
            Self::Finite { exponent, .. } if exponent + 64 < -EXPONENT_MAX - 64 => None,
            Self::Infinite(_) => None,
            finite @ Self::Finite { .. } => Some(finite),
        }
    }

    /// The sum. None if it is infinite, or no number.
    #[must_use]
    pub fn plus(self, other: Self) -> Option<Self> {
        let (Self::Finite { mantissa: left, .. }, Self::Finite { mantissa: right, .. }) =
            (self, other)
        else {
            return None;
        };
        if left == 0 || right == 0 {
            return Some(if left == 0 { other } else { self });
        }
        let (large, small) =
            if self.weight() >= other.weight() { (self, other) } else { (other, self) };
        let (
            Self::Finite { negative, mantissa, exponent },
            Self::Finite { negative: against, mantissa: addend, exponent: lower },
        ) = (large, small)
        else {
            return None;
        };
        // 62 bits below the larger one's last bit; what of the smaller one lies still lower is remembered as one bit.
        let gap = u32::try_from(exponent - lower).unwrap_or(u32::MAX);
        let addend = if gap <= 62 {
            u128::from(addend) << (62 - gap)
        } else {
            let shift = gap - 62;
            u128::from(addend.checked_shr(shift).unwrap_or(0))
                | u128::from(addend.trailing_zeros() < shift)
        };
        let mantissa = u128::from(mantissa) << 62;
        let sum = if negative == against { mantissa + addend } else { mantissa - addend };
        match rounded(sum, exponent - 62, false, negative) {
            Self::Infinite(_) => None,
            finite @ Self::Finite { .. } => Some(finite),
        }
    }

    /// What orders numbers by their distance from 0.
    fn weight(self) -> (i64, u64) {
        match self {
            Self::Finite { mantissa, exponent, .. } => (exponent, mantissa),
            Self::Infinite(_) => (i64::MAX, 0),
        }
    }
}

impl fmt::Display for Extended {
    /// With 17 digits behind the point, less the zeros at the end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (negative, mantissa, exponent) = match *self {
            Self::Infinite(negative) => return f.write_str(if negative { "-inf" } else { "inf" }),
            Self::Finite { negative, mantissa, exponent } => (negative, mantissa, exponent),
        };
        let (whole, fraction) = if let Ok(shift) = u32::try_from(exponent) {
            let mut whole = Natural::from(mantissa);
            whole.shift(shift);
            (whole.to_string(), 0)
        } else {
            const UNIT: u128 = 100_000_000_000_000_000;
            let scaled = u128::from(mantissa) * UNIT;
            let shift = u32::try_from(-exponent).unwrap_or(u32::MAX);
            let scaled = shift_right_rounding(scaled, shift);
            ((scaled / UNIT).to_string(), scaled % UNIT)
        };
        if negative && (whole != "0" || fraction != 0) {
            f.write_str("-")?;
        }
        f.write_str(&whole)?;
        if fraction != 0 {
            f.write_str(".")?;
            f.write_str(format!("{fraction:017}").trim_end_matches('0'))?;
        }
        Ok(())
    }
}

/// A number as it is written: digits, and how often they are to be multiplied, by ten if they are decimal, by two if not.
struct Positional {
    digits: Natural,
    base: u32,
    scale: i64,
}

impl Positional {
    /// Reads digits of `base` with a point somewhere, and an exponent behind one of `marks`.
    fn read(text: &[u8], base: u32, marks: &[u8]) -> Option<Self> {
        let end = text.iter().position(|byte| marks.contains(byte));
        let (number, power) = text.split_at(end.unwrap_or(text.len()));
        let power = if power.is_empty() { 0 } else { read_power(&power[1..])? };
        let point = number.iter().position(|byte| *byte == b'.');
        let (whole, fraction) = number.split_at(point.unwrap_or(number.len()));
        let fraction = fraction.get(1..).unwrap_or_default();
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let mut digits = Natural::default();
        for digit in whole.iter().chain(fraction) {
            digits.scale(base, char::from(*digit).to_digit(base)?);
        }
        let behind_point = i64::try_from(fraction.len()).expect("the text is short");
        let scale = power - behind_point * if base == 16 { 4 } else { 1 };
        Some(Self { digits, base, scale })
    }
}

/// The exponent behind an `e`, kept within what can matter.
fn read_power(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let power = digits
        .iter()
        .fold(0i64, |power, digit| (power * 10 + i64::from(digit - b'0')).min(100_000));
    Some(if negative { -power } else { power })
}

/// `value` / 2^`shift`, to the nearest, and to even in a tie.
fn shift_right_rounding(value: u128, shift: u32) -> u128 {
    if shift == 0 {
        return value;
    }
    if shift > 127 {
        return 0;
    }
    let (kept, lost, half) = (value >> shift, value & ((1 << shift) - 1), 1u128 << (shift - 1));
    let up = match lost.cmp(&half) {
        Ordering::Less => false,
        Ordering::Equal => kept & 1 == 1,
        Ordering::Greater => true,
    };
    kept + u128::from(up)
}

/// `value` × 2^`exponent`, and a little more if `sticky`, rounded to 64 bits.
fn rounded(value: u128, exponent: i64, sticky: bool, negative: bool) -> Extended {
    if value == 0 {
        return Extended::ZERO;
    }
    // At the top of the word, so that the rounding always drops 64 bits.
    let shift = value.leading_zeros();
    let value = (value << shift) | u128::from(sticky);
    let mut exponent = exponent - i64::from(shift) + 64;
    let mut mantissa = shift_right_rounding(value, 64);
    if mantissa >> 64 != 0 {
        mantissa >>= 1;
        exponent += 1;
    }
    if exponent + 64 > EXPONENT_MAX {
        return Extended::Infinite(negative);
    }
    let mantissa = u64::try_from(mantissa).expect("shifted below 64 bits");
    Extended::Finite { negative, mantissa, exponent }
}

/// `number` / `divisor`, neither of which is 0, bit by bit.
fn quotient(mut number: Natural, mut divisor: Natural, negative: bool) -> Extended {
    // Aligned so that the quotient lies between 1 and 2, or between 1/2 and 1.
    let gap = number.bits() - divisor.bits();
    let amount = u32::try_from(gap.unsigned_abs()).expect("both come from short texts");
    if gap < 0 {
        number.shift(amount);
    } else {
        divisor.shift(amount);
    }
    let mut bits = 0u128;
    const BITS: i64 = 68;
    for _ in 0..BITS {
        bits <<= 1;
        if number.subtract(&divisor) {
            bits |= 1;
        }
        number.shift(1);
    }
    rounded(bits, gap - BITS + 1, !number.is_zero(), negative)
}

/// A natural number of any size: 32 bits a digit, the lowest first, no zero at the end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Natural(Vec<u32>);

impl From<u64> for Natural {
    fn from(value: u64) -> Self {
        let mut number = Self(vec![low(value), low(value >> 32)]);
        number.trim();
        number
    }
}

fn low(value: u64) -> u32 {
    u32::try_from(value & u64::from(u32::MAX)).expect("masked to 32 bits")
}

impl Natural {
    fn is_zero(&self) -> bool {
        self.0.is_empty()
    }

    fn trim(&mut self) {
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
    }

    fn bits(&self) -> i64 {
        let top = self.0.last().map_or(0, |digit| 32 - i64::from(digit.leading_zeros()));
        let below = i64::try_from(self.0.len().saturating_sub(1)).expect("numbers are short");
        top + 32 * below
    }

    /// Times `factor` plus `addend`.
    fn scale(&mut self, factor: u32, addend: u32) {
        let mut carry = u64::from(addend);
        for digit in &mut self.0 {
            carry += u64::from(*digit) * u64::from(factor);
            *digit = low(carry);
            carry >>= 32;
        }
        if carry != 0 {
            self.0.push(low(carry));
        }
    }

    fn scale_by_power_of_ten(&mut self, power: u32) {
        (0..power / 9).for_each(|_| self.scale(1_000_000_000, 0));
        self.scale(10u32.pow(power % 9), 0);
    }

    fn shift(&mut self, bits: u32) {
        if self.is_zero() {
            return;
        }
        self.scale(1 << (bits % 32), 0);
        let zeros = usize::try_from(bits / 32).expect("32 bits fit");
        self.0.splice(0..0, std::iter::repeat_n(0, zeros));
    }

    /// Subtracts `other` if it is not larger, and says whether it was.
    fn subtract(&mut self, other: &Self) -> bool {
        let order = self.0.len().cmp(&other.0.len());
        let order = order.then_with(|| self.0.iter().rev().cmp(other.0.iter().rev()));
        if order == Ordering::Less {
            return false;
        }
        let mut borrow = false;
        for (index, digit) in self.0.iter_mut().enumerate() {
            let other = other.0.get(index).copied().unwrap_or(0);
            let (difference, first) = digit.overflowing_sub(other);
            let (difference, second) = difference.overflowing_sub(u32::from(borrow));
            (*digit, borrow) = (difference, first || second);
        }
        self.trim();
        true
    }
}

impl fmt::Display for Natural {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const GROUP: u64 = 1_000_000_000;
        let mut rest = self.0.clone();
        let mut groups = Vec::new();
        while !rest.is_empty() {
            let mut remainder = 0u64;
            for digit in rest.iter_mut().rev() {
                let value = (remainder << 32) | u64::from(*digit);
                *digit = low(value / GROUP);
                remainder = value % GROUP;
            }
            groups.push(remainder);
            while rest.last() == Some(&0) {
                rest.pop();
            }
        }
        write!(f, "{}", groups.pop().unwrap_or(0))?;
        groups.iter().rev().try_for_each(|group| write!(f, "{group:09}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_integer_is_read_to_both_ends_of_its_range_and_no_further() {
        for number in [0, 1, -1, 10, i64::MAX, i64::MAX - 1, i64::MIN, i64::MIN + 1] {
            assert_eq!(parse_integer(number.to_string().as_bytes()), Some(number));
        }
        for text in [
            "",
            "-",
            "-0",
            "00",
            "01",
            "+1",
            " 1",
            "1 ",
            "1a",
            "1.0",
            "--1",
            "9223372036854775808",
            "-9223372036854775809",
            "9999999999999999999",
            "10000000000000000000",
        ] {
            assert_eq!(parse_integer(text.as_bytes()), None, "{text}");
        }
    }

    fn sum(left: &str, right: &str) -> Option<String> {
        let (left, right) = (Extended::parse(left.as_bytes())?, Extended::parse(right.as_bytes())?);
        left.plus(right).map(|sum| sum.to_string())
    }

    /// What redis-server 7.0.15 answers on x86-64.
    #[test]
    fn sums_are_those_of_the_extended_format() {
        for (left, right, expected) in [
            ("3000", "0.2", "3000.19999999999999996"),
            ("0.1", "0.2", "0.3"),
            ("1234567.891", "0.001", "1234567.89199999999993906"),
            ("12345678901234567890", "0.1", "12345678901234567890"),
            ("1e20", "0.1", "100000000000000000000"),
            ("1e25", "1e-5", "10000000000000000000000000"),
            ("10", "1e-17", "10.00000000000000001"),
            ("10", "1e-18", "10"),
            ("5e-3", "0", "0.005"),
            ("-0", "0", "0"),
            ("-1", "1", "0"),
            ("3.0e3", "200", "3200"),
            ("1000000", "0.3", "1000000.30000000000001137"),
            ("123456789012", ".7", "123456789012.70000000298023224"),
            ("+5", "1", "6"),
            (".5", "1.", "1.5"),
            ("-10.5", "0.25", "-10.25"),
            ("0x10", "0X1.8p3", "28"),
            ("0x.8p-1", "0", "0.25"),
        ] {
            assert_eq!(sum(left, right).as_deref(), Some(expected), "{left} + {right}");
        }
        let large = sum("1e300", "1").unwrap();
        assert!(large.starts_with("1000000000000000000008997324079"), "{large}");
        let large = sum("1e4000", "1").unwrap();
        assert!(large.starts_with("9999999999999999999965463873099623784932"), "{large}");
        assert_eq!(large.len(), 4_000);
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for text in [
            "",
            "-",
            ".",
            "e5",
            "1e",
            "1e+",
            "nan",
            " 1",
            "1 ",
            "1..2",
            "1e5000",
            "1e-5000",
            "--1",
            "1e99999999999999999999",
            "0x",
            "0xg",
            "0x1p99999",
            "0x1p-99999",
        ] {
            assert_eq!(Extended::parse(text.as_bytes()), None, "{text}");
        }
        assert_eq!(sum("inf", "1"), None);
        assert_eq!(sum("1.18e4932", "1.18e4932"), None);
        assert_eq!(Extended::parse("1".repeat(6_000).as_bytes()), None);
    }

    proptest::proptest! {
        #[test]
        fn integers_add_as_integers(left in -(1i64 << 61)..1 << 61, right in -(1i64 << 61)..1 << 61) {
            let text = sum(&left.to_string(), &right.to_string()).unwrap();
            proptest::prop_assert_eq!(text, (left + right).to_string());
        }

        #[test]
        fn an_integer_has_one_text(value: i64) {
            let mut buffer = Buffer::default();
            let text = value.to_string();
            proptest::prop_assert_eq!(buffer.integer(value), text.as_bytes());
        }

        #[test]
        fn no_text_panics(text in "[-+0-9.e]{0,40}") {
            let _ = Extended::parse(text.as_bytes()).map(|number| number.to_string());
        }
    }
}
