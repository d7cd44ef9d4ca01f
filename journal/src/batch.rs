//! What the owner appends: the unit of atomicity.

/// A batch: truncation, items and state that become durable together or not at all.
///
/// `B` is anything that can be seen as bytes: `Vec<u8>`, `&[u8]`, `Arc<[u8]>`, `bytes::Bytes`. The items are copied once, into
/// the frame.
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
