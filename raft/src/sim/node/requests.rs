//! What clients ask of a node, and the answers.

use lattice_sim::{Address, Span};

use super::{Host, Pending, Running, Workload};
use crate::effects::{ProposalId, Rejection};
use crate::raft_node::Proposal;
use crate::replica::{Input, ProposalError, Request, RequestId};
use crate::sim::markers;
use crate::sim::message::{Outcome, SimMessage};
use crate::sim::workload::Operation;
use crate::state_machine::{DurableStateMachine, Reply};
use crate::types::{EntryId, NodeId, SessionId};

/// Requests that come within this time are handed to the replica together.
const INBOX_WAIT: Span = Span::micros(0, 300);

impl<W: Workload> Running<W> {
    pub(super) fn take_request(
        &mut self,
        client: Address,
        attempt: u64,
        operation: u64,
        wanted: Operation,
        context: &mut Host<'_>,
    ) {
        self.inbox.push((client, attempt, operation, wanted));
        if self.inbox.len() == 1 {
            let delay = INBOX_WAIT.draw(context.rng());
            self.later(delay, Pending::Inbox, context);
        }
    }

    pub(super) fn hand_on_requests(&mut self, context: &mut Host<'_>) {
        let (mut writes, mut reads) = (Vec::new(), Vec::new());
        for (client, attempt, sequence, wanted) in self.inbox.drain(..) {
            self.last_request += 1;
            match wanted {
                Operation::Write(command) => {
                    let id = ProposalId(self.last_request);
                    self.proposals.insert(id, (client, attempt));
                    let session = Some(SessionId { session: client.0, sequence });
                    let command = self.workload.wrap(sequence, command);
                    let proposal = Proposal { id, session, command };
                    writes.push(Request { proposal, reclaims_space: false });
                }
                Operation::Read(_) => {
                    let id = RequestId(self.last_request);
                    self.reads.insert(id, (client, attempt, wanted));
                    reads.push(id);
                }
            }
        }
        if !writes.is_empty() {
            self.inputs.push_back(Input::Propose(writes));
        }
        if !reads.is_empty() {
            let deadline = context.now() + self.setup.read_timeout;
            self.inputs.push_back(Input::Read { requests: reads, deadline });
        }
    }

    pub(super) fn answer(
        &mut self,
        id: ProposalId,
        result: Result<(EntryId, Reply), ProposalError>,
        context: &mut Host<'_>,
    ) {
        let outcome = match result {
            Ok((entry, reply)) => {
                let reply = reply.map_err(|refusal| refusal.to_string());
                Outcome::Done { index: entry.index, reply }
            }
            Err(ProposalError::Rejected(Rejection::NotLeader { leader })) => {
                Outcome::NotLeader(leader)
            }
            Err(ProposalError::Unknown) => Outcome::Unknown,
            Err(
                ProposalError::Rejected(_) | ProposalError::NoSpace | ProposalError::Superseded,
            ) => Outcome::Refused,
        };
        let (client, attempt) = self.proposals.remove(&id).expect("answered once");
        context.send(client, SimMessage::Response { attempt, outcome });
    }

    pub(super) fn serve_read(&mut self, request: RequestId, context: &mut Host<'_>) {
        let (client, attempt, query) = self.reads.remove(&request).expect("answered once");
        let (Operation::Read(query) | Operation::Write(query)) = query;
        let reply = Ok(self.workload.read(&self.reader, &query).into());
        let index = self.machine.applied().index;
        let outcome = Outcome::Done { index, reply };
        context.send(client, SimMessage::Response { attempt, outcome });
    }

    pub(super) fn give_up_read(
        &mut self,
        request: RequestId,
        leader: Option<NodeId>,
        context: &mut Host<'_>,
    ) {
        context.mark(markers::READ_FAILED);
        let (client, attempt, _) = self.reads.remove(&request).expect("answered once");
        let outcome = Outcome::NotLeader(leader);
        context.send(client, SimMessage::Response { attempt, outcome });
    }
}
