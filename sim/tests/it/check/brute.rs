//! A checker for small histories that does nothing clever: every permutation of every subset.

use lattice_sim::check::{Answer, Ask, History, Model, Next, Recorded, Register, Reply};

type Operation = Recorded<Ask, Reply>;

/// Whether any order of the answered operations and some of the open ones is one of a register.
pub(super) fn is_linearizable(history: &History<Ask, Reply>) -> bool {
    let answered: Vec<&Operation> =
        history.operations().iter().filter(|operation| operation.output().is_some()).collect();
    let open: Vec<&Operation> =
        history.operations().iter().filter(|one| one.answer == Answer::Open).collect();
    (0..1 << open.len()).any(|subset: u32| {
        let some = open.iter().enumerate().filter(|(place, _)| subset & (1 << place) != 0);
        let mut chosen: Vec<&Operation> =
            answered.iter().copied().chain(some.map(|(_, one)| *one)).collect();
        any_permutation(&mut chosen, 0)
    })
}

fn any_permutation(operations: &mut Vec<&Operation>, fixed: usize) -> bool {
    if fixed == operations.len() {
        return agrees_with_real_time(operations) && is_sequential(operations);
    }
    (fixed..operations.len()).any(|next| {
        operations.swap(fixed, next);
        let found = any_permutation(operations, fixed + 1);
        operations.swap(fixed, next);
        found
    })
}

fn agrees_with_real_time(order: &[&Operation]) -> bool {
    order.iter().enumerate().all(|(place, before)| {
        order[place + 1..].iter().all(|behind| {
            behind.output().is_none() || behind.ended.is_none_or(|end| end > before.called)
        })
    })
}

fn is_sequential(order: &[&Operation]) -> bool {
    let mut state = Register.initial();
    order.iter().all(|operation| {
        match Register.step(&state, &operation.input, operation.output()) {
            Next::Refused => return false,
            Next::Same => {}
            Next::To(next) => state = next,
        }
        true
    })
}
