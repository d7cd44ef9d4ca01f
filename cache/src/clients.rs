//! Who is connected: what others may know of a client and do to it, and what is waiting to be sent to it.
//!
//! A [`Client`] is the side of a connection that others see. The session that owns it writes down what it has chosen, in atomics
//! that cost a command next to nothing; others read them (`CLIENT LIST`), kill it, or put messages into its [`Outbox`]. An outbox
//! is bounded: a client that does not read what is put there is doomed once the bound is passed, and costs nobody else anything.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{
    AtomicBool, AtomicI64, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering,
};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use crate::command::{CommandId, TABLE};
use crate::resp::Protocol;
use crate::store::Charge;
use crate::types::{ClientId, Database, Now};

/// How many bytes an outbox takes unless told otherwise: what Redis gives a subscriber.
pub const OUTBOX_LIMIT: usize = 32 << 20;

/// Capacity that an emptied outbox keeps, in bytes.
const OUTBOX_KEEPS: usize = 4 << 10;

/// Wakes the task of a connection, from whichever thread calls it.
pub type Wake = Box<dyn Fn() + Send + Sync>;

/// What others have for a client: whole replies and messages, in order.
pub struct Outbox {
    bytes: Mutex<Vec<u8>>,
    filled: AtomicBool,
    unsent: AtomicUsize,
    limit: AtomicUsize,
    is_over: AtomicBool,
    wake: Option<Wake>,
}

impl Default for Outbox {
    fn default() -> Self {
        Self {
            bytes: Mutex::default(),
            filled: AtomicBool::new(false),
            unsent: AtomicUsize::new(0),
            limit: AtomicUsize::new(OUTBOX_LIMIT),
            is_over: AtomicBool::new(false),
            wake: None,
        }
    }
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox").field("is_over", &self.is_over).finish_non_exhaustive()
    }
}

impl Outbox {
    /// An empty outbox. `wake` is called when there is something to do for the connection, from whichever thread caused it.
    #[must_use]
    pub fn new(wake: Wake) -> Self {
        Self { wake: Some(wake), ..Self::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a whole reply or message in. Past the limit, everything in it is dropped and the client is doomed.
    pub fn put(&self, message: &[u8]) {
        if self.is_over() {
            return;
        }
        {
            let mut bytes = self.lock();
            let waiting = bytes.len() + self.unsent.load(Ordering::Relaxed);
            if waiting + message.len() > self.limit.load(Ordering::Relaxed) {
                *bytes = Vec::new();
                self.is_over.store(true, Ordering::Release);
            } else {
                bytes.extend_from_slice(message);
            }
            if self.filled.swap(true, Ordering::AcqRel) && !self.is_over() {
                return;
            }
        }
        self.wake();
    }

    /// Puts in the whole reply that the client waits for, and that has been taken from a key for it: however large it is, as with a
    /// reply that is written at once. There is one at a time.
    pub fn answer(&self, reply: &[u8]) {
        {
            let mut bytes = self.lock();
            if !self.is_over() {
                bytes.extend_from_slice(reply);
            }
            self.filled.store(true, Ordering::Release);
        }
        self.wake();
    }

    /// Moves everything to `out`.
    pub fn drain_into(&self, out: &mut Vec<u8>) {
        if !self.filled.load(Ordering::Acquire) {
            return;
        }
        let mut bytes = self.lock();
        self.filled.store(false, Ordering::Release);
        out.append(&mut bytes);
        if bytes.capacity() > OUTBOX_KEEPS {
            *bytes = Vec::new();
        }
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.filled.load(Ordering::Acquire)
    }

    /// How many bytes are in it.
    #[must_use]
    pub fn len(&self) -> usize {
        if self.is_empty() { 0 } else { self.lock().len() }
    }

    /// Whether its limit was passed, so that the connection is to be closed.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }

    /// Sets the most bytes that may wait for the client, those included that were taken out and are not sent.
    pub fn set_limit(&self, bytes: usize) {
        self.limit.store(bytes, Ordering::Relaxed);
    }

    /// Has the connection look at its client again.
    pub fn wake(&self) {
        if let Some(wake) = &self.wake {
            wake();
        }
    }
}

/// What a client is at the moment, as a set of bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark(u32);

impl Mark {
    /// It is to be disconnected.
    pub const KILLED: Self = Self(1);
    /// It waits (`BLPOP` and its like).
    pub const BLOCKED: Self = Self(1 << 1);
    /// It is between `MULTI` and `EXEC`.
    pub const MULTI: Self = Self(1 << 2);
    /// What it watches has changed.
    pub const DIRTY: Self = Self(1 << 3);
    /// It caches, and wants to be told of changes.
    pub const TRACKING: Self = Self(1 << 4);
    /// It is told of all changes, or of those below its prefixes.
    pub const BROADCAST: Self = Self(1 << 5);
    /// The client that should have got its invalidations is gone.
    pub const BROKEN_REDIRECT: Self = Self(1 << 6);
    /// `CLIENT NO-EVICT`.
    pub const NO_EVICT: Self = Self(1 << 7);
    /// `CLIENT NO-TOUCH`.
    pub const NO_TOUCH: Self = Self(1 << 8);
    /// Its connection has ended.
    pub const GONE: Self = Self(1 << 9);
    /// It waits until `CLIENT PAUSE` is over.
    pub const PAUSED: Self = Self(1 << 10);
    /// It closes after the reply that is under way.
    pub const CLOSING: Self = Self(1 << 11);
    /// It is about to be gone, or is.
    pub const LEAVING: Self = Self(Self::KILLED.0 | Self::GONE.0 | Self::CLOSING.0);
    /// `MONITOR`.
    pub const MONITOR: Self = Self(1 << 13);
    /// `READONLY`.
    pub const READONLY: Self = Self(1 << 12);
}

/// Where a connection comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The peer: `ip:port`, or the path of a socket with `:0`.
    pub address: String,
    /// Our end of it, in the same form.
    pub local_address: String,
    /// The number by which the operating system knows the connection; -1 if there is none.
    pub descriptor: i64,
    /// Whether it is a Unix socket.
    pub is_unix: bool,
}

/// Texts that describe a client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels {
    /// `CLIENT SETNAME`; empty for none.
    pub name: Vec<u8>,
    /// `CLIENT SETINFO LIB-NAME`.
    pub library: Vec<u8>,
    /// `CLIENT SETINFO LIB-VER`.
    pub library_version: Vec<u8>,
    /// The user it has authenticated as.
    pub user: Vec<u8>,
}

impl Labels {
    /// What the client has said of itself occupies, in bytes.
    fn bytes(&self) -> usize {
        let texts = [&self.name, &self.library, &self.library_version];
        texts.iter().map(|text| text.capacity()).sum()
    }
}

/// A client's kind, as `CLIENT LIST TYPE` and the limits of output have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// One that asks and is answered.
    Normal,
    /// One that subscribes.
    PubSub,
}

/// What others may know of a client.
#[derive(Debug)]
pub struct Client {
    /// Its number.
    pub id: ClientId,
    /// What others have for it.
    pub outbox: Outbox,
    /// Where it comes from.
    pub origin: Origin,
    /// When it connected.
    pub connected: Now,
    labels: Mutex<(Labels, Charge)>,
    marks: AtomicU32,
    active_us: AtomicU64,
    database: AtomicU8,
    protocol: AtomicU8,
    command: AtomicU16,
    redirect: AtomicI64,
    queued: AtomicUsize,
    queued_bytes: AtomicUsize,
    watched: AtomicUsize,
    input_bytes: AtomicUsize,
    channels: AtomicUsize,
    patterns: AtomicUsize,
    shard_channels: AtomicUsize,
}

/// No command yet.
const NO_COMMAND: u16 = u16::MAX;

impl Client {
    /// A client that has just connected and is in no registry: [`Clients::connect`] makes one that is.
    #[must_use]
    pub fn new(id: ClientId, origin: Origin, connected: Now, outbox: Outbox) -> Self {
        Self {
            id,
            outbox,
            origin,
            connected,
            labels: Mutex::new((
                Labels { user: b"default".to_vec(), ..Labels::default() },
                Charge::default(),
            )),
            marks: AtomicU32::new(0),
            active_us: AtomicU64::new(connected.monotonic_us),
            database: AtomicU8::new(0),
            protocol: AtomicU8::new(2),
            command: AtomicU16::new(NO_COMMAND),
            redirect: AtomicI64::new(-1),
            queued: AtomicUsize::new(0),
            queued_bytes: AtomicUsize::new(0),
            watched: AtomicUsize::new(0),
            input_bytes: AtomicUsize::new(0),
            channels: AtomicUsize::new(0),
            patterns: AtomicUsize::new(0),
            shard_channels: AtomicUsize::new(0),
        }
    }

    /// Whether it is marked so; with any of them, for several.
    #[must_use]
    pub fn is(&self, mark: Mark) -> bool {
        self.marks.load(Ordering::Acquire) & mark.0 != 0
    }

    /// Sets or takes away a mark. Returns whether it was there.
    pub fn mark(&self, mark: Mark, on: bool) -> bool {
        let before = if on {
            self.marks.fetch_or(mark.0, Ordering::AcqRel)
        } else {
            self.marks.fetch_and(!mark.0, Ordering::AcqRel)
        };
        before & mark.0 != 0
    }

    /// Has its connection closed as soon as may be.
    pub fn kill(&self) {
        self.mark(Mark::KILLED, true);
        self.outbox.wake();
    }

    /// Whether its connection is to be closed: it was killed, or did not read what was sent.
    #[must_use]
    pub fn is_doomed(&self) -> bool {
        self.is(Mark::KILLED) || self.outbox.is_over()
    }

    /// Whether it is to be disconnected, or has been: nothing that is done for it now reaches anybody.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        self.is(Mark::LEAVING) || self.outbox.is_over()
    }

    /// The connection's own account of its buffers: bytes received that are not executed, and bytes of replies that are not sent.
    pub fn set_buffers(&self, input: usize, output: usize) {
        self.input_bytes.store(input, Ordering::Relaxed);
        self.outbox.unsent.store(output, Ordering::Relaxed);
    }

    /// Bytes received that are not executed.
    #[must_use]
    pub fn input_bytes(&self) -> usize {
        self.input_bytes.load(Ordering::Relaxed)
    }

    /// Bytes that wait to be sent.
    #[must_use]
    pub fn output_bytes(&self) -> usize {
        self.outbox.len() + self.outbox.unsent.load(Ordering::Relaxed)
    }

    /// Notes that it is doing something.
    pub fn note_activity(&self, now: Now) {
        self.active_us.store(now.monotonic_us, Ordering::Relaxed);
    }

    /// Notes which command it called.
    pub fn note_command(&self, command: CommandId) {
        self.command.store(command.0, Ordering::Relaxed);
    }

    /// For how long it has done nothing, in microseconds.
    #[must_use]
    pub fn idle_us(&self, now: Now) -> u64 {
        now.monotonic_us.saturating_sub(self.active_us.load(Ordering::Relaxed))
    }

    /// How long it has been connected, in microseconds.
    #[must_use]
    pub fn age_us(&self, now: Now) -> u64 {
        now.monotonic_us.saturating_sub(self.connected.monotonic_us)
    }

    /// Its texts.
    #[must_use]
    pub fn labels(&self) -> Labels {
        self.lock_labels().0.clone()
    }

    /// Changes its texts.
    pub fn edit_labels(&self, edit: impl FnOnce(&mut Labels)) {
        let (labels, charge) = &mut *self.lock_labels();
        edit(labels);
        charge.set(labels.bytes());
    }

    /// Has its texts count against the limit of memory, through `charge`.
    pub(crate) fn charge_labels(&self, charge: Charge) {
        self.lock_labels().1 = charge;
        self.edit_labels(|_| {});
    }

    fn lock_labels(&self) -> MutexGuard<'_, (Labels, Charge)> {
        self.labels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its database.
    #[must_use]
    pub fn database(&self) -> Database {
        Database(self.database.load(Ordering::Relaxed))
    }

    /// The protocol in which messages reach it.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        match self.protocol.load(Ordering::Acquire) {
            3 => Protocol::Resp3,
            _ => Protocol::Resp2,
        }
    }

    /// Notes its database.
    pub(crate) fn set_database(&self, database: Database) {
        self.database.store(database.0, Ordering::Relaxed);
    }

    /// Notes its protocol.
    pub(crate) fn set_protocol(&self, protocol: Protocol) {
        self.protocol.store(number_of(protocol), Ordering::Release);
    }

    /// Notes who gets its invalidations: another's number, 0 for itself, -1 for nobody.
    pub(crate) fn set_redirect(&self, redirect: i64) {
        self.redirect.store(redirect, Ordering::Relaxed);
    }

    /// Notes how many commands its transaction holds, and their bytes.
    pub(crate) fn set_queued(&self, commands: usize, bytes: usize) {
        self.queued.store(commands, Ordering::Relaxed);
        self.queued_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Notes how many keys it watches.
    pub(crate) fn set_watched(&self, keys: usize) {
        self.watched.store(keys, Ordering::Relaxed);
    }

    /// How many keys it watches.
    #[must_use]
    pub fn watched(&self) -> usize {
        self.watched.load(Ordering::Relaxed)
    }

    /// Notes how many channels, patterns and sharded channels it subscribes to.
    pub(crate) fn set_subscriptions(&self, channels: usize, patterns: usize, shard: usize) {
        self.channels.store(channels, Ordering::Relaxed);
        self.patterns.store(patterns, Ordering::Relaxed);
        self.shard_channels.store(shard, Ordering::Relaxed);
    }

    /// How many channels, patterns and sharded channels it subscribes to, in all.
    #[must_use]
    pub fn subscriptions(&self) -> usize {
        self.channels.load(Ordering::Relaxed)
            + self.patterns.load(Ordering::Relaxed)
            + self.shard_channels.load(Ordering::Relaxed)
    }

    /// Its kind.
    #[must_use]
    pub fn class(&self) -> Class {
        if self.subscriptions() > 0 { Class::PubSub } else { Class::Normal }
    }

    /// Whose limits of output it has: one that watches all commands is sent what it did not ask for, as a subscriber.
    #[must_use]
    pub fn output_class(&self) -> Class {
        if self.is(Mark::MONITOR) { Class::PubSub } else { self.class() }
    }

    /// The command it called last, in full: `client|list`.
    #[must_use]
    pub fn last_command(&self) -> Option<&'static str> {
        NAMES.get(usize::from(self.command.load(Ordering::Relaxed))).copied()
    }

    fn flags(&self) -> String {
        let letters = [
            (self.is(Mark::MONITOR), 'O'),
            (self.subscriptions() > 0, 'P'),
            (self.is(Mark::MULTI), 'x'),
            (self.is(Mark::BLOCKED) || self.is(Mark::PAUSED), 'b'),
            (self.is(Mark::TRACKING), 't'),
            (self.is(Mark::BROKEN_REDIRECT), 'R'),
            (self.is(Mark::BROADCAST), 'B'),
            (self.is(Mark::DIRTY), 'd'),
            (self.is(Mark::CLOSING), 'c'),
            (self.is_doomed(), 'A'),
            (self.origin.is_unix, 'U'),
            (self.is(Mark::READONLY), 'r'),
            (self.is(Mark::NO_EVICT), 'e'),
            (self.is(Mark::NO_TOUCH), 'T'),
        ];
        let flags: String = letters.iter().filter(|(is, _)| *is).map(|(_, it)| *it).collect();
        if flags.is_empty() { "N".to_owned() } else { flags }
    }

    /// Its line in `CLIENT LIST`, without the end of the line. Fields that have no meaning here are 0.
    #[must_use]
    pub fn describe(&self, now: Now) -> Vec<u8> {
        let labels = self.labels();
        let output = self.output_bytes();
        let queued_bytes = self.queued_bytes.load(Ordering::Relaxed);
        let multi = match self.is(Mark::MULTI) {
            true => i64::try_from(self.queued.load(Ordering::Relaxed)).unwrap_or(i64::MAX),
            false => -1,
        };
        let mut line = format!(
            "id={} addr={} laddr={} fd={} name=",
            self.id.0, self.origin.address, self.origin.local_address, self.origin.descriptor
        )
        .into_bytes();
        line.extend_from_slice(&labels.name);
        line.extend_from_slice(
            format!(
                " age={} idle={} flags={} db={} sub={} psub={} ssub={} multi={multi} qbuf={} \
                 qbuf-free=0 argv-mem=0 multi-mem={queued_bytes} rbs=0 rbp=0 obl=0 oll={} \
                 omem={output} tot-mem={} events={} cmd={} user=",
                self.age_us(now) / 1_000_000,
                self.idle_us(now) / 1_000_000,
                self.flags(),
                self.database().0,
                self.channels.load(Ordering::Relaxed),
                self.patterns.load(Ordering::Relaxed),
                self.shard_channels.load(Ordering::Relaxed),
                self.input_bytes(),
                usize::from(output > 0),
                self.input_bytes() + output + queued_bytes + size_of::<Self>(),
                if output > 0 { "rw" } else { "r" },
                self.last_command().unwrap_or("NULL"),
            )
            .as_bytes(),
        );
        line.extend_from_slice(&labels.user);
        line.extend_from_slice(
            format!(
                " redir={} resp={} lib-name=",
                self.redirect.load(Ordering::Relaxed),
                number_of(self.protocol()),
            )
            .as_bytes(),
        );
        line.extend_from_slice(&labels.library);
        line.extend_from_slice(b" lib-ver=");
        line.extend_from_slice(&labels.library_version);
        line
    }
}

fn number_of(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Resp2 => 2,
        Protocol::Resp3 => 3,
    }
}

/// Commands' full names by their numbers.
static NAMES: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
    let mut names = vec![""; TABLE.count()];
    for known in TABLE.iter() {
        names[usize::from(known.id.0)] = known.full_name;
        for inner in known.subcommands.values() {
            names[usize::from(inner.id.0)] = inner.full_name;
        }
    }
    names
});

/// Which commands `CLIENT PAUSE` holds back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pause {
    /// None.
    #[default]
    Nothing,
    /// Those that may write or publish.
    Writes,
    /// All.
    All,
}

/// Everybody who is connected.
#[derive(Debug, Default)]
pub struct Clients {
    connected: Mutex<BTreeMap<ClientId, Arc<Client>>>,
    last_id: AtomicU64,
    pause: Mutex<(Pause, u64)>,
    is_paused: AtomicBool,
}

impl Clients {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<ClientId, Arc<Client>>> {
        self.connected.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A client that has just connected. It stays here until its session ends (`Session::end`).
    pub fn connect(&self, origin: Origin, now: Now, outbox: Outbox) -> Arc<Client> {
        let id = ClientId(self.last_id.fetch_add(1, Ordering::Relaxed) + 1);
        let client = Arc::new(Client::new(id, origin, now, outbox));
        self.lock().insert(id, Arc::clone(&client));
        client
    }

    /// Forgets a client.
    pub(crate) fn disconnect(&self, client: &Client) {
        client.mark(Mark::GONE, true);
        self.lock().remove(&client.id);
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The client of this number.
    #[must_use]
    pub fn get(&self, id: ClientId) -> Option<Arc<Client>> {
        self.lock().get(&id).cloned()
    }

    /// All of them as they are now, by number.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Client>> {
        self.lock().values().cloned().collect()
    }

    /// Holds commands back until `until_us` on the monotonic clock. A pause under way is never made shorter or weaker.
    pub fn pause(&self, what: Pause, until_us: u64) {
        let mut pause = self.pause.lock().unwrap_or_else(PoisonError::into_inner);
        let kind = if pause.0 == Pause::All { Pause::All } else { what };
        *pause = (kind, pause.1.max(until_us));
        self.is_paused.store(true, Ordering::Release);
    }

    /// Ends a pause, and has those who wait for its end go on.
    pub fn unpause(&self) {
        {
            let mut pause = self.pause.lock().unwrap_or_else(PoisonError::into_inner);
            *pause = (Pause::Nothing, 0);
            self.is_paused.store(false, Ordering::Release);
        }
        for client in self.all() {
            if client.is(Mark::PAUSED) {
                client.outbox.wake();
            }
        }
    }

    /// Whether there may be a pause: what every command asks first.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.is_paused.load(Ordering::Acquire)
    }

    /// What is held back at `now`, and until when on the monotonic clock.
    #[must_use]
    pub fn paused(&self, now: Now) -> Option<(Pause, u64)> {
        if !self.is_paused.load(Ordering::Acquire) {
            return None;
        }
        let mut pause = self.pause.lock().unwrap_or_else(PoisonError::into_inner);
        if pause.1 <= now.monotonic_us {
            *pause = (Pause::Nothing, 0);
            self.is_paused.store(false, Ordering::Release);
            return None;
        }
        Some(*pause)
    }
}
