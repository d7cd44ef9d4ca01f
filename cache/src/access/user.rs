//! A user, and the rules that make one.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use sha2::{Digest as _, Sha256};

use super::selector::{Refusal, Selector};
use super::{Denied, RuleError};
use crate::command::Known;

/// A password as it is kept: its SHA-256.
type Hash = [u8; 32];

/// What a user may do and how they prove who they are.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    pub(super) enabled: bool,
    pub(super) no_password: bool,
    sanitize: bool,
    passwords: Vec<Hash>,
    root: Selector,
    selectors: Vec<Selector>,
}

impl Rules {
    /// Those of a user who has just been made: none.
    pub(super) fn new(all_channels: bool) -> Self {
        let mut root = Selector::nothing();
        if all_channels {
            root.allow_all_channels();
        }
        Self {
            enabled: false,
            no_password: false,
            sanitize: true,
            passwords: Vec::new(),
            root,
            selectors: Vec::new(),
        }
    }

    /// Those of the default user at first.
    pub(super) fn everything() -> Self {
        Self { enabled: true, no_password: true, root: Selector::everything(), ..Self::new(true) }
    }

    /// One password, or none.
    pub(super) fn set_password(&mut self, password: &[u8]) {
        self.passwords.clear();
        self.no_password = password.is_empty();
        if !password.is_empty() {
            self.passwords.push(Sha256::digest(password).into());
        }
    }

    /// Whether the password is one of theirs. What it takes depends on how many they have, not on which it is or how much of it is
    /// right.
    fn knows(&self, password: &[u8]) -> bool {
        let hash: Hash = Sha256::digest(password).into();
        let mut found = false;
        for kept in &self.passwords {
            let difference = kept.iter().zip(&hash).fold(0, |all, (a, b)| all | (a ^ b));
            found |= std::hint::black_box(difference) == 0;
        }
        found || self.no_password
    }

    /// Applies one rule of `ACL SETUSER`.
    pub(super) fn apply(&mut self, rule: &[u8], all_channels: bool) -> Result<(), RuleError> {
        let is = |word: &str| rule.eq_ignore_ascii_case(word.as_bytes());
        if rule.is_empty() {
            // Says nothing.
        } else if is("on") {
            self.enabled = true;
        } else if is("off") {
            self.enabled = false;
        } else if is("nopass") {
            self.no_password = true;
            self.passwords.clear();
        } else if is("resetpass") {
            self.no_password = false;
            self.passwords.clear();
        } else if is("sanitize-payload") {
            self.sanitize = true;
        } else if is("skip-sanitize-payload") {
            self.sanitize = false;
        } else if is("clearselectors") {
            self.selectors.clear();
        } else if is("reset") {
            *self = Self::new(all_channels);
        } else {
            return self.apply_sign(rule, all_channels);
        }
        Ok(())
    }

    fn apply_sign(&mut self, rule: &[u8], all_channels: bool) -> Result<(), RuleError> {
        match rule {
            [b'>', password @ ..] => self.add(Sha256::digest(password).into()),
            [b'#', text @ ..] => self.add(parse_hash(text).ok_or(RuleError::Hash)?),
            [b'<', password @ ..] => self.remove(Sha256::digest(password).into())?,
            [b'!', text @ ..] => self.remove(parse_hash(text).ok_or(RuleError::Hash)?)?,
            [b'(', rules @ .., b')'] => {
                let mut selector = Selector::nothing();
                if all_channels {
                    selector.allow_all_channels();
                }
                for rule in rules.split(u8::is_ascii_whitespace).filter(|rule| !rule.is_empty()) {
                    selector.apply(rule)?;
                }
                self.selectors.push(selector);
            }
            _ => self.root.apply(rule)?,
        }
        Ok(())
    }

    fn add(&mut self, hash: Hash) {
        self.no_password = false;
        if !self.passwords.contains(&hash) {
            self.passwords.push(hash);
        }
    }

    fn remove(&mut self, hash: Hash) -> Result<(), RuleError> {
        let at = self.passwords.iter().position(|kept| *kept == hash);
        self.passwords.remove(at.ok_or(RuleError::NoSuchPassword)?);
        Ok(())
    }

    fn flags(&self) -> impl Iterator<Item = &'static str> {
        [
            Some(if self.enabled { "on" } else { "off" }),
            self.no_password.then_some("nopass"),
            Some(if self.sanitize { "sanitize-payload" } else { "skip-sanitize-payload" }),
        ]
        .into_iter()
        .flatten()
    }

    /// Whether these rules let the user listen to less than `before` did, on any of `channels` (with whether each is a pattern).
    pub(super) fn allow_channels<'c>(
        &self,
        channels: impl IntoIterator<Item = (&'c [u8], bool)>,
    ) -> bool {
        channels.into_iter().all(|(channel, is_pattern)| {
            std::iter::once(&self.root)
                .chain(&self.selectors)
                .any(|selector| selector.allows_channel(channel, is_pattern))
        })
    }
}

fn parse_hash(text: &[u8]) -> Option<Hash> {
    let mut hash = Hash::default();
    if text.len() != 64 {
        return None;
    }
    for (byte, digits) in hash.iter_mut().zip(text.chunks_exact(2)) {
        let digit = |letter: u8| match letter {
            b'0'..=b'9' => Some(letter - b'0'),
            b'a'..=b'f' => Some(letter - b'a' + 10),
            _ => None,
        };
        *byte = digit(digits[0])? << 4 | digit(digits[1])?;
    }
    Some(hash)
}

/// Bytes as hexadecimal digits in lower case.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A selector as `ACL GETUSER` shows it.
#[derive(Clone, Debug)]
pub struct SelectorShown {
    /// Its commands.
    pub commands: String,
    /// Its key patterns.
    pub keys: Vec<u8>,
    /// Its channel patterns.
    pub channels: Vec<u8>,
}

/// A user as `ACL GETUSER` shows them.
#[derive(Clone, Debug)]
pub struct UserShown {
    /// `on`, `nopass` …
    pub flags: Vec<&'static str>,
    /// SHA-256 of each password, in hexadecimal.
    pub passwords: Vec<String>,
    /// The root selector, and then those in parentheses.
    pub selectors: Vec<SelectorShown>,
}

/// One user. Sessions hold theirs, and see every change at their next command; one who was deleted may do nothing any more.
#[derive(Debug)]
pub struct User {
    name: Box<[u8]>,
    powerful: AtomicBool,
    deleted: AtomicBool,
    rules: RwLock<Rules>,
}

impl User {
    pub(super) fn new(name: &[u8], rules: Rules) -> Self {
        let user = Self {
            name: name.into(),
            powerful: AtomicBool::new(false),
            deleted: AtomicBool::new(false),
            rules: RwLock::new(rules.clone()),
        };
        user.change(rules);
        user
    }

    /// Their name.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// Whether they were deleted: their connections are to be closed.
    #[must_use]
    pub fn is_deleted(&self) -> bool {
        self.deleted.load(Ordering::Relaxed)
    }

    pub(super) fn delete(&self) {
        self.deleted.store(true, Ordering::Relaxed);
        self.powerful.store(false, Ordering::Relaxed);
    }

    pub(super) fn rules(&self) -> RwLockReadGuard<'_, Rules> {
        self.rules.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn change(&self, rules: Rules) {
        let powerful = rules.root.is_everything();
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = rules;
        self.powerful.store(powerful && !self.is_deleted(), Ordering::Relaxed);
    }

    pub(super) fn is_powerful(&self) -> bool {
        self.powerful.load(Ordering::Relaxed)
    }

    /// Whether they may log in with this password.
    pub(super) fn admits(&self, password: &[u8]) -> bool {
        let rules = self.rules();
        let knows = rules.knows(password);
        knows && rules.enabled
    }

    /// Whether they may read every key, and write every key if `write`: what `SORT … BY`, whose keys are not among its arguments,
    /// needs.
    #[must_use]
    pub fn has_every_key(&self, write: bool) -> bool {
        let rules = self.rules();
        self.is_powerful()
            || rules.root.has_every_key(write)
            || rules.selectors.iter().any(|selector| selector.has_every_key(write))
    }

    /// Whether they may listen to all of `channels`, each with whether it is a pattern.
    pub fn allows_channels<'c>(
        &self,
        channels: impl IntoIterator<Item = (&'c [u8], bool)>,
    ) -> bool {
        !self.is_deleted() && self.rules().allow_channels(channels)
    }

    #[cold]
    pub(super) fn check(&self, known: &Known, arguments: &[&[u8]]) -> Result<(), Denied> {
        let rules = self.rules();
        if self.is_deleted() {
            return Err(Refusal::Command.denied(&self.name, known, arguments));
        }
        let Err(mut refusal) = rules.root.check(known, arguments) else { return Ok(()) };
        for selector in &rules.selectors {
            match selector.check(known, arguments) {
                Ok(()) => return Ok(()),
                Err(other) => refusal = refusal.further(other),
            }
        }
        Err(refusal.denied(&self.name, known, arguments))
    }

    /// As `ACL GETUSER` shows them.
    #[must_use]
    pub fn shown(&self) -> UserShown {
        let rules = self.rules();
        let selectors = std::iter::once(&rules.root).chain(&rules.selectors);
        UserShown {
            flags: rules.flags().collect(),
            passwords: rules.passwords.iter().map(|hash| hex(hash)).collect(),
            selectors: selectors
                .map(|selector| SelectorShown {
                    commands: selector.commands_shown(),
                    keys: selector.keys_shown(),
                    channels: selector.channels_shown(),
                })
                .collect(),
        }
    }

    /// As `ACL LIST` shows them.
    #[must_use]
    pub fn line(&self) -> Vec<u8> {
        let rules = self.rules();
        let mut parts = vec![b"user".to_vec(), self.name.to_vec()];
        parts.extend(rules.flags().map(|flag| flag.as_bytes().to_vec()));
        parts.extend(rules.passwords.iter().map(|hash| format!("#{}", hex(hash)).into_bytes()));
        parts.push(rules.root.shown());
        parts.extend(
            rules.selectors.iter().map(|selector| [&b"("[..], &selector.shown(), b")"].concat()),
        );
        parts.join(&b' ')
    }
}
