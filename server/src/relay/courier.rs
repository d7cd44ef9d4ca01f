//! Takes clients' writes to the leader, as many as wait at a time in one call.
//!
//! A call costs both ends far more than the command that is in it. So what is to go to the leader queues for a task, which takes all
//! that there is: a write that comes alone travels alone and at once, and those that come while others are being dealt with travel
//! together. There is no timer in that. A few calls may be under way at a time, so that a leader that is slow gets larger ones.
//!
//! Each write still has an outcome of its own. What was never sent is told from what may have been: when the connection breaks, or
//! another node leads, what still queues is *not applied* and may go to the next leader, and what is under way is unknown
//! unless its answer comes soon.
//!
//! What has a long answer goes through another courier, one command a call: others should neither have to wait for it, nor find no
//! room beside it.

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};
use tonic::Request;
use tonic::transport::Channel;

use super::{
    ClusterId, KV_GROUP, LATE_ANSWER, NodeId, Reason, Verdict, lost_or_not_sent, not_applied,
};
use crate::proto::forward::forward_client::ForwardClient;
use crate::proto::forward::{ProposeRequest, ProposeResponse};

/// Writes that wait for a call. Whoever finds no room waits for it.
const QUEUE_MAX: usize = 1024;
/// Calls that are under way before the next write has to wait for one to end.
const CALLS_MAX: usize = 8;
/// Commands in one call.
pub(super) const COMMANDS_MAX: usize = 256;
/// A call that has so many bytes of commands takes no more: with the last one, which may be the largest there is, it is still no longer
/// than the leader accepts.
const BYTES_MAX: usize = 256 << 10;

/// A write on its way. If `answer` is dropped, its outcome is unknown.
#[derive(Debug)]
pub(super) struct Parcel {
    /// The encoded command.
    pub(super) command: Bytes,
    /// When nobody waits for the answer any more.
    pub(super) deadline: Instant,
    /// Whom to tell.
    pub(super) answer: oneshot::Sender<Verdict>,
}

/// Whoever takes parcels to one leader.
#[derive(Debug)]
pub(super) struct Courier {
    pub(super) cluster: ClusterId,
    pub(super) me: NodeId,
    pub(super) client: ForwardClient<Channel>,
    /// How many commands may travel in one call.
    pub(super) commands_max: usize,
}

/// How a call ended, for those that would come after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Connection {
    Good,
    Broken,
}

impl Courier {
    /// Starts on the caller's runtime. Ends, after all that it was given, when the senders are dropped; closes the queue, and takes nothing more,
    /// when the connection breaks or another node leads, which `replaced` waits for.
    pub(super) fn start(
        self,
        replaced: impl Future<Output = ()> + Send + 'static,
    ) -> mpsc::Sender<Parcel> {
        let (sender, parcels) = mpsc::channel(QUEUE_MAX);
        tokio::spawn(self.serve(parcels, replaced));
        sender
    }

    async fn serve(
        self,
        mut parcels: mpsc::Receiver<Parcel>,
        replaced: impl Future<Output = ()> + Send,
    ) {
        tokio::pin!(replaced);
        let mut is_replaced = false;
        let mut calls = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                Some(ended) = calls.join_next() => {
                    // A call that panicked has answered nobody, which says that nobody knows.
                    if !matches!(ended, Ok(Connection::Good)) {
                        break;
                    }
                }
                () = &mut replaced => {
                    is_replaced = true;
                    break;
                }
                parcel = parcels.recv(), if calls.len() < CALLS_MAX => match parcel {
                    Some(first) => self.take(first, &mut parcels, &mut calls),
                    None => break,
                }
            }
        }
        parcels.close();
        // Also those that are just being put in: nobody is left behind.
        while let Some(parcel) = parcels.recv().await {
            let _gone: Result<(), Verdict> = parcel.answer.send(not_applied(Reason::NotLeader));
        }
        let all = async { while calls.join_next().await.is_some() {} };
        let late = async {
            if !is_replaced {
                replaced.await;
            }
            sleep(LATE_ANSWER).await;
        };
        // Each call has an end of its own. Those that are left behind are unknown.
        tokio::select! {
            () = all => {}
            () = late => {}
        }
    }

    /// Begins a call with this parcel and what waits behind it.
    fn take(
        &self,
        first: Parcel,
        parcels: &mut mpsc::Receiver<Parcel>,
        calls: &mut JoinSet<Connection>,
    ) {
        let mut together = Vec::new();
        let mut bytes = 0;
        let mut next = Some(first);
        while let Some(parcel) = next {
            // Who gave up waiting has been told that nobody knows: it need not be written any more.
            if !parcel.answer.is_closed() {
                bytes += parcel.command.len();
                together.push(parcel);
            }
            let has_room = together.len() < self.commands_max && bytes < BYTES_MAX;
            next = if has_room { parcels.try_recv().ok() } else { None };
        }
        if !together.is_empty() {
            calls.spawn(self.carry(together));
        }
    }

    /// Hands parcels over, and tells each what became of it.
    fn carry(&self, parcels: Vec<Parcel>) -> impl Future<Output = Connection> + Send + 'static {
        let now = Instant::now();
        let until = parcels.iter().map(|parcel| parcel.deadline).max().unwrap_or(now) + LATE_ANSWER;
        let (commands, answers): (Vec<_>, Vec<_>) =
            parcels.into_iter().map(|parcel| (parcel.command, parcel.answer)).unzip();
        let (cluster, group, from) = (self.cluster.0, KV_GROUP.0, self.me.0);
        let mut request = Request::new(ProposeRequest { cluster, group, from, commands });
        // Later than those who wait, for the library would report its end as that of the connection.
        request.set_timeout(until.saturating_duration_since(now));
        let mut client = self.client.clone();
        async move {
            let tell = |answer: oneshot::Sender<Verdict>, verdict| {
                // Who is gone has been told that nobody knows.
                let _gone: Result<(), Verdict> = answer.send(verdict);
            };
            match timeout_at(until, client.propose(request)).await {
                Ok(Ok(response)) => {
                    let ProposeResponse { outcomes } = response.into_inner();
                    // Those that the leader says nothing of are unknown.
                    for (answer, outcome) in answers.into_iter().zip(outcomes) {
                        tell(answer, outcome.into());
                    }
                    Connection::Good
                }
                Ok(Err(status)) => {
                    let verdict = lost_or_not_sent(&status);
                    answers.into_iter().for_each(|answer| tell(answer, verdict.clone()));
                    Connection::Broken
                }
                // Nobody waits any more. The leader is slow, or only this connection is dead: the next one shows which.
                Err(_elapsed) => Connection::Broken,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio_stream::wrappers::TcpListenerStream;
    use tonic::{Response, Status};

    use super::super::Lost;
    use super::*;
    use crate::proto::forward::forward_server::{Forward, ForwardServer};
    use crate::proto::forward::{
        ChangeRequest, ChangeResponse, MembersRequest, MembersResponse, ProposeOutcome,
    };

    /// What a call was answered with.
    type Answer = Result<ProposeResponse, Status>;
    /// A call that a leader got, and where its answer goes.
    type Call = (Vec<Bytes>, oneshot::Sender<Answer>);

    /// A leader that answers when the test does.
    struct Puppet(mpsc::UnboundedSender<Call>);

    #[tonic::async_trait]
    impl Forward for Puppet {
        async fn propose(
            &self,
            request: Request<ProposeRequest>,
        ) -> Result<Response<ProposeResponse>, Status> {
            let (answer, answered) = oneshot::channel();
            self.0.send((request.into_inner().commands, answer)).unwrap();
            answered.await.unwrap().map(Response::new)
        }

        async fn change(
            &self,
            _request: Request<ChangeRequest>,
        ) -> Result<Response<ChangeResponse>, Status> {
            Err(Status::unimplemented("not asked"))
        }

        async fn members(
            &self,
            _request: Request<MembersRequest>,
        ) -> Result<Response<MembersResponse>, Status> {
            Err(Status::unimplemented("not asked"))
        }
    }

    /// A courier, the calls that its leader gets, and what tells it that another node leads.
    async fn courier() -> (mpsc::Sender<Parcel>, mpsc::UnboundedReceiver<Call>, oneshot::Sender<()>)
    {
        courier_of(COMMANDS_MAX).await
    }

    async fn courier_of(
        commands_max: usize,
    ) -> (mpsc::Sender<Parcel>, mpsc::UnboundedReceiver<Call>, oneshot::Sender<()>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (puppet, calls) = mpsc::unbounded_channel();
        let server = tonic::transport::Server::builder()
            .add_service(ForwardServer::new(Puppet(puppet)))
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(server);
        let channel = Channel::from_shared(url).unwrap().connect().await.unwrap();
        let client = ForwardClient::new(channel);
        let courier = Courier { cluster: ClusterId(1), me: NodeId(2), client, commands_max };
        let (replace, replaced) = oneshot::channel();
        (courier.start(async { replaced.await.unwrap() }), calls, replace)
    }

    /// Queues a command without letting the courier run.
    fn queue(courier: &mpsc::Sender<Parcel>, command: &[u8]) -> oneshot::Receiver<Verdict> {
        let (answer, verdict) = oneshot::channel();
        let parcel = Parcel {
            command: Bytes::copy_from_slice(command),
            deadline: Instant::now() + Duration::from_secs(60),
            answer,
        };
        courier.try_send(parcel).unwrap();
        verdict
    }

    /// Every command is applied, and its reply is the command.
    fn echo(commands: Vec<Bytes>) -> Answer {
        let outcome = |command| ProposeOutcome::from(Verdict::Applied(command));
        Ok(ProposeResponse { outcomes: commands.into_iter().map(outcome).collect() })
    }

    #[tokio::test]
    async fn writes_that_wait_travel_together_and_each_has_its_own_outcome() {
        let (courier, mut calls, _replace) = courier().await;
        let verdicts = [b"a", b"b", b"c"].map(|command| queue(&courier, command));
        let (commands, answer) = calls.recv().await.unwrap();
        assert_eq!(commands, ["a", "b", "c"]);
        let outcomes = [Verdict::Applied("1".into()), not_applied(Reason::NoSpace)];
        let outcomes = outcomes.map(ProposeOutcome::from).into();
        answer.send(Ok(ProposeResponse { outcomes })).unwrap();
        let [applied, refused, forgotten] = verdicts;
        assert_eq!(applied.await, Ok(Verdict::Applied("1".into())));
        assert_eq!(refused.await, Ok(not_applied(Reason::NoSpace)));
        assert!(forgotten.await.is_err(), "what the leader says nothing of is unknown");
    }

    #[tokio::test]
    async fn where_each_travels_alone_there_are_no_more_calls_than_allowed() {
        let (courier, mut calls, _replace) = courier_of(1).await;
        let _verdicts: Vec<_> = (0..=CALLS_MAX).map(|_| queue(&courier, b"long")).collect();
        let mut answers = Vec::new();
        for _ in 0..CALLS_MAX {
            let (commands, answer) = calls.recv().await.unwrap();
            assert_eq!(commands, ["long"]);
            answers.push(answer);
        }
        assert!(calls.try_recv().is_err(), "the last one waits for room");
        answers.pop().unwrap().send(echo(vec!["done".into()])).unwrap();
        assert_eq!(calls.recv().await.unwrap().0, ["long"]);
    }

    #[tokio::test]
    async fn large_writes_share_a_call_only_up_to_a_limit() {
        let (courier, mut calls, _replace) = courier().await;
        let large = vec![b'x'; BYTES_MAX - 1];
        let _verdicts = [&large[..], &large[..], b"a"].map(|command| queue(&courier, command));
        let mut sent = Vec::new();
        for _ in 0..2 {
            let (commands, answer) = calls.recv().await.unwrap();
            sent.push(commands.len());
            answer.send(echo(commands)).unwrap();
        }
        sent.sort_unstable();
        assert_eq!(sent, [1, 2]);
    }

    /// Fills all calls with a write each, and queues one more.
    async fn all_calls_under_way(
        courier: &mpsc::Sender<Parcel>,
        calls: &mut mpsc::UnboundedReceiver<Call>,
    ) -> (Vec<oneshot::Receiver<Verdict>>, Vec<oneshot::Sender<Answer>>, oneshot::Receiver<Verdict>)
    {
        let (mut verdicts, mut answers) = (Vec::new(), Vec::new());
        for _ in 0..CALLS_MAX {
            verdicts.push(queue(courier, b"sent"));
            answers.push(calls.recv().await.unwrap().1);
        }
        (verdicts, answers, queue(courier, b"queued"))
    }

    #[tokio::test]
    async fn when_the_connection_breaks_what_was_not_sent_was_not_applied() {
        let (courier, mut calls, _replace) = courier().await;
        let (verdicts, answers, queued) = all_calls_under_way(&courier, &mut calls).await;
        let mut answers = answers.into_iter();
        answers.next().unwrap().send(Err(Status::unavailable("broken"))).unwrap();
        assert_eq!(queued.await, Ok(not_applied(Reason::NotLeader)));
        assert!(courier.is_closed(), "the next write finds another way");
        answers.for_each(|answer| answer.send(echo(vec!["late".into()])).unwrap());
        let mut verdicts = verdicts.into_iter();
        assert_eq!(verdicts.next().unwrap().await, Ok(Verdict::Lost(Lost::Connection)));
        for verdict in verdicts {
            assert_eq!(verdict.await, Ok(Verdict::Applied("late".into())));
        }
        assert!(calls.try_recv().is_err(), "nothing more was sent");
    }

    #[tokio::test]
    async fn when_another_node_leads_what_was_sent_is_unknown_and_the_rest_goes_there() {
        let (courier, mut calls, replace) = courier().await;
        let (verdicts, _answers, queued) = all_calls_under_way(&courier, &mut calls).await;
        replace.send(()).unwrap();
        assert_eq!(queued.await, Ok(not_applied(Reason::NotLeader)));
        for verdict in verdicts {
            assert!(verdict.await.is_err(), "nobody knows");
        }
    }
}
