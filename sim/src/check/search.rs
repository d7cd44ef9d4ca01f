//! The search for an order: Wing and Gong's, with Lowe's memory.
//!
//! Calls and returns of operations with answers stand in a list, in the order in which they happened. What may come next
//! in an order are the operations that were called before the first return in the list: no other has ended before they
//! began. One is taken out with its return, if the state allows its answer, and the search goes on behind it; when
//! nothing goes on, the last one is put back and the next is tried. A list that has become empty is an order found.
//!
//! Three things keep it short. A configuration that was met is not entered again ([`Memo`]). An operation that reads
//! needs no second opinion: if the state allows its answer now, then in every order that goes on from here it can be moved
//! to the front, since nobody notices. And open operations, which nobody waits for, are used only where nothing goes on
//! without them, and then as few as possible: first one of them, then two, and so on. What more of them lead to is mostly
//! no better than what fewer did, and that is seen only if the fewer came first.

use crate::check::history::{History, OperationId};
use crate::check::memo::{Memo, States};
use crate::check::model::{Model, Next};

/// How much a search may cost before it is given up. The same history and limits come to the same end on every machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Steps of the model.
    pub steps: u64,
    /// Configurations that are remembered, of some 30 bytes each and the room for its state.
    pub configurations: usize,
}

impl Default for Limits {
    /// Some seconds, and some hundred megabytes.
    fn default() -> Self {
        Self { steps: 20_000_000, configurations: 4_000_000 }
    }
}

/// What a search comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// An order in which everything fits.
    Order(Vec<OperationId>),
    /// There is none.
    None,
    /// The limits were reached.
    Unknown,
}

/// An operation that can be put into an order.
struct Item<'a, M: Model> {
    id: OperationId,
    called: u32,
    input: &'a M::Input,
    output: Option<&'a M::Output>,
    is_read: bool,
}

/// A configuration. Which open operations it has used is kept beside it.
#[derive(Clone, Copy, Debug)]
struct Node {
    state: u32,
    /// The node of the same level that it came from, by an open operation; the first node of a level has none.
    from: Option<(usize, usize)>,
}

/// The configurations with the same answered operations behind them: the first, and what open operations lead to from
/// there, those with fewer of them first.
#[derive(Clone, Copy, Debug)]
struct Level {
    first: usize,
    /// The one that is looked at.
    at: usize,
    /// The call or return that is tried next from there.
    cursor: usize,
    /// The call by which the level was entered from the one below, and whether that needs no second opinion.
    entered_by: usize,
    is_certain: bool,
}

/// A state in which the watched operation was tried.
#[derive(Clone, Debug)]
pub(super) struct Tried<S> {
    pub(super) state: S,
    /// The operation that led to the state.
    pub(super) after: Option<OperationId>,
    /// How many operations the order had by then.
    pub(super) depth: usize,
    /// If the state allowed it: what was found to fit nowhere after that.
    pub(super) then: Option<OperationId>,
}

/// What is noted about one operation while an order is searched in vain.
struct Watch {
    operation: OperationId,
    /// By state: the operation that led to it, and how long the order was.
    refused: Vec<(u32, Option<OperationId>, usize)>,
    allowed: Vec<(u32, Option<OperationId>, usize, OperationId)>,
}

/// A history, or the beginning of one, and how far the search in it has come.
///
/// Place 0 of the list is its head. The call of answered operation `n` is at `2n + 1`, its return at `2n + 2`; the list
/// ends with [`END`].
pub(super) struct Search<'a, M: Model> {
    model: &'a M,
    answered: Vec<Item<'a, M>>,
    open: Vec<Item<'a, M>>,
    returns: Vec<u32>,
    next: Vec<usize>,
    previous: Vec<usize>,
    /// Which answered operations have a place, the first word that is not full, and the last that is not empty.
    done: Vec<u64>,
    base: usize,
    top: usize,
    states: States<M::State>,
    memo: Memo,
    levels: Vec<Level>,
    nodes: Vec<Node>,
    /// For each node a set of open operations, in so many words.
    used: Vec<u64>,
    used_words: usize,
    steps: u64,
    watch: Option<Watch>,
}

const END: usize = usize::MAX - 1;

impl<'a, M: Model> Search<'a, M> {
    /// Everything that was called by `through`. What was answered later is open.
    pub(super) fn new(
        model: &'a M,
        history: &'a History<M::Input, M::Output>,
        through: u32,
    ) -> Self {
        let (mut answered, mut open) = (Vec::new(), Vec::new());
        // Where each moment of the history goes in the list; times 2, plus 1 for a return.
        let mut moments = Vec::with_capacity(2 * history.len());
        let mut returns = Vec::new();
        for (id, recorded) in history.operations().iter().enumerate() {
            let called = recorded.called.order;
            if called > through || matches!(recorded.answer, super::Answer::NoEffect) {
                continue;
            }
            let (output, ended) = recorded.done_by(through).unzip();
            let is_read = model.is_read(&recorded.input, output);
            let item = Item { id, called, input: &recorded.input, output, is_read };
            match ended {
                Some(ended) => {
                    let call = 2 * answered.len() + 1;
                    moments.push((called, call));
                    moments.push((ended.order, call + 1));
                    returns.push(ended.order);
                    answered.push(item);
                }
                // Nobody heard what it would have read.
                None if is_read => {}
                None => open.push(item),
            }
        }
        moments.sort_unstable();
        let (mut next, mut previous) = (vec![END; moments.len() + 1], vec![0; moments.len() + 1]);
        let mut last = 0;
        for (_, place) in moments {
            (next[last], previous[place]) = (place, last);
            last = place;
        }
        let mut states = States::new();
        let first = Node { state: states.number(model.initial()), from: None };
        let used_words = open.len().div_ceil(64);
        Self {
            model,
            done: vec![0; answered.len().div_ceil(64)],
            levels: vec![Level {
                first: 0,
                at: 0,
                cursor: next[0],
                entered_by: 0,
                is_certain: false,
            }],
            nodes: vec![first],
            used: vec![0; used_words],
            used_words,
            answered,
            open,
            returns,
            next,
            previous,
            base: 0,
            top: 0,
            states,
            memo: Memo::default(),
            steps: 0,
            watch: None,
        }
    }

    /// Notes in which states one operation was tried.
    pub(super) fn watch(&mut self, operation: OperationId) {
        self.watch = Some(Watch { operation, refused: Vec::new(), allowed: Vec::new() });
    }

    /// The states in which the watched operation was tried, those first that were farthest.
    pub(super) fn tried(self) -> Vec<Tried<M::State>> {
        let Some(Watch { refused, allowed, .. }) = self.watch else { return Vec::new() };
        let state = |number| self.states.get(number).clone();
        let allowed = allowed.into_iter().map(|(number, after, depth, then)| Tried {
            state: state(number),
            after,
            depth,
            then: Some(then),
        });
        let refused = refused.into_iter().map(|(number, after, depth)| Tried {
            state: state(number),
            after,
            depth,
            then: None,
        });
        let mut tried: Vec<_> = allowed.chain(refused).collect();
        tried.sort_by_key(|tried| std::cmp::Reverse(tried.depth));
        tried
    }

    /// Searches to the end, or to the limits.
    pub(super) fn go(&mut self, limits: Limits) -> Found {
        self.take_reads();
        loop {
            if self.next[0] == END {
                return Found::Order(self.path().into_iter().map(|(id, _)| id).collect());
            }
            if self.steps >= limits.steps || self.memo.len() >= limits.configurations {
                return Found::Unknown;
            }
            let cursor = self.level().cursor;
            debug_assert_ne!(cursor, END, "each call in the list has its return behind it");
            if cursor % 2 == 1 {
                self.level_mut().cursor = self.next[cursor];
                // A read that fitted would have been taken.
                if !self.answered[cursor / 2].is_read {
                    self.try_out(cursor);
                }
                continue;
            }
            self.note_dead_end();
            self.use_open(self.returns[cursor / 2 - 1]);
            if !self.go_on() {
                return Found::None;
            }
        }
    }

    fn level(&self) -> &Level {
        self.levels.last().expect("the first level stays")
    }

    fn level_mut(&mut self) -> &mut Level {
        self.levels.last_mut().expect("the first level stays")
    }

    fn state(&self) -> u32 {
        self.nodes[self.level().at].state
    }

    /// Takes all reads that fit, one after the other.
    fn take_reads(&mut self) {
        let mut place = self.next[0];
        while place != END && place % 2 == 1 {
            let state = self.state();
            if self.answered[place / 2].is_read && self.next_state(state, Ok(place / 2)).is_some() {
                self.enter(place, state, true);
                place = self.next[0];
            } else {
                place = self.next[place];
            }
        }
    }

    /// Takes an answered operation if the state allows it and the configuration behind it is new.
    fn try_out(&mut self, call: usize) {
        let Some(state) = self.next_state(self.state(), Ok(call / 2)) else { return };
        self.enter(call, state, false);
        let done = self.done.get(self.base..=self.top).unwrap_or_default();
        let base = u32::try_from(self.base).expect("words of fewer bits than operations");
        let used = &self.used[self.used.len() - self.used_words..];
        if self.memo.visit(state, base, done, used) {
            self.take_reads();
        } else {
            self.leave();
        }
    }

    /// Adds to the level what open operations, called before `bound`, lead to from here, one of them each.
    fn use_open(&mut self, bound: u32) {
        let at = self.level().at;
        for open in 0..self.open.len() {
            let (word, bit) = (open / 64, 1 << (open % 64));
            if self.open[open].called > bound {
                return;
            }
            if self.used[at * self.used_words + word] & bit != 0 {
                continue;
            }
            let Some(state) = self.next_state(self.nodes[at].state, Err(open)) else { continue };
            // What changes nothing helps nobody.
            if state == self.nodes[at].state {
                continue;
            }
            let start = self.used.len();
            self.used.extend_from_within(at * self.used_words..(at + 1) * self.used_words);
            self.used[start + word] |= bit;
            let done = self.done.get(self.base..=self.top).unwrap_or_default();
            let base = u32::try_from(self.base).expect("words of fewer bits than operations");
            if self.memo.visit(state, base, done, &self.used[start..]) {
                self.nodes.push(Node { state, from: Some((at, open)) });
            } else {
                self.used.truncate(start);
            }
        }
    }

    /// Goes to the next configuration, of this level or of one below; answers whether there was one.
    fn go_on(&mut self) -> bool {
        loop {
            let (next, first) = (self.level().at + 1, self.next[0]);
            if next < self.nodes.len() {
                let level = self.level_mut();
                (level.at, level.cursor) = (next, first);
                self.take_reads();
                return true;
            }
            if self.levels.len() == 1 {
                return false;
            }
            // After a certain step nothing else is to be tried at the configuration where it was taken.
            if !self.leave() {
                return true;
            }
        }
    }

    /// The state behind an operation, answered (`Ok`) or open, if a state allows it.
    fn next_state(&mut self, state: u32, operation: Result<usize, usize>) -> Option<u32> {
        let item = match operation {
            Ok(answered) => &self.answered[answered],
            Err(open) => &self.open[open],
        };
        self.steps += 1;
        let id = item.id;
        match self.model.step(self.states.get(state), item.input, item.output) {
            Next::To(state) => Some(self.states.number(state)),
            Next::Same => Some(state),
            Next::Refused => {
                self.note_refusal(id);
                None
            }
        }
    }

    /// Puts an answered operation behind the present configuration.
    fn enter(&mut self, call: usize, state: u32, is_certain: bool) {
        self.unlink(call);
        self.unlink(call + 1);
        let word = call / 2 / 64;
        self.done[word] |= 1 << (call / 2 % 64);
        self.top = self.top.max(word);
        while self.done.get(self.base) == Some(&u64::MAX) {
            self.base += 1;
        }
        let at = self.level().at;
        let first = self.nodes.len();
        self.nodes.push(Node { state, from: None });
        self.used.extend_from_within(at * self.used_words..(at + 1) * self.used_words);
        let cursor = self.next[0];
        self.levels.push(Level { first, at: first, cursor, entered_by: call, is_certain });
    }

    /// Takes it out again; answers whether it had been a certain step.
    fn leave(&mut self) -> bool {
        let Level { first, entered_by: call, is_certain, .. } =
            self.levels.pop().expect("entered before");
        self.nodes.truncate(first);
        self.used.truncate(first * self.used_words);
        self.link(call + 1);
        self.link(call);
        let word = call / 2 / 64;
        self.done[word] &= !(1 << (call / 2 % 64));
        self.base = self.base.min(word);
        while self.top > 0 && self.done[self.top] == 0 {
            self.top -= 1;
        }
        is_certain
    }

    /// The operations that led to the present configuration, each with the state before it.
    fn path(&self) -> Vec<(OperationId, u32)> {
        let mut path = Vec::new();
        for (place, level) in self.levels.iter().enumerate() {
            let begin = path.len();
            let mut node = self.nodes[level.at];
            while let Some((from, open)) = node.from {
                node = self.nodes[from];
                path.push((self.open[open].id, node.state));
            }
            path[begin..].reverse();
            if let Some(entered) = self.levels.get(place + 1) {
                let id = self.answered[entered.entered_by / 2].id;
                path.push((id, self.nodes[level.at].state));
            }
        }
        path
    }

    fn unlink(&mut self, place: usize) {
        let (before, behind) = (self.previous[place], self.next[place]);
        self.next[before] = behind;
        if behind != END {
            self.previous[behind] = before;
        }
    }

    fn link(&mut self, place: usize) {
        let (before, behind) = (self.previous[place], self.next[place]);
        self.next[before] = place;
        if behind != END {
            self.previous[behind] = place;
        }
    }

    fn note_refusal(&mut self, operation: OperationId) {
        if self.watch.as_ref().is_none_or(|watch| watch.operation != operation) {
            return;
        }
        let (path, state) = (self.path(), self.state());
        let (after, depth) = (changed_by(&path, state), path.len());
        let watch = self.watch.as_mut().expect("seen above");
        match watch.refused.iter_mut().find(|(known, ..)| *known == state) {
            Some(known) if known.2 >= depth => {}
            Some(known) => *known = (state, after, depth),
            None => watch.refused.push((state, after, depth)),
        }
    }

    /// If the watched operation has its place: what stands in the way now? It is at the return that the cursor is at.
    fn note_dead_end(&mut self) {
        let Some(watched) = self.watch.as_ref().map(|watch| watch.operation) else { return };
        let path = self.path();
        let Some(at) = path.iter().position(|(id, _)| *id == watched) else { return };
        let then = self.answered[self.level().cursor / 2 - 1].id;
        let state = path[at].1;
        let (after, depth) = (changed_by(&path[..at], state), path.len());
        let watch = self.watch.as_mut().expect("seen above");
        match watch.allowed.iter_mut().find(|(known, ..)| *known == state) {
            Some(known) if known.2 >= depth => {}
            Some(known) => *known = (state, after, depth, then),
            None => watch.allowed.push((state, after, depth, then)),
        }
    }
}

/// The last operation of a path that changed the state, which is this one behind it.
fn changed_by(path: &[(OperationId, u32)], mut state: u32) -> Option<OperationId> {
    for (id, before) in path.iter().rev() {
        if *before != state {
            return Some(*id);
        }
        state = *before;
    }
    None
}
