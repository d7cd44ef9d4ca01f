//! Access control: users, their passwords, and what they may do.
//!
//! A session holds the [`User`] it has authenticated as. A user is changed in place, so that a change holds from the very next command
//! of every session of theirs. One who may do everything (as the default user may, until told otherwise) costs one relaxed load a
//! command.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::{Digest as _, Sha256};

use crate::command::{Failure, Known};

/// A password as it is kept: its SHA-256.
type Hash = [u8; 32];

/// One user. Never removed from sessions that hold them: one who was deleted is marked so, and may do nothing.
#[derive(Debug)]
pub struct User {
    name: Box<[u8]>,
    powerful: AtomicBool,
    passwords: Mutex<Vec<Hash>>,
}

impl User {
    /// Their name.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        &self.name
    }
}

/// Why a user may not do something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denied {
    /// The command is not theirs: their name, and the command's.
    Command(Box<[u8]>, &'static str),
    /// This key is not.
    Key(Box<[u8]>),
    /// This channel is not.
    Channel(Box<[u8]>),
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command(user, command) => {
                let user = String::from_utf8_lossy(user);
                write!(f, "NOPERM User {user} has no permissions to run the '{command}' command")
            }
            Self::Key(_) => f.write_str("NOPERM No permissions to access a key"),
            Self::Channel(_) => f.write_str("NOPERM No permissions to access a channel"),
        }
    }
}

impl From<Denied> for Failure {
    fn from(denied: Denied) -> Self {
        Self::Text(denied.to_string().into())
    }
}

/// All users.
#[derive(Debug)]
pub struct AccessControl {
    users: Mutex<BTreeMap<Box<[u8]>, Arc<User>>>,
    default: Arc<User>,
}

impl Default for AccessControl {
    fn default() -> Self {
        let default = Arc::new(User {
            name: (*b"default").into(),
            powerful: AtomicBool::new(true),
            passwords: Mutex::default(),
        });
        let users = BTreeMap::from([(default.name.clone(), Arc::clone(&default))]);
        Self { users: Mutex::new(users), default }
    }
}

impl AccessControl {
    fn users(&self) -> MutexGuard<'_, BTreeMap<Box<[u8]>, Arc<User>>> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The user whom every connection begins as.
    #[must_use]
    pub fn default_user(&self) -> &Arc<User> {
        &self.default
    }

    /// Whether a connection may go on as the default user without a password.
    pub fn is_open(&self) -> bool {
        self.default.passwords.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// The user of this name, if the password is one of theirs and they are not switched off.
    pub fn authenticate(&self, name: &[u8], password: &[u8]) -> Option<Arc<User>> {
        let user = self.users().get(name).cloned()?;
        let hash: Hash = Sha256::digest(password).into();
        let passwords = user.passwords.lock().unwrap_or_else(PoisonError::into_inner);
        let known = passwords.is_empty() || passwords.contains(&hash);
        drop(passwords);
        known.then_some(user)
    }

    /// Whether `user` may carry out a command with these arguments. Its number of arguments fits.
    ///
    /// # Errors
    /// What they may not do.
    pub fn check(&self, user: &User, known: &Known, arguments: &[&[u8]]) -> Result<(), Denied> {
        if user.powerful.load(Ordering::Relaxed) {
            return Ok(());
        }
        let _ = arguments;
        Err(Denied::Command(user.name.clone(), known.full_name))
    }

    /// Gives the default user one password, or none if it is empty (`requirepass`).
    pub fn set_default_password(&self, password: &[u8]) {
        let mut passwords = self.default.passwords.lock().unwrap_or_else(PoisonError::into_inner);
        passwords.clear();
        if !password.is_empty() {
            passwords.push(Sha256::digest(password).into());
        }
    }

    /// Notes a refusal for `ACL LOG`. `client` tells what `CLIENT INFO` would.
    pub fn note_denied(&self, user: &User, denied: &Denied, client: impl FnOnce() -> String) {
        let _ = (user, denied, client);
    }

    /// Notes a failed authentication for `ACL LOG`.
    pub fn note_failed_authentication(&self, name: &[u8], client: impl FnOnce() -> String) {
        let _ = (name, client);
    }
}
