//! A verdict in words, and the bars of its picture.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::check::history::{Answer, History, OperationId, Recorded};
use crate::check::linearizable::{Impossible, Refusal};
use crate::check::model::{Next, Tell};
use crate::check::page::{Bar, Look};

/// How many operations before the end are shown at least, and how many at most if it takes more to see the reason.
const SHOWN: usize = 24;
const SHOWN_MAX: usize = 80;
/// How many states are told of in a sentence of their own, and how many in a list.
const REASONS_MAX: usize = 3;
const STATES_MAX: usize = 8;

/// What there is to tell about a history, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Story {
    /// What happened, in a sentence.
    pub sentence: String,
    /// Why that cannot be, in one sentence each.
    pub reasons: Vec<String>,
    /// How to read what stands in the bars.
    pub legend: String,
    /// The operations worth a look, in the order of their calls.
    pub bars: Vec<Bar>,
    /// How many others the history has before its last moment.
    pub left_out: usize,
}

struct Teller<'a, M: Tell> {
    model: &'a M,
    history: &'a History<M::Input, M::Output>,
    /// What came later does not count.
    through: u32,
    /// Places in the order that was found, from 1.
    places: BTreeMap<OperationId, usize>,
    /// The state before each place, and after the last.
    states: Vec<M::State>,
    order: &'a [OperationId],
}

impl Story {
    /// The story of a history that cannot be. Clients are called by their numbers.
    pub fn of<M: Tell>(
        model: &M,
        history: &History<M::Input, M::Output>,
        why: &Impossible<M::State>,
    ) -> Self {
        let teller = Teller::new(model, history, &why.order, why.through);
        let culprit = why.operation;
        let witness = teller.witness(why);
        let window = teller.right_until(culprit);
        let mut reasons = Vec::new();
        if let Some((from, until)) = window {
            reasons.push(teller.once_right(from, until));
        }
        reasons.extend(teller.reasons(why, witness));
        if !why.is_first {
            reasons.push(
                "The search for an earlier impossible answer was given up at its limits."
                    .to_owned(),
            );
        }
        let named = [Some(culprit), witness];
        let named = named
            .into_iter()
            .flatten()
            .chain(window.into_iter().flat_map(|(from, until)| from.into_iter().chain([until])));
        let then = why.refusals.iter().filter_map(|refusal| refusal.then).take(REASONS_MAX);
        let (bars, left_out) = teller.bars(Some(culprit), &named.chain(then).collect());
        let sentence = teller.sentence(culprit, witness);
        Self { sentence, reasons, legend: model.legend(), bars, left_out }
    }

    /// The last operations of a history that can be explained by this order.
    pub fn of_order<M: Tell>(
        model: &M,
        history: &History<M::Input, M::Output>,
        order: &[OperationId],
    ) -> Self {
        let teller = Teller::new(model, history, order, u32::MAX);
        let (bars, left_out) = teller.bars(None, &BTreeSet::new());
        Self { legend: model.legend(), bars, left_out, ..Self::default() }
    }
}

impl<'a, M: Tell> Teller<'a, M> {
    fn new(
        model: &'a M,
        history: &'a History<M::Input, M::Output>,
        order: &'a [OperationId],
        through: u32,
    ) -> Self {
        let mut states = vec![model.initial()];
        for &id in order {
            let recorded = &history.operations()[id];
            let state = states.last().expect("the initial one");
            let output = recorded.done_by(through).map(|(output, _)| output);
            // The last answer of an impossible history has its effect in the order, and not its output.
            let next = match model.step(state, &recorded.input, output) {
                Next::Refused => model.step(state, &recorded.input, None),
                next => next,
            };
            states.push(match next {
                Next::To(state) => state,
                Next::Same | Next::Refused => state.clone(),
            });
        }
        let places = order.iter().enumerate().map(|(place, id)| (*id, place + 1)).collect();
        Self { model, history, through, places, states, order }
    }

    fn recorded(&self, id: OperationId) -> &Recorded<M::Input, M::Output> {
        &self.history.operations()[id]
    }

    /// "client 3 read x = 4".
    fn deed(&self, id: OperationId) -> String {
        let recorded = self.recorded(id);
        let output = recorded.done_by(self.through).map(|(output, _)| output);
        format!("client {} {}", recorded.client, self.model.deed(&recorded.input, output))
    }

    /// "client 3 wrote x = 4", whatever it was told.
    fn effect(&self, id: OperationId) -> String {
        let recorded = self.recorded(id);
        format!("client {} {}", recorded.client, self.model.deed(&recorded.input, None))
    }

    /// ", acknowledged at 1.198 s", or that it was not.
    fn acknowledged(&self, id: OperationId) -> String {
        match self.recorded(id).done_by(self.through) {
            Some((_, ended)) => format!("acknowledged at {}", seconds(ended.at)),
            None => "which was not acknowledged".to_owned(),
        }
    }

    /// The operation that left the state which the culprit should have seen, and was acknowledged before it was called.
    fn witness(&self, why: &Impossible<M::State>) -> Option<OperationId> {
        let called = self.recorded(why.operation).called.order;
        let ended = |id| Some((self.recorded(id).done_by(called)?.1.order, id));
        let refused = why.refusals.iter().filter(|refusal| refusal.then.is_none());
        refused.filter_map(|refusal| ended(refusal.after?)).max().map(|(_, id)| id)
    }

    fn sentence(&self, culprit: OperationId, witness: Option<OperationId>) -> String {
        let recorded = self.recorded(culprit);
        let ended = recorded.ended.expect("it was answered").at;
        let mut sentence = format!("{} at {}, although ", self.deed(culprit), seconds(ended));
        sentence.replace_range(..1, "C");
        match witness {
            Some(witness) => {
                let client = format!("client {}", recorded.client);
                let other = self.recorded(witness);
                let (who, asker) = match other.client == recorded.client {
                    true => ("it".to_owned(), "it"),
                    false => (format!("client {}", other.client), client.as_str()),
                };
                sentence.push_str(&format!(
                    "{who} {}, {}, before {asker} asked (at {}).",
                    self.model.deed(&other.input, None),
                    self.acknowledged(witness),
                    seconds(recorded.called.at),
                ));
            }
            None => sentence.push_str("no order of what was asked and answered allows that."),
        }
        sentence
    }

    /// The last stretch of the order in which the answer would have been right: the operation that began it and the one
    /// that ended it.
    fn right_until(&self, culprit: OperationId) -> Option<(Option<OperationId>, OperationId)> {
        let recorded = self.recorded(culprit);
        let output = recorded.output();
        let is_right = |state| self.model.step(state, &recorded.input, output) != Next::Refused;
        let last = (0..self.order.len()).rev().find(|place| is_right(&self.states[*place]))?;
        let ended_by = self.order[last];
        let state = &self.states[last];
        let first = (0..last).rev().find(|place| self.states[*place] != *state);
        (ended_by != culprit && self.states[last + 1] != *state)
            .then(|| (first.map(|place| self.order[place]), ended_by))
    }

    fn once_right(&self, from: Option<OperationId>, until: OperationId) -> String {
        let from = match from {
            Some(from) => format!("after {}", self.effect(from)),
            None => "at first".to_owned(),
        };
        let until = format!("{}, {}", self.effect(until), self.acknowledged(until));
        format!("The answer was right {from}, until {until}.")
    }

    /// Why none of the states will do that it could have met: that of the witness first, then those in which it would
    /// have been right and something else wrong, then all others in one sentence.
    fn reasons(&self, why: &Impossible<M::State>, witness: Option<OperationId>) -> Vec<String> {
        let is_witness = |refusal: &&Refusal<M::State>| {
            refusal.then.is_none() && refusal.after.is_some() && refusal.after == witness
        };
        let mut reasons: Vec<String> = Vec::new();
        if let Some(refusal) = why.refusals.iter().find(is_witness) {
            reasons.push(format!(
                "With {} ({}) the answer would have been another.",
                self.model.state(&refusal.state),
                self.after(refusal)
            ));
        }
        let allowed = why.refusals.iter().filter_map(|refusal| Some((refusal, refusal.then?)));
        reasons.extend(allowed.take(REASONS_MAX).map(|(refusal, then)| {
            format!(
                "With {} ({}) the answer would have been right, but then it fits nowhere that {}, {}.",
                self.model.state(&refusal.state),
                self.after(refusal),
                self.deed(then),
                self.acknowledged(then),
            )
        }));
        let others: Vec<String> = why
            .refusals
            .iter()
            .filter(|refusal| refusal.then.is_none() && !is_witness(refusal))
            .map(|refusal| self.model.state(&refusal.state))
            .collect();
        if !others.is_empty() {
            let more = match others.len().saturating_sub(STATES_MAX) {
                0 => String::new(),
                more => format!(" and {more} others"),
            };
            let listed = others[..others.len().min(STATES_MAX)].join("; ");
            let also = if reasons.is_empty() { "could" } else { "could also" };
            reasons.push(format!(
                "What it {also} have met, and where the answer would have been another: {listed}{more}."
            ));
        }
        reasons
    }

    fn after(&self, refusal: &Refusal<M::State>) -> String {
        match refusal.after {
            Some(after) => format!("after {}, {}", self.effect(after), self.acknowledged(after)),
            None => "as at first".to_owned(),
        }
    }

    /// Bars for the end of the history, and for what is named.
    fn bars(
        &self,
        culprit: Option<OperationId>,
        named: &BTreeSet<OperationId>,
    ) -> (Vec<Bar>, usize) {
        let operations = self.history.operations();
        let count = operations.partition_point(|recorded| recorded.called.order <= self.through);
        let wanted = named.first().copied().unwrap_or(count).min(count.saturating_sub(SHOWN));
        let first = wanted.max(count.saturating_sub(SHOWN_MAX));
        let shown: Vec<OperationId> =
            named.iter().copied().filter(|id| *id < first).chain(first..count).collect();
        let bars = shown.iter().map(|id| self.bar(*id, culprit)).collect();
        (bars, count - shown.len())
    }

    fn bar(&self, id: OperationId, culprit: Option<OperationId>) -> Bar {
        let recorded = self.recorded(id);
        let ended = recorded.ended.filter(|ended| ended.order <= self.through);
        let output = recorded.done_by(self.through).map(|(output, _)| output);
        let place = self.places.get(&id).copied();
        let look = match (&recorded.answer, place) {
            _ if culprit == Some(id) => Look::Impossible,
            (Answer::NoEffect, _) if ended.is_some() => Look::NoEffect,
            (_, Some(place)) if output.is_some() => Look::Fits(place),
            (_, place) => Look::Open(place),
        };
        let mut detail = vec![self.deed(id), format!("called at {}", seconds(recorded.called.at))];
        detail.push(match (ended, output, &recorded.answer) {
            (Some(ended), Some(_), _) => format!("answered at {}", seconds(ended.at)),
            (Some(ended), None, Answer::NoEffect) => {
                format!("told at {} that it has no effect", seconds(ended.at))
            }
            (Some(ended), None, _) => format!("given up at {}, outcome unknown", seconds(ended.at)),
            (None, ..) => "no answer yet".to_owned(),
        });
        if let Some(place) = place.filter(|_| look != Look::Impossible) {
            let [before, after] = [place - 1, place].map(|at| self.model.state(&self.states[at]));
            detail.push(format!("place {place} in the order: {before} before, {after} after"));
        }
        let label = self.model.label(&recorded.input, output);
        Bar { client: recorded.client, called: recorded.called, ended, label, look, detail }
    }
}

/// A time, in seconds with milliseconds.
pub(super) fn seconds(at: Duration) -> String {
    format!("{:.3} s", at.as_secs_f64())
}
