---------------------------- MODULE TraceLattice ----------------------------
(***************************************************************************)
(* Is a run of the real nodes a behaviour of the specification?            *)
(*                                                                         *)
(* The simulator writes what happened, one line after another (module      *)
(* TraceData, made by `simulate --spec`; raft/src/sim/spec.rs says what the *)
(* lines mean).  Each line is one action of Lattice, or a look at a node.   *)
(* A line that the specification does not allow has no successor: the run  *)
(* is accepted if its end is reached.                                      *)
(***************************************************************************)
EXTENDS Lattice, TraceData

VARIABLES
    l,      \* the line
    made,   \* of each server: how many writes it ever queued in the specification,
    done,   \* how many of them are durable,
    marks   \* and how many there were when the code queued the write of a token

traceVars == <<l, made, done, marks>>

Line == Trace[l]
n == node[Line.n]
Is(event) == l <= Len(Trace) /\ Line.e = event

(* The line is done. *)
Consume ==
    /\ l' = l + 1
    /\ PrintT(<<"line", l>>)
    /\ (l = Len(Trace) => PrintT("ACCEPTED"))

Made == made' = [s \in Server |->
            IF Len(node'[s].queue) > Len(node[s].queue) THEN made[s] + 1 ELSE made[s]]
Acts(action) == action /\ Consume /\ Made /\ UNCHANGED <<done, marks>>
Looks(what) == what /\ Consume /\ UNCHANGED <<vars, made, done, marks>>

(* An election timeout passes unseen, or a vote binds: the line tells. *)
Lapses ==
    /\ l <= Len(Trace) /\ "contact" \in DOMAIN Line
    /\ n.contact # Line.contact
    /\ IF n.contact THEN LoseContact(Line.n) ELSE HoldVote(Line.n)
    /\ UNCHANGED traceVars
Agrees == n.contact = Line.contact

Received ==
    /\ Is("recv") /\ Agrees
    /\ Line.m.type # "Snapshot"
    /\ Acts(Receive(Line.n, Line.m))

(* What it carries is a ghost: the line has only its last entry. *)
Matches(m, seen) ==
    /\ m.type = "Snapshot" /\ m.from = seen.from /\ m.to = seen.to
    /\ m.term = seen.term /\ m.last = seen.last
ReceivedSnapshot ==
    /\ Is("recv") /\ Agrees
    /\ Line.m.type = "Snapshot"
    /\ \E m \in msgs : Matches(m, Line.m) /\ Acts(Receive(Line.n, m))
Installed ==
    /\ Is("install") /\ Agrees
    /\ LET fits == {m \in msgs : m.type = "Snapshot" /\ m.to = Line.n /\ m.last = Line.last}
       IN  fits # {} /\ Acts(Install(Line.n, CHOOSE m \in fits : TRUE))

Timeouts ==
    \/ Is("prevote") /\ Agrees /\ Acts(StartPreVote(Line.n))
    \/ Is("wait") /\ Agrees /\ Acts(WaitForOthers(Line.n))
    \/ Is("stepdown") /\ Acts(StepDown(Line.n))
    \/ Is("campaign") /\ Acts(WinPreVote(Line.n))
    \/ Is("takeover") /\ \E m \in msgs : Acts(TakeOver(Line.n, m))
    \* The first entry of the first leader binds the founders; it changes nobody.
    \/ /\ Is("lead")
       /\ (Line.entry.c = Unchanged \/ (ConfigIndex(n) = 0 /\ Line.entry.c = Founding))
       /\ Acts(WinElection(Line.n, Line.entry))

Logs ==
    \/ Is("append") /\ Acts(
            IF Line.entry.c = Unchanged THEN AppendEntry(Line.n, Line.entry)
            ELSE ChangeMembers(Line.n, Line.entry.c))
    \/ Is("commit") /\ Acts(AdvanceCommit(Line.n, Line.index))
    \/ Is("snapshot") /\ Acts(TakeSnapshot(Line.n, Line.index))
    \/ Is("compact") /\ Acts(Compact(Line.n, Line.index))
    \/ Is("round") /\ Acts(BeginRound(Line.n))

(* The answer to what came in, which is made already; or something that is sent unasked. *)
IsMade(m) == m \in msgs \/ \E i \in 1..Len(n.queue) : m \in n.queue[i].out
Sends(m) ==
    CASE m.type = "Append" ->
            SendAppend(m.from, m.to, m.previous[2], Len(m.entries), m.commit)
      [] m.type = "Heartbeat" -> SendHeartbeat(m.from, m.to, m.commit)
      [] m.type = "Snapshot" -> SendSnapshot(m.from, m.to, m.last[2])
      [] m.type = "TimeoutNow" -> HandOver(m.from, m.to)
      [] m.type = "Removed" -> SendRemoved(m.from, m.to)
      [] m.type = "Other" -> SendOther(m.from, m.to)
      [] OTHER -> FALSE
IsMadeNow(m) ==
    \/ m \in msgs'
    \/ \E i \in 1..Len(node'[Line.n].queue) : m \in node'[Line.n].queue[i].out
    \/ m.type = "Snapshot" /\ \E other \in msgs' : Matches(other, m)
Sent ==
    \/ Is("send") /\ IsMade(Line.m) /\ Looks(TRUE)
    \/ Is("send") /\ ~IsMade(Line.m) /\ Acts(Sends(Line.m) /\ IsMadeNow(Line.m))

(* The code makes one write of a step that may be several here. *)
Queued ==
    /\ Is("batch")
    /\ marks' = [marks EXCEPT ![Line.n] = (Line.token :> made[Line.n]) @@ @]
    /\ Consume /\ UNCHANGED <<vars, made, done>>
Written ==
    /\ Is("persist")
    /\ IF done[Line.n] < marks[Line.n][Line.token]
       THEN /\ Persist(Line.n) /\ done' = [done EXCEPT ![Line.n] = @ + 1]
            /\ UNCHANGED <<l, made, marks>>
       ELSE Looks(TRUE)

(* After a crash the disk may have more than the node knew of. *)
Found == /\ n.disk.term = Line.term /\ n.disk.vote = Line.vote
         /\ LastId(n.disk.log) = Line.last /\ n.disk.snap = Line.snap
Started ==
    /\ Is("start")
    /\ IF Found
       THEN /\ Restart(Line.n, Line.base) /\ Consume
            /\ made' = [made EXCEPT ![Line.n] = 0] /\ done' = [done EXCEPT ![Line.n] = 0]
            /\ marks' = [marks EXCEPT ![Line.n] = <<>>]
       ELSE Persist(Line.n) /\ UNCHANGED traceVars

State ==
    /\ Is("state")
    /\ Looks(/\ n.role = Line.role /\ n.term = Line.term /\ n.vote = Line.vote
             /\ LeaderOf(n) = Line.leader /\ n.commit = Line.commit
             /\ LastId(n.log) = Line.last /\ n.base = Line.base
             /\ ConfigOf(n) = Line.config)

TraceInit ==
    /\ Init
    /\ l = 1
    /\ made = [s \in Server |-> 0] /\ done = [s \in Server |-> 0]
    /\ marks = [s \in Server |-> <<>>]

TraceNext ==
    \/ Lapses \/ Received \/ ReceivedSnapshot \/ Installed \/ Timeouts \/ Logs
    \/ Sent \/ Queued \/ Written \/ Started \/ State

TraceSafety == ElectionSafety /\ StateMachineSafety /\ LeaderCompleteness
=============================================================================
