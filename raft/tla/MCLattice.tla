------------------------------ MODULE MCLattice ------------------------------
(***************************************************************************)
(* Lattice within bounds, for TLC.  Everything that does not follow from    *)
(* something else is rationed, as in the exhaustive check of the code       *)
(* (raft/src/sim/exhaustive.rs); each MC*.cfg gives other rations, and so   *)
(* looks at another part of the protocol.                                   *)
(***************************************************************************)
EXTENDS Lattice

CONSTANTS
    Campaigns, Restarts, Commands, Rounds, Snapshots, Changes, TakeBacks, HandOvers, Reads,
    Founded     \* begin with a leader, a, in term 1 and its first entry everywhere

VARIABLE left   \* what is left of the rations

mcVars == <<vars, left>>

Three == Config({"a", "b", "c"}, {}, {})
Two == Config({"a", "b"}, {}, {})

Ration == [campaigns |-> Campaigns, restarts |-> Restarts, commands |-> Commands,
           rounds |-> Rounds, snapshots |-> Snapshots, changes |-> Changes,
           takeBacks |-> TakeBacks, handOvers |-> HandOvers, reads |-> Reads]

First == Entry(1, Founding)
FoundedNode(s) ==
    LET d == [term |-> 1, vote |-> "a", log |-> <<First>>, snap |-> 0]
    IN  [Blank(s) EXCEPT !.term = 1, !.vote = "a", !.leader = "a", !.log = <<First>>,
            !.role = IF s = "a" THEN "Leader" ELSE "Follower", !.contact = Sticky /\ s # "a",
            !.commit = 1, !.match = [t \in Server |-> IF s = "a" /\ t # s THEN 1 ELSE 0],
            !.disk = d]
FoundedInit ==
    /\ node = [s \in Server |-> IF s \in Members(Founding) THEN FoundedNode(s) ELSE Blank(s)]
    /\ msgs = {}
    /\ elected = {<<1, "a">>}
    /\ chosen = <<[entry |-> First, by |-> 1]>>
    /\ read = [state |-> "none"]

MCInit == (IF Founded THEN FoundedInit ELSE Init) /\ left = Ration

Free(action) == action /\ UNCHANGED left
Costs(what, action) == left[what] > 0 /\ action /\ left' = [left EXCEPT ![what] = @ - 1]

(* A follower is sent what it is not known to have: other parts of the log   *)
(* are what could have been sent before.                                     *)
Appends(s, t) ==
    \E i \in {node[s].match[t], Max(node[s].match[t], Len(node[s].log) - 1)} :
        SendAppend(s, t, i, Len(node[s].log) - i, node[s].commit)

(* Most messages, when they come again, change nothing. *)
IsNews(m) ==
    LET after == Handle(node[m.to], m)
    IN  after[1] # node[m.to] \/ ~(after[2] \subseteq msgs)

MCNext ==
    \/ \E s \in Server :
        \/ Costs("campaigns", StartPreVote(s))
        \/ Free(WinPreVote(s))
        \/ Free(LoseContact(s))
        \/ Free(WinElection(s, Entry(node[s].term, Unchanged)))
        \/ Costs("commands", AppendEntry(s, Entry(node[s].term, Unchanged)))
        \/ \E t \in Members(ConfigOf(node[s])) :
            \/ Free(Appends(s, t))
            \/ left.rounds > 0 /\ Free(SendHeartbeat(s, t, Min(node[s].commit, node[s].match[t])))
            \/ Costs("handOvers", HandOver(s, t))
        \/ Free(\E i \in 1..Len(node[s].log) : AdvanceCommit(s, i))
        \/ Costs("snapshots", TakeSnapshot(s, node[s].commit))
        \/ Free(Compact(s, node[s].disk.snap))
        \/ Snapshots > 0 /\ Free(\E t \in Server : SendSnapshot(s, t, node[s].disk.snap))
        \/ LET c == ConfigOf(node[s])
           IN  \/ Costs("changes", \E in \in SUBSET Server :
                    in # c.in /\ ChangeMembers(s, Config(in, c.in, {})))
               \/ IsJoint(c) /\ Free(ChangeMembers(s, Config(c.in, {}, {})))
               \/ IsJoint(c) /\ Costs("takeBacks", ChangeMembers(s, Config(c.out, {}, {})))
        \/ Costs("reads", AskRead(s))
        \/ Free(Persist(s))
        \/ Costs("restarts", Restart(s, Min(node[s].base, node[s].disk.snap)))
    \/ Free(\E m \in msgs : (IsNews(m) /\ Receive(m.to, m)) \/ TakeOver(m.to, m) \/ Install(m.to, m))
    \/ Free(ServeRead)
=============================================================================
