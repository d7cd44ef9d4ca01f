//! Members without order. SKELETON: the packed form and the large form come here.

use super::{Kind, Stored, Value};

/// An owned set.
#[derive(Clone, Debug, Default)]
pub struct Set {
    packed: Vec<u8>,
    changed: bool,
}

/// A borrowed set.
#[derive(Clone, Copy, Debug)]
pub enum SetView<'v> {
    /// Small: one run of bytes.
    Packed(&'v [u8]),
    /// Large.
    Large(&'v Set),
}

impl SetView<'_> {
    /// An owned copy.
    #[must_use]
    pub fn to_owned(&self) -> Set {
        match self {
            Self::Packed(bytes) => Set::from_packed(bytes.to_vec()),
            Self::Large(large) => (*large).clone(),
        }
    }
}

impl Set {
    /// A view of it.
    #[must_use]
    pub fn view(&self) -> SetView<'_> {
        SetView::Packed(&self.packed)
    }
}

impl Stored for Set {
    const KIND: Kind = Kind::Set;

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
        Value::Set(self)
    }

    fn from_value(value: &mut Value) -> Option<&mut Self> {
        if let Value::Set(it) = value { Some(it) } else { None }
    }
}
