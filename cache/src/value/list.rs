//! Elements in order. SKELETON: the packed form and the large form come here.

use super::{Kind, Stored, Value};

/// An owned list.
#[derive(Clone, Debug, Default)]
pub struct List {
    packed: Vec<u8>,
    changed: bool,
}

/// A borrowed list.
#[derive(Clone, Copy, Debug)]
pub enum ListView<'v> {
    /// Small: one run of bytes.
    Packed(&'v [u8]),
    /// Large.
    Large(&'v List),
}

impl ListView<'_> {
    /// An owned copy.
    #[must_use]
    pub fn to_owned(&self) -> List {
        match self {
            Self::Packed(bytes) => List::from_packed(bytes.to_vec()),
            Self::Large(large) => (*large).clone(),
        }
    }
}

impl List {
    /// A view of it.
    #[must_use]
    pub fn view(&self) -> ListView<'_> {
        ListView::Packed(&self.packed)
    }
}

impl Stored for List {
    const KIND: Kind = Kind::List;

    fn from_packed(bytes: Vec<u8>) -> Self {
        Self { packed: bytes, changed: false }
    }

    fn packed(&self) -> Option<&[u8]> {
        Some(&self.packed)
    }

    fn into_packed(self) -> Result<Vec<u8>, Self> {
        Ok(self.packed)
    }

    fn is_empty(&self) -> bool {
        self.packed.is_empty()
    }

    fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    fn heap_bytes(&self) -> usize {
        self.packed.capacity()
    }

    fn into_value(self) -> Value {
        Value::List(self)
    }

    fn from_value(value: &mut Value) -> Option<&mut Self> {
        if let Value::List(it) = value { Some(it) } else { None }
    }
}
