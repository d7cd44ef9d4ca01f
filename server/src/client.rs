//! A small client of etcd's API: enough for the command line, the examples and the tests.
//!
//! It connects to the first endpoint that answers and stays with it. It never sends a request twice: whether a failed
//! write may be repeated is for the caller to say.

use std::time::Duration;

use thiserror::Error;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

use crate::proto::cluster::ReplaceRequest;
use crate::proto::cluster::members_client::MembersClient;
use crate::proto::etcdserverpb::cluster_client::ClusterClient;
use crate::proto::etcdserverpb::kv_client::KvClient;
use crate::proto::etcdserverpb::maintenance_client::MaintenanceClient;
use crate::proto::etcdserverpb::{
    DeleteRangeRequest, DeleteRangeResponse, MemberAddRequest, MemberAddResponse,
    MemberListRequest, MemberListResponse, MemberPromoteRequest, MemberPromoteResponse,
    MemberRemoveRequest, MemberRemoveResponse, MoveLeaderRequest, MoveLeaderResponse, PutRequest,
    PutResponse, RangeRequest, RangeResponse, StatusRequest, StatusResponse,
};
use crate::url::Url;

/// The largest answer that the client takes, in bytes. A server never sends more than it can itself hold, but a
/// client need not believe that.
const ANSWER_MAX: usize = 256 << 20;

/// A connection to one member. Clones share it.
#[derive(Clone, Debug)]
pub struct Client {
    endpoint: Url,
    channel: Channel,
    timeout: Duration,
}

/// Why a request has no answer.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ClientError {
    /// No endpoint could be connected to: nothing was sent.
    #[error("cannot connect to any of the endpoints: {}", tried.join("; "))]
    Connect {
        /// Each endpoint with the reason.
        tried: Vec<String>,
    },
    /// No answer within the time given. A write may or may not have been carried out.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The server answered with an error.
    #[error("{}", .0.message())]
    Status(Box<tonic::Status>),
}

impl ClientError {
    /// The server's status code, if it was the server that refused.
    #[must_use]
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Status(status) => Some(status.code()),
            Self::Connect { .. } | Self::Timeout(_) => None,
        }
    }
}

impl Client {
    /// Connects to the first of `endpoints` that answers. `timeout` bounds each attempt, and later each request.
    pub async fn connect(endpoints: &[Url], timeout: Duration) -> Result<Self, ClientError> {
        let mut tried = Vec::new();
        for endpoint in endpoints {
            let builder = builder(endpoint, timeout);
            match tokio::time::timeout(timeout, builder.connect()).await {
                Ok(Ok(channel)) => {
                    return Ok(Self { endpoint: endpoint.clone(), channel, timeout });
                }
                Ok(Err(error)) => tried.push(format!("{endpoint}: {}", root_cause(&error))),
                Err(_elapsed) => tried.push(format!("{endpoint}: no answer within {timeout:?}")),
            }
        }
        Err(ClientError::Connect { tried })
    }

    /// The endpoint that the client is connected to.
    #[must_use]
    pub fn endpoint(&self) -> &Url {
        &self.endpoint
    }

    /// Reads a key or a range of keys.
    pub async fn range(&self, request: RangeRequest) -> Result<RangeResponse, ClientError> {
        let mut client = KvClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_MAX);
        self.bounded(client.range(request)).await
    }

    /// Writes one key.
    pub async fn put(&self, request: PutRequest) -> Result<PutResponse, ClientError> {
        let mut client = KvClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_MAX);
        self.bounded(client.put(request)).await
    }

    /// Deletes a key or a range of keys.
    pub async fn delete_range(
        &self,
        request: DeleteRangeRequest,
    ) -> Result<DeleteRangeResponse, ClientError> {
        let mut client = KvClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_MAX);
        self.bounded(client.delete_range(request)).await
    }

    /// The state of the member that the client is connected to.
    pub async fn status(&self) -> Result<StatusResponse, ClientError> {
        let mut client = MaintenanceClient::new(self.channel.clone());
        self.bounded(client.status(StatusRequest {})).await
    }

    /// The members: those that are committed as of now, or, if not `linearizable`, as the member that the client is connected to knows
    /// them, which it can tell without a leader.
    pub async fn members(&self, linearizable: bool) -> Result<MemberListResponse, ClientError> {
        let mut client = ClusterClient::new(self.channel.clone());
        self.bounded(client.member_list(MemberListRequest { linearizable })).await
    }

    /// Makes the node with these peer URLs a member.
    pub async fn add_member(
        &self,
        peer_urls: &[Url],
        is_learner: bool,
    ) -> Result<MemberAddResponse, ClientError> {
        let mut client = ClusterClient::new(self.channel.clone());
        let peer_ur_ls = peer_urls.iter().map(ToString::to_string).collect();
        self.bounded(client.member_add(MemberAddRequest { peer_ur_ls, is_learner })).await
    }

    /// Removes a member for good.
    pub async fn remove_member(&self, id: u64) -> Result<MemberRemoveResponse, ClientError> {
        let mut client = ClusterClient::new(self.channel.clone());
        self.bounded(client.member_remove(MemberRemoveRequest { id })).await
    }

    /// Puts a new member with these peer URLs in the place of one that is lost, and returns its id. May be repeated.
    pub async fn replace_member(&self, id: u64, peer_urls: &[Url]) -> Result<u64, ClientError> {
        let mut client = MembersClient::new(self.channel.clone());
        let peer_urls = peer_urls.iter().map(ToString::to_string).collect();
        Ok(self.bounded(client.replace(ReplaceRequest { id, peer_urls })).await?.id)
    }

    /// Gives a learner a vote.
    pub async fn promote_member(&self, id: u64) -> Result<MemberPromoteResponse, ClientError> {
        let mut client = ClusterClient::new(self.channel.clone());
        self.bounded(client.member_promote(MemberPromoteRequest { id })).await
    }

    /// Hands leadership over, if the member that the client is connected to leads.
    pub async fn move_leader(&self, target_id: u64) -> Result<MoveLeaderResponse, ClientError> {
        let mut client = MaintenanceClient::new(self.channel.clone());
        self.bounded(client.move_leader(MoveLeaderRequest { target_id })).await
    }

    async fn bounded<T>(
        &self,
        call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    ) -> Result<T, ClientError> {
        match tokio::time::timeout(self.timeout, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(ClientError::Status(Box::new(status))),
            Err(_elapsed) => Err(ClientError::Timeout(self.timeout)),
        }
    }
}

/// How this crate connects, to clients' ports and to peers' alike.
pub(crate) fn builder(url: &Url, connect_timeout: Duration) -> Endpoint {
    Endpoint::from_shared(url.to_string())
        .expect("our URLs are a subset of what the library takes")
        .connect_timeout(connect_timeout)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(5))
        .initial_stream_window_size(2 << 20)
        .initial_connection_window_size(4 << 20)
}

/// The innermost reason: "transport error" alone helps nobody.
pub(crate) fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
