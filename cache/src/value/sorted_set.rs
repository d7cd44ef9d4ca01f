//! Members ordered by score. SKELETON: the packed form and the large form come here.

use super::{Kind, Stored, Value};

/// An owned sorted_set.
#[derive(Clone, Debug, Default)]
pub struct SortedSet {
    packed: Vec<u8>,
    changed: bool,
}

/// A borrowed sorted_set.
#[derive(Clone, Copy, Debug)]
pub enum SortedSetView<'v> {
    /// Small: one run of bytes.
    Packed(&'v [u8]),
    /// Large.
    Large(&'v SortedSet),
}

impl SortedSetView<'_> {
    /// An owned copy.
    #[must_use]
    pub fn to_owned(&self) -> SortedSet {
        match self {
            Self::Packed(bytes) => SortedSet::from_packed(bytes.to_vec()),
            Self::Large(large) => (*large).clone(),
        }
    }
}

impl SortedSet {
    /// A view of it.
    #[must_use]
    pub fn view(&self) -> SortedSetView<'_> {
        SortedSetView::Packed(&self.packed)
    }
}

impl Stored for SortedSet {
    const KIND: Kind = Kind::SortedSet;

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
        Value::SortedSet(self)
    }

    fn from_value(value: &mut Value) -> Option<&mut Self> {
        if let Value::SortedSet(it) = value { Some(it) } else { None }
    }
}
