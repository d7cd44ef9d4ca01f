//! A client's session: commands that are sent again until their outcome is known, and take effect once.
//!
//! The other half is [`Sessions`](crate::state_machine::Sessions), which every node's machine must be wrapped in: the type of its reader says
//! that it is. A session belongs to the
//! cluster and not to a node: it goes on at whichever node leads.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

use crate::raft_node::Role;
use crate::state_machine::SessionReader;
use crate::state_machine::sessions::{SessionCommand, SessionError};
use crate::types::SessionId;

use super::{Applied, ProposeError, ProposeOptions, Raft, Status, clock};

/// A session of one client, which has one command under way at a time.
///
/// Dropping it leaves it to expire; [`Self::close`] is tidier.
#[derive(Debug)]
pub struct Session<R> {
    nodes: Vec<Raft<SessionReader<R>>>,
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
/// How long a node that does not lead is waited for: long enough for it to say so, or to lead.
const GRACE: Duration = Duration::from_millis(200);

impl<R: Clone + Send + Sync + 'static> Session<R> {
    /// Opens a session that is kept for `idle` without being used (a second at least and a week at most), and sends each command
    /// again for as long as `patience`. `nodes` are those that may lead.
    ///
    /// # Errors
    ///
    /// See [`ProposeError`]. If the outcome is unknown, a session that nobody uses may have been opened; it expires.
    pub async fn open(
        nodes: impl IntoIterator<Item = Raft<SessionReader<R>>>,
        idle: Duration,
        patience: Duration,
    ) -> Result<Self, ProposeError> {
        let nodes: Vec<_> = nodes.into_iter().collect();
        let mut session = Self { nodes, leader: 0, id: 0, number: 0, patience };
        let idle_ms = u64::try_from(idle.as_millis()).unwrap_or(u64::MAX);
        let open = |time_ms| SessionCommand::Open { time_ms, idle_ms };
        let reply = session.send(0, open).await?.reply;
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
    /// [`ProposeError::Refused`] with a [`SessionError`] inside if the session had expired before the command was sent, or with the
    /// machine's refusal. [`ProposeError::Unknown`] if patience has run out, or if the session has expired meanwhile: the command may have
    /// taken effect, or may yet, until another of this session does. [`ProposeError::ReplyDropped`] if it has, and nobody can say more.
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
            let answer = tokio::select! {
                biased;
                answer = sent => answer,
                () = leads_no_more(node.watch()) => Err(ProposeError::Unknown),
                () = tokio::time::sleep(left) => Err(ProposeError::Unknown),
            };
            let error = match answer {
                Ok(applied) => return Ok(applied),
                Err(error) => error,
            };
            may_have_taken_effect |= matches!(error, ProposeError::Unknown);
            match error {
                ProposeError::NotLeader { .. } | ProposeError::Stopped | ProposeError::Unknown => {
                    self.leader = (self.leader + 1) % self.nodes.len();
                }
                ProposeError::Superseded | ProposeError::Overloaded => {}
                ProposeError::Refused(refusal) => {
                    // Only a command with a number takes effect once.
                    return Err(refused(refusal, may_have_taken_effect && number > 0));
                }
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

/// Returns when a node has not led for [`GRACE`], or runs no more. What it took in when it led is decided by others, and it may be cut
/// off from them: its answer can take for ever.
async fn leads_no_more(mut status: watch::Receiver<Status>) {
    loop {
        if status.wait_for(|status| status.role != Role::Leader).await.is_err() {
            return;
        }
        let leads_again = status.wait_for(|status| status.role == Role::Leader);
        if !matches!(tokio::time::timeout(GRACE, leads_again).await, Ok(Ok(_))) {
            return;
        }
    }
}

/// What a refusal says of a command of which an earlier copy may have been applied.
fn refused(
    refusal: Arc<dyn std::error::Error + Send + Sync>,
    may_have_taken_effect: bool,
) -> ProposeError {
    match refusal.downcast_ref() {
        Some(SessionError::ReplyDropped(_)) => ProposeError::ReplyDropped,
        // What the session knew of the earlier copy is forgotten.
        Some(SessionError::Unknown(_) | SessionError::Acknowledged(_)) if may_have_taken_effect => {
            ProposeError::Unknown
        }
        _ => ProposeError::Refused(refusal),
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use crate::types::EntryId;

    use super::super::Command;
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    /// A node that the test answers for.
    struct Node {
        commands: mpsc::Receiver<Command>,
        status: watch::Sender<Status>,
    }

    impl Node {
        async fn answer(&mut self, answer: Result<Applied, ProposeError>) {
            match self.commands.recv().await {
                Some(Command::Propose { reply, .. }) => reply.send(answer).unwrap(),
                other => panic!("{other:?}"),
            }
        }
    }

    fn leaders<const N: usize>() -> (Session<()>, [Node; N]) {
        let mut nodes = Vec::new();
        let answered = std::array::from_fn(|_| {
            let (sender, commands) = mpsc::channel(8);
            let (status, watch) =
                watch::channel(Status { role: Role::Leader, ..Status::default() });
            nodes.push(Raft { commands: sender, status: watch, reader: SessionReader::default() });
            Node { commands, status }
        });
        (Session { nodes, leader: 0, id: 7, number: 0, patience: PATIENCE }, answered)
    }

    fn refusal(error: SessionError) -> Result<Applied, ProposeError> {
        Err(super::super::refusal(error.into()))
    }

    fn applied() -> Applied {
        Applied { id: EntryId::ZERO, reply: Bytes::from_static(b"done") }
    }

    /// What a session says of a command when its attempts are answered so.
    async fn outcome(
        answers: impl IntoIterator<Item = Result<Applied, ProposeError>>,
    ) -> Result<Applied, ProposeError> {
        let (mut session, [mut node]) = leaders();
        let answer = async {
            for answer in answers {
                node.answer(answer).await;
            }
        };
        let all = async { tokio::join!(session.propose("command"), answer).0 };
        tokio::time::timeout(PATIENCE, all).await.unwrap()
    }

    #[tokio::test]
    async fn what_a_repetition_cannot_be_told_is_unknown_and_not_refused() {
        for error in [SessionError::Unknown(7), SessionError::Acknowledged(1)] {
            let first = outcome([refusal(error.clone())]).await;
            assert!(matches!(first, Err(ProposeError::Refused(_))), "{first:?}");
            let again = outcome([Err(ProposeError::Unknown), refusal(error)]).await;
            assert!(matches!(again, Err(ProposeError::Unknown)), "{again:?}");
        }
        let before = SessionError::RefusedBefore("as asked".to_owned());
        let refused = outcome([Err(ProposeError::Unknown), refusal(before)]).await;
        assert_eq!(refused.unwrap_err().to_string(), "refused: as asked");
    }

    #[tokio::test]
    async fn a_command_whose_reply_was_dropped_was_applied() {
        let again =
            outcome([Err(ProposeError::Unknown), refusal(SessionError::ReplyDropped(1))]).await;
        assert!(matches!(again, Err(ProposeError::ReplyDropped)), "{again:?}");
    }

    /// It may be cut off: what it has taken in is replaced when it hears from the others again.
    #[tokio::test]
    async fn a_leader_that_lost_its_office_is_not_waited_for() {
        let (mut session, [mut deposed, mut next]) = leaders();
        let answer = async {
            // Kept, so that there is no answer.
            let taken = deposed.commands.recv().await;
            deposed.status.send_modify(|status| status.role = Role::Follower);
            next.answer(Ok(applied())).await;
            drop(taken);
        };
        let all = async { tokio::join!(session.propose("command"), answer).0 };
        let outcome = tokio::time::timeout(PATIENCE, all).await.expect("it asks the next one");
        assert_eq!(outcome.unwrap(), applied());
    }
}
