//! The real core in every order of things, as far as that takes seconds; `examples/exhaustive.rs` goes on from here.

use raft_consensus::sim::PlantedBug;
use raft_consensus::sim::exhaustive::{Explored, Scope, explore};

fn first_states(name: &str, states: usize, bug: Option<PlantedBug>) -> Explored {
    let mut scope = Scope::named(name).expect("a scope of this name");
    scope.states_max = states;
    explore(&scope, bug)
}

#[test]
fn no_order_of_events_breaks_a_promise() {
    for scope in Scope::all() {
        let explored = first_states(scope.name, 10_000, None);
        println!("{}: {explored}", scope.name);
        assert!(explored.violation.is_none(), "{}: {explored}", scope.name);
        assert!(explored.states >= 10_000 || explored.is_complete, "{}: {explored}", scope.name);
        assert!(explored.depth >= 5, "{}: {explored}", scope.name);
    }
}

#[test]
fn the_same_scope_is_the_same_exploration() {
    let (one, other) = (first_states("votes", 3_000, None), first_states("votes", 3_000, None));
    assert_eq!((one.states, one.actions, one.depth), (other.states, other.actions, other.depth));
}
