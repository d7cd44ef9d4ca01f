//! The store's logical time.

use std::fmt;

/// When a version was written: the request, and the place among the changes of that request.
///
/// Ordered as written. Signed, because etcd's wire format has it signed; revisions in a store are
/// never negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision {
    /// The store's revision after the request: all changes of one request share it.
    pub main: i64,
    /// The change's place in the request, from 0.
    pub sub: i64,
}

impl Revision {
    /// Before every revision.
    pub const ZERO: Self = Self { main: 0, sub: 0 };

    /// After every revision.
    pub const MAX: Self = Self { main: i64::MAX, sub: i64::MAX };

    /// The revision of an empty store. The first write makes revision 2.
    pub const EMPTY_STORE: i64 = 1;

    /// The largest main revision that a snapshot may claim. Beyond reach by honest means (a million
    /// writes a second take 146,000 years), so that counting on from it can never overflow.
    pub const MAIN_MAX: i64 = i64::MAX >> 1;

    /// The revision of change number `sub` of the request that made `main`.
    #[must_use]
    pub const fn new(main: i64, sub: i64) -> Self {
        Self { main, sub }
    }
}

/// `main.sub`, as in error texts.
impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.main, self.sub)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revisions_are_ordered_by_request_then_by_place_in_it() {
        let ordered = [(0, 0), (2, 0), (2, 1), (3, 0), (3, 7), (10, 0)];
        for pair in ordered.windows(2) {
            let [(a, b), (c, d)] = pair else { unreachable!("windows of two") };
            assert!(Revision::new(*a, *b) < Revision::new(*c, *d), "{a}.{b} before {c}.{d}");
        }
    }
}
