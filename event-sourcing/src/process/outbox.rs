//! What the worker of a process does between events: it hands out commands, and lets timers fire.

use std::fmt;
use std::marker::PhantomData;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt;
use serde::de::DeserializeOwned;

use super::{ASIDE, Dispatch, Issued, OUTBOX, Outgoing, What, timer};
use crate::event::{Position, StreamName, Timestamp};
use crate::projection::{
    Chore, Chores, HandlerError, OnFailure, ProjectionError, Rows, Runner, Then, chain,
};
use crate::sleep::later;
use crate::store::EventStore;

/// Commands that are handed out, and timers that fire, before the outbox is brought up to date.
const AT_ONCE: usize = 64;

pub(super) struct Outbox<C> {
    store: Arc<dyn EventStore>,
    name: Arc<str>,
    timers: StreamName,
    dispatch: Arc<dyn Dispatch<C>>,
    failure: OnFailure,
    under_way: UnderWay,
    retry_at: Option<Timestamp>,
    command: PhantomData<fn() -> C>,
}

/// What the worker is waiting for.
enum UnderWay {
    Nothing,
    /// These commands, of which so many have succeeded.
    Commands(Vec<((Position, u32), Outgoing)>, Arc<Mutex<usize>>),
    Timers,
}

impl<C> Outbox<C> {
    pub(super) fn new(
        store: Arc<dyn EventStore>,
        name: &Arc<str>,
        timers: StreamName,
        dispatch: impl Dispatch<C>,
        failure: OnFailure,
    ) -> Self {
        Self {
            store,
            name: Arc::clone(name),
            timers,
            dispatch: Arc::new(dispatch),
            failure,
            under_way: UnderWay::Nothing,
            retry_at: None,
            command: PhantomData,
        }
    }
}

impl<C: DeserializeOwned + Send + 'static> Chores for Outbox<C> {
    fn next(&mut self, runner: &Runner, now: Timestamp) -> Result<Chore, ProjectionError> {
        if let Some(at) = self.retry_at
            && now < at
        {
            return Ok(Chore::Pause(at));
        }
        let commands = runner.look(|tx| tx.scan(&OUTBOX, AT_ONCE))?;
        if !commands.is_empty() {
            return Ok(Chore::Do(self.hand_out(commands)));
        }
        // A timer may have been cancelled by an event that is still to be handled.
        if !runner.is_caught_up() {
            return Ok(Chore::Nothing(None));
        }
        let mut timers = runner.look(|tx| timer::first(tx, AT_ONCE))?;
        let next = timers.first().map(|timer| timer.due);
        timers.retain(|timer| timer.due <= now);
        if timers.is_empty() {
            return Ok(Chore::Nothing(next));
        }
        self.under_way = UnderWay::Timers;
        let (store, stream) = (Arc::clone(&self.store), self.timers.clone());
        let fire = async move {
            for timer in timers {
                timer::fire(&*store, &stream, &timer).await.map_err(|error| chain(&*error))?;
            }
            Ok(())
        };
        Ok(Chore::Do(fire.boxed()))
    }

    fn done(
        &mut self,
        runner: &mut Runner,
        result: Result<(), String>,
        now: Timestamp,
    ) -> Result<(), ProjectionError> {
        self.retry_at = None;
        match std::mem::replace(&mut self.under_way, UnderWay::Nothing) {
            UnderWay::Nothing => {}
            UnderWay::Timers => {
                // What was recorded is an event to be handled.
                runner.wake(self.store.head());
                if result.is_err() {
                    self.retry_at = Some(later(now, self.failure.pause_after(1)));
                }
            }
            UnderWay::Commands(commands, done) => {
                let done = *done.lock().unwrap_or_else(PoisonError::into_inner);
                self.settle(runner, &commands, done, result.err(), now)?;
            }
        }
        Ok(())
    }
}

impl<C: DeserializeOwned + Send + 'static> Outbox<C> {
    /// Hands out commands one after the other, until one fails.
    fn hand_out(
        &mut self,
        commands: Vec<((Position, u32), Outgoing)>,
    ) -> futures::future::BoxFuture<'static, Result<(), String>> {
        let done = Arc::new(Mutex::new(0));
        self.under_way = UnderWay::Commands(commands.clone(), Arc::clone(&done));
        let (store, stream) = (Arc::clone(&self.store), self.timers.clone());
        let (dispatch, name) = (Arc::clone(&self.dispatch), Arc::clone(&self.name));
        async move {
            for (key, outgoing) in commands {
                let one = carry_out(&*store, &stream, &*dispatch, &name, key, outgoing);
                match AssertUnwindSafe(one).catch_unwind().await {
                    Ok(Ok(())) => *done.lock().unwrap_or_else(PoisonError::into_inner) += 1,
                    Ok(Err(error)) => return Err(chain(&*error)),
                    Err(_) => return Err("it panicked".to_owned()),
                }
            }
            Ok(())
        }
        .boxed()
    }

    /// Brings the outbox up to date.
    fn settle(
        &mut self,
        runner: &mut Runner,
        commands: &[((Position, u32), Outgoing)],
        done: usize,
        failed: Option<String>,
        now: Timestamp,
    ) -> Result<(), ProjectionError> {
        let failed = failed.map(|message| {
            let (key, outgoing) = &commands[done];
            let attempts = outgoing.attempts.saturating_add(1);
            (*key, Outgoing { attempts, message, ..outgoing.clone() })
        });
        let is_final = |it: &Outgoing| it.attempts > self.failure.retries;
        let set_aside =
            failed.as_ref().is_some_and(|(_, it)| is_final(it)) && self.failure.then == Then::Park;
        let most = self.failure.parked_max;
        let is_full = runner.amend(|tx| {
            commands[..done].iter().for_each(|(key, _)| tx.remove(&OUTBOX, key));
            let Some((key, outgoing)) = &failed else { return Ok(false) };
            let is_full = set_aside && tx.scan(&ASIDE, most)?.len() >= most;
            if set_aside && !is_full {
                tx.remove(&OUTBOX, key);
                tx.put(&ASIDE, key, outgoing)?;
            } else {
                tx.put(&OUTBOX, key, outgoing)?;
            }
            Ok(is_full)
        })?;
        // Timers that were set or cancelled are events to be handled.
        runner.wake(self.store.head());
        let Some(((position, number), outgoing)) = failed else { return Ok(()) };
        let Outgoing { attempts, message, .. } = outgoing.clone();
        if is_full {
            return Err(ProjectionError::ParkedFull { parked: most, message });
        }
        if !is_final(&outgoing) {
            self.retry_at = Some(later(now, self.failure.pause_after(attempts)));
        } else if self.failure.then == Then::Stop {
            return Err(ProjectionError::Command { position, number, attempts, message });
        }
        Ok(())
    }
}

async fn carry_out<C: DeserializeOwned + 'static>(
    store: &dyn EventStore,
    timers: &StreamName,
    dispatch: &dyn Dispatch<C>,
    name: &str,
    (position, number): (Position, u32),
    outgoing: Outgoing,
) -> Result<(), HandlerError> {
    match outgoing.what {
        What::SetTimer(timer) => timer::set(store, timers, &timer).await,
        What::CancelTimer(name) => timer::cancel(store, timers, &name).await,
        What::Command(json) => {
            let command = serde_json::from_slice(&json)?;
            let issued = Issued {
                key: format!("process/{name}/{position}/{number}"),
                position,
                event: outgoing.event,
                correlation: outgoing.correlation,
                attempts: outgoing.attempts,
            };
            dispatch.dispatch(command, issued).await
        }
    }
}

impl<C> fmt::Debug for Outbox<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox").field("name", &self.name).finish_non_exhaustive()
    }
}
