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
            if same(order, &theirs, &ours) {
                continue;
            }
            if let Some(reason) = known_difference(call, &theirs, &ours) {
                *self.explained.entry(reason).or_default() += 1;
                continue;
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
        }
    }
}

impl Run {
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

fn same(order: Order, theirs: &Value, ours: &Value) -> bool {
    if theirs == ours {
        return true;
    }
    match order {
        Order::Exact => false,
        Order::Any => sorted(theirs) == sorted(ours),
        Order::Pairs => pairs(theirs) == pairs(ours),
        Order::Near => match (theirs.as_integer(), ours.as_integer()) {
            (Some(theirs), Some(ours)) => theirs > 0 && ours > 0 && theirs.abs_diff(ours) <= 1_000,
            _ => false,
        },
        Order::Scan => match (theirs.as_array(), ours.as_array()) {
            (Some([cursor, theirs]), Some([other, ours])) => {
                cursor == other && (sorted(theirs) == sorted(ours) || pairs(theirs) == pairs(ours))
            }
            _ => false,
        },
    }
}

/// The elements in an order that both share; None if it has none. An array inside a transaction's is compared as it is.
fn sorted(value: &Value) -> Option<Vec<Value>> {
    let mut elements: Vec<Value> = value.as_array()?.iter().map(Value::plain).collect();
    elements.sort();
    Some(elements)
}

fn pairs(value: &Value) -> Option<Vec<Vec<Value>>> {
    let mut pairs: Vec<_> = value
        .as_array()?
        .iter()
        .map(Value::plain)
        .collect::<Vec<_>>()
        .chunks(2)
        .map(<[Value]>::to_vec)
        .collect();
    pairs.sort();
    Some(pairs)
}

/// Why a reply may differ from redis-server 7.0.15's: the reason, if there is a good one. `docs/cache.md` tells users.
fn known_difference(call: &Call, theirs: &Value, ours: &Value) -> Option<&'static str> {
    let name = String::from_utf8_lossy(&call[0]).to_uppercase();
    let second = call.get(1).map(|word| String::from_utf8_lossy(word).to_uppercase());
    if numbers_agree(theirs, ours) {
        return Some("numbers: 7.0 shows 17 digits, 7.2 and we as few as read back the same");
    }
    if name == "OBJECT" && second.as_deref() == Some("ENCODING") {
        return Some("OBJECT ENCODING: ours follows from the value, Redis's from its history");
    }
    if call.iter().any(|argument| argument.starts_with(b"\0")) {
        return Some(
            "a number that begins with a zero byte is the empty text to Redis, and none to us",
        );
    }
    if matches!(name.as_str(), "BITPOS" | "BITCOUNT")
        && matches!(ours, Value::Line(line) if line.starts_with('-'))
    {
        return Some("7.0 does not look at the range of a key that is not there; 7.2 and we do");
    }
    if name.starts_with("SORT") && call.iter().any(|argument| argument.starts_with(b"w_")) {
        return Some("SORT: elements of equal weight have no order");
    }
    if name == "EXEC" && matches!(theirs, Value::Array(_)) && matches!(ours, Value::Array(_)) {
        return Some("EXEC: replies without order, or with such numbers, inside a transaction");
    }
    None
}

/// Whether two replies are the same but for how their floating-point numbers are written.
fn numbers_agree(theirs: &Value, ours: &Value) -> bool {
    let number = |bytes: &[u8]| std::str::from_utf8(bytes).ok()?.parse::<f64>().ok();
    match (theirs, ours) {
        (Value::Bulk(kind, theirs), Value::Bulk(other, ours)) if kind == other => {
            theirs == ours || number(theirs).is_some_and(|it| number(ours) == Some(it))
        }
        (Value::Line(theirs), Value::Line(ours)) => {
            let (their, our) = (theirs.strip_prefix(','), ours.strip_prefix(','));
            theirs == ours
                || their.zip(our).is_some_and(|(their, our)| {
                    number(their.as_bytes()).is_some_and(|it| number(our.as_bytes()) == Some(it))
                })
        }
        (Value::Array(theirs), Value::Array(ours)) | (Value::Map(theirs), Value::Map(ours)) => {
            theirs.len() == ours.len()
                && theirs.iter().zip(ours).all(|(theirs, ours)| numbers_agree(theirs, ours))
        }
        _ => false,
    }
}
