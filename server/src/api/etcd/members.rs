//! etcd's `Cluster` service, and the leader's hand-over; and the one change that etcd has no call for. Codes and texts are etcd's.

use std::time::Duration;

use raft_consensus::driver::Consistency;
use raft_consensus::effects::OrderError;
use raft_consensus::membership::Membership;
use raft_consensus::types::NodeId;
use tokio::time::{Instant, timeout, timeout_at};
use tonic::{Request, Response, Status};

use super::{EtcdApi, no_leader, stopped, timed_out};
use crate::members::MemberView;
use crate::proto::cluster::members_server::Members;
use crate::proto::cluster::{ReplaceRequest, ReplaceResponse};
use crate::proto::etcdserverpb::cluster_server::Cluster;
use crate::proto::etcdserverpb::{
    Member, MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse,
    MemberPromoteRequest, MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse,
    MemberUpdateRequest, MemberUpdateResponse,
};
use crate::relay::Change;
use crate::relay::change::peer_urls;

/// A change is made: how long to wait until this node knows of it too, to list the members that there are now.
const NEWS: Duration = Duration::from_secs(1);

impl EtcdApi {
    /// Makes a change, and lists the members there are then.
    async fn change(
        &self,
        change: Change,
        deadline: Instant,
    ) -> Result<(NodeId, Vec<Member>), Status> {
        let id = self.node.relay.change(&change, deadline).await?;
        // Who removed itself cannot ask anybody any more, and knows it.
        if !self.node.raft.status().is_removed {
            let read = self.node.raft.read(Consistency::Linearizable);
            let _told_or_late = timeout(NEWS, read).await;
        }
        let committed = self.node.members.committed();
        Ok((id, self.listed(&committed, &self.node.raft.reader())))
    }

    fn listed(&self, of: &Membership, reader: &lattice_kv::KvReader) -> Vec<Member> {
        self.node.members.list(of, reader).into_iter().map(member).collect()
    }

    /// Hands leadership over, if this node leads.
    pub(super) async fn hand_over_to(&self, to: NodeId, deadline: Instant) -> Result<(), Status> {
        let status = self.node.raft.status();
        if status.leader != Some(self.node.id) {
            return Err(Status::failed_precondition("etcdserver: not leader"));
        }
        let transferred = timeout_at(deadline, self.node.raft.transfer_leader(Some(to))).await;
        match transferred.unwrap_or(Err(OrderError::TransferTimedOut)) {
            Ok(()) => Ok(()),
            Err(OrderError::NotLeader { .. }) => {
                Err(Status::failed_precondition("etcdserver: not leader"))
            }
            Err(OrderError::NotVoter(_)) => {
                Err(Status::failed_precondition("etcdserver: bad leader transferee"))
            }
            Err(OrderError::TransferTimedOut | OrderError::NotInSync(_)) => {
                Err(timed_out(", leader transfer took too long"))
            }
            Err(OrderError::Stopped) => Err(stopped()),
            Err(OrderError::TermNotCommitted) => Err(no_leader()),
            Err(other) => Err(Status::failed_precondition(format!("etcdserver: {other}"))),
        }
    }
}

fn member(view: MemberView) -> Member {
    Member {
        id: view.id.0,
        name: view.name,
        peer_ur_ls: view.peer_urls.iter().map(ToString::to_string).collect(),
        client_ur_ls: view.client_urls,
        is_learner: view.is_learner,
    }
}

// Members have no part in revisions: etcd leaves them out of these headers.
#[tonic::async_trait]
impl Cluster for EtcdApi {
    async fn member_add(
        &self,
        request: Request<MemberAddRequest>,
    ) -> Result<Response<MemberAddResponse>, Status> {
        let deadline = self.deadline(&request)?;
        let MemberAddRequest { peer_ur_ls, is_learner } = request.into_inner();
        let change = Change::Add { peer_urls: peer_urls(&peer_ur_ls)?, is_learner };
        let (id, members) = self.change(change, deadline).await?;
        let added = members.iter().find(|member| member.id == id.0).cloned();
        let added = added.unwrap_or_else(|| Member {
            id: id.0,
            peer_ur_ls,
            is_learner: true,
            ..Member::default()
        });
        let header = self.header(0);
        Ok(Response::new(MemberAddResponse { header, member: Some(added), members }))
    }

    async fn member_remove(
        &self,
        request: Request<MemberRemoveRequest>,
    ) -> Result<Response<MemberRemoveResponse>, Status> {
        let deadline = self.deadline(&request)?;
        let change = Change::Remove(NodeId(request.into_inner().id));
        let (_, members) = self.change(change, deadline).await?;
        Ok(Response::new(MemberRemoveResponse { header: self.header(0), members }))
    }

    async fn member_update(
        &self,
        request: Request<MemberUpdateRequest>,
    ) -> Result<Response<MemberUpdateResponse>, Status> {
        let deadline = self.deadline(&request)?;
        let MemberUpdateRequest { id, peer_ur_ls } = request.into_inner();
        let change = Change::Update { id: NodeId(id), peer_urls: peer_urls(&peer_ur_ls)? };
        let (_, members) = self.change(change, deadline).await?;
        Ok(Response::new(MemberUpdateResponse { header: self.header(0), members }))
    }

    async fn member_promote(
        &self,
        request: Request<MemberPromoteRequest>,
    ) -> Result<Response<MemberPromoteResponse>, Status> {
        let deadline = self.deadline(&request)?;
        let change = Change::Promote(NodeId(request.into_inner().id));
        let (_, members) = self.change(change, deadline).await?;
        Ok(Response::new(MemberPromoteResponse { header: self.header(0), members }))
    }

    async fn member_list(
        &self,
        request: Request<MemberListRequest>,
    ) -> Result<Response<MemberListResponse>, Status> {
        let deadline = self.deadline(&request)?;
        let serializable = !request.into_inner().linearizable;
        let reader = self.reader(serializable, deadline).await?;
        // As of the read: what is committed. As of this node: whom it counts with, which is what an operator wants to know while there is no
        // leader.
        let known = &self.node.members;
        let of = if serializable { known.membership() } else { known.committed() };
        let members = self.listed(&of, &reader);
        Ok(Response::new(MemberListResponse { header: self.header(0), members }))
    }
}

#[tonic::async_trait]
impl Members for EtcdApi {
    async fn replace(
        &self,
        request: Request<ReplaceRequest>,
    ) -> Result<Response<ReplaceResponse>, Status> {
        let deadline = self.deadline(&request)?;
        let ReplaceRequest { id, peer_urls: urls } = request.into_inner();
        let change = Change::Replace { id: NodeId(id), peer_urls: peer_urls(&urls)? };
        let new = self.node.relay.change(&change, deadline).await?;
        Ok(Response::new(ReplaceResponse { id: new.0 }))
    }
}
