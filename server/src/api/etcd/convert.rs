//! Between etcd's messages and the store's own types.

use lattice_kv as kv;
use tonic::{Code, Status};

use crate::proto::etcdserverpb::{
    DeleteRangeRequest, PutRequest, RangeRequest, RangeResponse, ResponseHeader, range_request,
};
use crate::proto::mvccpb;

/// A range to read. What is wrong in itself is refused here, in etcd's order: nobody waits for a leader to hear of it.
pub(super) fn range_request(request: RangeRequest) -> Result<kv::RangeRequest, Status> {
    if request.key.is_empty() {
        return Err(kv_error(kv::KvError::KeyNotProvided));
    }
    let invalid = |_unknown| kv_error(kv::KvError::InvalidSortOption);
    let order = range_request::SortOrder::try_from(request.sort_order).map_err(invalid)?;
    let target = range_request::SortTarget::try_from(request.sort_target).map_err(invalid)?;
    Ok(kv::RangeRequest {
        key: request.key,
        range_end: request.range_end,
        limit: request.limit,
        revision: request.revision,
        sort_order: match order {
            range_request::SortOrder::None => kv::SortOrder::None,
            range_request::SortOrder::Ascend => kv::SortOrder::Ascend,
            range_request::SortOrder::Descend => kv::SortOrder::Descend,
        },
        sort_target: match target {
            range_request::SortTarget::Key => kv::SortTarget::Key,
            range_request::SortTarget::Version => kv::SortTarget::Version,
            range_request::SortTarget::Create => kv::SortTarget::Create,
            range_request::SortTarget::Mod => kv::SortTarget::Mod,
            range_request::SortTarget::Value => kv::SortTarget::Value,
        },
        keys_only: request.keys_only,
        count_only: request.count_only,
        min_mod_revision: request.min_mod_revision,
        max_mod_revision: request.max_mod_revision,
        min_create_revision: request.min_create_revision,
        max_create_revision: request.max_create_revision,
    })
}

pub(super) fn range_response(
    response: kv::RangeResponse,
    header: impl FnOnce(i64) -> Option<ResponseHeader>,
) -> RangeResponse {
    RangeResponse {
        header: header(response.revision),
        kvs: response.kvs.into_iter().map(key_value).collect(),
        more: response.more,
        count: response.count,
    }
}

pub(super) fn put(request: PutRequest) -> kv::Put {
    kv::Put {
        key: request.key,
        value: request.value,
        lease: kv::LeaseId(request.lease),
        prev_kv: request.prev_kv,
        ignore_value: request.ignore_value,
        ignore_lease: request.ignore_lease,
    }
}

pub(super) fn delete_range(request: DeleteRangeRequest) -> kv::DeleteRange {
    kv::DeleteRange { key: request.key, range_end: request.range_end, prev_kv: request.prev_kv }
}

pub(super) fn key_value(pair: kv::KeyValue) -> mvccpb::KeyValue {
    mvccpb::KeyValue {
        key: pair.key,
        create_revision: pair.create_revision,
        mod_revision: pair.mod_revision,
        version: pair.version,
        value: pair.value,
        lease: pair.lease.0,
    }
}

pub(super) fn kv_error(error: kv::KvError) -> Status {
    Status::new(Code::from_i32(error.code().number()), error.to_string())
}
