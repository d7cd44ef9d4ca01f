//! Glob patterns, as `KEYS`, `SCAN`, pattern subscriptions, access rules and `CONFIG GET` know them.
//!
//! `*` stands for any bytes, `?` for one, `[abc]`, `[a-c]` and `[^a]` for one of a class, and `\` takes the next byte as it is.
//! A class that is never closed ends with the pattern.
//!
//! Matching never explodes. Everything but `*` stands for exactly one byte, so of all ways to match what is before a `*` the
//! one that ends earliest leaves the most room: only the last `*` met is ever reconsidered. The work is at most the text's
//! length times that of the longest stretch between two stars, with no recursion and no allocation.

/// Whether all of `text` fits `pattern`.
#[must_use]
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    is_match::<false>(pattern, text)
}

/// As [`matches()`], where ASCII letters of either case are the same.
#[must_use]
pub fn matches_ignoring_case(pattern: &[u8], text: &[u8]) -> bool {
    is_match::<true>(pattern, text)
}

/// The literal text that `pattern` stands for, if it holds nothing but plain bytes: such a pattern needs no search.
#[must_use]
pub fn literal(pattern: &[u8]) -> Option<&[u8]> {
    let special = |byte: &u8| matches!(byte, b'*' | b'?' | b'[' | b'\\');
    (!pattern.iter().any(special)).then_some(pattern)
}

fn is_match<const FOLD: bool>(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut position) = (0, 0);
    // Behind the last star: where its stretch begins in the pattern, and where that was last tried in the text.
    let mut star: Option<(usize, usize)> = None;
    while position < text.len() {
        if pattern.get(at) == Some(&b'*') {
            at += 1;
            if at == pattern.len() {
                return true;
            }
            star = Some((at, position));
            continue;
        }
        if at < pattern.len() {
            let (next, fits) = one::<FOLD>(pattern, at, text[position]);
            if fits {
                (at, position) = (next, position + 1);
                continue;
            }
        }
        let Some((stretch, tried)) = star else { return false };
        star = Some((stretch, tried + 1));
        (at, position) = (stretch, tried + 1);
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

/// Whether `byte` fits what stands at `at`, which is no star, and where the pattern goes on after that.
fn one<const FOLD: bool>(pattern: &[u8], at: usize, byte: u8) -> (usize, bool) {
    match pattern[at] {
        b'?' => (at + 1, true),
        b'[' => class::<FOLD>(pattern, at + 1, byte),
        b'\\' if at + 1 < pattern.len() => (at + 2, same::<FOLD>(pattern[at + 1], byte)),
        plain => (at + 1, same::<FOLD>(plain, byte)),
    }
}

/// As [`one`], for a class whose inside begins at `at`.
fn class<const FOLD: bool>(pattern: &[u8], mut at: usize, byte: u8) -> (usize, bool) {
    let negated = pattern.get(at) == Some(&b'^');
    at += usize::from(negated);
    let mut found = false;
    while let Some(&member) = pattern.get(at) {
        match (member, pattern.get(at + 1), pattern.get(at + 2)) {
            (b'\\', Some(&escaped), _) => {
                found |= same::<FOLD>(escaped, byte);
                at += 2;
            }
            (b']', _, _) => return (at + 1, found != negated),
            (_, Some(b'-'), Some(&end)) => {
                let (first, last) = (fold::<FOLD>(member), fold::<FOLD>(end));
                let byte = fold::<FOLD>(byte);
                found |= (first.min(last)..=first.max(last)).contains(&byte);
                at += 3;
            }
            _ => {
                found |= same::<FOLD>(member, byte);
                at += 1;
            }
        }
    }
    (at, found != negated)
}

fn same<const FOLD: bool>(left: u8, right: u8) -> bool {
    fold::<FOLD>(left) == fold::<FOLD>(right)
}

fn fold<const FOLD: bool>(byte: u8) -> u8 {
    if FOLD { byte.to_ascii_lowercase() } else { byte }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_and_what_they_match() {
        let cases: &[(&str, &str, bool)] = &[
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("*", "anything", true),
            ("a*", "abc", true),
            ("a*c", "abcbc", true),
            ("a*d", "abcbc", false),
            ("*b*", "abc", true),
            ("**a**", "a", true),
            ("?", "", false),
            ("h?llo", "hello", true),
            ("h?llo", "hllo", false),
            ("h[ae]llo", "hallo", true),
            ("h[ae]llo", "hillo", false),
            ("h[^e]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("h[a-b]llo", "hbllo", true),
            ("h[b-a]llo", "hallo", true),
            ("h[a-b]llo", "hcllo", false),
            (r"[\]]", "]", true),
            (r"[\-a]", "-", true),
            ("[]a]", "a", false),
            ("[abc", "b", true),
            ("[a-", "-", true),
            ("[", "a", false),
            ("[^", "a", true),
            (r"\*", "*", true),
            (r"\*", "a", false),
            (r"a\", r"a\", true),
            ("a[b]*c?", "abxxcz", true),
            ("*.txt*", "a.tx.txt", true),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(
                matches(pattern.as_bytes(), text.as_bytes()),
                *expected,
                "{pattern} on {text}"
            );
        }
        assert!(matches_ignoring_case(b"H[A-C]*O", b"hBLLo"));
        assert!(!matches(b"H*", b"hello"));
        assert_eq!(literal(b"plain"), Some(&b"plain"[..]));
        assert_eq!(literal(b"pl?in"), None);
    }

    #[test]
    fn many_stars_cost_no_more_than_the_product_of_the_lengths() {
        let text = vec![b'a'; 20_000];
        let pattern = "a*".repeat(500) + "b";
        assert!(!matches(pattern.as_bytes(), &text));
        let pattern = "*a".repeat(500) + "*";
        assert!(matches(pattern.as_bytes(), &text));
    }

    /// Tries every way: right by being simple.
    fn naive(pattern: &[u8], text: &[u8]) -> bool {
        match pattern.first() {
            None => text.is_empty(),
            Some(b'*') => (0..=text.len()).any(|skipped| naive(&pattern[1..], &text[skipped..])),
            Some(_) => text.first().is_some_and(|byte| {
                let (next, fits) = one::<false>(pattern, 0, *byte);
                fits && naive(&pattern[next..], &text[1..])
            }),
        }
    }

    proptest::proptest! {
        #[test]
        fn the_earliest_match_finds_what_trying_all_finds(pattern in "[ab*?\\\\\\[\\]^-]{0,8}", text in "[ab*]{0,8}") {
            proptest::prop_assert_eq!(
                matches(pattern.as_bytes(), text.as_bytes()),
                naive(pattern.as_bytes(), text.as_bytes())
            );
        }
    }
}
