//! `SORT`: the elements of a list, a set or a sorted set in an order that is asked for, with values looked up beside them.
//!
//! `BY` and `GET` name keys by a pattern whose `*` stands for the element, and `->` leads on to a field of a hash. Such keys may be
//! anywhere, so all shards are locked, a cluster refuses them, and so does access control unless the client may read every key.
//! The work is the number of elements, times its logarithm for sorting, times the number of lookups asked for.

use std::cmp::Ordering;

use super::{Command, Context, Failure, Flags, Group, Keys, integer, is_option};
use crate::resp::parse_double;
use crate::store::Lifetime;
use crate::value::list::End;
use crate::value::{List, Value, View};

/// What an element is sorted by, or shown as: a key, or a field of a hash, named by a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pattern<'a> {
    /// `#`: the element itself.
    Element,
    /// No `*`: the same for all elements, so nothing.
    Constant,
    Key {
        before: &'a [u8],
        after: &'a [u8],
        field: Option<&'a [u8]>,
    },
}

impl<'a> Pattern<'a> {
    fn read(text: &'a [u8]) -> Self {
        if text == b"#" {
            return Self::Element;
        }
        let Some(star) = text.iter().position(|byte| *byte == b'*') else { return Self::Constant };
        let (before, after) = (&text[..star], &text[star + 1..]);
        match after.windows(2).position(|pair| pair == b"->") {
            Some(arrow) if arrow + 2 < after.len() => {
                Self::Key { before, after: &after[..arrow], field: Some(&after[arrow + 2..]) }
            }
            _ => Self::Key { before, after, field: None },
        }
    }

    fn look_up(self, ctx: &mut Context<'_, '_>, element: &[u8]) -> Option<Vec<u8>> {
        let (before, after, field) = match self {
            Self::Element => return Some(element.to_vec()),
            Self::Constant => return None,
            Self::Key { before, after, field } => (before, after, field),
        };
        let name = [before, element, after].concat();
        let key = ctx.key(&name);
        match (ctx.keys.get(&key)?, field) {
            (View::String(bytes), None) => Some(bytes.to_vec()),
            (View::Hash(hash), Some(field)) => hash.get(field).map(<[u8]>::to_vec),
            _ => None,
        }
    }
}

#[derive(Debug, Default)]
struct Options<'a> {
    descending: bool,
    alphabetic: bool,
    limit: Option<(i64, i64)>,
    by: Option<Pattern<'a>>,
    get: Vec<Pattern<'a>>,
    store: Option<&'a [u8]>,
}

impl<'a> Options<'a> {
    fn read(
        ctx: &Context<'_, '_>,
        arguments: &[&'a [u8]],
        may_store: bool,
    ) -> Result<Self, Failure> {
        let mut options = Self::default();
        let mut rest = arguments;
        loop {
            rest = match rest {
                [] => return Ok(options),
                [name, rest @ ..] if is_option(name, "ASC") => {
                    options.descending = false;
                    rest
                }
                [name, rest @ ..] if is_option(name, "DESC") => {
                    options.descending = true;
                    rest
                }
                [name, rest @ ..] if is_option(name, "ALPHA") => {
                    options.alphabetic = true;
                    rest
                }
                [name, start, count, rest @ ..] if is_option(name, "LIMIT") => {
                    options.limit = Some((integer(start)?, integer(count)?));
                    rest
                }
                [name, key, rest @ ..] if may_store && is_option(name, "STORE") => {
                    options.store = Some(key);
                    rest
                }
                [name, pattern, rest @ ..] if is_option(name, "BY") => {
                    let pattern = Pattern::read(pattern);
                    // `BY #` has no star either: it means not to sort.
                    let pattern =
                        if pattern == Pattern::Element { Pattern::Constant } else { pattern };
                    if pattern != Pattern::Constant {
                        may_look_up(ctx, "BY")?;
                    }
                    options.by = Some(pattern);
                    rest
                }
                [name, pattern, rest @ ..] if is_option(name, "GET") => {
                    may_look_up(ctx, "GET")?;
                    options.get.push(Pattern::read(pattern));
                    rest
                }
                _ => return Err(Failure::Syntax),
            };
        }
    }

    /// The part of `length` elements that is wanted: from where, and how many.
    fn part(&self, length: usize) -> (usize, usize) {
        let Some((start, count)) = self.limit else { return (0, length) };
        let start = usize::try_from(start.max(0)).map_or(length, |start| start.min(length));
        let most = length - start;
        (start, usize::try_from(count).map_or(most, |count| count.min(most)))
    }
}

/// Whether keys may be named by patterns.
fn may_look_up(ctx: &Context<'_, '_>, option: &str) -> Result<(), Failure> {
    if ctx.engine.options.cluster {
        return Err(Failure::err(format_args!("{option} option of SORT denied in Cluster mode.")));
    }
    if !ctx.session.user.has_every_key(false) {
        return Err(Failure::err(format_args!(
            "{option} option of SORT denied due to insufficient ACL permissions."
        )));
    }
    Ok(())
}

/// An element with what it is sorted by.
struct Sorted {
    element: Box<[u8]>,
    score: f64,
    text: Option<Vec<u8>>,
}

impl Sorted {
    fn new(element: &[u8]) -> Self {
        Self { element: element.into(), score: 0.0, text: None }
    }
}

fn sort(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let options = Options::read(ctx, &arguments[2..], true)?;
    run(ctx, arguments[1], options)
}

fn sort_ro(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let options = Options::read(ctx, &arguments[2..], false)?;
    run(ctx, arguments[1], options)
}

fn run(ctx: &mut Context<'_, '_>, key: &[u8], mut options: Options<'_>) -> Result<(), Failure> {
    let key = ctx.key(key);
    let mut unsorted = options.by == Some(Pattern::Constant);
    let mut elements = match ctx.keys.get(&key) {
        None => Vec::new(),
        Some(View::List(list)) => list.iter().map(Sorted::new).collect(),
        Some(View::SortedSet(set)) => set.iter().map(|(member, _)| Sorted::new(member)).collect(),
        Some(View::Set(set)) => {
            if unsorted && options.store.is_some() {
                // What is stored must not depend on the order in which a set happens to lie.
                (unsorted, options.alphabetic, options.by) = (false, true, None);
            }
            set.iter().map(|member| Sorted::new(&member)).collect()
        }
        Some(View::String(_) | View::Hash(_)) => return Err(Failure::WrongType),
    };
    if !unsorted {
        weigh(ctx, &mut elements, &options)?;
        elements.sort_by(|left, right| compare(left, right, &options));
    }
    if options.descending {
        elements.reverse();
    }
    let (start, count) = options.part(elements.len());
    let wanted = &elements[start..start + count];
    match options.store {
        None => answer(ctx, wanted, &options.get),
        Some(destination) => store(ctx, wanted, &options.get, destination),
    }
    Ok(())
}

/// Looks up what the elements are sorted by. What is missing counts as 0, and comes before all text.
fn weigh(
    ctx: &mut Context<'_, '_>,
    elements: &mut [Sorted],
    options: &Options<'_>,
) -> Result<(), Failure> {
    if options.alphabetic && options.by.is_none() {
        return Ok(());
    }
    for sorted in elements {
        let weight = match options.by {
            Some(pattern) => pattern.look_up(ctx, &sorted.element),
            None => Some(sorted.element.to_vec()),
        };
        if options.alphabetic {
            sorted.text = weight;
        } else if let Some(weight) = weight.as_deref().map(<[u8]>::trim_ascii_start)
            && !weight.is_empty()
        {
            sorted.score = parse_double(weight)
                .ok_or_else(|| Failure::err("One or more scores can't be converted into double"))?;
        }
    }
    Ok(())
}

fn compare(left: &Sorted, right: &Sorted, options: &Options<'_>) -> Ordering {
    match (options.alphabetic, options.by) {
        (true, None) => left.element.cmp(&right.element),
        (true, Some(_)) => left.text.cmp(&right.text),
        (false, _) => {
            let order = left.score.partial_cmp(&right.score).unwrap_or(Ordering::Equal);
            order.then_with(|| left.element.cmp(&right.element))
        }
    }
}

fn answer(ctx: &mut Context<'_, '_>, elements: &[Sorted], get: &[Pattern<'_>]) {
    ctx.reply.array(elements.len() * get.len().max(1));
    for sorted in elements {
        if get.is_empty() {
            ctx.reply.bulk(&sorted.element);
        }
        for pattern in get {
            let value = pattern.look_up(ctx, &sorted.element);
            ctx.reply.bulk_or_null(value.as_deref());
        }
    }
}

fn store(ctx: &mut Context<'_, '_>, elements: &[Sorted], get: &[Pattern<'_>], destination: &[u8]) {
    let mut list = List::default();
    for sorted in elements {
        if get.is_empty() {
            list.push(End::Back, &sorted.element);
        }
        for pattern in get {
            let value = pattern.look_up(ctx, &sorted.element);
            list.push(End::Back, value.as_deref().unwrap_or_default());
        }
    }
    let destination = ctx.key(destination);
    let length = list.len();
    if length > 0 {
        ctx.keys.put(&destination, Value::List(list), Lifetime::Forever);
        ctx.notify(b'l', "sortstore", &destination);
    } else if ctx.keys.remove(&destination) {
        ctx.notify(b'g', "del", &destination);
    }
    ctx.reply.count(length);
}

/// The key that is sorted, and the one behind the last `STORE`.
fn keys_of_sort(arguments: &[&[u8]]) -> Vec<usize> {
    let mut keys = vec![1];
    let mut at = 2;
    while let Some(option) = arguments.get(at) {
        at += match option {
            option if is_option(option, "LIMIT") => 3,
            option if is_option(option, "GET") || is_option(option, "BY") => 2,
            option if is_option(option, "STORE") => {
                if at + 1 < arguments.len() {
                    keys.truncate(1);
                    keys.push(at + 1);
                }
                2
            }
            _ => 1,
        };
    }
    keys
}

const ANYWHERE: Flags = Flags::MOVABLE_KEYS.and(Flags::ALL_SHARDS).and(Flags::DANGEROUS);

/// The family.
pub(super) const COMMANDS: &[Command] = &[
    Command::new(
        "sort",
        -2,
        Keys::Found(keys_of_sort),
        Flags::WRITE.and(Flags::DENYOOM).and(Flags::WAKES).and(ANYWHERE),
        sort,
    )
    .docs(
        Group::Generic,
        "1.0.0",
        "Sorts the elements of a list, a set or a sorted set, and may store the result.",
    ),
    Command::new("sort_ro", -2, Keys::ONE, Flags::READONLY.and(ANYWHERE), sort_ro).docs(
        Group::Generic,
        "7.0.0",
        "Sorts the elements of a list, a set or a sorted set.",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::testing::story;

    #[test]
    fn elements_are_sorted_as_asked() {
        story(
            r#"
            RPUSH l 3 1 10 2       => 4
            SORT l                 => ["1", "2", "3", "10"]
            SORT l DESC            => ["10", "3", "2", "1"]
            SORT l ALPHA           => ["1", "10", "2", "3"]
            SORT l ALPHA DESC LIMIT 1 2 => ["2", "10"]
            SORT l LIMIT 0 -1      => ["1", "2", "3", "10"]
            SORT l LIMIT 5 10      => []
            SORT l LIMIT -3 2      => ["1", "2"]
            SORT l BY nosort       => ["3", "1", "10", "2"]
            SORT l BY nosort DESC  => ["2", "10", "1", "3"]
            SORT none              => []
            RPUSH l x              => 5
            SORT l                 => -ERR One or more scores can't be converted into double
            SET s 1                => OK
            SORT s                 => -WRONGTYPE Operation against a key holding the wrong kind of value
            SORT l LIMIT 1         => -ERR syntax error
            SORT_RO l STORE d      => -ERR syntax error
            ZADD z 3 a 1 b 2 c     => 3
            SORT z BY nosort       => ["b", "c", "a"]
            SORT z BY nosort DESC LIMIT 0 2 => ["a", "c"]
            "#,
        );
    }

    #[test]
    fn weights_and_values_are_looked_up_by_pattern() {
        story(
            r#"
            RPUSH l 1 2 3          => 3
            MSET w1 30 w2 20 v1 one v2 two => OK
            HSET h1 f x n 5        => 2
            HSET h2 f y n 1        => 2
            SORT l BY w*           => ["3", "2", "1"]
            SORT l BY h*->n        => ["3", "2", "1"]
            SORT l BY w* GET v* GET # => [nil, "3", "two", "2", "one", "1"]
            SORT l GET h*->f       => ["x", "y", nil]
            SORT l GET constant    => [nil, nil, nil]
            SORT l BY v* ALPHA     => ["3", "1", "2"]
            SORT l BY w* GET v* STORE d => 3
            LRANGE d 0 -1          => ["", "two", "one"]
            SORT none STORE d      => 0
            EXISTS d               => 0
            "#,
        );
    }

    #[test]
    fn the_stored_key_is_found_behind_options() {
        let words: Vec<&[u8]> = "SORT k BY store GET limit LIMIT 0 1 STORE a store b"
            .split(' ')
            .map(str::as_bytes)
            .collect();
        assert_eq!(keys_of_sort(&words), [1, 12]);
        assert_eq!(keys_of_sort(&words[..10]), [1]);
    }
}
