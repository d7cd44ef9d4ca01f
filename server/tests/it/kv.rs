//! Keys and values, through the API that etcd's clients speak.

use lattice::client::ClientError;
use lattice::proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use lattice::proto::etcdserverpb::{DeleteRangeRequest, PutRequest, RangeRequest};
use tonic::Code;

use crate::cluster::{Cluster, get, put, range};

#[tokio::test]
async fn any_node_takes_writes_and_shows_them_to_all() {
    let cluster = Cluster::start(3).await;
    for writer in 0..3 {
        let key = format!("key{writer}");
        let written = put(&cluster.client(writer).await, &key, "value").await.unwrap();
        for reader in 0..3 {
            let client = cluster.client(reader).await;
            assert_eq!(get(&client, &key).await.as_deref(), Some("value"));
            let header = range(&client, &key, "").await.header.unwrap();
            assert!(header.revision >= written.header.unwrap().revision);
            assert_eq!(header.cluster_id, written.header.unwrap().cluster_id);
            assert!(header.raft_term > 0 && header.member_id > 0);
        }
    }
    let client = cluster.client(1).await;
    let all = range(&client, "key", "kez").await;
    assert_eq!((all.count, all.kvs.len(), all.more), (3, 3, false));
    let delete = DeleteRangeRequest { key: "key".into(), range_end: "kez".into(), prev_kv: true };
    let deleted = client.delete_range(delete).await.unwrap();
    assert_eq!((deleted.deleted, deleted.prev_kvs.len()), (3, 3));
    assert_eq!(range(&cluster.client(2).await, "key", "kez").await.count, 0);
}

#[tokio::test]
async fn revisions_versions_and_previous_values_are_etcds() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client(0).await;
    assert_eq!(range(&client, "a", "").await.header.unwrap().revision, 1, "the empty store");
    let first = put(&client, "a", "1").await.unwrap();
    assert_eq!(first.header.unwrap().revision, 2);
    let second =
        PutRequest { key: "a".into(), value: "2".into(), prev_kv: true, ..PutRequest::default() };
    let previous = client.put(second).await.unwrap().prev_kv.unwrap();
    assert_eq!((&previous.value[..], previous.version, previous.mod_revision), (&b"1"[..], 1, 2));
    let old = RangeRequest { key: "a".into(), revision: 2, ..RangeRequest::default() };
    let old = client.range(old).await.unwrap();
    assert_eq!((&old.kvs[0].value[..], old.header.unwrap().revision), (&b"1"[..], 3));
    put(&client, "b", "0").await.unwrap();
    let sorted = RangeRequest {
        key: "a".into(),
        range_end: "c".into(),
        limit: 1,
        sort_order: SortOrder::Descend.into(),
        sort_target: SortTarget::Key.into(),
        keys_only: true,
        ..RangeRequest::default()
    };
    let sorted = client.range(sorted).await.unwrap();
    assert_eq!((&sorted.kvs[0].key[..], sorted.count, sorted.more), (&b"b"[..], 2, true));
    assert!(sorted.kvs[0].value.is_empty());
}

#[tokio::test]
async fn wrong_requests_get_etcds_codes_and_texts() {
    let cluster = Cluster::start(3).await;
    for index in 0..3 {
        let client = cluster.client(index).await;
        // One that the store refuses, and one that is refused before it is in memory.
        let big = vec![b'x'; 1600 << 10];
        let huge = vec![b'x'; 2 << 20];
        let lease = PutRequest { key: "a".into(), lease: 7, ..PutRequest::default() };
        let missing = PutRequest { key: "zz".into(), ignore_value: true, ..PutRequest::default() };
        let future = RangeRequest { key: "a".into(), revision: 99, ..RangeRequest::default() };
        let sort = RangeRequest { key: "a".into(), sort_order: 9, ..RangeRequest::default() };
        let no_key = RangeRequest::default();
        let put_errors = [
            (put(&client, "", "v").await, Code::InvalidArgument, "etcdserver: key is not provided"),
            (
                put(&client, "a", big).await,
                Code::InvalidArgument,
                "etcdserver: request is too large",
            ),
            (
                put(&client, "a", huge).await,
                Code::ResourceExhausted,
                "grpc: received message larger than max (2097152 bytes)",
            ),
            (client.put(lease).await, Code::NotFound, "etcdserver: requested lease not found"),
            (client.put(missing).await, Code::InvalidArgument, "etcdserver: key not found"),
        ];
        for (result, code, text) in put_errors {
            expect(result, code, text);
        }
        let range_errors = [
            (
                client.range(future).await,
                Code::OutOfRange,
                "etcdserver: mvcc: required revision is a future revision",
            ),
            (client.range(sort).await, Code::InvalidArgument, "etcdserver: invalid sort option"),
            (client.range(no_key).await, Code::InvalidArgument, "etcdserver: key is not provided"),
        ];
        for (result, code, text) in range_errors {
            expect(result, code, text);
        }
    }
}

fn expect<T: std::fmt::Debug>(result: Result<T, ClientError>, code: Code, text: &str) {
    let error = result.unwrap_err();
    assert_eq!((error.code(), error.to_string().as_str()), (Some(code), text));
}

#[tokio::test]
async fn what_is_not_served_says_so() {
    let cluster = Cluster::start(1).await;
    let url = cluster.urls()[0].to_string();
    let channel = tonic::transport::Endpoint::from_shared(url).unwrap().connect().await.unwrap();
    for (path, text) in [
        ("/etcdserverpb.KV/Txn", "unknown method Txn for service etcdserverpb.KV"),
        ("/etcdserverpb.Watch/Watch", "unknown service etcdserverpb.Watch"),
        ("/etcdserverpb.Lease/LeaseGrant", "unknown service etcdserverpb.Lease"),
        ("/etcdserverpb.Auth/Authenticate", "unknown service etcdserverpb.Auth"),
        (
            "/etcdserverpb.Maintenance/Defragment",
            "unknown method Defragment for service etcdserverpb.Maintenance",
        ),
    ] {
        let mut grpc = tonic::client::Grpc::new(channel.clone());
        grpc.ready().await.unwrap();
        let codec = tonic_prost::ProstCodec::<PutRequest, PutRequest>::default();
        let request = tonic::Request::new(PutRequest::default());
        let path_and_query = tonic::codegen::http::uri::PathAndQuery::from_static(path);
        let error = grpc.unary(request, path_and_query, codec).await.unwrap_err();
        assert_eq!((error.code(), error.message()), (Code::Unimplemented, text));
    }
}

#[tokio::test]
async fn members_tell_their_names_addresses_and_state() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client(0).await;
    // The founders' names are known from the first moment; where clients reach them they publish once there is a leader.
    let members = loop {
        let members = client.members(true).await.unwrap().members;
        assert!(members.iter().all(|member| !member.name.is_empty()), "{members:?}");
        if members.iter().all(|member| !member.client_ur_ls.is_empty()) {
            break members;
        }
    };
    let mut told: Vec<(String, String)> =
        members.iter().map(|m| (m.name.clone(), m.client_ur_ls[0].clone())).collect();
    told.sort();
    let expected: Vec<(String, String)> = ["n1", "n2", "n3"]
        .iter()
        .zip(cluster.urls())
        .map(|(name, url)| ((*name).to_owned(), url.to_string()))
        .collect();
    assert_eq!(told, expected);
    let leader = cluster.up().next().unwrap().status().leader.unwrap();
    let status = client.status().await.unwrap();
    assert_eq!(status.leader, leader.0);
    assert!(status.raft_applied_index > 0 && status.raft_index >= status.raft_applied_index);
    assert!(status.version.starts_with("3.6"), "Kubernetes reads this: {}", status.version);
    assert!(status.errors.is_empty(), "{:?}", status.errors);
}

#[tokio::test]
async fn grpc_health_and_reflection_are_served() {
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_check_response::ServingStatus;
    use tonic_health::pb::health_client::HealthClient;
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

    let cluster = Cluster::start(1).await;
    let url = cluster.urls()[0].to_string();
    let channel = tonic::transport::Endpoint::from_shared(url).unwrap().connect().await.unwrap();
    let service = "etcdserverpb.KV".to_owned();
    // The leader is known; that the health service has heard of it is a matter of moments.
    let mut health = HealthClient::new(channel.clone());
    let mut watch = health.watch(HealthCheckRequest { service }).await.unwrap().into_inner();
    while watch.message().await.unwrap().unwrap().status() != ServingStatus::Serving {}

    let list = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut reflection = ServerReflectionClient::new(channel);
    let request = tokio_stream::once(list);
    let mut answers = reflection.server_reflection_info(request).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap().message_response.unwrap();
    let MessageResponse::ListServicesResponse(listed) = answer else {
        panic!("not a list: {answer:?}");
    };
    let names: Vec<String> = listed.service.into_iter().map(|service| service.name).collect();
    for name in ["etcdserverpb.KV", "etcdserverpb.Cluster", "etcdserverpb.Maintenance"] {
        assert!(names.iter().any(|listed| listed == name), "{name} in {names:?}");
    }
    assert!(!names.iter().any(|name| name.starts_with("lattice.forward")), "{names:?}");
}
