//! Is there an order? And if there is none, why.

use crate::check::history::{History, OperationId};
use crate::check::model::Model;
use crate::check::search::{Found, Limits, Search};

/// What a history was found to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict<S> {
    /// Linearizable: in this order, open operations among it as far as they have to have taken effect.
    Linearizable(Vec<OperationId>),
    /// No order explains it.
    Violation(Impossible<S>),
    /// Too hard within the limits. That is not a pass.
    Unknown,
}

impl<S> Verdict<S> {
    /// Whether it is known to be linearizable.
    pub fn is_linearizable(&self) -> bool {
        matches!(self, Self::Linearizable(_))
    }
}

/// Why no order explains a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Impossible<S> {
    /// The operation whose answer is impossible: up to the moment before, everything can be explained.
    pub operation: OperationId,
    /// That moment; what was called or said later has no part in it.
    pub through: u32,
    /// An order for everything that was said before. The operation itself may be in it, for its effect.
    pub order: Vec<OperationId>,
    /// The states which it could have met, and why each will not do; the likeliest first.
    pub refusals: Vec<Refusal<S>>,
    /// Whether the moment is known to be the first: if not, the limits were reached, and it may have been impossible
    /// even earlier.
    pub is_first: bool,
}

/// Why an operation cannot have taken effect in a state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal<S> {
    /// The state.
    pub state: S,
    /// The operation after which the machine was in it; nobody's if it was the first state.
    pub after: Option<OperationId>,
    /// If the answer would have been right in this state: the operation that could have had no place then.
    pub then: Option<OperationId>,
}

/// Searches for an order that explains a history.
///
/// The work is exponential at worst, and bounded by the limits. Histories of many keys are to be taken apart before.
pub fn linearizable<M: Model>(
    model: &M,
    history: &History<M::Input, M::Output>,
    limits: Limits,
) -> Verdict<M::State> {
    match Search::new(model, history, u32::MAX).go(limits) {
        Found::Order(order) => Verdict::Linearizable(order),
        Found::Unknown => Verdict::Unknown,
        Found::None => Verdict::Violation(explain(model, history, limits)),
    }
}

/// Finds the shortest beginning that is impossible. Each beginning of a linearizable history is linearizable, so the last
/// answer of the first that is not can be found by halving.
fn explain<M: Model>(
    model: &M,
    history: &History<M::Input, M::Output>,
    limits: Limits,
) -> Impossible<M::State> {
    let mut answers: Vec<(u32, OperationId)> = history
        .operations()
        .iter()
        .enumerate()
        .filter_map(|(id, recorded)| Some((recorded.done_by(u32::MAX)?.1.order, id)))
        .collect();
    answers.sort_unstable();
    // With the first `good` answers it is possible, with the first `bad` it is not.
    let (mut good, mut bad, mut is_first) = (0, answers.len(), true);
    let mut order = Vec::new();
    while bad - good > 1 {
        let middle = good.midpoint(bad);
        match Search::new(model, history, answers[middle - 1].0).go(limits) {
            Found::Order(found) => (good, order) = (middle, found),
            Found::None => bad = middle,
            // As good as good: what is found then is impossible, and perhaps not the first that is.
            Found::Unknown => (good, is_first) = (middle, false),
        }
    }
    let (through, operation) = answers[bad - 1];
    // With the calls up to just before that answer.
    if let Some(before) = through.checked_sub(1)
        && let Found::Order(found) = Search::new(model, history, before).go(limits)
    {
        order = found;
    }
    let mut search = Search::new(model, history, through);
    search.watch(operation);
    search.go(limits);
    let refusals = search
        .tried()
        .into_iter()
        .map(|tried| Refusal { state: tried.state, after: tried.after, then: tried.then })
        .collect();
    Impossible { operation, through, order, refusals, is_first }
}
