//! Histories: of a real register with random delays, and what becomes of them when they are tampered with.

use std::collections::BTreeMap;
use std::time::Duration;

use lattice_sim::ChaCha8Rng;
use lattice_sim::check::{Answer, Ask, History, Model, Moment, Next, OperationId, Register, Reply};
use lattice_sim::random::{between, index};

/// What a history is made of.
pub(super) struct Plan {
    pub(super) clients: u64,
    pub(super) operations: usize,
    /// How many values are written; each only once if there are more than operations.
    pub(super) values: u64,
    /// Of a hundred operations so many get no answer.
    pub(super) lost_percent: u64,
}

/// A history, and the places at which its operations took effect.
pub(super) struct Run {
    pub(super) history: History<Ask, Reply>,
    pub(super) places: Vec<Option<u64>>,
}

/// Where a client is.
#[derive(Clone, Copy)]
enum Stage {
    Called,
    Applied(Reply),
}

/// Clients that call, take effect and return in a random order of all these moments.
pub(super) fn run(rng: &mut ChaCha8Rng, plan: &Plan) -> Run {
    let mut run = Run { history: History::new(), places: Vec::new() };
    let (mut state, mut time, mut place, mut written) = (Register.initial(), 0, 0, 0);
    let mut busy: BTreeMap<u64, (OperationId, Stage)> = BTreeMap::new();
    loop {
        time += between(rng, 0, 5);
        let (client, at) = (between(rng, 1, plan.clients), Duration::from_millis(time));
        match busy.get(&client).copied() {
            None if run.history.len() == plan.operations => {
                if busy.is_empty() {
                    return run;
                }
            }
            None => {
                written += 1;
                let mut value = || match plan.values {
                    u64::MAX => written,
                    values => between(rng, 0, values),
                };
                let (one, other) = (value(), value());
                let ask = match between(rng, 0, 9) {
                    0..4 => Ask::Read,
                    4..7 => Ask::Write(one),
                    7 => Ask::CompareAndSwap(one, other),
                    _ => Ask::Swap(one),
                };
                busy.insert(client, (run.history.call(client, at, ask), Stage::Called));
                run.places.push(None);
            }
            Some((id, stage)) => {
                let is_lost = between(rng, 0, 99) < plan.lost_percent / 2;
                busy.remove(&client);
                match stage {
                    // Lost on its way there or, below, on its way back.
                    Stage::Called if is_lost => run.history.gave_up(id, at),
                    Stage::Called => {
                        let ask = run.history.operations()[id].input;
                        let reply = carry_out(&mut state, ask);
                        // A read stands where the last write does.
                        place += u64::from(ask != Ask::Read);
                        run.places[id] = Some(place);
                        busy.insert(client, (id, Stage::Applied(reply)));
                    }
                    Stage::Applied(_) if is_lost => run.history.gave_up(id, at),
                    Stage::Applied(reply) => run.history.done(id, at, reply),
                }
            }
        }
    }
}

fn carry_out(state: &mut u64, ask: Ask) -> Reply {
    let replies = [Reply::Done, Reply::Value(*state), Reply::Swapped(true), Reply::Swapped(false)];
    let fits = |reply: &Reply| Register.step(state, &ask, Some(reply)) != Next::Refused;
    let reply = replies.into_iter().find(fits).expect("a register answers everything");
    if let Next::To(next) = Register.step(state, &ask, None) {
        *state = next;
    }
    reply
}

/// A history again, from moments in a new order: `(key, operation, is the end)`.
fn rebuilt(
    history: &History<Ask, Reply>,
    mut moments: Vec<(i64, OperationId, bool)>,
) -> History<Ask, Reply> {
    moments.sort_unstable();
    let mut new = History::new();
    let mut ids = BTreeMap::new();
    for (place, (_, id, is_end)) in moments.into_iter().enumerate() {
        let at = Duration::from_millis(place as u64);
        let recorded = &history.operations()[id];
        if !is_end {
            ids.insert(id, new.call(recorded.client, at, recorded.input));
            continue;
        }
        match recorded.answer {
            Answer::Open => new.gave_up(ids[&id], at),
            Answer::Done(reply) => new.done(ids[&id], at, reply),
            Answer::NoEffect => new.no_effect(ids[&id], at),
        }
    }
    new
}

fn moments(history: &History<Ask, Reply>) -> Vec<(i64, OperationId, bool)> {
    let key = |moment: Moment| 10 * i64::from(moment.order);
    let recorded = history.operations().iter().enumerate();
    recorded
        .flat_map(|(id, one)| {
            let end = one.ended.map(|ended| (key(ended), id, true));
            [(key(one.called), id, false)].into_iter().chain(end)
        })
        .collect()
}

/// What had happened by a moment: calls after it never were, answers after it are not there yet.
pub(super) fn beginning(history: &History<Ask, Reply>, through: u32) -> History<Ask, Reply> {
    let mut moments = moments(history);
    moments.retain(|(key, ..)| *key <= 10 * i64::from(through));
    rebuilt(history, moments)
}

/// The same with other answers.
fn with_answers(
    history: &History<Ask, Reply>,
    answer: impl Fn(OperationId, Reply) -> Reply,
) -> History<Ask, Reply> {
    let mut id = 0;
    let ids = history.clone().map(
        |ask| {
            id += 1;
            (id - 1, ask)
        },
        |(id, _), reply| answer(*id, reply),
    );
    ids.map(|(_, ask)| ask, |_, reply| reply)
}

/// Tampers with a history: another value was read, two answers are exchanged, a write is gone, an interval has moved, an
/// answer came after all or did not.
pub(super) fn mutate(rng: &mut ChaCha8Rng, history: History<Ask, Reply>) -> History<Ask, Reply> {
    let count = history.len();
    if count == 0 {
        return history;
    }
    let (one, other) = (index(rng, count), index(rng, count));
    let shift = i64::try_from(between(rng, 0, 80)).unwrap() - 40;
    let replies = [one, other].map(|id| history.operations()[id].output().copied());
    match between(rng, 0, 5) {
        0 => {
            let value = between(rng, 0, 3);
            with_answers(&history, |id, reply| match reply {
                Reply::Value(_) if id == one => Reply::Value(value),
                Reply::Swapped(swapped) if id == one => Reply::Swapped(!swapped),
                reply => reply,
            })
        }
        1 => with_answers(&history, |id, reply| match replies {
            [Some(mine), Some(yours)] if id == one || id == other => {
                if id == one {
                    yours
                } else {
                    mine
                }
            }
            _ => reply,
        }),
        2 => {
            let mut moments = moments(&history);
            moments.retain(|(_, id, _)| *id != one);
            rebuilt(&history, moments)
        }
        3 => {
            let mut moments = moments(&history);
            for (key, id, _) in &mut moments {
                if *id == one {
                    *key += shift;
                }
            }
            rebuilt(&history, moments)
        }
        4 => {
            // Its end comes sooner or later, but never before its call.
            let mut moments = moments(&history);
            let call = moments.iter().find(|(_, id, _)| *id == one).unwrap().0;
            for (key, id, is_end) in &mut moments {
                if *id == one && *is_end {
                    *key = (*key + shift).max(call + 1);
                }
            }
            rebuilt(&history, moments)
        }
        _ => {
            let mut moments = moments(&history);
            moments.retain(|(_, id, is_end)| *id != one || !is_end);
            rebuilt(&history, moments)
        }
    }
}

/// The same, but one read, drawn from those for which there is one, has another value.
pub(super) fn with_read(
    rng: &mut ChaCha8Rng,
    history: &History<Ask, Reply>,
    value: impl Fn(OperationId) -> Option<u64>,
) -> Option<History<Ask, Reply>> {
    let reads: Vec<(OperationId, u64)> = history
        .operations()
        .iter()
        .enumerate()
        .filter(|(_, recorded)| recorded.input == Ask::Read && recorded.output().is_some())
        .filter_map(|(id, _)| Some((id, value(id)?)))
        .collect();
    let (read, value) = *reads.get(index(rng, reads.len().max(1)))?;
    Some(with_answers(history, |id, reply| if id == read { Reply::Value(value) } else { reply }))
}

/// A value that was written, then overwritten by a write that began after, all of it before a read was called. Values are
/// written once, so nothing excuses a read of it.
pub(super) fn overwritten_before(history: &History<Ask, Reply>, read: OperationId) -> Option<u64> {
    let called = history.operations()[read].called;
    let mut writes = history.operations()[..read].iter().rev().filter(|recorded| {
        let is_write = matches!(recorded.input, Ask::Write(_));
        is_write && recorded.output().is_some() && recorded.ended < Some(called)
    });
    let last = writes.next()?;
    let before = writes.find(|recorded| recorded.ended < Some(last.called))?;
    let Ask::Write(value) = before.input else { return None };
    Some(value)
}
