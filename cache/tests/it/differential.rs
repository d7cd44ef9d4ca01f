//! Our server against Debian's `redis-server`: the same random commands to both, replies compared byte for byte.
//!
//! A short run is part of the tests. A campaign: `LATTICE_FUZZ_COMMANDS=1000000 LATTICE_FUZZ_SEED=7 cargo test --release -p
//! distributed-cache --test it differential -- --nocapture`. What may differ is listed in `known_difference`, each with its
//! reason; anything else fails the test, with the seed and the commands that led there.

mod commands;
mod grammar;
mod peer;

use std::collections::BTreeMap;

use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng as _;

use self::commands::{COMMANDS, Order};
use self::grammar::{Call, Template, index};
use self::peer::{Ours, Redis, Value, Wire};

/// Commands that are sent before their replies are read.
const BATCH: usize = 50;

/// Unexplained differences that are shown before the run gives up.
const SHOWN_MAX: usize = 25;

#[test]
fn replies_are_redis_s() {
    let Some(redis) = Redis::start() else { return };
    let ours = Ours::start();
    let number = |name: &str, otherwise: u64| {
        std::env::var(name).map_or(otherwise, |text| text.parse().unwrap())
    };
    let (seed, total) = (number("LATTICE_FUZZ_SEED", 1), number("LATTICE_FUZZ_COMMANDS", 20_000));
    for protocol in [2, 3] {
        let mut run = Run {
            random: ChaCha8Rng::seed_from_u64(seed + protocol),
            theirs: redis.connect(),
            ours: ours.connect(),
            templates: COMMANDS
                .iter()
                .map(|(order, line)| (*order, Template::parse(line)))
                .collect(),
            explained: BTreeMap::new(),
            unexplained: Vec::new(),
            queued: Vec::new(),
            recent: Vec::new(),
        };
        run.both(&[call("HELLO"), vec![protocol.to_string().into_bytes()]].concat());
        run.both(&call("FLUSHALL"));
        let mut sent = 0;
        while sent < total / 2 && run.unexplained.len() < SHOWN_MAX {
            run.batch();
            sent += BATCH as u64;
        }
        eprintln!(
            "RESP{protocol}, seed {seed}: {sent} commands, explained differences: {:?}",
            run.explained
        );
        assert!(
            run.unexplained.is_empty(),
            "{} unexplained differences with seed {seed}:\n{}",
            run.unexplained.len(),
            run.unexplained.join("\n")
        );
    }
}

fn call(words: &str) -> Call {
    words.split(' ').map(|word| word.as_bytes().to_vec()).collect()
}

struct Run {
    random: ChaCha8Rng,
    theirs: Wire,
    ours: Wire,
    templates: Vec<(Order, Template)>,
    explained: BTreeMap<&'static str, u64>,
    unexplained: Vec<String>,
    /// The commands of a transaction under way.
    queued: Vec<(Order, Call)>,
    /// The last commands, to tell what led to a difference.
    recent: Vec<Call>,
}

impl Run {
    fn both(&mut self, call: &Call) {
        self.theirs.send(std::slice::from_ref(call));
        self.ours.send(std::slice::from_ref(call));
        self.theirs.receive();
        self.ours.receive();
    }

    fn batch(&mut self) {
        let mut batch = Vec::new();
        let mut orders = Vec::new();
        for _ in 0..BATCH {
            let index = index(&mut self.random, self.templates.len());
            let (order, template) = &self.templates[index];
            batch.push(template.draw(&mut self.random));
            orders.push(*order);
        }
        self.theirs.send(&batch);
        self.ours.send(&batch);
        let mut diverged = false;
        for (call, order) in batch.iter().zip(orders) {
            let theirs = self.theirs.receive();
            let ours = self.ours.receive();
            self.recent.push(call.clone());
            let difference = match self.transaction(order, call, &theirs) {
                Some(queued) => difference_in_transaction(&queued, &theirs, &ours),
                None => difference(order, call, &theirs, &ours),
            };
            match difference {
                None => continue,
                Some(Difference::Known(reasons)) => {
                    for reason in reasons {
                        *self.explained.entry(reason).or_default() += 1;
                    }
                    continue;
                }
                Some(Difference::Unexplained) => {}
            }
            if !diverged {
                self.unexplained.push(format!(
                    "--- {}\n  redis: {theirs:?}\n  ours:  {ours:?}\n  before: {}",
                    shown(call),
                    self.led_to(call)
                ));
            }
            diverged = true;
        }
        if diverged {
            // Whatever the cause, both begin again from the same state.
            for words in ["DISCARD", "SELECT 0", "FLUSHALL"] {
                self.both(&call(words));
            }
            self.recent.clear();
            self.queued.clear();
        }
    }

    /// Follows a transaction; what it had queued if `call` has carried it out.
    fn transaction(
        &mut self,
        order: Order,
        call: &Call,
        theirs: &Value,
    ) -> Option<Vec<(Order, Call)>> {
        let has_name = |name: &[u8]| call[0].eq_ignore_ascii_case(name);
        match theirs {
            Value::Line(line) if line == "+QUEUED" => self.queued.push((order, call.clone())),
            Value::Array(..) if has_name(b"EXEC") => return Some(std::mem::take(&mut self.queued)),
            // An error leaves the transaction open, save EXEC's own.
            _ if has_name(b"EXEC") || has_name(b"DISCARD") => self.queued.clear(),
            _ => {}
        }
        None
    }

    /// The last commands since both were the same that share an argument with `call`.
    fn led_to(&self, call: &Call) -> String {
        let is_related = |earlier: &&Call| {
            matches!(
                earlier[0].as_slice(),
                b"MULTI" | b"EXEC" | b"DISCARD" | b"SELECT" | b"FLUSHDB"
            ) || earlier[1..].iter().any(|argument| call[1..].contains(argument))
        };
        let mut related: Vec<String> =
            self.recent.iter().rev().filter(is_related).take(25).map(shown).collect();
        related.reverse();
        related.join(" ; ")
    }
}

fn shown(call: &Call) -> String {
    let words = call.iter().map(|word| {
        let text = String::from_utf8_lossy(&word[..word.len().min(24)]).into_owned();
        if text.is_empty() || text.contains(|c: char| c.is_whitespace() || c.is_control()) {
            format!("{text:?}")
        } else {
            text
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// How two replies differ.
#[derive(Debug)]
enum Difference {
    /// In ways that are documented.
    Known(Vec<&'static str>),
    Unexplained,
}

fn difference(order: Order, call: &Call, theirs: &Value, ours: &Value) -> Option<Difference> {
    if same(order, theirs, ours) {
        return None;
    }
    Some(match known_difference(order, call, theirs, ours) {
        Some(reason) => Difference::Known(vec![reason]),
        None => Difference::Unexplained,
    })
}

/// As [`difference`], of each command of a transaction.
fn difference_in_transaction(
    queued: &[(Order, Call)],
    theirs: &Value,
    ours: &Value,
) -> Option<Difference> {
    let (Some(their), Some(our)) = (theirs.as_array(), ours.as_array()) else {
        return Some(Difference::Unexplained);
    };
    let as_many = their.len() == queued.len() && our.len() == queued.len();
    if !as_many || !theirs.is_like(ours) {
        return Some(Difference::Unexplained);
    }
    let mut reasons = Vec::new();
    for ((order, call), (theirs, ours)) in queued.iter().zip(their.iter().zip(our)) {
        match difference(*order, call, theirs, ours) {
            None => {}
            Some(Difference::Known(more)) => reasons.extend(more),
            Some(Difference::Unexplained) => return Some(Difference::Unexplained),
        }
    }
    (!reasons.is_empty()).then_some(Difference::Known(reasons))
}

fn same(order: Order, theirs: &Value, ours: &Value) -> bool {
    if theirs == ours {
        return true;
    }
    match order {
        Order::Exact => false,
        Order::Any => theirs.is_like(ours) && sorted(theirs) == sorted(ours),
        Order::Pairs => theirs.is_like(ours) && pairs(theirs) == pairs(ours),
        Order::Near => match (theirs.as_integer(), ours.as_integer()) {
            (Some(theirs), Some(ours)) => theirs > 0 && ours > 0 && theirs.abs_diff(ours) <= 1_000,
            _ => false,
        },
        Order::Scan => match (theirs.as_array(), ours.as_array()) {
            (Some([cursor, theirs]), Some([other, ours])) => {
                cursor == other
                    && theirs.is_like(ours)
                    && (sorted(theirs) == sorted(ours) || pairs(theirs) == pairs(ours))
            }
            _ => false,
        },
    }
}

/// The elements in an order that both share; None if it has none.
fn sorted(value: &Value) -> Option<Vec<Value>> {
    let mut elements: Vec<Value> = value.as_array()?.iter().map(|it| it.plain(false)).collect();
    elements.sort();
    Some(elements)
}

fn pairs(value: &Value) -> Option<Vec<Vec<Value>>> {
    let elements: Vec<_> = value.as_array()?.iter().map(|it| it.plain(false)).collect();
    let mut pairs: Vec<_> = elements.chunks(2).map(<[Value]>::to_vec).collect();
    pairs.sort();
    Some(pairs)
}

/// Why a reply may differ from redis-server 7.0.15's: the reason, if there is a good one. `docs/cache.md` tells users.
fn known_difference(
    order: Order,
    call: &Call,
    theirs: &Value,
    ours: &Value,
) -> Option<&'static str> {
    let name = String::from_utf8_lossy(&call[0]).to_uppercase();
    let has = |word: &[u8]| call.iter().any(|argument| argument.eq_ignore_ascii_case(word));
    let is_line = |value: &Value, of: &[&str]| matches!(value, Value::Line(line) if of.contains(&line.as_str()));
    let scores = name.starts_with(['Z', 'B']);
    if same(order, &theirs.plain(scores), &ours.plain(scores)) {
        return Some("numbers: 7.0 shows 17 digits, 7.2 and we as few as read back the same");
    }
    if name == "OBJECT" && has(b"ENCODING") {
        return Some("OBJECT ENCODING: ours follows from the value, Redis's from its history");
    }
    if name == "ACL" && has(b"DRYRUN") && says_no_permission(theirs, ours) {
        return Some("ACL DRYRUN: 7.2 and we name the user");
    }
    if name == "ACL" && has(b"GETUSER") && ours.without("sanitize-payload") == *theirs {
        return Some("ACL GETUSER: 7.2 and we show the flag sanitize-payload");
    }
    if matches!(name.as_str(), "BITPOS" | "BITCOUNT")
        && is_line(theirs, &[":0", ":-1"])
        && is_line(ours, &["-ERR value is not an integer or out of range"])
    {
        return Some("7.0 does not look at the range of a key that is not there; 7.2 and we do");
    }
    if name.starts_with("SORT") && has(b"w_*") && has(b"ALPHA") && theirs.is_like(ours) {
        let length = |value: &Value| value.as_array().map(<[Value]>::len);
        let same = if has(b"LIMIT") {
            length(theirs) == length(ours)
        } else {
            sorted(theirs) == sorted(ours)
        };
        return same.then_some("SORT: elements of equal weight have no order");
    }
    None
}

/// Whether both say that a user may not, and only ours says which.
fn says_no_permission(theirs: &Value, ours: &Value) -> bool {
    let (Value::Bulk(kind, theirs), Value::Bulk(other, ours)) = (theirs, ours) else {
        return false;
    };
    let rest = theirs.strip_prefix(b"This user ");
    let named = ours.strip_prefix(b"User ");
    kind == other && rest.zip(named).is_some_and(|(rest, named)| named.ends_with(rest))
}
