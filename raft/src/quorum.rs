//! Majority arithmetic: what a set of voters has agreed on.
//!
//! Any two majorities of the same voters share a voter. Everything that Raft promises stands on that.

/// How many of `voters` make a majority.
#[must_use]
pub fn majority(voters: usize) -> usize {
    voters / 2 + 1
}

/// The greatest value that a majority has reached: of 7, 5, 5, 3, 1 it is 5, which three of the five have reached or passed.
/// Sorts `values`, one for each voter. `None` without voters.
#[must_use]
pub fn reached_by_majority<T: Ord + Copy>(values: &mut [T]) -> Option<T> {
    values.sort_unstable_by(|a, b| b.cmp(a));
    values.get(majority(values.len()).checked_sub(1)?).copied()
}

/// How a ballot stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tally {
    /// A majority said yes.
    Won,
    /// A majority can no longer be had.
    Lost,
    /// Neither.
    Open,
}

/// Counts a ballot among `voters`, of whom `yes` and `no` have answered.
#[must_use]
pub fn tally(voters: usize, yes: usize, no: usize) -> Tally {
    debug_assert!(yes + no <= voters, "nobody answers twice");
    if yes >= majority(voters) {
        Tally::Won
    } else if voters - no < majority(voters) {
        Tally::Lost
    } else {
        Tally::Open
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_majority_is_more_than_half() {
        let sizes: Vec<_> = (1..=7).map(majority).collect();
        assert_eq!(sizes, [1, 2, 2, 3, 3, 4, 4]);
    }

    #[test]
    fn the_value_of_a_majority_does_not_depend_on_order() {
        for (mut values, expected) in [
            (vec![], None),
            (vec![4], Some(4)),
            (vec![4, 9], Some(4)),
            (vec![9, 0, 4], Some(4)),
            (vec![1, 7, 5, 3, 5], Some(5)),
            (vec![0, 0, 0, 9, 9], Some(0)),
        ] {
            assert_eq!(reached_by_majority(&mut values), expected);
            values.reverse();
            assert_eq!(reached_by_majority(&mut values), expected);
        }
    }

    #[test]
    fn a_ballot_is_lost_when_a_majority_is_out_of_reach() {
        assert_eq!(tally(1, 1, 0), Tally::Won);
        assert_eq!(tally(3, 1, 1), Tally::Open);
        assert_eq!(tally(3, 1, 2), Tally::Lost);
        assert_eq!(tally(4, 2, 1), Tally::Open);
        assert_eq!(tally(4, 2, 2), Tally::Lost);
        assert_eq!(tally(5, 3, 2), Tally::Won);
    }
}
