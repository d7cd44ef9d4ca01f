//! Fields with values. SKELETON: the packed form and the large form come here.

use super::{Kind, Stored, Value};

/// An owned hash.
#[derive(Clone, Debug, Default)]
pub struct Hash {
    packed: Vec<u8>,
    changed: bool,
}

/// A borrowed hash.
#[derive(Clone, Copy, Debug)]
pub enum HashView<'v> {
    /// Small: one run of bytes.
    Packed(&'v [u8]),
    /// Large.
    Large(&'v Hash),
}

impl HashView<'_> {
    /// An owned copy.
    #[must_use]
    pub fn to_owned(&self) -> Hash {
        match self {
            Self::Packed(bytes) => Hash::from_packed(bytes.to_vec()),
            Self::Large(large) => (*large).clone(),
        }
    }
}

impl Hash {
    /// A view of it.
    #[must_use]
    pub fn view(&self) -> HashView<'_> {
        HashView::Packed(&self.packed)
    }
}

impl Stored for Hash {
    const KIND: Kind = Kind::Hash;

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
        Value::Hash(self)
    }

    fn from_value(value: &mut Value) -> Option<&mut Self> {
        if let Value::Hash(it) = value { Some(it) } else { None }
    }
}
