//! One client's session: what a connection has chosen, and how a command of its is carried out.
//!
//! A session is a pure state machine. Frames go in with the time, replies come out; whatever others have for the client (messages,
//! invalidations, the end of a wait) gathers in its [`Outbox`], which is emptied between two replies and so never lands inside one.

use std::sync::Arc;

use crate::blocking::Standing;
use crate::clients::{Client, Outbox};
use crate::command::{Command, Context, Failure, Flags, Keys, Known, TABLE};
use crate::engine::Engine;
use crate::resp::{Protocol, Reply};
use crate::store::ShardSet;
use crate::totals::Tally;
use crate::types::{Database, Now};

/// What the connection does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Goes on with the next command.
    Continue,
    /// Waits until the outbox has the reply, or until this moment on the monotonic clock (microseconds; None: for ever), and then
    /// calls [`Session::wait_is_over`]. Executes nothing meanwhile.
    Wait(Option<u64>),
    /// Sends what there is, and closes.
    Close,
}

/// One client's session.
#[derive(Debug)]
pub struct Session {
    /// What others may know and touch: number, name, outbox, whether it is to be killed.
    pub client: Arc<Client>,
    /// `SELECT`.
    pub database: Database,
    /// `HELLO`.
    pub protocol: Protocol,
    /// Whether it has authenticated, or need not.
    pub authenticated: bool,
    /// What happens after the command under way.
    pub next: Next,
    /// Whether a command may make it wait: not within `EXEC`, where blocking commands answer at once.
    pub may_wait: bool,
    /// Where its commands are counted.
    pub tally: Arc<Tally>,
}

impl Session {
    /// A session that has just begun.
    #[must_use]
    pub fn new(client: Arc<Client>, tally: Arc<Tally>, authenticated: bool) -> Self {
        Self {
            client,
            database: Database::default(),
            protocol: Protocol::default(),
            authenticated,
            next: Next::Continue,
            may_wait: true,
            tally,
        }
    }

    /// What others have for the client.
    #[must_use]
    pub fn outbox(&self) -> &Outbox {
        &self.client.outbox
    }

    /// Carries one command out and appends its reply to `out`. `arguments` has the name first and is not empty. Returns what the
    /// connection does next, and the time at which the command was finished.
    pub fn execute(
        &mut self,
        engine: &Engine,
        arguments: &[&[u8]],
        now: Now,
        out: &mut Vec<u8>,
    ) -> (Next, Now) {
        self.next = Next::Continue;
        let from = out.len();
        if let Err(failure) = self.carry_out(engine, arguments, now, out) {
            out.truncate(from);
            Reply::new(out, self.protocol).error(failure);
        }
        self.outbox().drain_into(out);
        (self.next, engine.clock.now())
    }

    /// Looks whether a wait ([`Next::Wait`]) is over; to be called whenever the outbox was filled, and at the deadline. Moves what
    /// the outbox holds to `out`, with a null reply after it if the time is over, and says what the connection does next.
    pub fn wait_is_over(&mut self, engine: &Engine, out: &mut Vec<u8>) -> Next {
        let standing = engine.waiters.standing(self.client.id, engine.clock.now().monotonic_us);
        self.outbox().drain_into(out);
        if let Standing::Waits(deadline_us) = standing {
            return Next::Wait(deadline_us);
        }
        if standing == Standing::TimedOut {
            Reply::new(out, self.protocol).null_array();
        }
        if !engine.waiters.is_used() {
            engine.review_observation();
        }
        Next::Continue
    }

    fn carry_out(
        &mut self,
        engine: &Engine,
        arguments: &[&[u8]],
        now: Now,
        out: &mut Vec<u8>,
    ) -> Result<(), Failure> {
        let known = resolve(arguments)?;
        let command = known.command;
        if command.flags.has(Flags::DENYOOM) {
            let bytes = arguments.iter().map(|argument| argument.len()).sum();
            if !engine.make_room(bytes, now) {
                return Err(Failure::Text(
                    "OOM command not allowed when used memory > 'maxmemory'.".into(),
                ));
            }
        }
        let shards = self.shards_of(engine, command, arguments);
        let mut keys = engine.store.lock(shards, now);
        // Somebody may have begun to wait for one of the keys before they were locked; from here on nobody can.
        if command.flags.has(Flags::WAKES) && shards != ShardSet::ALL && engine.waiters.is_used() {
            drop(keys);
            keys = engine.store.lock(ShardSet::ALL, now);
        }
        let reply = Reply::new(out, self.protocol);
        let mut context = Context { engine, session: self, keys: &mut keys, reply, now, command };
        let result = (command.run)(&mut context, arguments);
        engine.settle(&mut keys);
        result
    }

    /// The shards that a command needs.
    fn shards_of(&self, engine: &Engine, command: &Command, arguments: &[&[u8]]) -> ShardSet {
        if matches!(command.keys, Keys::All)
            || (command.flags.has(Flags::WAKES) && engine.waiters.is_used())
        {
            return ShardSet::ALL;
        }
        let mut shards = ShardSet::NONE;
        command.keys.each(arguments, |index| {
            shards.insert(engine.store.key(self.database, arguments[index]).slot());
        });
        shards
    }
}

/// Finds the command, or the subcommand, that `arguments` call, and sees that their number fits.
///
/// # Errors
/// In Redis's words, if there is none or the number does not fit.
pub fn resolve(arguments: &[&[u8]]) -> Result<&'static Known, Failure> {
    let name = arguments[0];
    let Some(known) = TABLE.find(name) else {
        return Err(unknown_command(arguments));
    };
    let known = match arguments.get(1) {
        Some(subcommand) if !known.subcommands.is_empty() => {
            known.find(subcommand).ok_or_else(|| {
                let shown = String::from_utf8_lossy(subcommand);
                let name = known.full_name.to_uppercase();
                Failure::err(format_args!("unknown subcommand '{shown}'. Try {name} HELP."))
            })?
        }
        _ => known,
    };
    if known.command.takes(arguments.len()) {
        Ok(known)
    } else {
        Err(Failure::Arity(known.full_name))
    }
}

fn unknown_command(arguments: &[&[u8]]) -> Failure {
    let mut shown = String::new();
    for argument in &arguments[1..] {
        if shown.len() >= 128 {
            break;
        }
        let room = 128 - shown.len();
        let text = String::from_utf8_lossy(&argument[..argument.len().min(room)]).into_owned();
        shown.push_str(&format!("'{text}' "));
    }
    let name = String::from_utf8_lossy(&arguments[0][..arguments[0].len().min(128)]).into_owned();
    Failure::err(format_args!("unknown command '{name}', with args beginning with: {shown}"))
}
