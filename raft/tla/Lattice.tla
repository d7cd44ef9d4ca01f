------------------------------- MODULE Lattice -------------------------------
(***************************************************************************)
(* The Raft of Lattice, as raft/src/raft_node.rs and its children do it.   *)
(*                                                                         *)
(* A node is a record, an event takes it to another record and to a set of *)
(* messages, and Step puts both into the world.  That is how the code is   *)
(* made, so each operator below has a function of nearly the same name to  *)
(* be compared with.                                                       *)
(*                                                                         *)
(* What is here: pre-vote, votes that are refused while a leader is heard  *)
(* of, appends, the commit rule, writes that become durable later than     *)
(* they are made and messages that wait for them, restarts, joint          *)
(* consensus in force from the place of its entry on, learners, handing    *)
(* over leadership, snapshots, and linearizable reads by rounds of         *)
(* heartbeats.                                                             *)
(*                                                                         *)
(* What is left out, and why that is sound for safety: times (a deadline   *)
(* may come whenever it likes), windows and retries (a leader may send any *)
(* part of its log at any time), the hint of a rejection, the pieces of a  *)
(* snapshot, the binding of members to data directories (no directory is   *)
(* lost here).  A message, once sent, can be received any number of times  *)
(* and at any time, or never.                                              *)
(***************************************************************************)
EXTENDS Naturals, Sequences, FiniteSets, TLC

CONSTANTS
    Server,     \* everybody there is
    Nobody,     \* no server
    Founding,   \* the configuration that the log begins with
    WritesLast, \* TRUE: a write is durable some time later; FALSE: at once
    Sticky      \* TRUE: who hears from a leader refuses its vote. FALSE: it may vote, which
                \* allows more, and makes fewer states of it: nothing else rests on that rule

VARIABLES
    node,       \* of each server: what it knows, its disk, its writes under way
    msgs,       \* every message that was ever sent
    \* What no node knows, for the properties:
    elected,    \* who was elected in which term
    chosen,     \* what is committed, and in which term that was first known
    read        \* a linearizable read

vars == <<node, msgs, elected, chosen, read>>

-----------------------------------------------------------------------------
(* Configurations: membership.rs.  While out is not empty the configuration *)
(* is joint, and whatever needs a majority needs one of both halves.        *)

Config(in, out, learners) == [in |-> in, out |-> out, learners |-> learners]
Unchanged == Config({}, {}, {})  \* what an entry brings that changes nobody
Voters(c) == c.in \cup c.out
Members(c) == Voters(c) \cup c.learners
IsJoint(c) == c.out # {}

IsMajority(set, half) == Cardinality(set \cap half) * 2 > Cardinality(half)
IsQuorum(set, c) ==
    /\ IsMajority(set, c.in)
    /\ IsJoint(c) => IsMajority(set, c.out)
(* Those who said no keep every quorum from saying yes. *)
IsLost(noes, c) == ~IsQuorum(Voters(c) \ noes, c)

(* An entry: its term, and the configuration that it brings.  What command  *)
(* it carries does not matter: term and place name an entry.                *)
Entry(term, config) == [t |-> term, c |-> config]

(* The configuration in force: that of the latest entry that brings one.    *)
RECURSIVE LastConfig(_, _)
LastConfig(log, i) ==
    IF i = 0 THEN 0 ELSE IF log[i].c # Unchanged THEN i ELSE LastConfig(log, i - 1)
ConfigIndex(n) == LastConfig(n.log, Len(n.log))
ConfigAt(log, i) == IF i = 0 THEN Founding ELSE log[i].c
(* A node that is to be added knows nobody until it has the log. *)
ConfigOf(n) ==
    IF ConfigIndex(n) = 0 /\ n.id \notin Members(Founding) THEN Unchanged
    ELSE ConfigAt(n.log, ConfigIndex(n))

(* A name is used once: who was a member and is none is never one again.      *)
EverMembers(log, i) == Members(Founding) \cup UNION {Members(log[j].c) : j \in 1..i}
HasRemoved(log, i, s) ==
    s \in EverMembers(log, i) \ Members(ConfigAt(log, LastConfig(log, i)))
KnowsRemoval(n, s) == HasRemoved(n.log, n.commit, s)

-----------------------------------------------------------------------------
(* Logs: log.rs.  A log is kept here in full; what was compacted is marked by *)
(* base, and neither compared nor sent any more.                             *)

Min(a, b) == IF a < b THEN a ELSE b
Max(a, b) == IF a > b THEN a ELSE b
TermAt(log, i) == IF i = 0 THEN 0 ELSE log[i].t
LastId(log) == <<TermAt(log, Len(log)), Len(log)>>
IsUpToDate(id, log) ==
    \/ id[1] > LastId(log)[1]
    \/ id[1] = LastId(log)[1] /\ id[2] >= LastId(log)[2]

(* How far two logs are the same. *)
RECURSIVE Common(_, _, _)
Common(a, b, i) ==
    IF i < Len(a) /\ i < Len(b) /\ a[i + 1] = b[i + 1] THEN Common(a, b, i + 1) ELSE i

(* What a node writes: its term and vote, its log, and the place up to which *)
(* a snapshot stands in for it.                                              *)
Hard(n) == [term |-> n.term, vote |-> n.vote, log |-> n.log, snap |-> n.snap]
Durable(n) == Max(n.disk.snap, Common(n.log, n.disk.log, 0))

-----------------------------------------------------------------------------
(* Messages: message.rs.  Each carries its sender's term.                    *)

Message(type, n, to, more) == more @@ [type |-> type, from |-> n.id, to |-> to, term |-> n.term]
IsAcceptance(m) == m.type = "Accepted" \/ (m.type = "SnapshotAck" /\ m.installed)

(* Whether what a message reveals is on the disk.  (RaftNode::send: not      *)
(* before its term and vote are; an acknowledgement not before the entries.) *)
IsDurable(m, hard, n) ==
    /\ hard.term = n.term /\ hard.vote = n.vote
    /\ m.type = "Accepted" =>
        /\ Len(hard.log) >= m.matched
        /\ TermAt(hard.log, m.matched) = TermAt(n.log, m.matched)
    /\ m.type = "SnapshotAck" /\ m.installed => hard.snap >= m.last[2]

-----------------------------------------------------------------------------
(* The world after server s became n and gave out the messages out:          *)
(* RaftNode::finish.  What n has to write comes first; each message waits    *)
(* for the first write that makes it true.                                   *)

Write(hard, out) == [hard |-> hard, out |-> out]

Note(n) ==
    IF n.commit > Len(chosen)
    THEN chosen \o [i \in 1..(n.commit - Len(chosen)) |->
                        [entry |-> n.log[Len(chosen) + i], by |-> n.term]]
    ELSE chosen

Place(s, n, out) ==
    LET hasNews == Hard(n) # Hard(node[s])
        queue == IF hasNews THEN Append(n.queue, Write(Hard(n), {})) ELSE n.queue
        free == {m \in out : IsDurable(m, n.disk, n)}
        First(m) == CHOOSE i \in 1..Len(queue) :
            /\ IsDurable(m, queue[i].hard, n)
            /\ \A j \in 1..(i - 1) : ~IsDurable(m, queue[j].hard, n)
        held == [i \in 1..Len(queue) |->
            [queue[i] EXCEPT !.out = @ \cup {m \in out \ free : First(m) = i}]]
    IN  /\ chosen' = Note(n)
        /\ IF WritesLast
           THEN /\ node' = [node EXCEPT ![s] = [n EXCEPT !.queue = held]]
                /\ msgs' = msgs \cup free
           ELSE /\ node' = [node EXCEPT ![s] = [n EXCEPT !.disk = Hard(n)]]
                /\ msgs' = msgs \cup out

Step(s, n, out) == Place(s, n, out) /\ UNCHANGED <<elected, read>>

-----------------------------------------------------------------------------
(* Terms and roles: raft_node.rs.                                            *)

Blank(s) == [
    id |-> s, role |-> "Follower", term |-> 0, vote |-> Nobody, leader |-> Nobody,
    \* Whether a leader was heard of, or the node started, within an election timeout.
    contact |-> FALSE,
    log |-> <<>>, base |-> 0, snap |-> 0, commit |-> 0,
    \* Whether it was told that it is no member any more.
    removed |-> FALSE,
    yes |-> {}, no |-> {},
    match |-> [t \in Server |-> 0], round |-> 0, acked |-> [t \in Server |-> 0],
    disk |-> [term |-> 0, vote |-> Nobody, log |-> <<>>, snap |-> 0], queue |-> <<>>]

Init ==
    /\ node = [s \in Server |-> Blank(s)]
    /\ msgs = {}
    /\ elected = {}
    /\ chosen = <<>>
    /\ read = [state |-> "none"]

BecomeFollower(n, term, leader) ==
    [n EXCEPT !.role = "Follower", !.term = term, !.leader = leader,
              !.vote = IF term > n.term THEN Nobody ELSE n.vote, !.yes = {}, !.no = {}]

(* A message of the current term's leader. *)
Follow(n, leader) == [BecomeFollower(n, n.term, leader) EXCEPT !.contact = Sticky]

IsInContact(n) == n.role = "Leader" \/ n.contact
LeaderOf(n) == IF n.role = "Leader" THEN n.id ELSE IF n.role = "Follower" THEN n.leader ELSE Nobody

(* That we do not know it for a voter is no reason: the entry that made it one *)
(* may be missing here.  Founders know each other.  A leader that hands over   *)
(* wants this election.                                                        *)
Objects(n, candidate, last, transfer) ==
    \/ ConfigIndex(n) = 0 /\ candidate \notin Members(ConfigOf(n))
    \/ LeaderOf(n) # candidate /\ IsInContact(n) /\ ~transfer
    \/ ~IsUpToDate(last, n.log)

-----------------------------------------------------------------------------
(* Elections: raft_node/election.rs.                                         *)

MayCampaign(n) == n.id \in Voters(ConfigOf(n)) /\ ~n.removed /\ ~KnowsRemoval(n, n.id)
Others(n) == Voters(ConfigOf(n)) \ {n.id}

(* The election timeout: would I win?  *)
StartPreVote(s) ==
    LET n == node[s]
        asks == [n EXCEPT !.role = "PreCandidate", !.leader = Nobody, !.contact = FALSE,
                          !.yes = {s}, !.no = {}]
    IN  /\ n.role # "Leader" /\ MayCampaign(n)
        /\ Step(s, asks,
                {Message("PreVote", asks, t, [asked |-> n.term + 1, last |-> LastId(n.log)])
                    : t \in Others(n)})

(* A node whose vote would not count gives up its leader and waits. *)
WaitForOthers(s) ==
    LET n == node[s]
        waits == IF LeaderOf(n) = Nobody THEN n ELSE BecomeFollower(n, n.term, Nobody)
    IN  /\ n.role # "Leader"
        /\ Step(s, [waits EXCEPT !.contact = FALSE], {})

(* A vote round: raises the term and asks for votes; transfer if the leader  *)
(* has asked for it.                                                         *)
Campaign(s, transfer) ==
    LET n == node[s]
        asks == [n EXCEPT !.role = "Candidate", !.term = @ + 1, !.vote = s, !.leader = Nobody,
                          !.yes = {}, !.no = {}]
    IN  Step(s, asks,
            {Message("Vote", asks, t, [last |-> LastId(n.log), transfer |-> transfer]) : t \in Others(n)})

WinPreVote(s) ==
    /\ node[s].role = "PreCandidate"
    /\ IsQuorum(node[s].yes, ConfigOf(node[s]))
    /\ Campaign(s, FALSE)

(* Our own vote counts when it is durable. *)
Yes(n) == n.yes \cup IF n.disk.term = n.term /\ n.disk.vote = n.id THEN {n.id} ELSE {}

(* A leader's first entry is of its own term. *)
WinElection(s, first) ==
    LET n == node[s]
        leads == [n EXCEPT !.role = "Leader", !.leader = s, !.log = Append(@, first),
                           !.match = [t \in Server |-> 0], !.round = 0,
                           !.acked = [t \in Server |-> 0], !.yes = {}, !.no = {}]
    IN  /\ n.role = "Candidate"
        /\ IsQuorum(Yes(n), ConfigOf(n))
        /\ first.t = n.term
        /\ Place(s, leads, {})
        /\ elected' = elected \cup {<<n.term, s>>}
        /\ UNCHANGED read

(* Check-quorum, or a disk that stands still: a leader gives up.  For safety *)
(* it may do so whenever it likes.                                           *)
StepDown(s) ==
    /\ node[s].role = "Leader"
    /\ Step(s, BecomeFollower(node[s], node[s].term, Nobody), {})

(* An election timeout passes and nothing fires.                             *)
LoseContact(s) ==
    /\ node[s].contact
    /\ Step(s, [node[s] EXCEPT !.contact = FALSE], {})

(* Where leases by rounds are in use, a vote binds like a leader's sign of    *)
(* life: who has given it refuses others for an election timeout.            *)
HoldVote(s) ==
    /\ node[s].vote # Nobody
    /\ Step(s, [node[s] EXCEPT !.contact = Sticky], {})

AnswerPreVote(n, m) ==
    LET grants == m.asked > n.term /\ ~Objects(n, m.from, m.last, FALSE)
    IN  <<n, {Message("PreVoteReply", n, m.from, [asked |-> m.asked, granted |-> grants])}>>

AnswerVote(n, m) ==
    LET grants == \/ n.vote = m.from
                  \/ n.vote = Nobody /\ ~Objects(n, m.from, m.last, m.transfer)
        after == IF grants THEN [n EXCEPT !.vote = m.from] ELSE n
    IN  <<after, {Message("VoteReply", after, m.from, [granted |-> grants])}>>

Count(n, m) ==
    IF m.from \in n.yes \cup n.no THEN n
    ELSE IF m.granted THEN [n EXCEPT !.yes = @ \cup {m.from}] ELSE [n EXCEPT !.no = @ \cup {m.from}]

CountPreVote(n, m) ==
    IF n.role = "PreCandidate" /\ m.asked = n.term + 1 THEN <<Count(n, m), {}>> ELSE <<n, {}>>

CountVote(n, m) ==
    LET after == Count(n, m)
    IN  IF n.role # "Candidate" THEN <<n, {}>>
        ELSE IF IsLost(after.no, ConfigOf(n)) THEN <<BecomeFollower(n, n.term, Nobody), {}>>
        ELSE <<after, {}>>

-----------------------------------------------------------------------------
(* Replication: raft_node/replication.rs.                                    *)

(* A client's command, or a new configuration. *)
AppendEntry(s, entry) ==
    LET n == node[s]
    IN  /\ n.role = "Leader"
        /\ entry.t = n.term
        /\ Step(s, [n EXCEPT !.log = Append(@, entry)], {})

(* The leader may send any part of its log that it still has, and say any    *)
(* less of what is committed.                                                *)
SendAppend(s, t, previous, count, commit) ==
    LET n == node[s]
    IN  /\ n.role = "Leader" /\ t # s /\ commit <= n.commit
        /\ previous \in n.base..Len(n.log) /\ previous + count <= Len(n.log)
        /\ Step(s, n, {Message("Append", n, t, [
                previous |-> <<TermAt(n.log, previous), previous>>,
                entries |-> SubSeq(n.log, previous + 1, previous + count),
                commit |-> commit])})

(* What a heartbeat commits is bounded by what the follower acknowledged.    *)
(* (Less, where the code does not count a founder yet that it has not bound.) *)
SendHeartbeat(s, t, commit) ==
    LET n == node[s]
    IN  /\ n.role = "Leader" /\ t # s
        /\ commit <= Min(n.commit, n.match[t])
        /\ Step(s, n, {Message("Heartbeat", n, t, [commit |-> commit, round |-> n.round])})

Commit(n, index) == [n EXCEPT !.commit = Max(@, index)]

(* What lies before our commit index is the same in every leader's log. *)
SkipCommitted(n, m) ==
    LET skipped == Min(n.commit - m.previous[2], Len(m.entries))
    IN  IF m.previous[2] >= n.commit THEN m
        ELSE [m EXCEPT !.previous = <<TermAt(n.log, n.commit), n.commit>>,
                       !.entries = SubSeq(@, skipped + 1, Len(@))]

(* Removes what contradicts the leader's entries and nothing else. *)
Merged(log, previous, entries) ==
    LET there == Common(SubSeq(log, previous + 1, Len(log)), entries, 0)
    IN  IF there = Len(entries) THEN log ELSE SubSeq(log, 1, previous) \o entries

HandleAppend(n0, m0) ==
    LET n == Follow(n0, m0.from)
        m == SkipCommitted(n, m0)
        at == m.previous[2]
        matched == at + Len(m.entries)
        merged == [n EXCEPT !.log = Merged(@, at, m.entries)]
        accepts == Commit(merged, Min(m.commit, matched))
    IN  IF n0.role = "Leader" THEN <<n0, {}>>
        ELSE IF at > Len(n.log) \/ TermAt(n.log, at) # m.previous[1]
        THEN <<n, {Message("Rejected", n, m.from, [rejected |-> at])}>>
        ELSE <<accepts, {Message("Accepted", accepts, m.from, [matched |-> matched])}>>

HandleAccepted(n, m) ==
    IF n.role = "Leader" /\ m.matched <= Len(n.log) /\ m.from \in Members(ConfigOf(n))
    THEN <<[n EXCEPT !.match[m.from] = Max(@, m.matched)], {}>> ELSE <<n, {}>>

HandleHeartbeat(n0, m) ==
    LET n == Follow(n0, m.from)
        after == IF m.commit <= Len(n.log) THEN Commit(n, m.commit) ELSE n
    IN  IF n0.role = "Leader" THEN <<n0, {}>>
        ELSE <<after, {Message("HeartbeatReply", after, m.from, [round |-> m.round])}>>

HandleHeartbeatReply(n, m) ==
    IF n.role = "Leader" /\ m.round <= n.round
    THEN <<[n EXCEPT !.acked[m.from] = Max(@, m.round)], {}>> ELSE <<n, {}>>

(* A majority has it, it is of our own term, and we count ourselves only as  *)
(* far as we are durable.                                                    *)
AdvanceCommit(s, index) ==
    LET n == node[s]
        Has(t) == IF t = s THEN Durable(n) >= index ELSE n.match[t] >= index
    IN  /\ n.role = "Leader"
        /\ index \in (n.commit + 1)..Len(n.log)
        /\ n.log[index].t = n.term
        /\ IsQuorum({t \in Server : Has(t)}, ConfigOf(n))
        /\ Step(s, Commit(n, index), {})

-----------------------------------------------------------------------------
(* Membership: raft_node/membership.rs.  In force from the place of its      *)
(* entry on, committed or not, and gone when the entry is.                   *)

HasTerm(n) == n.commit > 0 /\ n.log[n.commit].t = n.term
IsSettled(n) == ConfigIndex(n) <= n.commit /\ HasTerm(n)
SameVoters(c, d) == c.in = d.in /\ c.out = d.out

(* What may follow the configuration of leader n.  One change at a time, and *)
(* not before an entry of its own term is committed.                         *)
IsLegalChange(n, next) ==
    LET c == ConfigOf(n)
    IN  \/ IsSettled(n) /\ SameVoters(c, next)                          \* learners; a binding
        \/ IsSettled(n) /\ ~IsJoint(c) /\ next.out = c.in                \* between two sets of voters
        \/ IsSettled(n) /\ IsJoint(c) /\ next.out = {} /\ next.in = c.in  \* to the new one,
        \* or back to the old one, by the leader that began it.
        \/ HasTerm(n) /\ IsJoint(c) /\ ConfigIndex(n) > n.commit
           /\ next.out = {} /\ next.in = c.out

ChangeMembers(s, next) ==
    /\ next.in # {} /\ next.learners \cap Voters(next) = {}
    /\ IsLegalChange(node[s], next)
    /\ AppendEntry(s, Entry(node[s].term, next))

(* Those who are no members any more will not hear it from the log. *)
SendRemoved(s, t) ==
    /\ KnowsRemoval(node[s], t)
    /\ Step(s, node[s], {Message("Removed", node[s], t, <<>>)})

BeRemoved(n) ==
    IF n.removed \/ KnowsRemoval(n, n.id) THEN <<n, {}>>
    ELSE <<[BecomeFollower(n, n.term, Nobody) EXCEPT !.removed = TRUE], {}>>

-----------------------------------------------------------------------------
(* Handing over: raft_node/transfer.rs.  The leader asks a voter that has    *)
(* its whole log to campaign at once.                                        *)

HandOver(s, t) ==
    LET n == node[s]
    IN  /\ n.role = "Leader" /\ t # s /\ t \in ConfigOf(n).in
        /\ n.match[t] = Len(n.log)
        /\ Step(s, n, {Message("TimeoutNow", n, t, <<>>)})

(* It does: the message has been received, and the term is still the leader's. *)
TakeOver(s, m) ==
    /\ m \in msgs /\ m.type = "TimeoutNow" /\ m.to = s /\ m.term = node[s].term
    /\ node[s].role = "Follower" /\ node[s].leader = m.from /\ MayCampaign(node[s])
    /\ Campaign(s, TRUE)

-----------------------------------------------------------------------------
(* Snapshots: raft_node/snapshot.rs.                                         *)

(* What is committed and durable may be replaced by a snapshot, and the log  *)
(* before it dropped once that is recorded.                                  *)
TakeSnapshot(s, index) ==
    LET n == node[s]
    IN  /\ index \in (n.snap + 1)..Min(n.commit, Durable(n))
        /\ Step(s, [n EXCEPT !.snap = index], {})

Compact(s, base) ==
    LET n == node[s]
    IN  /\ base \in (n.base + 1)..n.disk.snap
        /\ Step(s, [n EXCEPT !.base = base], {})

SendSnapshot(s, t, index) ==
    LET n == node[s]
    IN  /\ n.role = "Leader" /\ t # s /\ index \in 1..n.disk.snap
        /\ Step(s, n, {Message("Snapshot", n, t, [
                last |-> <<TermAt(n.log, index), index>>, prefix |-> SubSeq(n.log, 1, index)])})

(* A piece arrived. *)
HandleSnapshot(n0, m) ==
    LET n == Follow(n0, m.from)
        done == {Message("Accepted", n, m.from, [matched |-> n.commit])}
    IN  IF n0.role = "Leader" THEN <<n0, {}>>
        ELSE <<n, IF m.last[2] <= n.commit THEN done ELSE {}>>

(* All pieces are there.  If we have the entries themselves they are         *)
(* committed, and that is all; else the log begins anew behind the snapshot. *)
Install(s, m) ==
    LET n == node[s]
        index == m.last[2]
        has == index <= Len(n.log) /\ TermAt(n.log, index) = m.last[1]
        keeps == Commit(n, index)
        anew == [n EXCEPT !.log = m.prefix, !.base = index, !.snap = index, !.commit = index]
    IN  /\ m \in msgs /\ m.type = "Snapshot" /\ m.to = s
        /\ n.role = "Follower" /\ n.leader # Nobody /\ m.term <= n.term
        /\ index > n.commit
        /\ IF has
           THEN Step(s, keeps, {Message("Accepted", keeps, n.leader, [matched |-> index])})
           ELSE Step(s, anew, {Message("SnapshotAck", anew, n.leader,
                                   [last |-> m.last, installed |-> TRUE])})

HandleSnapshotAck(n, m) ==
    IF m.installed /\ m.last[2] <= Len(n.log) THEN HandleAccepted(n, [m EXCEPT !.type = "Accepted"] @@ [matched |-> m.last[2]])
    ELSE <<n, {}>>

-----------------------------------------------------------------------------
(* Linearizable reads: raft_node/read.rs.  The leader notes its commit index *)
(* and then makes sure, by a round of heartbeats that begins afterwards,     *)
(* that it still led.                                                        *)

BeginRound(s) ==
    /\ node[s].role = "Leader"
    /\ Step(s, [node[s] EXCEPT !.round = @ + 1], {})

AskRead(s) ==
    LET n == node[s]
    IN  /\ read.state = "none"
        /\ n.role = "Leader"
        /\ n.commit > 0 /\ n.log[n.commit].t = n.term
        /\ read' = [state |-> "asked", at |-> s, term |-> n.term, round |-> n.round + 1,
                    index |-> n.commit, floor |-> Len(chosen)]
        /\ Place(s, [n EXCEPT !.round = @ + 1], {})
        /\ UNCHANGED elected

ServeRead ==
    /\ read.state = "asked"
    /\ LET n == node[read.at]
       IN  /\ n.role = "Leader" /\ n.term = read.term
           /\ IsQuorum({t \in Server : t = n.id \/ n.acked[t] >= read.round}, ConfigOf(n))
    /\ read' = [read EXCEPT !.state = "served"]
    /\ UNCHANGED <<node, msgs, elected, chosen>>

(* Questions and answers about reads of followers, and requests for the next *)
(* piece of a snapshot: nothing here but the term that they carry.           *)
SendOther(s, t) == Step(s, node[s], {Message("Other", node[s], t, <<>>)})

-----------------------------------------------------------------------------
(* A message arrives: RaftNode::handle_envelope, then the dispatch.          *)

IsCampaign(m) == m.type \in {"PreVote", "Vote"}
IsFromLeader(m) == m.type \in {"Append", "Heartbeat", "Snapshot", "TimeoutNow"}

AnswerEarlierTerm(n, m) ==
    CASE m.type = "TimeoutNow" -> <<n, {}>>
      [] IsFromLeader(m) -> <<n, {Message("HeartbeatReply", n, m.from, [round |-> 0])}>>
      [] m.type = "PreVote" ->
            <<n, {Message("PreVoteReply", n, m.from, [asked |-> m.asked, granted |-> FALSE])}>>
      [] m.type = "Vote" -> <<n, {Message("VoteReply", n, m.from, [granted |-> FALSE])}>>
      [] OTHER -> <<n, {}>>

Dispatch(n, m) ==
    CASE m.type = "PreVote" -> AnswerPreVote(n, m)
      [] m.type = "PreVoteReply" -> CountPreVote(n, m)
      [] m.type = "Vote" -> AnswerVote(n, m)
      [] m.type = "VoteReply" -> CountVote(n, m)
      [] m.type = "Append" -> HandleAppend(n, m)
      [] m.type = "Accepted" -> HandleAccepted(n, m)
      [] m.type = "Heartbeat" -> HandleHeartbeat(n, m)
      [] m.type = "HeartbeatReply" -> HandleHeartbeatReply(n, m)
      [] m.type = "Snapshot" -> HandleSnapshot(n, m)
      [] m.type = "SnapshotAck" -> HandleSnapshotAck(n, m)
      [] m.type = "TimeoutNow" -> IF n.role = "Leader" THEN <<n, {}>> ELSE <<Follow(n, m.from), {}>>
      [] OTHER -> <<n, {}>>

Handle(n, m) ==
    LET leader == IF IsFromLeader(m) THEN m.from ELSE Nobody
        isWanted == m.type = "Vote" /\ m.transfer
    IN  IF m.type = "Removed" THEN BeRemoved(n)
        ELSE IF IsCampaign(m) /\ KnowsRemoval(n, m.from)
        THEN <<n, {Message("Removed", n, m.from, <<>>)}>>
        ELSE IF m.term > n.term
        THEN IF IsCampaign(m) /\ ~isWanted /\ LeaderOf(n) # m.from /\ IsInContact(n)
             THEN <<n, {}>>
             ELSE Dispatch(BecomeFollower(n, m.term, leader), m)
        ELSE IF m.term < n.term THEN AnswerEarlierTerm(n, m)
        ELSE Dispatch(n, m)

Receive(s, m) ==
    LET after == Handle(node[s], m)
    IN  /\ m \in msgs /\ m.to = s
        /\ Step(s, after[1], after[2])

-----------------------------------------------------------------------------
(* Disks.                                                                    *)

(* The oldest write is durable; what waited for it leaves. *)
Persist(s) ==
    LET n == node[s]
        first == Head(n.queue)
    IN  /\ n.queue # <<>>
        /\ node' = [node EXCEPT ![s].disk = first.hard, ![s].queue = Tail(@)]
        /\ msgs' = msgs \cup first.out
        /\ UNCHANGED <<elected, chosen, read>>

(* A node ends, loses what is not durable, and starts again. *)
Restart(s, base) ==
    LET n == node[s]
        d == n.disk
        again == [Blank(s) EXCEPT !.term = d.term, !.vote = d.vote, !.log = d.log, !.snap = d.snap,
                                  !.base = base, !.commit = d.snap, !.contact = Sticky, !.disk = d]
    IN  /\ base \in 0..d.snap
        /\ node' = [node EXCEPT ![s] = again]
        /\ UNCHANGED <<msgs, elected, chosen, read>>

-----------------------------------------------------------------------------
(* Everything that can happen.                                               *)

Next ==
    \/ \E s \in Server :
        \/ StartPreVote(s) \/ WaitForOthers(s) \/ WinPreVote(s) \/ StepDown(s)
        \/ LoseContact(s) \/ HoldVote(s)
        \/ WinElection(s, Entry(node[s].term, Unchanged))
        \/ AppendEntry(s, Entry(node[s].term, Unchanged))
        \/ \E t \in Server : 
            \/ SendHeartbeat(s, t, Min(node[s].commit, node[s].match[t]))
            \/ HandOver(s, t)
        \* A message with fewer entries adds nothing: it is what could have been sent earlier.
        \/ \E t \in Server, i \in 0..Len(node[s].log) : 
            SendAppend(s, t, i, Len(node[s].log) - i, node[s].commit)
        \/ \E i \in 1..Len(node[s].log) :
            \/ AdvanceCommit(s, i) \/ TakeSnapshot(s, i) \/ Compact(s, i)
            \/ \E t \in Server : SendSnapshot(s, t, i)
        \/ \E in, out, learners \in SUBSET Server : ChangeMembers(s, Config(in, out, learners))
        \/ \E t \in Server : SendRemoved(s, t) \/ SendOther(s, t)
        \/ AskRead(s)
        \/ Persist(s)
        \/ Restart(s, Min(node[s].base, node[s].disk.snap))
    \/ \E m \in msgs : Receive(m.to, m) \/ TakeOver(m.to, m) \/ Install(m.to, m)
    \/ ServeRead

Spec == Init /\ [][Next]_vars

-----------------------------------------------------------------------------
(* What must hold: Figure 3 of the paper, and what every promise rests on.   *)

ElectionSafety == \A a, b \in elected : a[1] = b[1] => a[2] = b[2]

LogMatching ==
    \A s, t \in Server :
        LET a == node[s].log
            b == node[t].log
        IN  \A i \in 1..Min(Len(a), Len(b)) :
                a[i].t = b[i].t => SubSeq(a, 1, i) = SubSeq(b, 1, i)

(* What was committed in an earlier term is in every leader's log. *)
LeaderCompleteness ==
    \A s \in Server : node[s].role = "Leader" =>
        \A i \in 1..Len(chosen) : chosen[i].by < node[s].term =>
            i <= Len(node[s].log) /\ node[s].log[i] = chosen[i].entry

(* Nobody ever takes anything else for committed. *)
StateMachineSafety ==
    \A s \in Server :
        /\ node[s].commit <= Len(node[s].log)
        /\ \A i \in 1..node[s].commit : i <= Len(chosen) => node[s].log[i] = chosen[i].entry

(* No restart can take back what a node has told. *)
PromisesAreDurable ==
    \A m \in msgs :
        LET d == node[m.from].disk
        IN  /\ d.term >= m.term
            /\ (m.type = "VoteReply" /\ m.granted /\ d.term = m.term) => d.vote = m.to

ReadsAreLinearizable == read.state = "served" => read.index >= read.floor

Safety ==
    /\ ElectionSafety /\ LogMatching /\ LeaderCompleteness /\ StateMachineSafety
    /\ PromisesAreDurable /\ ReadsAreLinearizable
=============================================================================
