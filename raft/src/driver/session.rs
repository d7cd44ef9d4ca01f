//! A client's session: commands that are sent again until their outcome is known, and take effect once.
//!
//! The other half is [`Sessions`](crate::state_machine::Sessions), which every node's machine must be wrapped in. A session belongs to the
//! cluster and not to a node: it goes on at whichever node leads.

use std::time::Duration;

use bytes::Bytes;

use crate::state_machine::sessions::SessionCommand;
use crate::types::SessionId;

use super::{Applied, ProposeError, ProposeOptions, Raft, clock};

/// A session of one client, which has one command under way at a time.
///
/// Dropping it leaves it to expire; [`Self::close`] is tidier.
#[derive(Debug)]
pub struct Session<R> {
    nodes: Vec<Raft<R>>,
    /// Whom it takes for the leader, as a place in `nodes`.
    leader: usize,
    id: u64,
    /// The number of the latest command.
    number: u64,
    /// How long a command is sent again.
    patience: Duration,
}

/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(20);

impl<R: Clone + Send + Sync + 'static> Session<R> {
    /// Opens a session that is kept for `idle` without being used (a second at least and a week at most), and sends each command
    /// again for as long as `patience`. `nodes` are those that may lead.
    ///
    /// # Errors
    ///
    /// See [`ProposeError`]. If the outcome is unknown, a session that nobody uses may have been opened; it expires.
    pub async fn open(
        nodes: impl IntoIterator<Item = Raft<R>>,
        idle: Duration,
        patience: Duration,
    ) -> Result<Self, ProposeError> {
        let nodes: Vec<_> = nodes.into_iter().collect();
        let mut session = Self { nodes, leader: 0, id: 0, number: 0, patience };
        let idle_ms = u64::try_from(idle.as_millis()).unwrap_or(u64::MAX);
        let open = |time_ms| SessionCommand::Open { time_ms, idle_ms };
        let reply = session.send(0, open).await?.reply;
        // A machine without sessions has answered something else.
        let id = reply.first_chunk::<8>().filter(|_| reply.len() == 8);
        session.id = id.map(|id| u64::from_le_bytes(*id)).ok_or(ProposeError::Unknown)?;
        Ok(session)
    }

    /// The session's id in the log.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Proposes a command, and sends it again until its outcome is known: however often, it takes effect once.
    ///
    /// # Errors
    ///
    /// [`ProposeError::Refused`] with a [`SessionError`](crate::state_machine::sessions::SessionError) inside if the session has
    /// expired, or with the machine's refusal. [`ProposeError::Unknown`] if patience has run out: the command may have taken effect,
    /// or may yet, until another of this session does.
    pub async fn propose(&mut self, command: impl Into<Bytes>) -> Result<Applied, ProposeError> {
        self.number += 1;
        // One at a time: there is an answer to every earlier number, or nobody waits for one any more.
        let (acknowledged, command) = (self.number - 1, command.into());
        self.send(self.number, |time_ms| SessionCommand::Apply {
            time_ms,
            acknowledged,
            command: command.clone(),
        })
        .await
    }

    /// Uses the session, so that it does not expire.
    ///
    /// # Errors
    ///
    /// As [`Self::propose`].
    pub async fn keep_alive(&mut self) -> Result<(), ProposeError> {
        self.send(0, |time_ms| SessionCommand::KeepAlive { time_ms }).await.map(drop)
    }

    /// Forgets the session.
    ///
    /// # Errors
    ///
    /// As [`Self::propose`]; the session then expires by itself.
    pub async fn close(mut self) -> Result<(), ProposeError> {
        self.send(0, |time_ms| SessionCommand::Close { time_ms }).await.map(drop)
    }

    async fn send(
        &mut self,
        number: u64,
        command: impl Fn(u64) -> SessionCommand,
    ) -> Result<Applied, ProposeError> {
        let give_up = clock::now() + self.patience;
        let session = Some(SessionId { session: self.id, sequence: number });
        let options = ProposeOptions { session, ..ProposeOptions::default() };
        let mut may_have_taken_effect = false;
        loop {
            let Some(node) = self.nodes.get(self.leader) else { return Err(ProposeError::Stopped) };
            let left = give_up.saturating_sub(clock::now());
            let sent = node.propose_with(command(clock::wall_ms()).encode(), options);
            let error = match tokio::time::timeout(left, sent).await {
                Ok(Ok(applied)) => return Ok(applied),
                Ok(Err(error)) => error,
                Err(_elapsed) => ProposeError::Unknown,
            };
            may_have_taken_effect |= matches!(error, ProposeError::Unknown);
            match error {
                ProposeError::NotLeader { .. } | ProposeError::Stopped | ProposeError::Unknown => {
                    self.leader = (self.leader + 1) % self.nodes.len();
                }
                ProposeError::Superseded | ProposeError::Overloaded => {}
                ProposeError::Refused(_) => return Err(error),
                // An earlier attempt may yet be carried out.
                _ if may_have_taken_effect => {}
                _ => return Err(error),
            }
            if clock::now() + PAUSE >= give_up {
                let unknown = may_have_taken_effect;
                return Err(if unknown { ProposeError::Unknown } else { error });
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}
