//! Goes along the places of a term, from one part of a view to the next.

use super::memtable::{hash_name, kind_and_name};
use super::part::Located;
use super::view::View;
use crate::event::{EventType, Label, Position, StreamName};
use crate::machine::{Index, Postings, Term};
use crate::read::{Direction, ReadError};

/// The places of a term.
#[derive(Debug)]
pub(super) struct Cursor<'a> {
    view: &'a View,
    term: OwnedTerm,
    hash: u64,
    direction: Direction,
    /// What is known of the part with this number.
    located: (usize, Located),
}

/// A term by value.
#[derive(Clone, Debug)]
enum OwnedTerm {
    Type(EventType),
    Label(Label),
    Stream(StreamName),
}

impl OwnedTerm {
    fn of(term: Term<'_>) -> Self {
        match term {
            Term::Type(name) => Self::Type(name.clone()),
            Term::Label(name) => Self::Label(name.clone()),
            Term::Stream(name) => Self::Stream(name.clone()),
        }
    }

    fn as_term(&self) -> Term<'_> {
        match self {
            Self::Type(name) => Term::Type(name),
            Self::Label(name) => Term::Label(name),
            Self::Stream(name) => Term::Stream(name),
        }
    }
}

impl<'a> Cursor<'a> {
    pub(super) fn new(view: &'a View, term: Term<'_>, direction: Direction) -> Self {
        let (kind, name) = kind_and_name(term);
        let hash = hash_name(kind, name);
        let located = (usize::MAX, Located::default());
        Self { view, term: OwnedTerm::of(term), hash, direction, located }
    }

    fn seek_in_part(&mut self, number: usize, at: Position) -> Result<Option<Position>, ReadError> {
        if self.located.0 != number {
            self.located = (number, Located::default());
        }
        let part = &self.view.parts()[number];
        let source = self.view.source();
        let (term, located) = (self.term.as_term(), &mut self.located.1);
        self.view.refuse(part.seek(&source, term, self.hash, at, self.direction, located))
    }

    fn seek_staged(&self, at: Position) -> Option<Position> {
        if planted!(StaleCondition) {
            return None;
        }
        let memtable = self.view.staged_memtable();
        let list = memtable.list(self.term.as_term());
        let offset = match self.direction {
            Direction::Forward => {
                let bound = memtable.offset(at).unwrap_or(0);
                list.get(list.partition_point(|offset| *offset < bound))
            }
            Direction::Backward => {
                let bound = memtable.offset(at)?;
                list[..list.partition_point(|offset| *offset <= bound)].last()
            }
        };
        offset.map(|offset| memtable.position(*offset))
    }
}

impl Cursor<'_> {
    /// The nearest place that the index knows of.
    fn seek_known(&mut self, at: Position) -> Result<Option<Position>, ReadError> {
        let parts = self.view.parts();
        // The part of the position, or of one before or behind all parts the nearest.
        let holding = parts.partition_point(|part| part.first <= at.0).saturating_sub(1);
        match self.direction {
            Direction::Forward => {
                let blind =
                    planted!(LabelsOfSealedOnly) && matches!(self.term, OwnedTerm::Label(_));
                let end = parts.len() - usize::from(blind);
                for number in holding..end {
                    if let Some(found) = self.seek_in_part(number, at)? {
                        return Ok(Some(found));
                    }
                }
                Ok(self.seek_staged(at))
            }
            Direction::Backward => {
                if let Some(found) = self.seek_staged(at) {
                    return Ok(Some(found));
                }
                for number in (0..parts.len().min(holding + 1)).rev() {
                    if let Some(found) = self.seek_in_part(number, at)? {
                        return Ok(Some(found));
                    }
                }
                Ok(None)
            }
        }
    }
}

impl Postings for Cursor<'_> {
    fn seek(&mut self, at: Position) -> Result<Option<Position>, ReadError> {
        let known = self.seek_known(at)?;
        Ok(match (known, self.view.lost(at, self.direction)) {
            (Some(known), Some(lost)) => Some(match self.direction {
                Direction::Forward => known.min(lost),
                Direction::Backward => known.max(lost),
            }),
            (known, lost) => known.or(lost),
        })
    }
}
