//! One connection: bytes in, requests executed, replies out.
//!
//! The task of a connection is a future written by hand, since four things may wake it at any point: bytes to read, room to write,
//! its [`Doorbell`] (something in the outbox, a kill, a deadline), and the end of a wait. A turn reads what there is, executes all
//! requests that are there in full, and writes all replies at once; it then goes on reading, for a few rounds, and gives way to
//! others.
//!
//! What a client can make the node hold is bounded at each step. Input: a request may not pass the connection's limit, and grows
//! its buffer only as its bytes arrive. Output: once [`PAUSE_AT`] bytes wait for a client that does read, it gets no further
//! replies until it has read on; a client that reads nothing is either still sending a long pipeline, or asleep: it is served up
//! to the hard limit, and then disconnected. Before a client has authenticated it gets next to nothing.
//!
//! A connection that ends with an error lingers: it tells the client that nothing more comes, and reads what is on the way for
//! a moment. Closed at once, the operating system would drop the error unread.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::time::Sleep;

use super::buffers::{LENT, Share};
use super::worker::{AbortOnPanic, Worker, setting};
use crate::clients::{Class, Client};
use crate::engine::Engine;
use crate::resp::Reply;
use crate::resp::parse::{self, Parser};
use crate::session::{Next, Session};
use crate::totals::Counter;
use crate::types::Now;

/// How many times a turn reads and writes before others have theirs.
const ROUNDS: usize = 8;

/// How much room there is at least for a read.
const ROOM_MIN: usize = 16 * 1024;

/// From how many bytes of replies on a client that reads is not served until it has read them.
const PAUSE_AT: usize = 16 * 1024 * 1024;

/// For how long a client that has read nothing counts as one that reads, in microseconds.
const PROGRESS_US: u64 = 1_000_000;

/// Buffers up to this size are left to a connection when the budget of all is used up.
const GRANTED: usize = 1024 * 1024;

/// How long one that closes waits for a client that reads nothing of what is left to send, in microseconds.
const CLOSING_US: u64 = 5_000_000;

/// How long a connection that ended with an error lingers, in microseconds, and how many bytes it reads meanwhile.
const LINGER_US: u64 = 1_000_000;
const LINGER_BYTES: usize = 1024 * 1024;

/// Bytes that a client may send before it has authenticated.
const UNAUTHENTICATED_MAX: usize = 4096;

/// Never, as a moment of a [`Doorbell`].
const NEVER: u64 = u64::MAX;

/// What rouses a connection's task from outside.
#[derive(Debug)]
pub(super) struct Doorbell {
    waker: Mutex<Option<Waker>>,
    due_us: AtomicU64,
}

impl Doorbell {
    pub(super) fn new() -> Self {
        Self { waker: Mutex::new(None), due_us: AtomicU64::new(NEVER) }
    }

    /// Has the task look around, from whichever thread.
    pub(super) fn ring(&self) {
        if let Some(waker) = &*self.waker.lock().unwrap_or_else(PoisonError::into_inner) {
            waker.wake_by_ref();
        }
    }

    /// Rings if the moment is past that the task has asked for.
    pub(super) fn ring_if_due(&self, now_us: u64) {
        if self.due_us.load(Ordering::Relaxed) <= now_us {
            self.due_us.store(NEVER, Ordering::Relaxed);
            self.ring();
        }
    }

    fn answer_to(&self, waker: &Waker) {
        let mut held = self.waker.lock().unwrap_or_else(PoisonError::into_inner);
        if !held.as_ref().is_some_and(|held| held.will_wake(waker)) {
            *held = Some(waker.clone());
        }
    }
}

/// Why a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The client has gone, or the connection broke.
    Gone,
    /// All is said.
    Done,
    /// It was killed, or the node stops.
    Killed,
    /// It did nothing for too long.
    Idle,
    /// It did not authenticate in time.
    Unauthenticated,
    /// It did not read its replies.
    OutputLimit,
    /// Its request is too large.
    InputLimit,
    /// All connections' buffers together are too large, and its own are not small.
    Budget,
}

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Executes requests.
    Serving,
    /// A command of it waits; nothing else is executed.
    Waiting,
    /// Sends what there is, and ends.
    Closing,
    /// Has sent everything, and reads what is on the way until this moment, at most so many bytes.
    Lingering { until_us: u64, bytes: usize },
}

/// One connection, as the future that serves it until it ends.
pub(super) struct Connection<S> {
    stream: S,
    worker: Arc<Worker>,
    session: Session,
    doorbell: Arc<Doorbell>,
    parser: Parser,
    /// What was received; the first `taken` bytes are done with.
    input: Vec<u8>,
    taken: usize,
    /// What is to be sent; the first `sent` bytes are.
    output: Vec<u8>,
    sent: usize,
    /// Whether the stream holds bytes back that have to be flushed (TLS).
    is_flushed: bool,
    phase: Phase,
    /// The end of a wait: the moment on the monotonic clock, and what wakes the task then.
    timer: Option<(u64, Pin<Box<Sleep>>)>,
    now: Now,
    began_us: u64,
    /// When the client last sent something.
    active_us: u64,
    /// When the client last read something.
    progress_us: u64,
    /// Since when the output is above the soft limit.
    above_soft_us: Option<u64>,
    /// Bytes received before authentication.
    unauthenticated: usize,
    share: Share,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// A connection that has just been accepted. Its client's outbox rings `doorbell`.
    pub(super) fn new(
        stream: S,
        worker: Arc<Worker>,
        session: Session,
        doorbell: Arc<Doorbell>,
        now: Now,
    ) -> Self {
        worker.register(session.client.id, Arc::clone(&doorbell));
        Self {
            stream,
            worker,
            session,
            doorbell,
            parser: Parser::new(),
            input: Vec::new(),
            taken: 0,
            output: Vec::new(),
            sent: 0,
            is_flushed: true,
            phase: Phase::Serving,
            timer: None,
            now,
            began_us: now.monotonic_us,
            active_us: now.monotonic_us,
            progress_us: now.monotonic_us,
            above_soft_us: None,
            unauthenticated: 0,
            share: Share::default(),
        }
    }

    fn engine(&self) -> &Engine {
        &self.worker.shared.engine
    }

    fn client(&self) -> &Client {
        &self.session.client
    }

    fn unsent(&self) -> usize {
        self.output.len() - self.sent
    }

    /// Reads, executes and writes as long as there is something to do, for a few rounds.
    fn turn(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, End> {
        self.now = self.engine().clock.now();
        for _ in 0..ROUNDS {
            self.check_deadlines()?;
            self.session.client.outbox.drain_into(&mut self.output);
            self.review_wait(cx);
            let mut has_more = self.execute_requests();
            if self.phase == Phase::Waiting {
                // What has just begun to wait may be over by now; and its timer has to know whom to wake.
                self.review_wait(cx);
                has_more = self.phase == Phase::Serving && self.taken < self.input.len();
            }
            self.send(cx)?;
            self.check_output()?;
            match self.phase {
                Phase::Serving | Phase::Waiting => {}
                Phase::Closing if self.unsent() > 0 || !self.is_flushed => {
                    return Ok(self.rest());
                }
                Phase::Closing => self.begin_to_linger(cx),
                Phase::Lingering { .. } => return self.linger(cx),
            }
            if self.is_paused() {
                return Ok(self.rest());
            }
            if has_more {
                continue;
            }
            match self.receive(cx)? {
                Poll::Pending => return Ok(self.rest()),
                Poll::Ready(0) => self.end_of_input()?,
                Poll::Ready(_) => {}
            }
        }
        self.rest_buffers();
        cx.waker().wake_by_ref();
        Ok(Poll::Pending)
    }

    /// Executes all requests that are there in full. True if it stopped before the end, so that replies are sent in between.
    fn execute_requests(&mut self) -> bool {
        if self.phase != Phase::Serving || self.taken == self.input.len() {
            return false;
        }
        if self.output.capacity() == 0 {
            self.output = self.worker.pool.lend();
        }
        // What `CLIENT LIST` tells of the buffers is what they hold before the first of these requests.
        self.client().set_buffers(self.input.len() - self.taken, self.unsent());
        let bulk_max = self.worker.shared.bulk_max();
        let Self { worker, session, parser, input, taken, output, phase, timer, now, .. } = self;
        let engine = &*worker.shared.engine;
        let from = output.len();
        loop {
            if output.len() - from >= LENT {
                return true;
            }
            let limits = parse::Limits { bulk_max, authenticated: session.authenticated };
            let frame = match parser.parse(&input[*taken..], &limits) {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(error) => {
                    refuse(session, output, error);
                    *phase = Phase::Closing;
                    break;
                }
            };
            *taken += frame.length;
            if frame.arguments.is_empty() {
                continue;
            }
            let (next, finished) = session.execute(engine, &frame.arguments, *now, output);
            *now = finished;
            match next {
                Next::Continue => {}
                Next::Wait(deadline_us) => {
                    *phase = Phase::Waiting;
                    set_timer(timer, deadline_us, finished);
                    break;
                }
                Next::Close => {
                    *phase = Phase::Closing;
                    break;
                }
            }
        }
        if !session.authenticated && self.unauthenticated > UNAUTHENTICATED_MAX {
            refuse(session, output, "ERR Protocol error: too much input before authentication");
            *phase = Phase::Closing;
        }
        false
    }

    /// Sees whether a wait is over.
    fn review_wait(&mut self, cx: &mut Context<'_>) {
        while self.phase == Phase::Waiting {
            let Self { worker, session, now, output, .. } = self;
            let (next, finished) = session.wait_is_over(&worker.shared.engine, *now, output);
            self.now = finished;
            match next {
                Next::Continue => self.phase = Phase::Serving,
                Next::Close => self.phase = Phase::Closing,
                Next::Wait(deadline_us) => {
                    set_timer(&mut self.timer, deadline_us, finished);
                    let Some((_, sleep)) = &mut self.timer else { return };
                    if sleep.as_mut().poll(cx).is_pending() {
                        return;
                    }
                    // The moment has come while we looked.
                    self.timer = None;
                    self.now = self.engine().clock.now();
                }
            }
        }
        self.timer = None;
    }

    /// Sends as much as the client takes.
    fn send(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        while self.sent < self.output.len() {
            let rest = &self.output[self.sent..];
            match Pin::new(&mut self.stream).poll_write(cx, rest) {
                Poll::Ready(Ok(0) | Err(_)) => return Err(End::Gone),
                Poll::Ready(Ok(count)) => {
                    self.sent += count;
                    self.is_flushed = false;
                    self.worker.tally.add(Counter::Writes, 1);
                    self.worker.tally.add(Counter::BytesOut, count as u64);
                    self.progress_us = self.now.monotonic_us;
                }
                Poll::Pending => {
                    // What is sent is dropped now and then; moving the rest costs less than was sent.
                    if self.sent > LENT && self.sent > self.output.len() / 2 {
                        self.output.drain(..self.sent);
                        self.sent = 0;
                    }
                    return Ok(());
                }
            }
        }
        self.output.clear();
        self.sent = 0;
        if !self.is_flushed {
            match Pin::new(&mut self.stream).poll_flush(cx) {
                Poll::Ready(Ok(())) => self.is_flushed = true,
                Poll::Ready(Err(_)) => return Err(End::Gone),
                Poll::Pending => {}
            }
        }
        Ok(())
    }

    /// Reads what there is, and says how many bytes.
    fn receive(&mut self, cx: &mut Context<'_>) -> Result<Poll<usize>, End> {
        if self.phase == Phase::Waiting && self.input.len() - self.taken >= LENT {
            // Enough for later. The client is known to be there as long as it keeps us from reading.
            return Ok(Poll::Pending);
        }
        self.make_room()?;
        let read = {
            let read = pin!(self.stream.read_buf(&mut self.input));
            read.poll(cx)
        };
        let count = match read {
            Poll::Pending => return Ok(Poll::Pending),
            Poll::Ready(Err(_)) => return Err(End::Gone),
            Poll::Ready(Ok(count)) => count,
        };
        self.active_us = self.now.monotonic_us;
        self.worker.tally.add(Counter::Reads, 1);
        self.worker.tally.add(Counter::BytesIn, count as u64);
        if !self.session.authenticated {
            self.unauthenticated += count;
        }
        Ok(Poll::Ready(count))
    }

    /// Sees to it that there is room to read into: a lent buffer, or the one with half a request in it. That grows by no more
    /// than it holds, whatever length was declared.
    fn make_room(&mut self) -> Result<(), End> {
        if self.taken == self.input.len() {
            self.input.clear();
            self.taken = 0;
            if self.input.capacity() < LENT {
                self.input = self.worker.pool.lend();
            }
            return Ok(());
        }
        let held = self.input.len() - self.taken;
        if held >= self.worker.shared.input_max() {
            return Err(End::InputLimit);
        }
        let wanted = self.parser.missing(held).clamp(ROOM_MIN, held.max(LENT));
        if self.input.capacity() - self.input.len() >= wanted.min(ROOM_MIN) {
            return Ok(());
        }
        self.input.drain(..self.taken);
        self.taken = 0;
        if self.input.capacity() - held < wanted {
            if held > GRANTED && self.worker.shared.is_budget_spent() {
                return Err(End::Budget);
            }
            self.input.reserve_exact(wanted);
        }
        Ok(())
    }

    /// The client sends no more: what it has asked for is still sent.
    fn end_of_input(&mut self) -> Result<(), End> {
        if self.unsent() == 0 || self.phase == Phase::Waiting {
            return Err(End::Gone);
        }
        self.phase = Phase::Closing;
        Ok(())
    }

    fn is_paused(&self) -> bool {
        self.unsent() >= PAUSE_AT && self.now.monotonic_us < self.progress_us + PROGRESS_US
    }

    /// Ends the connection if more waits for the client than may.
    fn check_output(&mut self) -> Result<(), End> {
        let unsent = self.unsent();
        if unsent < LENT {
            self.above_soft_us = None;
            return Ok(());
        }
        let shared = &self.worker.shared;
        let limit = shared.output_limit(self.client().output_class());
        let hard = setting(&limit.hard);
        // A reply goes out whole, however large: the limit is for what waits when the client asks for more.
        if hard > 0 && unsent > hard && self.taken < self.input.len() {
            return Err(End::OutputLimit);
        }
        if unsent > GRANTED && shared.is_budget_spent() {
            return Err(End::Budget);
        }
        let soft = setting(&limit.soft);
        if soft == 0 || unsent <= soft {
            self.above_soft_us = None;
        } else {
            let since = *self.above_soft_us.get_or_insert(self.now.monotonic_us);
            let patience_us = (setting(&limit.soft_s) as u64).saturating_mul(1_000_000);
            if self.now.monotonic_us.saturating_sub(since) >= patience_us {
                return Err(End::OutputLimit);
            }
        }
        Ok(())
    }

    /// Ends the connection if it is killed, idle, or takes too long to say who it is.
    fn check_deadlines(&self) -> Result<(), End> {
        let shared = &self.worker.shared;
        let now_us = self.now.monotonic_us;
        if self.client().outbox.is_over() {
            return Err(End::OutputLimit);
        }
        // One that ends by itself may still send its last reply.
        let is_open = matches!(self.phase, Phase::Serving | Phase::Waiting);
        if shared.is_stopping() || (is_open && self.client().is_doomed()) {
            return Err(End::Killed);
        }
        if self.phase == Phase::Closing && now_us >= self.progress_us + CLOSING_US {
            return Err(End::OutputLimit);
        }
        if !self.session.authenticated && now_us >= self.began_us + shared.authentication_us() {
            return Err(End::Unauthenticated);
        }
        match shared.idle_us() {
            Some(idle_us) if self.may_idle_out() && now_us >= self.active_us + idle_us => {
                Err(End::Idle)
            }
            _ => Ok(()),
        }
    }

    /// Whether it is up to the client to say something.
    fn may_idle_out(&self) -> bool {
        self.phase == Phase::Serving && self.client().output_class() == Class::Normal
    }

    /// The next moment at which a deadline, a limit or a pause has to be looked at again.
    fn due_us(&self) -> u64 {
        let shared = &self.worker.shared;
        let mut due = NEVER;
        if !self.session.authenticated {
            due = due.min(self.began_us + shared.authentication_us());
        }
        if let Some(idle_us) = shared.idle_us()
            && self.may_idle_out()
        {
            due = due.min(self.active_us + idle_us);
        }
        if self.unsent() >= PAUSE_AT || self.above_soft_us.is_some() {
            due = due.min(self.now.monotonic_us + PROGRESS_US);
        }
        match self.phase {
            Phase::Serving | Phase::Waiting => due,
            Phase::Closing => due.min(self.progress_us + CLOSING_US),
            Phase::Lingering { until_us, .. } => due.min(until_us),
        }
    }

    fn begin_to_linger(&mut self, cx: &mut Context<'_>) {
        let _ = Pin::new(&mut self.stream).poll_shutdown(cx);
        let until_us = self.now.monotonic_us + LINGER_US;
        self.phase = Phase::Lingering { until_us, bytes: LINGER_BYTES };
    }

    fn linger(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, End> {
        let Phase::Lingering { until_us, mut bytes } = self.phase else { return Err(End::Done) };
        // What was received is not looked at any more.
        self.taken = self.input.len();
        loop {
            if self.now.monotonic_us >= until_us || bytes == 0 {
                return Err(End::Done);
            }
            match self.receive(cx)? {
                Poll::Ready(0) => return Err(End::Done),
                Poll::Ready(count) => bytes = bytes.saturating_sub(count),
                Poll::Pending => break,
            }
            self.taken = self.input.len();
            self.now = self.engine().clock.now();
        }
        self.phase = Phase::Lingering { until_us, bytes };
        Ok(self.rest())
    }

    /// Waits to be woken, with no more in hand than is needed.
    fn rest(&mut self) -> Poll<()> {
        self.rest_buffers();
        self.doorbell.due_us.store(self.due_us(), Ordering::Relaxed);
        Poll::Pending
    }

    fn rest_buffers(&mut self) {
        let held = self.input.len() - self.taken;
        if held == 0 {
            self.taken = 0;
            self.worker.pool.take_back(std::mem::take(&mut self.input));
        } else if held < self.input.capacity() / 8 {
            let rest = self.input[self.taken..].to_vec();
            self.taken = 0;
            self.worker.pool.take_back(std::mem::replace(&mut self.input, rest));
        }
        if self.output.is_empty() {
            self.worker.pool.take_back(std::mem::take(&mut self.output));
        }
        let bytes = self.input.capacity() + self.output.capacity() + self.parser.memory();
        let shared = &self.worker.shared;
        shared.budget.count(&mut self.share, bytes, &shared.engine.store);
        self.client().set_buffers(self.input.len() - self.taken, self.unsent());
        let hard = setting(&shared.output_limit(self.client().output_class()).hard);
        self.client().outbox.set_limit(if hard == 0 { usize::MAX } else { hard });
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Future for Connection<S> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let _guard = AbortOnPanic;
        this.doorbell.answer_to(cx.waker());
        let end = match this.turn(cx) {
            Ok(poll) => {
                ready!(poll);
                End::Done
            }
            Err(end) => end,
        };
        let client = this.client().id.0;
        let tally = &this.worker.tally;
        match end {
            End::OutputLimit | End::Budget => tally.add(Counter::OutputLimitDisconnections, 1),
            End::InputLimit => tally.add(Counter::QueryLimitDisconnections, 1),
            End::Gone | End::Done | End::Killed | End::Idle | End::Unauthenticated => {}
        }
        match end {
            End::Gone | End::Done | End::Killed | End::Idle | End::Unauthenticated => {
                tracing::debug!(client, reason = ?end, "connection closed");
            }
            End::OutputLimit | End::InputLimit | End::Budget => {
                tracing::info!(client, reason = ?end, "connection closed");
            }
        }
        Poll::Ready(())
    }
}

impl<S> Drop for Connection<S> {
    fn drop(&mut self) {
        let shared = &self.worker.shared;
        self.session.end(&shared.engine);
        shared.budget.release(&mut self.share, &shared.engine.store);
        self.worker.unregister(self.session.client.id);
        shared.has_left();
    }
}

/// Answers what was no request.
fn refuse(session: &Session, output: &mut Vec<u8>, error: impl std::fmt::Display) {
    Reply::new(output, session.protocol).error(error);
}

fn set_timer(timer: &mut Option<(u64, Pin<Box<Sleep>>)>, deadline_us: Option<u64>, now: Now) {
    match (&*timer, deadline_us) {
        (Some((set_to, _)), Some(deadline_us)) if *set_to == deadline_us => {}
        _ => {
            *timer = deadline_us.map(|deadline_us| {
                let rest = Duration::from_micros(deadline_us.saturating_sub(now.monotonic_us));
                (deadline_us, Box::pin(tokio::time::sleep(rest)))
            });
        }
    }
}
