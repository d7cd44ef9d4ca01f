//! Strings: bytes, whatever they mean. Numbers are kept as their decimal text.

use super::{Kind, Stored, Value};

/// A string while it is edited.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Text {
    bytes: Vec<u8>,
    changed: bool,
}

impl From<Vec<u8>> for Text {
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes, changed: false }
    }
}

impl Text {
    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes, to be changed. The caller does change them: the key counts as written.
    pub fn bytes_mut(&mut self) -> &mut Vec<u8> {
        self.changed = true;
        &mut self.bytes
    }

    /// Lets `alter` work on the bytes; they count as written if it says that it changed them.
    pub fn alter(&mut self, alter: impl FnOnce(&mut Vec<u8>) -> bool) {
        self.changed |= alter(&mut self.bytes);
    }

    /// The bytes, taken out.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// The longest string that Redis keeps in one piece with its head, in bytes.
const EMBEDDED_MAX: usize = 44;

/// The form that Redis would keep `bytes` in, as `OBJECT ENCODING` tells it. Here all strings have one form.
#[must_use]
pub fn encoding(bytes: &[u8]) -> &'static str {
    if crate::decimal::parse_integer(bytes).is_some() {
        "int"
    } else if bytes.len() <= EMBEDDED_MAX {
        "embstr"
    } else {
        "raw"
    }
}

impl Stored for Text {
    const KIND: Kind = Kind::String;

    fn from_packed(bytes: Vec<u8>) -> Self {
        Self::from(bytes)
    }

    fn packed(&self) -> Option<&[u8]> {
        Some(&self.bytes)
    }

    fn into_packed(self) -> Result<Vec<u8>, Self> {
        Ok(self.bytes)
    }

    fn is_empty(&self) -> bool {
        false
    }

    fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    fn heap_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    fn into_value(self) -> Value {
        Value::String(self)
    }

    fn from_value(value: &mut Value) -> Option<&mut Self> {
        if let Value::String(text) = value { Some(text) } else { None }
    }
}
