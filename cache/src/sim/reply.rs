//! What a client reads: replies and messages, the same for both protocols.

use std::fmt;

/// A reply, or a message.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Answer {
    Simple(String),
    Error(String),
    Integer(i64),
    Bulk(Vec<u8>),
    Null,
    List(Vec<Self>),
    /// A message that answers nothing.
    Push(Vec<Self>),
}

impl Answer {
    pub(super) fn ok() -> Self {
        Self::Simple("OK".to_owned())
    }

    pub(super) fn bulk(bytes: impl AsRef<[u8]>) -> Self {
        Self::Bulk(bytes.as_ref().to_vec())
    }

    pub(super) fn bulk_or_null(bytes: Option<&Vec<u8>>) -> Self {
        bytes.map_or(Self::Null, |bytes| Self::Bulk(bytes.clone()))
    }

    pub(super) fn count(count: usize) -> Self {
        Self::Integer(i64::try_from(count).expect("few"))
    }

    /// A list whose order means nothing, in order.
    pub(super) fn sorted(mut self) -> Self {
        if let Self::List(items) = &mut self {
            items.sort();
        }
        self
    }

    pub(super) fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Bulk(bytes) => Some(bytes),
            _ => None,
        }
    }

    pub(super) fn items(&self) -> &[Self] {
        match self {
            Self::List(items) | Self::Push(items) => items,
            _ => &[],
        }
    }

    /// Reads one answer off the front. None if there is no whole one, or nothing that is one.
    pub(super) fn read(wire: &mut &[u8]) -> Option<Self> {
        let end = wire.windows(2).position(|pair| pair == b"\r\n")?;
        let (line, rest) = (wire.get(1..end)?, wire.get(end + 2..)?);
        let kind = wire[0];
        let text = std::str::from_utf8(line).ok()?;
        *wire = rest;
        match kind {
            b'+' => Some(Self::Simple(text.to_owned())),
            b'-' => Some(Self::Error(text.to_owned())),
            b':' => text.parse().ok().map(Self::Integer),
            b',' => Some(Self::Bulk(line.to_vec())),
            b'_' => Some(Self::Null),
            b'$' | b'*' if text == "-1" => Some(Self::Null),
            b'$' => {
                let length: usize = text.parse().ok()?;
                let bytes = wire.get(..length)?.to_vec();
                *wire = wire.get(length + 2..)?;
                Some(Self::Bulk(bytes))
            }
            b'*' | b'~' | b'%' | b'>' => {
                let items: usize = text.parse().ok()?;
                let items = if kind == b'%' { 2 * items } else { items };
                let items = (0..items).map(|_| Self::read(wire)).collect::<Option<_>>()?;
                Some(if kind == b'>' { Self::Push(items) } else { Self::List(items) })
            }
            _ => None,
        }
    }

    /// All answers in `wire`.
    pub(super) fn read_all(mut wire: &[u8]) -> Option<Vec<Self>> {
        let mut answers = Vec::new();
        while !wire.is_empty() {
            answers.push(Self::read(&mut wire)?);
        }
        Some(answers)
    }

    /// As text, short.
    pub(super) fn show(&self) -> String {
        match self {
            Self::Simple(text) => text.clone(),
            Self::Error(text) => format!("-{text}"),
            Self::Integer(number) => number.to_string(),
            Self::Bulk(bytes) => show_bytes(bytes),
            Self::Null => "nil".to_owned(),
            Self::List(items) | Self::Push(items) => {
                let shown: Vec<String> = items.iter().take(12).map(Self::show).collect();
                let more = if items.len() > 12 { " …" } else { "" };
                format!("[{}{more}]", shown.join(" "))
            }
        }
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.show())
    }
}

/// Bytes as text, short.
pub(super) fn show_bytes(bytes: &[u8]) -> String {
    let shown = bytes[..bytes.len().min(24)].escape_ascii();
    if bytes.len() > 24 {
        format!("\"{shown}…\"({})", bytes.len())
    } else {
        format!("\"{shown}\"")
    }
}
