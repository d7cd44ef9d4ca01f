//! What the owner appends: the unit of atomicity.

/// A batch: truncation, items and state that become durable together or not at all.
///
/// `B` is anything that can be seen as bytes (`Vec<u8>`, `&[u8]`, `Arc<[u8]>`, `bytes::Bytes`), or that can be turned into them: see
/// [`Encode`]. The items are copied once, into the frame.
///
/// ```
/// use lattice_journal::Batch;
///
/// let batch = Batch { first: 1, items: vec!["one", "two"], ..Batch::default() };
/// assert!(batch.state.is_none());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch<B = Vec<u8>> {
    /// First drop the items at this position and after it. It must be one of the positions held, or the next one.
    pub truncate_from: Option<u64>,
    /// First forget all items; the next position is this one. For a log that begins anew behind a snapshot.
    pub restart_at: Option<u64>,
    /// Position of the first item, which must be the next position of the journal. Ignored if there are no items.
    pub first: u64,
    /// Items at consecutive positions.
    pub items: Vec<B>,
    /// The owner's new state, which replaces the earlier one. The journal keeps it and does not look inside.
    pub state: Option<Vec<u8>>,
}

impl<B> Default for Batch<B> {
    fn default() -> Self {
        Self { truncate_from: None, restart_at: None, first: 0, items: Vec::new(), state: None }
    }
}

/// An item that becomes bytes in the frame itself, without being bytes anywhere else before.
///
/// ```
/// use lattice_journal::{Batch, Encode, Journal, JournalOptions, MemoryDisk};
///
/// struct Put<'a> {
///     key: &'a str,
///     value: u64,
/// }
///
/// impl Encode for Put<'_> {
///     fn encoded_length(&self) -> usize {
///         self.key.len() + 8
///     }
///
///     fn encode(&self, out: &mut Vec<u8>) {
///         out.extend_from_slice(&self.value.to_le_bytes());
///         out.extend_from_slice(self.key.as_bytes());
///     }
/// }
///
/// let disk = std::sync::Arc::new(MemoryDisk::new());
/// let (mut journal, _) = Journal::open(disk, "log", JournalOptions::new(7))?;
/// let items = vec![Put { key: "a", value: 1 }, Put { key: "b", value: 2 }];
/// journal.append(&Batch { first: 1, items, ..Batch::default() })?;
/// journal.sync()?;
/// assert_eq!(journal.reader().read(2..3, 1024)?[0].bytes, b"\x02\0\0\0\0\0\0\0b");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Encode {
    /// How many bytes [`Encode::encode`] appends.
    fn encoded_length(&self) -> usize;

    /// Appends the item to `out`, and leaves what is there as it is. The journal panics if it is of another length than it said.
    fn encode(&self, out: &mut Vec<u8>);
}

impl<B: AsRef<[u8]>> Encode for B {
    fn encoded_length(&self) -> usize {
        self.as_ref().len()
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_ref());
    }
}
