//! `ZUNION`, `ZINTER`, `ZDIFF`, their `STORE` forms, and `ZINTERCARD`. Plain sets take part, with a score of 1 for each member.
//!
//! The inputs are looked at one after the other, smallest first where the order does not matter to the result but to the work (and
//! to the rounding of sums, which is Redis's then). A union is gathered in a map by name; an intersection keeps of the
//! smallest input what the next ones have too. The work is bounded by the inputs' sizes.

use std::collections::BTreeMap;

use super::range::store;
use super::{member, members_head};
use crate::command::list::{count_of, integer_from};
use crate::command::{Context, Failure, integer, is_option};
use crate::engine::Engine;
use crate::resp::parse_double;
use crate::store::{Key, Keyspace};
use crate::types::Database;
use crate::value::sorted_set::compare;
use crate::value::{SetView, SortedSet, SortedSetView, View};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Operation {
    Union,
    Intersection,
    Difference,
}

/// What becomes of several scores of one member.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Aggregate {
    Sum,
    Min,
    Max,
}

impl Aggregate {
    /// Infinities that cancel each other out give 0.
    fn apply(self, score: f64, other: f64) -> f64 {
        match self {
            Self::Sum => or_zero(score + other),
            Self::Min if other < score => other,
            Self::Max if other > score => other,
            Self::Min | Self::Max => score,
        }
    }
}

fn or_zero(score: f64) -> f64 {
    if score.is_nan() { 0.0 } else { score }
}

/// An input, as it is looked at.
#[derive(Clone, Copy)]
enum Input<'v> {
    Scored(SortedSetView<'v>),
    Plain(SetView<'v>),
}

impl<'v> Input<'v> {
    fn of(view: View<'v>) -> Option<Self> {
        match view {
            View::SortedSet(set) => Some(Self::Scored(set)),
            View::Set(set) => Some(Self::Plain(set)),
            View::String(_) | View::List(_) | View::Hash(_) => None,
        }
    }

    fn len(self) -> usize {
        match self {
            Self::Scored(set) => set.len(),
            Self::Plain(set) => set.len(),
        }
    }

    fn score(self, name: &[u8]) -> Option<f64> {
        match self {
            Self::Scored(set) => set.score(name),
            Self::Plain(set) => set.contains(name).then_some(1.0),
        }
    }

    fn each(self, mut visit: impl FnMut(&[u8], f64)) {
        match self {
            Self::Scored(set) => set.iter().for_each(|(name, score)| visit(name, score)),
            Self::Plain(set) => set.iter().for_each(|name| visit(&name, 1.0)),
        }
    }
}

/// One of the keys.
struct Source<'a> {
    key: Key<'a>,
    len: usize,
    weight: f64,
}

impl Source<'_> {
    /// Looks at the input; nothing if there is none.
    fn look<'k>(&self, keys: &'k mut Keyspace<'_>) -> Option<Input<'k>> {
        keys.peek(&self.key).and_then(Input::of)
    }

    fn weigh(&self, score: f64) -> f64 {
        score * self.weight
    }
}

struct Request<'a> {
    sources: Vec<Source<'a>>,
    aggregate: Aggregate,
    with_scores: bool,
    /// `LIMIT` of `ZINTERCARD`.
    limit: Option<usize>,
}

/// What a command's name says about its options.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Reply,
    Store,
    Count,
}

impl<'a> Request<'a> {
    /// Reads the number of keys, the keys and the options, and looks whether the keys hold what they should.
    fn read(
        ctx: &mut Context<'_, '_>,
        arguments: &'a [&'a [u8]],
        operation: Operation,
        form: Form,
    ) -> Result<Self, Failure> {
        let number = integer(arguments[0])?;
        if number < 1 {
            let name = ctx.command.name;
            return Err(Failure::err(format_args!(
                "at least 1 input key is needed for '{name}' command"
            )));
        }
        let (keys, options) =
            arguments[1..].split_at_checked(count_of(number)).ok_or(Failure::Syntax)?;
        let mut sources = Vec::with_capacity(keys.len());
        for key in keys {
            let key = key_of(ctx.engine, ctx.session.database, key);
            let len = match ctx.keys.get(&key) {
                None => 0,
                Some(view) => Input::of(view).ok_or(Failure::WrongType)?.len(),
            };
            sources.push(Source { key, len, weight: 1.0 });
        }
        let mut request =
            Self { sources, aggregate: Aggregate::Sum, with_scores: false, limit: None };
        request.read_options(options, operation, form)?;
        Ok(request)
    }

    fn read_options(
        &mut self,
        options: &[&[u8]],
        operation: Operation,
        form: Form,
    ) -> Result<(), Failure> {
        let combines = operation != Operation::Difference && form != Form::Count;
        let mut rest = options;
        while let [option, after @ ..] = rest {
            if combines && is_option(option, "WEIGHTS") && after.len() >= self.sources.len() {
                let (weights, after) = after.split_at(self.sources.len());
                for (source, weight) in self.sources.iter_mut().zip(weights) {
                    source.weight = parse_double(weight)
                        .ok_or_else(|| Failure::err("weight value is not a float"))?;
                }
                rest = after;
            } else if combines && is_option(option, "AGGREGATE") && !after.is_empty() {
                self.aggregate = match after[0] {
                    name if is_option(name, "SUM") => Aggregate::Sum,
                    name if is_option(name, "MIN") => Aggregate::Min,
                    name if is_option(name, "MAX") => Aggregate::Max,
                    _ => return Err(Failure::Syntax),
                };
                rest = &after[1..];
            } else if form == Form::Reply && is_option(option, "WITHSCORES") {
                self.with_scores = true;
                rest = after;
            } else if form == Form::Count && is_option(option, "LIMIT") && !after.is_empty() {
                let limit = integer_from(after[0], 0, "LIMIT can't be negative")?;
                self.limit = (limit > 0).then(|| count_of(limit));
                rest = &after[1..];
            } else {
                return Err(Failure::Syntax);
            }
        }
        Ok(())
    }

    /// The members of the result, in no order.
    fn members(&mut self, keys: &mut Keyspace<'_>, operation: Operation) -> Vec<(Vec<u8>, f64)> {
        match operation {
            Operation::Union => self.union(keys),
            Operation::Intersection => self.intersection(keys),
            Operation::Difference => self.difference(keys),
        }
    }

    fn union(&mut self, keys: &mut Keyspace<'_>) -> Vec<(Vec<u8>, f64)> {
        self.sources.sort_by_key(|source| source.len);
        let mut union = BTreeMap::<Vec<u8>, f64>::new();
        for source in &self.sources {
            let Some(input) = source.look(keys) else { continue };
            input.each(|name, score| {
                let score = or_zero(source.weigh(score));
                match union.get_mut(name) {
                    Some(sum) => *sum = self.aggregate.apply(*sum, score),
                    None => drop(union.insert(name.to_vec(), score)),
                }
            });
        }
        union.into_iter().collect()
    }

    fn intersection(&mut self, keys: &mut Keyspace<'_>) -> Vec<(Vec<u8>, f64)> {
        self.sources.sort_by_key(|source| source.len);
        let mut members = Vec::new();
        let Some((smallest, others)) = self.sources.split_first() else { return members };
        if let Some(input) = smallest.look(keys) {
            members.reserve_exact(input.len());
            input.each(|name, score| {
                members.push((name.to_vec(), or_zero(smallest.weigh(score))));
            });
        }
        for source in others {
            if members.is_empty() {
                break;
            }
            let Some(input) = source.look(keys) else { return Vec::new() };
            members.retain_mut(|(name, score)| match input.score(name) {
                Some(other) => {
                    *score = self.aggregate.apply(*score, source.weigh(other));
                    true
                }
                None => false,
            });
        }
        members
    }

    fn difference(&mut self, keys: &mut Keyspace<'_>) -> Vec<(Vec<u8>, f64)> {
        let mut members = Vec::new();
        let Some((first, others)) = self.sources.split_first() else { return members };
        if let Some(input) = first.look(keys) {
            input.each(|name, score| members.push((name.to_vec(), score)));
        }
        for source in others {
            if members.is_empty() {
                break;
            }
            if let Some(input) = source.look(keys) {
                members.retain(|(name, _)| input.score(name).is_none());
            }
        }
        members
    }
}

fn key_of<'k>(engine: &Engine, database: Database, key: &'k [u8]) -> Key<'k> {
    engine.store.key(database, key)
}

fn reply_with(
    ctx: &mut Context<'_, '_>,
    arguments: &[&[u8]],
    operation: Operation,
) -> Result<(), Failure> {
    let mut request = Request::read(ctx, &arguments[1..], operation, Form::Reply)?;
    let mut members = request.members(ctx.keys, operation);
    members.sort_unstable_by(|left, right| compare((left.1, &left.0), (right.1, &right.0)));
    members_head(&mut ctx.reply, members.len(), request.with_scores);
    for (name, score) in members {
        member(&mut ctx.reply, &name, score, request.with_scores);
    }
    Ok(())
}

fn store_result(
    ctx: &mut Context<'_, '_>,
    arguments: &[&[u8]],
    operation: Operation,
    event: &str,
) -> Result<(), Failure> {
    let mut request = Request::read(ctx, &arguments[2..], operation, Form::Store)?;
    let result = SortedSet::of_members(&request.members(ctx.keys, operation));
    let destination = ctx.key(arguments[1]);
    store(ctx, &destination, result, event);
    Ok(())
}

pub(super) fn zunion(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    reply_with(ctx, arguments, Operation::Union)
}

pub(super) fn zinter(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    reply_with(ctx, arguments, Operation::Intersection)
}

pub(super) fn zdiff(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    reply_with(ctx, arguments, Operation::Difference)
}

pub(super) fn zunionstore(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    store_result(ctx, arguments, Operation::Union, "zunionstore")
}

pub(super) fn zinterstore(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    store_result(ctx, arguments, Operation::Intersection, "zinterstore")
}

pub(super) fn zdiffstore(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    store_result(ctx, arguments, Operation::Difference, "zdiffstore")
}

pub(super) fn zintercard(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let operation = Operation::Intersection;
    let mut request = Request::read(ctx, &arguments[1..], operation, Form::Count)?;
    let count = request.members(ctx.keys, operation).len();
    ctx.reply.count(request.limit.map_or(count, |limit| count.min(limit)));
    Ok(())
}
