//! A selector: a set of commands, of key patterns and of channel patterns that are allowed together.
//!
//! A user has one at the root, and more in parentheses; a command is allowed if any of them allows all of it. Commands are a set of
//! bits by number, kept beside the rules as they were given, which is what `ACL LIST` shows.

use super::category::{CATEGORIES, belongs, each_command, find_command as find};
use super::{Denied, RuleError};
use crate::command::key_spec::{self, Access};
use crate::command::{CommandId, Flags, Known, TABLE};
use crate::glob;

#[derive(Clone, Debug, PartialEq, Eq)]
struct KeyPattern {
    pattern: Vec<u8>,
    access: Access,
}

/// What is allowed together.
#[derive(Clone, Debug)]
pub(super) struct Selector {
    allowed: Vec<u64>,
    /// First arguments with which a command is allowed that is not allowed otherwise (`+select|0`).
    first_arguments: Vec<(CommandId, Vec<u8>)>,
    all_commands: bool,
    rules: Vec<String>,
    keys: Vec<KeyPattern>,
    all_keys: bool,
    channels: Vec<Vec<u8>>,
    all_channels: bool,
}

/// How far a command came before it was refused: the error that is told is that of the selector that came furthest.
#[derive(Debug)]
pub(super) enum Refusal {
    Command,
    Key(usize),
    Channel(usize),
}

impl Refusal {
    fn rank(&self) -> (u8, usize) {
        match self {
            Self::Command => (0, 0),
            Self::Key(index) => (1, *index),
            Self::Channel(index) => (2, *index),
        }
    }

    pub(super) fn further(self, other: Self) -> Self {
        if other.rank() > self.rank() { other } else { self }
    }

    pub(super) fn denied(&self, user: &[u8], known: &Known, arguments: &[&[u8]]) -> Denied {
        match *self {
            Self::Command => Denied::Command(user.into(), known.full_name),
            Self::Key(index) => Denied::Key(user.into(), arguments[index].into()),
            Self::Channel(index) => Denied::Channel(user.into(), arguments[index].into()),
        }
    }
}

impl Selector {
    /// One that allows nothing.
    pub(super) fn nothing() -> Self {
        Self {
            allowed: vec![0; TABLE.count().div_ceil(64)],
            first_arguments: Vec::new(),
            all_commands: false,
            rules: vec!["-@all".to_owned()],
            keys: Vec::new(),
            all_keys: false,
            channels: Vec::new(),
            all_channels: false,
        }
    }

    /// One that allows everything.
    pub(super) fn everything() -> Self {
        let mut selector = Self::nothing();
        selector.change_all_commands(true);
        selector.all_keys = true;
        selector.all_channels = true;
        selector
    }

    pub(super) fn is_everything(&self) -> bool {
        self.all_commands && self.all_keys && self.all_channels
    }

    pub(super) fn allow_all_channels(&mut self) {
        self.all_channels = true;
        self.channels.clear();
    }

    /// Whether every key may be read, and written if `write`.
    pub(super) fn has_every_key(&self, write: bool) -> bool {
        self.all_keys
            || self
                .keys
                .iter()
                .any(|it| it.pattern == b"*" && it.access.read && (it.access.write || !write))
    }

    fn allows_command(&self, known: &Known, arguments: &[&[u8]]) -> bool {
        let bit = usize::from(known.id.0);
        if self.all_commands
            || known.command.flags.has(Flags::NO_AUTH)
            || self.allowed[bit / 64] & (1 << (bit % 64)) != 0
        {
            return true;
        }
        arguments.get(1).is_some_and(|first| {
            self.first_arguments
                .iter()
                .any(|(id, argument)| *id == known.id && argument.eq_ignore_ascii_case(first))
        })
    }

    fn allows_key(&self, key: &[u8], access: Access) -> bool {
        self.all_keys
            || self.keys.iter().any(|it| {
                (it.access.read || !access.read)
                    && (it.access.write || !access.write)
                    && glob::matches(&it.pattern, key)
            })
    }

    /// Whether a channel is allowed; a pattern to subscribe to must stand in the rules letter by letter.
    pub(super) fn allows_channel(&self, channel: &[u8], is_pattern: bool) -> bool {
        self.all_channels
            || self.channels.iter().any(|pattern| {
                if is_pattern { pattern == channel } else { glob::matches(pattern, channel) }
            })
    }

    /// Whether a command with these arguments is allowed.
    pub(super) fn check(&self, known: &Known, arguments: &[&[u8]]) -> Result<(), Refusal> {
        if !self.allows_command(known, arguments) {
            return Err(Refusal::Command);
        }
        if !self.all_keys {
            let mut refused = None;
            known.command.keys.each(arguments, |index| {
                if refused.is_none() {
                    let access = key_spec::access_of(known, arguments, index);
                    if access.is_some_and(|access| !self.allows_key(arguments[index], access)) {
                        refused = Some(index);
                    }
                }
            });
            if let Some(index) = refused {
                return Err(Refusal::Key(index));
            }
        }
        if self.all_channels {
            return Ok(());
        }
        let (channels, is_pattern) = channels_of(known, arguments);
        for index in channels {
            if !self.allows_channel(arguments[index], is_pattern) {
                return Err(Refusal::Channel(index));
            }
        }
        Ok(())
    }

    fn set_bit(&mut self, known: &Known, allow: bool) {
        let bit = usize::from(known.id.0);
        let (word, mask) = (&mut self.allowed[bit / 64], 1u64 << (bit % 64));
        if allow {
            *word |= mask;
        } else {
            *word &= !mask;
            self.all_commands = false;
        }
        self.first_arguments.retain(|(id, _)| *id != known.id);
    }

    fn change_all_commands(&mut self, allow: bool) {
        self.allowed.fill(if allow { u64::MAX } else { 0 });
        self.all_commands = allow;
        self.first_arguments.clear();
        self.rules = vec![format!("{}@all", if allow { '+' } else { '-' })];
    }

    fn change_command(&mut self, known: &'static Known, allow: bool) {
        self.set_bit(known, allow);
        for subcommand in known.subcommands.values() {
            self.set_bit(subcommand, allow);
        }
        self.note_rule(known.full_name, allow);
    }

    fn change_category(&mut self, category: &str, allow: bool) {
        each_command(|known| {
            if belongs(known, category) {
                self.set_bit(known, allow);
            }
        });
        self.note_rule(&format!("@{category}"), allow);
    }

    /// Writes a rule down, without those that it makes void: the same either way round, and those about a part of it.
    fn note_rule(&mut self, rule: &str, allow: bool) {
        self.rules.retain(|old| {
            old[1..]
                .strip_prefix(rule)
                .is_none_or(|rest| !rest.is_empty() && !rest.starts_with('|'))
        });
        self.rules.push(format!("{}{rule}", if allow { '+' } else { '-' }));
    }

    /// Applies one rule.
    pub(super) fn apply(&mut self, rule: &[u8]) -> Result<(), RuleError> {
        let is = |word: &str| rule.eq_ignore_ascii_case(word.as_bytes());
        if is("allkeys") || is("~*") {
            self.all_keys = true;
            self.keys.clear();
        } else if is("resetkeys") {
            self.all_keys = false;
            self.keys.clear();
        } else if is("allchannels") || is("&*") {
            self.allow_all_channels();
        } else if is("resetchannels") {
            self.all_channels = false;
            self.channels.clear();
        } else if is("allcommands") || is("+@all") {
            self.change_all_commands(true);
        } else if is("nocommands") || is("-@all") {
            self.change_all_commands(false);
        } else {
            match rule {
                [b'~', pattern @ ..] => self.add_keys(pattern, Access::BOTH)?,
                [b'%', rest @ ..] => {
                    let (pattern, access) = permission(rest).ok_or(RuleError::Syntax)?;
                    self.add_keys(pattern, access)?;
                }
                [b'&', pattern @ ..] => self.add_channels(pattern)?,
                [sign @ (b'+' | b'-'), b'@', category @ ..] => {
                    let category = category.to_ascii_lowercase();
                    let category = CATEGORIES.iter().find(|it| it.as_bytes() == category);
                    self.change_category(category.ok_or(RuleError::Unknown)?, *sign == b'+');
                }
                [b'+', name @ ..] => self.add_command(name)?,
                [b'-', name @ ..] => {
                    self.change_command(find(name).ok_or(RuleError::Unknown)?, false);
                }
                _ => return Err(RuleError::Syntax),
            }
        }
        Ok(())
    }

    fn add_command(&mut self, name: &[u8]) -> Result<(), RuleError> {
        let Some(bar) = name.iter().rposition(|byte| *byte == b'|') else {
            self.change_command(find(name).ok_or(RuleError::Unknown)?, true);
            return Ok(());
        };
        let (container, argument) = (&name[..bar], &name[bar + 1..]);
        let known = find(container).ok_or(RuleError::Unknown)?;
        if container.contains(&b'|') {
            return Err(RuleError::FirstArgumentOfSubcommand);
        }
        if argument.is_empty() {
            return Err(RuleError::Syntax);
        }
        if !known.subcommands.is_empty() {
            self.change_command(find(name).ok_or(RuleError::Unknown)?, true);
            return Ok(());
        }
        let argument = argument.to_ascii_lowercase();
        let shown = format!("{}|{}", known.full_name, String::from_utf8_lossy(&argument));
        self.note_rule(&shown, true);
        if !self.first_arguments.contains(&(known.id, argument.clone())) {
            self.first_arguments.push((known.id, argument));
        }
        Ok(())
    }

    fn add_keys(&mut self, pattern: &[u8], access: Access) -> Result<(), RuleError> {
        if self.all_keys {
            return Err(RuleError::AfterAllKeys);
        }
        if has_spaces(pattern) {
            return Err(RuleError::Syntax);
        }
        match self.keys.iter_mut().find(|it| it.pattern == pattern) {
            Some(old) => old.access = old.access.or(access),
            None => self.keys.push(KeyPattern { pattern: pattern.to_vec(), access }),
        }
        Ok(())
    }

    fn add_channels(&mut self, pattern: &[u8]) -> Result<(), RuleError> {
        if self.all_channels {
            return Err(RuleError::AfterAllChannels);
        }
        if has_spaces(pattern) {
            return Err(RuleError::Syntax);
        }
        if !self.channels.iter().any(|it| it == pattern) {
            self.channels.push(pattern.to_vec());
        }
        Ok(())
    }

    /// Its commands as `ACL GETUSER` shows them.
    pub(super) fn commands_shown(&self) -> String {
        self.rules.join(" ")
    }

    /// Its keys as `ACL GETUSER` shows them.
    pub(super) fn keys_shown(&self) -> Vec<u8> {
        if self.all_keys {
            return b"~*".to_vec();
        }
        let shown = self.keys.iter().map(|it| {
            let sign: &[u8] = match (it.access.read, it.access.write) {
                (true, true) => b"~",
                (true, false) => b"%R~",
                _ => b"%W~",
            };
            [sign, &it.pattern].concat()
        });
        shown.collect::<Vec<_>>().join(&b' ')
    }

    /// Its channels as `ACL GETUSER` shows them.
    pub(super) fn channels_shown(&self) -> Vec<u8> {
        if self.all_channels {
            return b"&*".to_vec();
        }
        let shown = self.channels.iter().map(|pattern| [b"&", pattern.as_slice()].concat());
        shown.collect::<Vec<_>>().join(&b' ')
    }

    /// All of it as `ACL LIST` shows it.
    pub(super) fn shown(&self) -> Vec<u8> {
        let mut parts = Vec::new();
        let keys = self.keys_shown();
        if !keys.is_empty() {
            parts.push(keys);
        }
        if !self.all_channels {
            parts.push(b"resetchannels".to_vec());
        }
        let channels = self.channels_shown();
        if !channels.is_empty() {
            parts.push(channels);
        }
        parts.push(self.commands_shown().into_bytes());
        parts.join(&b' ')
    }
}

/// `RW~pattern`, in any order and either alone. Redis takes a missing pattern for an empty one.
fn permission(rest: &[u8]) -> Option<(&[u8], Access)> {
    let tilde = rest.iter().position(|byte| *byte == b'~').unwrap_or(rest.len());
    let mut access = Access::NONE;
    for letter in &rest[..tilde] {
        match letter.to_ascii_uppercase() {
            b'R' if !access.read => access.read = true,
            b'W' if !access.write => access.write = true,
            _ => return None,
        }
    }
    (access != Access::NONE).then(|| (rest.get(tilde + 1..).unwrap_or_default(), access))
}

pub(super) fn has_spaces(text: &[u8]) -> bool {
    text.iter().any(|byte| byte.is_ascii_whitespace() || matches!(byte, 0 | 0x0b))
}

/// Which arguments are channels that need permission, and whether they are patterns.
fn channels_of(known: &Known, arguments: &[&[u8]]) -> (std::ops::Range<usize>, bool) {
    match known.full_name {
        "subscribe" | "ssubscribe" => (1..arguments.len(), false),
        "psubscribe" => (1..arguments.len(), true),
        "publish" | "spublish" => (1..2, false),
        _ => (0..0, false),
    }
}
