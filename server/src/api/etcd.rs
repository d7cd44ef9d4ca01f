//! etcd's API: `KV`, `Cluster` and `Maintenance`, as far as they are served. Any other method answers `UNIMPLEMENTED`.
//!
//! Reads are linearizable unless the client says `serializable`: the leader confirms that it still leads, and this node
//! waits until it has applied as much as the leader had committed then. Error texts and codes are etcd's, for clients
//! match them. An outcome that nobody knows is `UNAVAILABLE`, as with etcd: its clients repeat reads on that, and writes
//! never.

mod answer;
mod convert;
mod members;
mod range;

use std::sync::Arc;
use std::time::Duration;

use lattice_kv::{Operation, Outcome, Response as KvResponse};
use raft_consensus::driver::{Consistency, ReadError};
use raft_consensus::types::NodeId;
use tokio::time::{Instant, timeout_at};
use tonic::{Code, Request, Response, Status};

use crate::metrics::{Metrics, Operation as Measured};
use crate::node::Shared;
use crate::proto::cluster::members_server::MembersServer;
use crate::proto::etcdserverpb::alarm_request::AlarmAction;
use crate::proto::etcdserverpb::cluster_server::ClusterServer;
use crate::proto::etcdserverpb::kv_server::{Kv, KvServer};
use crate::proto::etcdserverpb::maintenance_server::{Maintenance, MaintenanceServer};
use crate::proto::etcdserverpb::{
    AlarmMember, AlarmRequest, AlarmResponse, AlarmType, DeleteRangeRequest, DeleteRangeResponse,
    MoveLeaderRequest, MoveLeaderResponse, PutRequest, PutResponse, RangeRequest, RangeResponse,
    ResponseHeader, StatusRequest, StatusResponse,
};
use crate::relay::{Lost, WriteError};

pub(crate) use answer::ClientPort;
pub(crate) use range::RangeReads;

/// The version of etcd whose API this is. Kubernetes uses consistent reads from its cache only from 3.5.13 on.
pub(crate) const ETCD_VERSION: &str = "3.6.0";

/// A request of 1.5 MiB and 512 KiB for what is around it, as with etcd: one that is a little too large gets the store's
/// error, and one that is far too large the library's, before it is in memory.
pub(crate) const DECODE_MAX: usize = 2 << 20;

/// The services of the clients' port.
pub(crate) const SERVICES: [&str; 5] = [
    "etcdserverpb.KV",
    "etcdserverpb.Cluster",
    "etcdserverpb.Maintenance",
    "lattice.cluster.v1.Members",
    "grpc.health.v1.Health",
];

/// etcd's API on one node.
#[derive(Clone, Debug)]
pub(crate) struct EtcdApi {
    node: Arc<Shared>,
}

impl EtcdApi {
    pub(crate) fn new(node: Arc<Shared>) -> Self {
        Self { node }
    }

    pub(crate) fn kv(&self) -> KvServer<Self> {
        KvServer::new(self.clone())
            .max_decoding_message_size(DECODE_MAX)
            .max_encoding_message_size(usize::MAX)
    }

    pub(crate) fn cluster(&self) -> ClusterServer<Self> {
        ClusterServer::new(self.clone()).max_decoding_message_size(DECODE_MAX)
    }

    pub(crate) fn members(&self) -> MembersServer<Self> {
        MembersServer::new(self.clone()).max_decoding_message_size(DECODE_MAX)
    }

    pub(crate) fn maintenance(&self) -> MaintenanceServer<Self> {
        MaintenanceServer::new(self.clone()).max_decoding_message_size(DECODE_MAX)
    }

    /// When the answer is due: after the time that the client gives, but no later than after our own. A client that would rather have no
    /// answer than wait for a leader says so, and has it at once.
    fn deadline<T>(&self, request: &Request<T>) -> Result<Instant, Status> {
        let wants_leader =
            request.metadata().get("hasleader").is_some_and(|value| value.as_bytes() == b"true");
        if wants_leader && self.node.raft.watch().borrow().leader.is_none() {
            return Err(no_leader());
        }
        let own = self.node.request_timeout;
        Ok(Instant::now() + given_time(request).map_or(own, |given| given.min(own)))
    }

    /// A reader of a state that is new enough.
    async fn reader(
        &self,
        serializable: bool,
        deadline: Instant,
    ) -> Result<lattice_kv::KvReader, Status> {
        let consistency = if serializable { Consistency::Stale } else { Consistency::Linearizable };
        let mut status = self.node.raft.watch();
        loop {
            let seen = {
                let status = status.borrow_and_update();
                (status.leader, status.term)
            };
            match timeout_at(deadline, self.node.raft.read(consistency)).await {
                Ok(Ok(reader)) => return Ok(reader),
                Ok(Err(ReadError::Stopped)) => return Err(stopped()),
                // A read may be repeated as often as one likes.
                Ok(Err(_)) if Instant::now() < deadline => {}
                Ok(Err(_)) | Err(_) if seen.0.is_none() => return Err(no_leader()),
                Ok(Err(_)) | Err(_) => return Err(timed_out("")),
            }
            let news = status.wait_for(|now| (now.leader, now.term) != seen);
            let pause = deadline.min(Instant::now() + READ_PAUSE);
            if let Ok(Err(_closed)) = timeout_at(pause, news).await {
                return Err(stopped());
            }
        }
    }

    async fn write(&self, operation: Operation, deadline: Instant) -> Result<Outcome, Status> {
        self.node.relay.write(operation, deadline).await.map_err(Status::from)
    }

    fn header(&self, revision: i64) -> Option<ResponseHeader> {
        Some(ResponseHeader {
            cluster_id: self.node.cluster.0,
            member_id: self.node.id.0,
            revision,
            raft_term: self.node.raft.term().0,
        })
    }

    async fn range(
        &self,
        request: Request<RangeRequest>,
    ) -> Result<Response<RangeResponse>, Status> {
        let deadline = self.deadline(&request)?;
        let request = request.into_inner();
        let serializable = request.serializable;
        let request = convert::range_request(request)?;
        let reader = self.reader(serializable, deadline).await?;
        let reading = reader.start_range(request).map_err(convert::kv_error)?;
        let api = self.clone();
        let convert = move |found| convert::range_response(found, |revision| api.header(revision));
        let (found, room) = self.node.range_reads.read(reading, deadline, convert).await?;
        let mut response = Response::new(found);
        response.extensions_mut().insert(answer::Takes(Arc::new(room)));
        Ok(response)
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<PutResponse, Status> {
        let deadline = self.deadline(&request)?;
        let put = Operation::Put(convert::put(request.into_inner()));
        let Outcome { revision, response } = self.write(put, deadline).await?;
        let KvResponse::Put { prev_kv } = response else {
            return Err(malformed());
        };
        Ok(PutResponse { header: self.header(revision), prev_kv: prev_kv.map(convert::key_value) })
    }

    async fn delete_range(
        &self,
        request: Request<DeleteRangeRequest>,
    ) -> Result<DeleteRangeResponse, Status> {
        let deadline = self.deadline(&request)?;
        let delete = Operation::DeleteRange(convert::delete_range(request.into_inner()));
        let Outcome { revision, response } = self.write(delete, deadline).await?;
        let KvResponse::DeleteRange { deleted, prev_kvs } = response else {
            return Err(malformed());
        };
        Ok(DeleteRangeResponse {
            header: self.header(revision),
            deleted,
            prev_kvs: prev_kvs.into_iter().map(convert::key_value).collect(),
        })
    }

    /// Carries out a request and records how long it took and how it ended.
    async fn measured<T>(
        &self,
        operation: Measured,
        request: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, Status> {
        let mut measure = Measure {
            metrics: &self.node.metrics,
            operation,
            start: std::time::Instant::now(),
            code: Code::Cancelled,
        };
        let result = request.await;
        measure.code = result.as_ref().err().map_or(Code::Ok, Status::code);
        result
    }
}

/// Records a request when dropped: one that its client gave up, by its own deadline say, is dropped where it waits.
struct Measure<'a> {
    metrics: &'a Metrics,
    operation: Measured,
    start: std::time::Instant,
    code: Code,
}

impl Drop for Measure<'_> {
    fn drop(&mut self) {
        self.metrics.request(self.operation, self.code, self.start.elapsed());
    }
}

/// After a failed attempt to read, wait for news of a leader, but not longer than this.
const READ_PAUSE: Duration = Duration::from_millis(50);

#[tonic::async_trait]
impl Kv for EtcdApi {
    async fn range(
        &self,
        request: Request<RangeRequest>,
    ) -> Result<Response<RangeResponse>, Status> {
        self.measured(Measured::Range, self.range(request)).await
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        self.measured(Measured::Put, self.put(request)).await.map(Response::new)
    }

    async fn delete_range(
        &self,
        request: Request<DeleteRangeRequest>,
    ) -> Result<Response<DeleteRangeResponse>, Status> {
        self.measured(Measured::DeleteRange, self.delete_range(request)).await.map(Response::new)
    }
}

#[tonic::async_trait]
impl Maintenance for EtcdApi {
    /// This member's own alarms. They follow what is the case, so nobody needs to end them.
    async fn alarm(
        &self,
        request: Request<AlarmRequest>,
    ) -> Result<Response<AlarmResponse>, Status> {
        let asked = request.into_inner();
        if asked.action != i32::from(AlarmAction::Get) {
            return Err(Status::unimplemented(
                "alarms end by themselves, when the disk has room again: they are neither raised nor disarmed",
            ));
        }
        let mut alarms = Vec::new();
        if self.node.raft.watch().borrow().low_space {
            let (member_id, alarm) = (self.node.id.0, AlarmType::Nospace.into());
            alarms.push(AlarmMember { member_id, alarm });
        }
        alarms.retain(|it| asked.member_id == 0 || it.member_id == asked.member_id);
        alarms.retain(|it| asked.alarm == i32::from(AlarmType::None) || it.alarm == asked.alarm);
        Ok(Response::new(AlarmResponse { header: self.header(0), alarms }))
    }

    async fn status(
        &self,
        _request: Request<StatusRequest>,
    ) -> Result<Response<StatusResponse>, Status> {
        let reader = self.node.raft.reader();
        let status = self.node.raft.status();
        // The store is ahead of what the node has heard of it. What is applied is committed.
        let applied = reader.applied().index;
        let size = i64::try_from(reader.size().bytes).unwrap_or(i64::MAX);
        let mut errors = Vec::new();
        if status.leader.is_none() {
            errors.push("etcdserver: no leader".into());
        }
        if status.low_space {
            errors.push(format!("memberID:{} alarm:NOSPACE ", self.node.id.0));
        }
        Ok(Response::new(StatusResponse {
            header: self.header(reader.revision()),
            version: ETCD_VERSION.into(),
            db_size: size,
            leader: status.leader.map_or(0, |leader| leader.0),
            raft_index: status.commit.max(applied).0,
            raft_term: status.term.0,
            raft_applied_index: applied.0,
            errors,
            db_size_in_use: size,
            is_learner: !status.membership.is_voter(self.node.id),
            storage_version: ETCD_VERSION.into(),
            db_size_quota: 0,
        }))
    }

    async fn move_leader(
        &self,
        request: Request<MoveLeaderRequest>,
    ) -> Result<Response<MoveLeaderResponse>, Status> {
        let deadline = self.deadline(&request)?;
        self.hand_over_to(NodeId(request.into_inner().target_id), deadline).await?;
        Ok(Response::new(MoveLeaderResponse { header: self.header(0) }))
    }
}

impl From<WriteError> for Status {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Refused { code, message } => Self::new(Code::from_i32(code), message),
            WriteError::NoLeader => no_leader(),
            WriteError::Unknown(Lost::Time) => timed_out(""),
            WriteError::Unknown(Lost::Leader) => {
                timed_out(", possibly due to previous leader failure")
            }
            WriteError::Unknown(Lost::Connection) => timed_out(", possibly due to connection lost"),
            WriteError::Overloaded => convert::kv_error(lattice_kv::KvError::TooManyRequests),
            WriteError::NoSpace => convert::kv_error(lattice_kv::KvError::NoSpace),
            WriteError::TooLarge => convert::kv_error(lattice_kv::KvError::RequestTooLarge),
            WriteError::Stopped => stopped(),
            WriteError::Malformed => malformed(),
        }
    }
}

fn no_leader() -> Status {
    Status::unavailable("etcdserver: no leader")
}

fn stopped() -> Status {
    Status::unavailable("etcdserver: server stopped")
}

fn timed_out(cause: &str) -> Status {
    Status::unavailable(format!("etcdserver: request timed out{cause}"))
}

/// The reply of a newer leader to an older follower's client. The write was applied.
fn malformed() -> Status {
    Status::internal(
        "the write was applied, but its result is in a form that this member does not know",
    )
}

/// The time that a client gives for its answer, if it gives one.
fn given_time<T>(request: &Request<T>) -> Option<Duration> {
    let value = request.metadata().get("grpc-timeout")?;
    grpc_timeout(value.to_str().ok()?)
}

/// `TimeoutValue TimeoutUnit` of the gRPC protocol: at most eight digits and a letter.
fn grpc_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(value * 3600),
        "M" => Duration::from_secs(value * 60),
        "S" => Duration::from_secs(value),
        "m" => Duration::from_millis(value),
        "u" => Duration::from_micros(value),
        "n" => Duration::from_nanos(value),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_grpc_writes_them() {
        assert_eq!(grpc_timeout("250m"), Some(Duration::from_millis(250)));
        assert_eq!(grpc_timeout("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        let mut request = Request::new(());
        assert_eq!(given_time(&request), None);
        request.set_timeout(Duration::from_secs(2));
        assert_eq!(given_time(&request), Some(Duration::from_secs(2)));
        for text in ["", "m", "1", "-1S", "+1S", "1x", "123456789S", "1 S", "é"] {
            assert_eq!(grpc_timeout(text), None, "{text}");
        }
    }

    #[test]
    fn a_range_that_is_wrong_in_itself_is_refused_before_anybody_is_asked() {
        let no_key = RangeRequest { sort_order: 9, ..RangeRequest::default() };
        let no_such_order = RangeRequest { key: "a".into(), sort_order: 9, ..no_key.clone() };
        for (request, text) in [
            (no_key, "etcdserver: key is not provided"),
            (no_such_order, "etcdserver: invalid sort option"),
        ] {
            let status = convert::range_request(request).unwrap_err();
            assert_eq!((status.code(), status.message()), (Code::InvalidArgument, text));
        }
    }

    #[test]
    fn trouble_with_writes_has_etcds_codes_and_texts() {
        for (error, code, text) in [
            (WriteError::NoLeader, Code::Unavailable, "etcdserver: no leader"),
            (WriteError::Unknown(Lost::Time), Code::Unavailable, "etcdserver: request timed out"),
            (
                WriteError::Unknown(Lost::Leader),
                Code::Unavailable,
                "etcdserver: request timed out, possibly due to previous leader failure",
            ),
            (
                WriteError::Unknown(Lost::Connection),
                Code::Unavailable,
                "etcdserver: request timed out, possibly due to connection lost",
            ),
            (WriteError::Overloaded, Code::ResourceExhausted, "etcdserver: too many requests"),
            (
                WriteError::NoSpace,
                Code::ResourceExhausted,
                "etcdserver: mvcc: database space exceeded",
            ),
            (WriteError::TooLarge, Code::InvalidArgument, "etcdserver: request is too large"),
            (WriteError::Stopped, Code::Unavailable, "etcdserver: server stopped"),
        ] {
            let status = Status::from(error);
            assert_eq!((status.code(), status.message()), (code, text));
        }
    }
}
