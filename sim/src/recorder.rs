//! What happened in a world: folded into a hash always, kept as a trace if asked for.
//!
//! The hash proves determinism: two runs are the same run exactly if their hashes agree. It folds in every event in its
//! order, so it does not depend on how much of the trace is kept.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::io;
use std::time::Duration;

use lattice_trace::{Cause, Envelope, Map, TraceWriter, VERSION, Value};
use xxhash_rust::xxh3::Xxh3;

use crate::clock::Clock;
use crate::marker::Markers;
use crate::process::Address;
use crate::random::nanos;

/// How much of the trace a world keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TraceKeep {
    /// Nothing but the hash: the fastest.
    #[default]
    Nothing,
    /// The last so many events.
    Last(usize),
}

/// Who has something to note, and when.
#[derive(Debug)]
pub(crate) struct Origin<'a> {
    pub(crate) address: Address,
    pub(crate) at: Duration,
    pub(crate) clock: &'a Clock,
    /// The counter of the node's events.
    pub(crate) seq: &'a mut u64,
}

/// What is kept of one event.
pub(crate) type Record = Envelope<'static, Map<String, Value>>;

pub(crate) struct Recorder {
    hash: Xxh3,
    keep: usize,
    hash_messages: bool,
    records: VecDeque<Record>,
    forgotten: u64,
    text: String,
    /// What was met that must be met sometimes. It follows from what is hashed.
    pub(crate) markers: Markers,
}

impl Recorder {
    pub(crate) fn new(keep: TraceKeep, hash_messages: bool) -> Self {
        let keep = match keep {
            TraceKeep::Nothing => 0,
            TraceKeep::Last(events) => events,
        };
        Self {
            hash: Xxh3::new(),
            keep,
            hash_messages,
            records: VecDeque::new(),
            forgotten: 0,
            text: String::new(),
            markers: Markers::default(),
        }
    }

    /// Notes an event whose detail counts for the hash; answers its number on its node.
    pub(crate) fn note(
        &mut self,
        origin: Origin<'_>,
        cause: Cause,
        kind: &'static str,
        numbers: &[(&'static str, u64)],
        detail: fmt::Arguments<'_>,
    ) -> u64 {
        self.record(origin, cause, kind, numbers, detail, true)
    }

    /// Notes what happened to a message. Its content counts for the hash if the world was asked for that.
    pub(crate) fn note_message(
        &mut self,
        origin: Origin<'_>,
        cause: Cause,
        kind: &'static str,
        numbers: &[(&'static str, u64)],
        detail: fmt::Arguments<'_>,
    ) -> u64 {
        self.record(origin, cause, kind, numbers, detail, self.hash_messages)
    }

    /// Notes the arrival of a message, whose content counted when it was sent.
    pub(crate) fn note_received(
        &mut self,
        origin: Origin<'_>,
        cause: Cause,
        numbers: &[(&'static str, u64)],
        detail: fmt::Arguments<'_>,
    ) -> u64 {
        self.record(origin, cause, lattice_trace::kind::MESSAGE_DELIVERED, numbers, detail, false)
    }

    fn record(
        &mut self,
        origin: Origin<'_>,
        cause: Cause,
        kind: &'static str,
        numbers: &[(&'static str, u64)],
        detail: fmt::Arguments<'_>,
        hashed: bool,
    ) -> u64 {
        *origin.seq += 1;
        let seq = *origin.seq;
        self.fold(nanos(origin.at));
        self.fold(origin.address.0);
        self.fold(seq);
        self.hash.update(kind.as_bytes());
        for (_, number) in numbers {
            self.fold(*number);
        }
        self.text.clear();
        if hashed || self.keep > 0 {
            self.text.write_fmt(detail).expect("a Display or Debug of the process failed");
        }
        if hashed {
            self.hash.update(self.text.as_bytes());
        }
        if self.keep > 0 {
            self.keep(&origin, seq, cause, kind, numbers);
        }
        seq
    }

    fn fold(&mut self, number: u64) {
        self.hash.update(&number.to_le_bytes());
    }

    fn keep(
        &mut self,
        origin: &Origin<'_>,
        seq: u64,
        cause: Cause,
        kind: &'static str,
        numbers: &[(&'static str, u64)],
    ) {
        let mut fields = Map::new();
        fields.insert("at_ns".to_owned(), nanos(origin.at).into());
        for (name, number) in numbers {
            fields.insert((*name).to_owned(), (*number).into());
        }
        if !self.text.is_empty() {
            fields.insert("detail".to_owned(), self.text.as_str().into());
        }
        if self.records.len() == self.keep {
            self.records.pop_front();
            self.forgotten += 1;
        }
        self.records.push_back(Envelope {
            v: VERSION,
            seq,
            node: origin.address.0,
            t_mono_ns: nanos(origin.clock.local(origin.at)),
            t_wall: nanos(origin.clock.wall(origin.at)),
            cause,
            kind,
            fields,
        });
    }

    pub(crate) fn hash(&self) -> u128 {
        self.hash.digest128()
    }

    pub(crate) fn records(&self) -> impl Iterator<Item = &Record> {
        self.records.iter()
    }

    pub(crate) fn write(&self, output: impl io::Write) -> io::Result<()> {
        let mut writer = TraceWriter::new(output, u64::MAX);
        for record in &self.records {
            writer.write(record)?;
        }
        writer.finish().map(drop)
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder")
            .field("hash", &format_args!("{:032x}", self.hash()))
            .field("kept", &self.records.len())
            .field("forgotten", &self.forgotten)
            .finish_non_exhaustive()
    }
}
