//! A read model as it was: the same handlers, over the events up to some point, into a sink of its own.

use std::sync::Arc;

use bytes::Bytes;
use serde::de::DeserializeOwned;

use super::runner::{Next, Runner};
use super::sink::memory::MemorySink;
use super::sink::{Sink, SinkError, end_of_prefix};
use super::table::{Key, Rows, Table, decode};
use super::view::View;
use super::{OnFailure, Projection, ProjectionError};
use crate::clock::{Clock, ManualClock};
use crate::error::ReadError;
use crate::event::{Position, Recorded};
use crate::read::{Page, Source};
use crate::store::EventStore;
use crate::time_travel::Moment;

/// The read model of a projection at a point in the past, in memory. It reads the log from the projection's beginning, and keeps all
/// rows.
///
/// # Errors
///
/// If the log cannot be read, or a handler fails, whatever the projection says about failures; or if the moment is a version and the
/// projection's source is not one stream.
pub async fn replay(
    store: &dyn EventStore,
    projection: Projection,
    moment: Moment,
) -> Result<View, ProjectionError> {
    if matches!(moment, Moment::Version(_)) && !matches!(projection.source, Source::Stream(_)) {
        let why = "only a projection of one stream was ever at a version".to_owned();
        return Err(ReadError::Invalid(why).into());
    }
    let sink: Arc<dyn Sink> = Arc::new(MemorySink::new());
    let name = Arc::clone(&projection.name);
    let mut runner = Runner::open(Arc::clone(&sink), projection.on_failure(OnFailure::stop()))?;
    // Time stands still, so that a batch is never cut short by it.
    let clock = ManualClock::default();
    let head = store.head();
    loop {
        match runner.next(clock.now()) {
            Next::Read(read) => match store.read(*read).await {
                Ok(page) => runner.take(cut(page, moment, head), clock.now()),
                Err(ReadError::NoStream { .. }) => runner.take_nothing(head, clock.now()),
                Err(error) => return Err(error.into()),
            },
            Next::Work => drop(runner.work(&clock)?),
            Next::WaitBeyond(_) | Next::WaitUntil(_) => break,
        }
    }
    runner.flush()?;
    Ok(View::of(sink.snapshot()?, &name, runner.build())?)
}

/// The part of a page before the end. What was recorded since the replay began is behind it in any case.
fn cut(mut page: Page, moment: Moment, head: Position) -> Page {
    let before_first = |is_later: &dyn Fn(&Recorded) -> bool| {
        let later = page.events.iter().find(|event| is_later(event));
        later.map_or(head, |event| Position(event.position.0 - 1))
    };
    let last = match moment {
        Moment::Position(position) => position.min(head),
        Moment::Version(version) => before_first(&|event| event.version > version),
        Moment::Time(time) => before_first(&|event| event.timestamp > time),
        Moment::Now => head,
    };
    if page.scanned >= last {
        page.events.retain(|event| event.position <= last);
        (page.scanned, page.next) = (last, None);
    }
    page
}

/// How a row differs between two views.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowDifference<K, V> {
    /// Its key.
    pub key: K,
    /// Its value in the earlier view, if it was there.
    pub before: Option<V>,
    /// Its value in the later view, if it is there.
    pub after: Option<V>,
}

/// Rows that are compared at a time.
const ROWS: usize = 1024;

pub(super) fn difference<K: Key + ?Sized, V: DeserializeOwned + PartialEq>(
    earlier: &View,
    later: &View,
    table: &Table<K, V>,
) -> Result<Vec<RowDifference<K::Owned, V>>, SinkError> {
    let (mut before, mut after) = (Walk::new(earlier, table), Walk::new(later, table));
    let (mut old, mut new) = (before.next()?, after.next()?);
    let mut differences = Vec::new();
    loop {
        let order = match (&old, &new) {
            (None, None) => return Ok(differences),
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some((old, _)), Some((new, _))) => old.cmp(new),
        };
        let left = if order.is_le() { std::mem::replace(&mut old, before.next()?) } else { None };
        let right = if order.is_ge() { std::mem::replace(&mut new, after.next()?) } else { None };
        let key = left.as_ref().or(right.as_ref()).map(|(key, _)| key.clone());
        let (left, right) = (left.map(|(_, value)| value), right.map(|(_, value)| value));
        if left == right {
            continue;
        }
        let of_table = SinkError::Row { table: table.name() };
        let key = key.ok_or(of_table.clone())?;
        let mut rest = key.strip_prefix(table.prefix().as_slice()).ok_or(of_table.clone())?;
        let value = |bytes: Option<Bytes>| bytes.map(|it| decode(table.name(), &it)).transpose();
        differences.push(RowDifference {
            key: K::decode(&mut rest).ok_or(of_table)?,
            before: value(left)?,
            after: value(right)?,
        });
    }
}

/// Goes through the rows of a table.
struct Walk<'a> {
    view: &'a View,
    from: Vec<u8>,
    until: Vec<u8>,
    rows: std::vec::IntoIter<(Bytes, Bytes)>,
}

impl<'a> Walk<'a> {
    fn new<K: Key + ?Sized, V>(view: &'a View, table: &Table<K, V>) -> Self {
        let from = table.prefix();
        let until = end_of_prefix(&from);
        Self { view, from, until, rows: Vec::new().into_iter() }
    }

    fn next(&mut self) -> Result<Option<(Bytes, Bytes)>, SinkError> {
        if self.rows.as_slice().is_empty() {
            self.rows = self.view.scan_bytes(&self.from, &self.until, ROWS)?.into_iter();
        }
        let row = self.rows.next();
        if let Some((key, _)) = &row {
            self.from = [&key[..], &[0]].concat();
        }
        Ok(row)
    }
}
