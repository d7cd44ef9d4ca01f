//! Histories: what clients asked, what they were told, and whether any honest machine could have said so.
//!
//! A history is *linearizable* if every operation can be thought to happen at one moment between its call and its return,
//! such that all answers are those of one machine that does one thing at a time (Herlihy and Wing, 1990). There are two
//! checkers, which share nothing but the [`Model`] of that machine:
//!
//! - [`linearizable()`] knows only what clients know. It searches for an order (Wing and Gong's algorithm with Lowe's
//!   memory of where it has been), which is exponential at worst: it has bounds, and what it did not come to the end of
//!   is [`Verdict::Unknown`], which is never a pass. Histories over many keys are taken apart first
//!   ([`History::by_key`]); that loses nothing, since a history is linearizable exactly if each object's is.
//! - [`in_places`] is told an order, by the revisions or log indexes that came with the answers, and only has to see
//!   whether it is one: linear time, whole histories, no bounds.
//!
//! What was asked and never answered may take effect at any time after, or never: it is *open*, to infinity. To record it
//! as failed would accuse a correct system, to record it as done would excuse a broken one.
//!
//! A violation comes with its reasons ([`Impossible`]): the shortest beginning of the history that no machine allows,
//! an order for everything before its last answer, and the states that refuse that answer. [`Story`] puts them into words
//! and [`Page`] into a picture.
//!
//! ```
//! use std::time::Duration;
//! use lattice_sim::check::{Ask, History, Limits, Register, Reply, Verdict, linearizable};
//!
//! let ms = Duration::from_millis;
//! let mut history = History::new();
//! let write = history.call(1, ms(10), Ask::Write(7));
//! history.done(write, ms(20), Reply::Done);
//! let read = history.call(2, ms(30), Ask::Read);
//! history.done(read, ms(40), Reply::Value(0));
//!
//! let Verdict::Violation(why) = linearizable(&Register, &history, Limits::default()) else { panic!() };
//! assert_eq!(why.operation, read, "the read is the answer that no order explains");
//! assert_eq!(why.refusals[0].state, 7, "for the register was 7");
//! ```

mod history;
mod judgement;
mod linearizable;
mod memo;
mod model;
mod page;
mod places;
mod search;
mod story;

pub use history::{Answer, History, Moment, OperationId, Recorded};
pub use judgement::{Judgement, Searched};
pub use linearizable::{Impossible, Refusal, Verdict, linearizable};
pub use model::{Ask, Model, Next, Register, Reply, Tell};
pub use page::{Bar, Look, Page, Span as Band};
pub use places::{Misplaced, in_places};
pub use search::Limits;
pub use story::Story;
