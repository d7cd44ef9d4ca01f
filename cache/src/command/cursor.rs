//! What `SCAN`, `HSCAN`, `SSCAN` and `ZSCAN` have in common: the cursor; and the options behind that of the last three.

use super::{Failure, integer, is_option};
use crate::glob;

/// A cursor in an argument: decimal digits, with a sign if need be, as C's `strtoul` reads them. Nothing at all is 0, and a
/// negative number counts from the top.
pub(super) fn read_cursor(text: &[u8]) -> Result<u64, Failure> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] if !digits.is_empty() => (true, digits),
        [b'+', digits @ ..] if !digits.is_empty() => (false, digits),
        digits => (false, digits),
    };
    let cursor = digits.iter().try_fold(0u64, |cursor, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        cursor.checked_mul(10)?.checked_add(digit)
    });
    let cursor = cursor.ok_or_else(|| Failure::err("invalid cursor"))?;
    Ok(if negative { cursor.wrapping_neg() } else { cursor })
}

/// The options of a scan over the elements of one key.
#[derive(Clone, Copy, Debug)]
pub(super) struct ElementScan<'a> {
    /// How many elements to visit, about: the work of one call.
    pub(super) count: usize,
    /// `NOVALUES`: names alone.
    pub(super) no_values: bool,
    pattern: Option<&'a [u8]>,
}

impl<'a> ElementScan<'a> {
    /// Reads the options: `arguments` are those behind the cursor. `no_values` says whether that option exists.
    pub(super) fn read(arguments: &[&'a [u8]], no_values: bool) -> Result<Self, Failure> {
        let mut options = Self { count: 10, no_values: false, pattern: None };
        let mut rest = arguments.iter();
        while let Some(option) = rest.next() {
            if no_values && is_option(option, "NOVALUES") {
                options.no_values = true;
                continue;
            }
            let value = *rest.next().ok_or(Failure::Syntax)?;
            if is_option(option, "COUNT") {
                let count = integer(value)?;
                let positive = usize::try_from(count).ok().filter(|count| *count > 0);
                options.count = positive.ok_or(Failure::Syntax)?;
            } else if is_option(option, "MATCH") {
                options.pattern = Some(value).filter(|pattern| *pattern != b"*");
            } else {
                return Err(Failure::Syntax);
            }
        }
        Ok(options)
    }

    /// Whether an element of this name is to be returned.
    pub(super) fn takes(&self, name: &[u8]) -> bool {
        self.pattern.is_none_or(|pattern| glob::matches(pattern, name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_digits_that_fit_64_bits() {
        for (text, cursor) in [
            ("", Some(0)),
            ("0", Some(0)),
            ("007", Some(7)),
            ("+7", Some(7)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("+", None),
            ("-1", Some(u64::MAX)),
            ("-", None),
            ("--1", None),
            (" 1", None),
            ("1 ", None),
            ("x", None),
        ] {
            assert_eq!(read_cursor(text.as_bytes()).ok(), cursor, "{text}");
        }
    }
}
