//! The two sides of an application: commands change what is recorded, questions are answered from read models.
//!
//! The command side is [`DomainStore::execute`](crate::execute::DomainStore::execute). It answers with the position of what it has
//! recorded. The query side is [`Answers`]: it looks at a read model, which follows the log with some delay, and can wait first until
//! the read model has reached a position, so that users see what they have just done.
//!
//! There is no bus here. A bus finds the function that belongs to a type; a call of the function does so too, and the compiler
//! checks it.
//!
//! ```
//! use event_sourcing::cqrs::Question;
//! use event_sourcing::projection::{Rows, SinkError, Table, View};
//!
//! const BALANCES: Table<str, i64> = Table::new("balances");
//!
//! struct BalanceOf(String);
//!
//! impl Question for BalanceOf {
//!     type Answer = Option<i64>;
//!
//!     fn answer(&self, view: &View) -> Result<Option<i64>, SinkError> {
//!         view.get(&BALANCES, self.0.as_str())
//!     }
//! }
//! ```

use std::time::Duration;

use futures::FutureExt;
use thiserror::Error;

use crate::event::Position;
use crate::projection::{Handle, ReadModel, SinkError, View, WaitError};
use crate::store::Pending;

/// A question to a read model.
pub trait Question: Send + 'static {
    /// What is answered.
    type Answer: Send + 'static;

    /// Answers it from the rows of one moment.
    ///
    /// # Errors
    ///
    /// If the rows cannot be read.
    fn answer(&self, view: &View) -> Result<Self::Answer, SinkError>;
}

/// An answer, and how much of the log it knows of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer<A> {
    /// What was answered.
    pub answer: A,
    /// Everything up to here is in it.
    pub position: Position,
}

/// Answers questions from a read model.
#[derive(Clone, Debug)]
pub struct Answers {
    model: ReadModel,
    handle: Handle,
}

/// Why a question has no answer.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum AnswerError {
    /// The read model has not come so far in time. It can be asked without waiting.
    #[error("the answer would be out of date")]
    Wait(#[from] WaitError),
    /// The rows cannot be read.
    #[error("the read model cannot be read")]
    Sink(#[from] SinkError),
}

impl Answers {
    /// Answers from this read model, which the handle's worker keeps.
    #[must_use]
    pub fn new(model: ReadModel, handle: Handle) -> Self {
        Self { model, handle }
    }

    /// The answer as far as the read model has come.
    ///
    /// # Errors
    ///
    /// If the rows cannot be read.
    pub fn ask<Q: Question>(&self, question: &Q) -> Result<Answer<Q::Answer>, SinkError> {
        let view = self.model.view()?;
        Ok(Answer { answer: question.answer(&view)?, position: view.position() })
    }

    /// The answer once the read model has reached `position`, for which it waits no longer than `bound`.
    ///
    /// # Errors
    ///
    /// If it takes too long, if the worker ends before, or if the rows cannot be read.
    pub fn ask_after<Q: Question>(
        &self,
        question: Q,
        position: Position,
        bound: Duration,
    ) -> Pending<Result<Answer<Q::Answer>, AnswerError>> {
        let this = self.clone();
        async move {
            this.handle.wait_until(position, bound).await?;
            Ok(this.ask(&question)?)
        }
        .boxed()
    }
}
