//! Access control: users, their passwords, and what they may do.
//!
//! A session holds the [`User`] it has authenticated as. A user is changed in place, so that a change holds from the very next command
//! of every session of theirs. One who may do everything (as the default user may, until told otherwise) costs one relaxed load a
//! command. Rules, error texts and listings are those of Redis 7.2; there is no ACL file.

pub mod category;
mod log;
mod selector;
mod user;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use self::log::Log;
pub use self::log::{LogContext, LogEntry};
use self::selector::has_spaces;
use self::user::Rules;
pub use self::user::{SelectorShown, User, UserShown, hex};
use crate::command::{Failure, Known, shown};
use crate::settings::Settings;
use crate::types::Now;

/// The most bytes of a name, a key or a client's description that an entry of the log keeps: each may be as long as an argument.
const SHOWN_MAX: usize = 1024;

/// A text cut to [`SHOWN_MAX`] bytes, at the end of a character.
fn bounded(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(SHOWN_MAX));
    text.shrink_to_fit();
    text
}

/// Why a user may not do something. Each holds the user's name first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denied {
    /// This command is not theirs.
    Command(Box<[u8]>, &'static str),
    /// This key is not.
    Key(Box<[u8]>, Box<[u8]>),
    /// This channel is not.
    Channel(Box<[u8]>, Box<[u8]>),
}

impl Denied {
    /// What `ACL DRYRUN` says: the key or channel by name, which the client that is refused does not learn.
    #[must_use]
    pub fn in_detail(&self) -> Vec<u8> {
        let (user, what): (_, [&[u8]; 3]) = match self {
            Self::Command(user, command) => {
                (user, [b"run the '", command.as_bytes(), b"' command"])
            }
            Self::Key(user, key) => (user, [b"access the '", key, b"' key"]),
            Self::Channel(user, channel) => (user, [b"access the '", channel, b"' channel"]),
        };
        [b"User ", &user[..], b" has no permissions to ", &what.concat()].concat()
    }
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command(user, command) => {
                let user = shown(user);
                write!(f, "NOPERM User {user} has no permissions to run the '{command}' command")
            }
            Self::Key(..) => f.write_str("NOPERM No permissions to access a key"),
            Self::Channel(..) => f.write_str("NOPERM No permissions to access a channel"),
        }
    }
}

impl From<Denied> for Failure {
    fn from(denied: Denied) -> Self {
        Self::Text(denied.to_string().into())
    }
}

/// What is wrong with a rule of `ACL SETUSER`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// It is no rule.
    #[error("Syntax error")]
    Syntax,
    /// It names a command or a category that there is not.
    #[error("Unknown command or category name in ACL")]
    Unknown,
    /// All keys are allowed already.
    #[error(
        "Adding a pattern after the * pattern (or the 'allkeys' flag) is not valid and does not have any effect. Try 'resetkeys' to start with an empty list of patterns"
    )]
    AfterAllKeys,
    /// All channels are allowed already.
    #[error(
        "Adding a pattern after the * pattern (or the 'allchannels' flag) is not valid and does not have any effect. Try 'resetchannels' to start with an empty list of channels"
    )]
    AfterAllChannels,
    /// The password to remove is not there.
    #[error("The password you are trying to remove from the user does not exist")]
    NoSuchPassword,
    /// A hash that is none.
    #[error(
        "The password hash must be exactly 64 characters and contain only lowercase hexadecimal characters"
    )]
    Hash,
    /// `+container|subcommand|argument`.
    #[error("Allowing first-arg of a subcommand is not supported")]
    FirstArgumentOfSubcommand,
}

/// All users.
#[derive(Debug)]
pub struct AccessControl {
    users: Mutex<BTreeMap<Box<[u8]>, Arc<User>>>,
    default: Arc<User>,
    log: Mutex<Log>,
}

impl Default for AccessControl {
    fn default() -> Self {
        let default = Arc::new(User::new(b"default", Rules::everything()));
        let users = BTreeMap::from([(Box::from(&b"default"[..]), Arc::clone(&default))]);
        Self { users: Mutex::new(users), default, log: Mutex::default() }
    }
}

impl AccessControl {
    fn users(&self) -> MutexGuard<'_, BTreeMap<Box<[u8]>, Arc<User>>> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The user whom every connection begins as.
    #[must_use]
    pub fn default_user(&self) -> &Arc<User> {
        &self.default
    }

    /// Whether a connection may go on as the default user without a password.
    pub fn is_open(&self) -> bool {
        let rules = self.default.rules();
        rules.no_password && rules.enabled
    }

    /// The user of this name, if the password is one of theirs and they are not switched off.
    pub fn authenticate(&self, name: &[u8], password: &[u8]) -> Option<Arc<User>> {
        let user = self.find(name)?;
        user.admits(password).then_some(user)
    }

    /// Whether the default user needs no password at all: `AUTH` with a password alone is then an error.
    pub fn default_has_no_password(&self) -> bool {
        self.default.rules().no_password
    }

    /// Whether `user` may carry out a command with these arguments. Their number fits the command.
    ///
    /// # Errors
    /// What they may not do.
    pub fn check(&self, user: &User, known: &Known, arguments: &[&[u8]]) -> Result<(), Denied> {
        if user.is_powerful() { Ok(()) } else { user.check(known, arguments) }
    }

    /// Gives the default user one password, or none if it is empty (`requirepass`).
    pub fn set_default_password(&self, password: &[u8]) {
        let mut rules = self.default.rules().clone();
        rules.set_password(password);
        self.default.change(rules);
    }

    /// The user of this name.
    pub fn find(&self, name: &[u8]) -> Option<Arc<User>> {
        self.users().get(name).cloned()
    }

    /// All users by name.
    pub fn all(&self) -> Vec<Arc<User>> {
        self.users().values().cloned().collect()
    }

    /// Makes or changes a user by rules, of which either all are applied or none. Returns the user.
    ///
    /// # Errors
    /// The error as the client gets it.
    pub fn set_user(
        &self,
        settings: &Settings,
        name: &[u8],
        rules: &[&[u8]],
    ) -> Result<Arc<User>, Failure> {
        if has_spaces(name) {
            return Err(Failure::err("Usernames can't contain spaces or null characters"));
        }
        let all_channels = settings.acl_pubsub_default.load(Ordering::Relaxed) == 0;
        let mut users = self.users();
        let old = users.get(name).cloned();
        let mut changed =
            old.as_ref().map_or_else(|| Rules::new(all_channels), |user| user.rules().clone());
        for rule in merge_selectors(rules)? {
            changed.apply(&rule, all_channels).map_err(|error| {
                let rule = shown(&rule);
                Failure::err(format_args!("Error in ACL SETUSER modifier '{rule}': {error}"))
            })?;
        }
        if let Some(user) = old {
            user.change(changed);
            return Ok(user);
        }
        let user = Arc::new(User::new(name, changed));
        users.insert(name.into(), Arc::clone(&user));
        Ok(user)
    }

    /// Deletes users, and returns how many there were. The default user stays.
    pub fn delete(&self, names: &[&[u8]]) -> usize {
        let mut users = self.users();
        let names = names.iter().filter(|name| **name != b"default");
        let deleted = names.filter_map(|name| users.remove(*name));
        deleted.map(|user| user.delete()).count()
    }

    /// Notes a refusal for `ACL LOG`. `client` tells what `CLIENT INFO` would.
    pub fn note_denied(
        &self,
        settings: &Settings,
        denied: &Denied,
        context: LogContext,
        now: Now,
        client: impl FnOnce() -> String,
    ) {
        let (reason, user, object) = match denied {
            Denied::Command(user, command) => ("command", user, command.as_bytes()),
            Denied::Key(user, key) => ("key", user, &key[..]),
            Denied::Channel(user, channel) => ("channel", user, &channel[..]),
        };
        self.note(settings, reason, user, object, context, now, client());
    }

    /// Notes a failed authentication for `ACL LOG`.
    pub fn note_failed_authentication(
        &self,
        settings: &Settings,
        name: &[u8],
        context: LogContext,
        now: Now,
        client: impl FnOnce() -> String,
    ) {
        self.note(settings, "auth", name, b"AUTH", context, now, client());
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of an entry")]
    fn note(
        &self,
        settings: &Settings,
        reason: &'static str,
        user: &[u8],
        object: &[u8],
        context: LogContext,
        now: Now,
        client: String,
    ) {
        let short = |text: &[u8]| Box::from(&text[..text.len().min(SHOWN_MAX)]);
        let entry = LogEntry {
            id: 0,
            count: 1,
            reason,
            context,
            object: short(object),
            user: short(user),
            created: now,
            updated: now,
            client: bounded(client),
        };
        let length = settings.acllog_max_len.load(Ordering::Relaxed);
        self.log().note(entry, usize::try_from(length).unwrap_or(0));
    }

    /// The latest `count` refusals, latest first.
    pub fn refusals(&self, count: usize) -> Vec<LogEntry> {
        self.log().latest(count)
    }

    /// Forgets all refusals.
    pub fn reset_log(&self) {
        self.log().reset();
    }
}

/// Puts selectors together that came as several arguments: `(+get`, `~a*)`.
fn merge_selectors(rules: &[&[u8]]) -> Result<Vec<Vec<u8>>, Failure> {
    let mut merged: Vec<Vec<u8>> = Vec::new();
    let mut open = None;
    for rule in rules {
        if open.is_some() {
            let selector = merged.last_mut().expect("an open selector was put there");
            selector.push(b' ');
            selector.extend_from_slice(rule);
            if rule.ends_with(b")") {
                open = None;
            }
            continue;
        }
        merged.push(rule.to_vec());
        if rule.starts_with(b"(") && !rule.ends_with(b")") {
            open = Some(*rule);
        }
    }
    match open {
        None => Ok(merged),
        Some(rule) => Err(Failure::err(format_args!(
            "Unmatched parenthesis in acl selector starting at '{}'.",
            shown(rule)
        ))),
    }
}
