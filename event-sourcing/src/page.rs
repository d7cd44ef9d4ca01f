//! Reads a page of any [`Index`]: what every backend answers a read with.
//!
//! The work of one page is bounded ([`WORK_MAX`]). A page that runs into the bound is short, and says where the next one begins.

use crate::error::ReadError;
use crate::event::{Position, StreamName, Timestamp, Version};
use crate::machine::scan::{Budget, Found, Scan, first_visible, readable_retention};
use crate::machine::{Index, Limits};
use crate::read::{Direction, From, Page, Read, Source};
use crate::record;
use crate::store::StreamInfo;

#[cfg(test)]
mod tests;

/// How many terms and events are looked at for one page, at most.
pub const WORK_MAX: u64 = 1 << 16;
/// The most bytes in a page, whatever the read asks for; one event is returned even if it is larger.
pub const BYTES_MAX: usize = 64 << 20;
/// The most names, prefixes and labels in a filter.
pub const FILTER_TERMS_MAX: usize = 1024;

/// Reads a page as of the index's head.
///
/// # Errors
///
/// [`ReadError::NoStream`] and [`ReadError::Tombstoned`] if there is no such stream; [`ReadError::Invalid`] if the read makes no
/// sense; [`ReadError::Damaged`] if the *first* event to look at cannot be read. Before damage further on, a page ends.
pub fn read<I: Index>(index: &I, read: &Read) -> Result<Page, ReadError> {
    read_within(index, read, WORK_MAX)
}

pub(crate) fn read_within<I: Index>(index: &I, read: &Read, work: u64) -> Result<Page, ReadError> {
    check(read)?;
    let (head, way) = (index.head(), read.direction);
    let Some(start) = start(index, read)? else {
        return Ok(end_of(Vec::new(), head, way));
    };
    let mut page = Vec::new();
    let mut bytes = 0;
    let mut budget = Budget(work);
    let mut scan = Scan::new(index, &read.source, &read.filter, start, way)?;
    let bytes_max = read.bytes_max.min(BYTES_MAX);
    let next = loop {
        let at = scan.at();
        let recorded = match scan.next(&mut budget) {
            Ok(Found::Here(recorded)) => recorded,
            Ok(Found::NotBefore(place)) => break place,
            Ok(Found::Nothing) => return Ok(end_of(page, head, way)),
            // Everything before the damage can be read.
            Err(ReadError::Damaged { .. }) if scan.at() != at || !page.is_empty() => {
                match scan.at() {
                    Some(damaged) => break damaged,
                    None => return Ok(end_of(page, head, way)),
                }
            }
            Err(error) => return Err(error),
        };
        let size = record::size(&recorded.stream, &recorded.event);
        if !page.is_empty() && (page.len() == read.count_max || bytes + size > bytes_max) {
            break recorded.position;
        }
        bytes += size;
        page.push(recorded);
    };
    let scanned = match way {
        Direction::Forward => Position(next.0 - 1),
        Direction::Backward => next.next(),
    };
    Ok(Page { events: page, next: Some(From::Position(next)), scanned, head })
}

fn end_of(
    events: Vec<std::sync::Arc<crate::event::Recorded>>,
    head: Position,
    way: Direction,
) -> Page {
    let scanned = match way {
        Direction::Forward => head,
        Direction::Backward => Position::BEGINNING,
    };
    Page { events, next: None, scanned, head }
}

fn check(read: &Read) -> Result<(), ReadError> {
    let invalid = |why: String| Err(ReadError::Invalid(why));
    if read.count_max == 0 {
        return invalid("a page has room for at least one event".to_owned());
    }
    if matches!(read.from, From::Version(_)) && !matches!(read.source, Source::Stream(_)) {
        return invalid("only events of one stream can be read from a version".to_owned());
    }
    if let Source::Query(query) = &read.source {
        Limits::check_query(query).map_err(|error| ReadError::Invalid(error.to_string()))?;
    }
    let filter = &read.filter;
    let terms = filter.types.len()
        + filter.type_prefixes.len()
        + filter.stream_prefixes.len()
        + filter.labels.len();
    if terms > FILTER_TERMS_MAX {
        return invalid(format!("the filter has {terms} terms, and may have {FILTER_TERMS_MAX}"));
    }
    Ok(())
}

/// The first position to look at; `None` if there is none.
fn start<I: Index>(index: &I, read: &Read) -> Result<Option<Position>, ReadError> {
    let way = read.direction;
    let Edge { at: edge, unknown } = match (&read.source, way) {
        (Source::Stream(stream), _) => match edge_of(index, stream, way)? {
            Some(edge) => edge,
            None => return Ok(None),
        },
        (_, Direction::Forward) => Edge { at: Position(1), unknown: None },
        (_, Direction::Backward) => Edge { at: index.head(), unknown: None },
    };
    let from = match read.from {
        From::Edge => edge,
        From::Position(position) => position,
        From::Time(time) => match way {
            Direction::Forward => index.first_at(time)?,
            // The event before the first one that is later.
            Direction::Backward => match time.0.checked_add(1) {
                Some(later) => Position(index.first_at(Timestamp(later))?.0 - 1),
                None => edge,
            },
        },
        From::Version(version) => match &read.source {
            Source::Stream(stream) => match (place_of(index, stream, version, way)?, unknown) {
                (Some(position), _) => position,
                (None, _) if way == Direction::Backward => edge,
                (None, Some(unknown)) => unknown,
                (None, None) => return Ok(None),
            },
            Source::All | Source::Query(_) => unreachable!("such a read was refused"),
        },
    };
    // Nothing is found before the edge, and so nothing is looked for there.
    Ok(match way {
        Direction::Forward => Some(from.max(edge)).filter(|from| *from <= index.head()),
        Direction::Backward => from.min(edge).of_event().map(|_| from.min(edge)),
    })
}

/// Where the events of a source can begin, in the direction of a read.
struct Edge {
    at: Position,
    /// Of a stream: behind the last event that is known of it, if events are lost there that may have been of it.
    unknown: Option<Position>,
}

/// The edge of a stream; `None` if none of its events can be seen.
fn edge_of<I: Index>(
    index: &I,
    stream: &StreamName,
    way: Direction,
) -> Result<Option<Edge>, ReadError> {
    let info = existing(index, stream)?;
    let behind = info.as_ref().map_or(Position(1), |info| info.last_position.next());
    let unknown = index.lost(behind, Direction::Forward).map(|_| behind);
    let at = match (way, info, unknown) {
        (_, None, None) => return Err(ReadError::NoStream { stream: stream.clone() }),
        (Direction::Backward, _, Some(_)) => index.head(),
        (Direction::Backward, Some(info), None) => info.last_position,
        (Direction::Forward, Some(info), _) if info.first <= info.last => {
            // A first event that is lost is somewhere behind the beginning.
            index.position_of(stream, info.first)?.unwrap_or(Position(1))
        }
        (Direction::Forward, _, Some(unknown)) => unknown,
        (Direction::Forward, Some(_), None) => return Ok(None),
    };
    Ok(Some(Edge { at, unknown }))
}

/// Where to begin with a version of a stream; `None` if it is beyond the last. If the event is lost the place is behind the one before
/// it that is not, or going backward before the one after it, so that reading comes to the damage. The work goes by the number of
/// lost events in between.
fn place_of<I: Index>(
    index: &I,
    stream: &StreamName,
    version: Version,
    way: Direction,
) -> Result<Option<Position>, ReadError> {
    if let Some(position) = index.position_of(stream, version)? {
        return Ok(Some(position));
    }
    let Some((last, last_position)) = index.last_of(stream)?.filter(|(last, _)| version <= *last)
    else {
        return Ok(None);
    };
    match way {
        Direction::Forward => {
            for earlier in (0..version.0).rev() {
                if let Some(position) = index.position_of(stream, Version(earlier))? {
                    return Ok(Some(position.next()));
                }
            }
            Ok(Some(Position(1)))
        }
        Direction::Backward => {
            for later in version.0 + 1..=last.0 {
                if let Some(position) = index.position_of(stream, Version(later))? {
                    return Ok(Some(Position(position.0 - 1)));
                }
            }
            Ok(Some(Position(last_position.0 - 1)))
        }
    }
}

/// What is known of a stream that can be read.
fn existing<I: Index>(index: &I, stream: &StreamName) -> Result<Option<StreamInfo>, ReadError> {
    let Some(info) = stream_info(index, stream)? else {
        if readable_retention(index, stream)?.tombstoned {
            return Err(ReadError::Tombstoned { stream: stream.clone() });
        }
        return Ok(None);
    };
    if info.retention.tombstoned {
        return Err(ReadError::Tombstoned { stream: stream.clone() });
    }
    Ok(Some(info).filter(|info| info.retention.exists(info.last)))
}

/// What is known of a stream as of the index's head; `None` if nothing was ever written to it.
///
/// # Errors
///
/// If the log cannot be read.
pub fn stream_info<I: Index>(
    index: &I,
    stream: &StreamName,
) -> Result<Option<StreamInfo>, ReadError> {
    let Some((last, last_position)) = index.last_of(stream)? else {
        return Ok(None);
    };
    let retention = readable_retention(index, stream)?;
    let first: Version = first_visible(index, stream, &retention, last, index.time()?)?;
    Ok(Some(StreamInfo { last, last_position, first, retention }))
}
