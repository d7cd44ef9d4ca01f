//! Which events a read or a subscription lets through.

use std::sync::Arc;

use regex::{Regex, RegexBuilder};
use thiserror::Error;

use crate::event::{EventType, Label, Recorded};

/// A filter: an event passes if it passes every part that is set. The default lets everything through.
/// ```
/// use event_sourcing::{Filter, Pattern};
///
/// # fn main() -> Result<(), event_sourcing::filter::PatternError> {
/// let orders = Filter {
///     type_prefixes: vec!["order.".into()],
///     stream_pattern: Some(Pattern::new("^order-[0-9]+$")?),
///     ..Filter::default()
/// };
/// assert!(!orders.is_empty());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Any of these types.
    pub types: Vec<EventType>,
    /// Any of these prefixes of the type's name.
    pub type_prefixes: Vec<Arc<str>>,
    /// The type's name matches.
    pub type_pattern: Option<Pattern>,
    /// Any of these prefixes of the home stream's name.
    pub stream_prefixes: Vec<Arc<str>>,
    /// The home stream's name matches.
    pub stream_pattern: Option<Pattern>,
    /// All of these labels.
    pub labels: Vec<Label>,
    /// Leaves out the store's own events: those whose type or home stream begins with `$`.
    pub exclude_system: bool,
}

/// A regular expression. It is matched in time linear in the name's length, and its compiled form is bounded
/// ([`PATTERN_SIZE_MAX`]), so that a hostile one costs nobody anything. It has no look-around and no back-references.
#[derive(Clone, Debug)]
pub struct Pattern(Regex);

/// The longest regular expression, in bytes.
pub const PATTERN_LENGTH_MAX: usize = 1024;
/// The largest compiled form of one, in bytes.
pub const PATTERN_SIZE_MAX: usize = 1 << 20;

/// Why a regular expression was refused.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum PatternError {
    /// It is too long.
    #[error("the regular expression has {size} bytes, and may have {PATTERN_LENGTH_MAX}")]
    TooLong {
        /// Its length in bytes.
        size: usize,
    },
    /// It is none, or its compiled form is too large.
    #[error("the regular expression is refused")]
    Refused(#[source] regex::Error),
}

impl Pattern {
    /// Compiles a regular expression.
    ///
    /// # Errors
    ///
    /// If it is none, or too large.
    pub fn new(pattern: &str) -> Result<Self, PatternError> {
        if pattern.len() > PATTERN_LENGTH_MAX {
            return Err(PatternError::TooLong { size: pattern.len() });
        }
        let compiled = RegexBuilder::new(pattern)
            .size_limit(PATTERN_SIZE_MAX)
            .dfa_size_limit(PATTERN_SIZE_MAX)
            .build();
        compiled.map(Self).map_err(PatternError::Refused)
    }

    /// Whether it matches anywhere in `text`.
    #[must_use]
    pub fn is_match(&self, text: &str) -> bool {
        self.0.is_match(text)
    }

    /// The regular expression.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl Filter {
    /// Whether everything passes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.types.is_empty()
            && self.type_prefixes.is_empty()
            && self.type_pattern.is_none()
            && self.stream_prefixes.is_empty()
            && self.stream_pattern.is_none()
            && self.labels.is_empty()
            && !self.exclude_system
    }

    /// Whether an event passes.
    #[must_use]
    pub fn passes(&self, recorded: &Recorded) -> bool {
        let (kind, stream) = (recorded.event.event_type.as_str(), recorded.stream.as_str());
        let any = |prefixes: &[Arc<str>], name: &str| {
            prefixes.is_empty() || prefixes.iter().any(|prefix| name.starts_with(&**prefix))
        };
        let like = |pattern: &Option<Pattern>, name| {
            pattern.as_ref().is_none_or(|pattern| pattern.is_match(name))
        };
        !(self.exclude_system && (kind.starts_with('$') || stream.starts_with('$')))
            && (self.types.is_empty() || self.types.contains(&recorded.event.event_type))
            && any(&self.type_prefixes, kind)
            && any(&self.stream_prefixes, stream)
            && like(&self.type_pattern, kind)
            && like(&self.stream_pattern, stream)
            && self.labels.iter().all(|label| recorded.event.labels.binary_search(label).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_patterns_are_refused_or_cost_nothing() {
        for pattern in ["(a{1000}){1000}", "(", "(?!a)b", r"(a)\1", &"(".repeat(500)] {
            let refused = Pattern::new(pattern);
            assert!(matches!(refused, Err(PatternError::Refused(_))), "{pattern}: {refused:?}");
        }
        let long = "a".repeat(PATTERN_LENGTH_MAX + 1);
        assert!(matches!(Pattern::new(&long), Err(PatternError::TooLong { .. })));
        // What takes others a time exponential in the name's length is linear here.
        let nested = Pattern::new("^(a+)+$").unwrap();
        assert!(!nested.is_match(&format!("{}b", "a".repeat(1_000))));
    }

    #[test]
    fn the_default_lets_everything_through() {
        assert!(Filter::default().is_empty());
        assert!(!Filter { exclude_system: true, ..Filter::default() }.is_empty());
    }
}
