//! The checkers are held against each other and against one that tries everything.

mod brute;
mod generate;

use std::time::Duration;

use lattice_sim::ChaCha8Rng;
use lattice_sim::check::{
    Answer, Ask, History, Impossible, Limits, Misplaced, Model, OperationId, Register, Reply,
    Story, Verdict, in_places, linearizable,
};
use lattice_sim::random::{between, index, stream};

use brute::is_linearizable;
use generate::{Plan, Run};

type Registers = History<Ask, Reply>;

fn check(history: &Registers) -> Verdict<u64> {
    linearizable(&Register, history, Limits::default())
}

fn violation(history: &Registers) -> Impossible<u64> {
    match check(history) {
        Verdict::Violation(why) => why,
        other => panic!("{other:?}: {history:#?}"),
    }
}

/// An order that was found is one: it agrees with real time, has everything that was answered, and the register gives
/// those answers.
fn assert_is_order(history: &Registers, order: &[OperationId], through: u32) {
    let operations = history.operations();
    let answered = |id: OperationId| {
        operations[id].output().is_some() && operations[id].ended.unwrap().order <= through
    };
    let mut state = 0;
    for (place, &id) in order.iter().enumerate() {
        assert!(!order[..place].contains(&id), "{id} twice");
        assert_ne!(operations[id].answer, Answer::NoEffect);
        let behind = &order[place + 1..];
        let ended_before = |other: &&OperationId| {
            answered(**other) && operations[**other].ended < Some(operations[id].called)
        };
        assert_eq!(behind.iter().find(ended_before), None, "it ended before {id} was called");
        let output = operations[id].output().filter(|_| answered(id));
        match Register.step(&state, &operations[id].input, output) {
            lattice_sim::check::Next::To(next) => state = next,
            lattice_sim::check::Next::Same => {}
            lattice_sim::check::Next::Refused => panic!("{id} refused in {state}"),
        }
    }
    let missing = (0..operations.len()).find(|id| answered(*id) && !order.contains(id));
    assert_eq!(missing, None);
}

/// What is said about an impossible history is true.
fn assert_explained(history: &Registers, why: &Impossible<u64>) {
    assert_eq!(history.operations()[why.operation].ended.unwrap().order, why.through);
    assert_is_order(history, &why.order, why.through - 1);
    assert!(why.is_first && !why.refusals.is_empty(), "{why:?}");
    let read = &history.operations()[why.operation];
    for refusal in why.refusals.iter().filter(|refusal| refusal.then.is_none()) {
        let next = Register.step(&refusal.state, &read.input, read.output());
        assert_eq!(next, lattice_sim::check::Next::Refused);
    }
    let story = Story::of(&Register, history, why);
    assert!(story.sentence.contains("although") && !story.reasons.is_empty());
    assert!(story.bars.iter().any(|bar| bar.look == lattice_sim::check::Look::Impossible));
}

fn small(rng: &mut ChaCha8Rng) -> Plan {
    let operations = 2 + index(rng, 5);
    Plan { clients: between(rng, 1, 4), operations, values: between(rng, 1, 4), lost_percent: 25 }
}

#[test]
fn what_one_register_did_is_linearizable() {
    for seed in 0..1_000 {
        let rng = &mut stream(seed, "good", 0);
        let plan = Plan { operations: 30, ..small(rng) };
        let Run { history, places } = generate::run(rng, &plan);
        let Verdict::Linearizable(order) = check(&history) else { panic!("seed {seed}") };
        assert_is_order(&history, &order, u32::MAX);
        assert_eq!(in_places(&Register, &history, |id| places[id]), Ok(()), "seed {seed}");
    }
}

#[test]
fn the_search_and_one_that_tries_everything_say_the_same() {
    let (mut good, mut bad) = (0, 0);
    for seed in 0..6_000 {
        let rng = &mut stream(seed, "small", 0);
        let plan = small(rng);
        let Run { mut history, places } = generate::run(rng, &plan);
        assert!(is_linearizable(&history), "seed {seed}");
        for _ in 0..seed % 5 {
            history = generate::mutate(rng, history);
        }
        let expected = is_linearizable(&history);
        match check(&history) {
            Verdict::Linearizable(order) if expected => {
                good += 1;
                assert_is_order(&history, &order, u32::MAX);
            }
            Verdict::Violation(why) if !expected => {
                bad += 1;
                assert_explained(&history, &why);
                // Whatever places one claims: nothing impossible is accepted.
                if places.len() == history.len() {
                    assert_ne!(
                        in_places(&Register, &history, |id| places[id]),
                        Ok(()),
                        "seed {seed}"
                    );
                }
            }
            other => panic!("seed {seed}: {other:?}, expected {expected}: {history:#?}"),
        }
    }
    assert!(good > 2_000 && bad > 1_000, "{good} good ones and {bad} bad ones show little");
}

/// The first impossible answer is the first: everything before it has an order, by the one that tries everything.
#[test]
fn the_impossible_answer_is_the_first_that_is() {
    let mut seen = 0;
    for seed in 0..3_000 {
        let rng = &mut stream(seed, "first", 0);
        let plan = small(rng);
        let run = generate::run(rng, &plan);
        let history = generate::mutate(rng, run.history);
        if let Verdict::Violation(why) = check(&history) {
            seen += 1;
            assert!(!is_linearizable(&generate::beginning(&history, why.through)), "seed {seed}");
            assert!(
                is_linearizable(&generate::beginning(&history, why.through - 1)),
                "seed {seed}"
            );
        }
    }
    assert!(seen > 300, "{seen}");
}

#[test]
fn a_stale_read_and_a_read_of_nothing_are_found_in_long_histories() {
    let mut stale = 0;
    for seed in 0..200 {
        let rng = &mut stream(seed, "long", 0);
        let plan = Plan { clients: 5, operations: 300, values: u64::MAX, lost_percent: 3 };
        let Run { history, places } = generate::run(rng, &plan);
        assert!(check(&history).is_linearizable(), "seed {seed}");
        let phantom = generate::with_read(rng, &history, |_| Some(u64::MAX - 1)).unwrap();
        assert_explained(&phantom, &violation(&phantom));
        assert!(matches!(
            in_places(&Register, &phantom, |id| places[id]),
            Err(Misplaced::Refused(_, _))
        ));
        let old = |read| generate::overwritten_before(&history, read);
        if let Some(history) = generate::with_read(rng, &history, old) {
            stale += 1;
            assert_explained(&history, &violation(&history));
            assert_ne!(in_places(&Register, &history, |id| places[id]), Ok(()));
        }
    }
    assert!(stale > 150, "{stale}");
}

#[test]
fn an_order_that_contradicts_real_time_is_refused() {
    let at = Duration::from_millis;
    let mut history = Registers::new();
    for (value, time) in [(1, 0), (2, 10)] {
        let write = history.call(1, at(time), Ask::Write(value));
        history.done(write, at(time + 5), Reply::Done);
    }
    let read = history.call(2, at(20), Ask::Read);
    history.done(read, at(25), Reply::Value(1));
    let placed = |places: [Option<u64>; 3]| in_places(&Register, &history, move |id| places[id]);
    assert_eq!(placed([Some(2), Some(1), Some(2)]), Err(Misplaced::Backwards(1, 0)));
    assert_eq!(placed([Some(1), Some(2), Some(1)]), Err(Misplaced::Backwards(2, 1)));
    assert_eq!(placed([Some(1), Some(2), Some(2)]), Err(Misplaced::Refused(2, 2)));
    assert_eq!(placed([Some(1), None, Some(2)]), Err(Misplaced::Place(1)));
    assert_eq!(placed([Some(1), Some(1), Some(2)]), Err(Misplaced::Backwards(1, 0)));
}

#[test]
fn two_writes_at_one_place_are_refused() {
    let mut history = Registers::new();
    let one = history.call(1, Duration::ZERO, Ask::Write(1));
    let other = history.call(2, Duration::ZERO, Ask::Write(2));
    history.done(one, Duration::ZERO, Reply::Done);
    history.done(other, Duration::ZERO, Reply::Done);
    let shared = in_places(&Register, &history, |_| Some(1));
    assert_eq!(shared, Err(Misplaced::Shared(0, 1)));
    assert_eq!(in_places(&Register, &history, |id| Some(2 - id as u64)), Ok(()));
}

/// An open write may take effect long after, or never; it is no excuse for an answer that needs it twice.
#[test]
fn an_open_write_takes_effect_once_or_never() {
    let at = Duration::from_millis;
    let mut history = Registers::new();
    let lost = history.call(1, at(0), Ask::Write(7));
    history.gave_up(lost, at(10));
    let mut next = 20;
    let mut done = |history: &mut Registers, ask, reply| {
        let id = history.call(2, at(next), ask);
        history.done(id, at(next + 1), reply);
        next += 10;
        id
    };
    done(&mut history, Ask::Read, Reply::Value(0));
    done(&mut history, Ask::Write(8), Reply::Done);
    done(&mut history, Ask::Read, Reply::Value(8));
    done(&mut history, Ask::Read, Reply::Value(7));
    assert!(check(&history).is_linearizable(), "it took effect late");
    done(&mut history, Ask::Write(9), Reply::Done);
    let again = done(&mut history, Ask::Read, Reply::Value(7));
    assert_eq!(violation(&history).operation, again, "once is once");
}

/// What was said to have no effect and had one is found.
#[test]
fn no_effect_means_none() {
    let at = Duration::from_millis;
    let mut history = Registers::new();
    let failed = history.call(1, at(0), Ask::Write(7));
    history.no_effect(failed, at(10));
    let read = history.call(2, at(20), Ask::Read);
    history.done(read, at(30), Reply::Value(7));
    assert_eq!(violation(&history).operation, read);
}

/// Twenty open writes make a million sets of those that took effect; which of them are worth a look are few.
#[test]
fn many_open_operations_do_not_double_the_search() {
    let at = Duration::from_millis;
    let mut history = Registers::new();
    for value in 1..=40 {
        let lost = history.call(value, at(0), Ask::Write(value));
        history.gave_up(lost, at(1));
    }
    for round in 0..50 {
        let write = history.call(100, at(10), Ask::Swap(100 + round));
        history.done(write, at(11), Reply::Value(if round == 0 { 0 } else { 99 + round }));
    }
    let read = history.call(101, at(20), Ask::Read);
    history.done(read, at(21), Reply::Value(1_000));
    let limits = Limits { steps: 200_000, configurations: 20_000 };
    let verdict = linearizable(&Register, &history, limits);
    let Verdict::Violation(why) = verdict else { panic!("{verdict:?}") };
    assert_eq!(why.operation, read);
}

/// What was not decided is not passed, and where a search stops does not depend on the machine.
#[test]
fn a_search_that_is_too_hard_is_unknown() {
    let mut history = Registers::new();
    let writes: Vec<_> =
        (1..=12).map(|value| history.call(value, Duration::ZERO, Ask::Swap(value))).collect();
    for write in writes {
        history.done(write, Duration::ZERO, Reply::Value(77));
    }
    let tries = |steps| linearizable(&Register, &history, Limits { steps, ..Limits::default() });
    assert_eq!(tries(5), Verdict::Unknown);
    assert!(matches!(tries(1_000_000), Verdict::Violation(_)));
    let few = Limits { configurations: 0, ..Limits::default() };
    assert_eq!(linearizable(&Register, &history, few), Verdict::Unknown);
}

#[test]
fn keys_are_checked_apart() {
    let mut history: History<(char, Ask), Reply> = History::new();
    for (key, value) in [('a', 1), ('b', 2), ('a', 3)] {
        let write = history.call(1, Duration::ZERO, (key, Ask::Write(value)));
        history.done(write, Duration::ZERO, Reply::Done);
    }
    for (key, value) in [('a', 3), ('b', 0)] {
        let read = history.call(1, Duration::ZERO, (key, Ask::Read));
        history.done(read, Duration::ZERO, Reply::Value(value));
    }
    let keys = history.by_key(|(key, _)| *key);
    let verdicts: Vec<bool> = keys
        .into_values()
        .map(|part| check(&part.map(|(_, ask)| ask, |_, reply| reply)).is_linearizable())
        .collect();
    assert_eq!(verdicts, [true, false]);
}
