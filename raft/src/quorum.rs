//! Majority arithmetic: what a set of voters has agreed on.
//!
//! Any two majorities of the same voters share a voter. Everything that Raft promises stands on that.

/// How many of `voters` make a majority.
#[must_use]
pub fn majority(voters: usize) -> usize {
    voters / 2 + 1
}

/// The greatest value that a majority has reached: of 7, 5, 5, 3, 1 it is 5, which three of the five have reached or passed.
/// `values` holds one for each voter, in any order. `None` without voters. Allocates nothing, and so looks at each pair: voters are few.
#[must_use]
pub fn reached_by_majority<T: Ord + Copy>(values: impl Iterator<Item = T> + Clone) -> Option<T> {
    let needed = majority(values.clone().count());
    let is_reached = |value: &T| values.clone().filter(|other| other >= value).count() >= needed;
    values.clone().filter(is_reached).max()
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

/// Counts a ballot of which `answers` holds one item for each voter: yes, no, or nothing yet.
#[must_use]
pub fn tally(answers: impl Iterator<Item = Option<bool>>) -> Tally {
    let (mut voters, mut yes, mut no) = (0, 0, 0);
    for answer in answers {
        voters += 1;
        yes += usize::from(answer == Some(true));
        no += usize::from(answer == Some(false));
    }
    if yes >= majority(voters) {
        Tally::Won
    } else if voters - no < majority(voters) && voters > 0 {
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
            assert_eq!(reached_by_majority(values.iter().copied()), expected);
            values.reverse();
            assert_eq!(reached_by_majority(values.iter().copied()), expected);
        }
    }

    #[test]
    fn a_ballot_is_lost_when_a_majority_is_out_of_reach() {
        let count = |voters: usize, yes: usize, no: usize| {
            let nobody = voters - yes - no;
            let answers = [(Some(true), yes), (Some(false), no), (None, nobody)];
            tally(
                answers.into_iter().flat_map(|(answer, count)| std::iter::repeat_n(answer, count)),
            )
        };
        assert_eq!(count(0, 0, 0), Tally::Open);
        assert_eq!(count(1, 1, 0), Tally::Won);
        assert_eq!(count(3, 1, 1), Tally::Open);
        assert_eq!(count(3, 1, 2), Tally::Lost);
        assert_eq!(count(4, 2, 1), Tally::Open);
        assert_eq!(count(4, 2, 2), Tally::Lost);
        assert_eq!(count(5, 3, 2), Tally::Won);
    }
}
