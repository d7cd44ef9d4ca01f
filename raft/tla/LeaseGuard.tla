----------------------------- MODULE LeaseGuard -----------------------------
(***************************************************************************)
(* Why a leader may answer a read without asking anybody while its newest   *)
(* committed entry is young (raft/src/raft_node/lease.rs).                  *)
(*                                                                         *)
(* Elections and replication are as short here as they can be, one action   *)
(* each, since Lattice.tla has them in full; clocks are what this is about. *)
(* Each server has one.  While time moves by a tick a clock moves by        *)
(* anything from Slow to Fast, and nobody knows what another's shows.       *)
(*                                                                         *)
(* A leader ages an entry from before it sends it, its successor from after *)
(* it got it, or from its restart if that was later.                        *)
(***************************************************************************)
EXTENDS Naturals, Sequences, FiniteSets, TLC

CONSTANTS
    Server,
    Slow, Fast,     \* what a clock may make of one tick
    Lease,          \* a leader answers while its newest committed entry is younger,
    Wait,           \* a new leader commits nothing while its newest earlier entry is younger
    Ticks, Terms, Length, Restarts

VARIABLES
    clock, term, leads,
    log,        \* the terms of the entries
    since,      \* on its own clock, from when each server ages each of its entries
    commit,
    ticks, restarts,
    chosen,     \* how many entries are committed, as nobody knows
    isStale     \* a read was answered that missed one of them

vars == <<clock, term, leads, log, since, commit, ticks, restarts, chosen, isStale>>

Max(a, b) == IF a > b THEN a ELSE b
IsMajority(set) == Cardinality(set) * 2 > Cardinality(Server)
TermAt(s, i) == IF i = 0 THEN 0 ELSE log[s][i]
IsUpToDate(s, t) ==
    \/ TermAt(s, Len(log[s])) > TermAt(t, Len(log[t]))
    \/ TermAt(s, Len(log[s])) = TermAt(t, Len(log[t])) /\ Len(log[s]) >= Len(log[t])
Age(s, i) == clock[s] - since[s][i]

(* What TLC compares: ages are what matters, and none beyond Lease and Wait. *)
Ages == [s \in Server |-> [i \in 1..Len(log[s]) |-> IF Age(s, i) > Max(Lease, Wait) THEN Max(Lease, Wait) ELSE Age(s, i)]]
View == <<term, leads, log, Ages, commit, ticks, restarts, chosen, isStale>>
Symmetric == Permutations(Server)

Init ==
    /\ clock = [s \in Server |-> 0] /\ term = [s \in Server |-> 0]
    /\ leads = [s \in Server |-> FALSE] /\ log = [s \in Server |-> <<>>]
    /\ since = [s \in Server |-> <<>>] /\ commit = [s \in Server |-> 0]
    /\ ticks = 0 /\ restarts = 0 /\ chosen = 0 /\ isStale = FALSE

(* No vote waits for a lease: LeaseGuard asks nothing of elections. *)
Elect(s, voters) ==
    /\ term[s] < Terms /\ s \in voters /\ IsMajority(voters)
    /\ \A t \in voters : ~IsMajority(voters \ {t})  \* more would change nothing
    /\ \A t \in voters : term[t] <= term[s] /\ IsUpToDate(s, t)
    /\ term' = [t \in Server |-> IF t \in voters THEN term[s] + 1 ELSE term[t]]
    /\ leads' = [t \in Server |-> IF t = s THEN TRUE ELSE IF t \in voters THEN FALSE ELSE leads[t]]
    /\ UNCHANGED <<clock, log, since, commit, ticks, restarts, chosen, isStale>>

(* Aged from now, before anybody is sent it. *)
Append_(s) ==
    /\ leads[s] /\ Len(log[s]) < Length
    /\ log' = [log EXCEPT ![s] = Append(@, term[s])]
    /\ since' = [since EXCEPT ![s] = Append(@, clock[s])]
    /\ UNCHANGED <<clock, term, leads, commit, ticks, restarts, chosen, isStale>>

(* The follower ages what is new to it from when it has it. *)
Replicate(s, t) ==
    LET IsKept(i) == i <= Len(log[t]) /\ SubSeq(log[t], 1, i) = SubSeq(log[s], 1, i)
    IN  /\ leads[s] /\ s # t /\ term[t] <= term[s] /\ log[t] # log[s]
        /\ log' = [log EXCEPT ![t] = log[s]]
        /\ since' = [since EXCEPT ![t] =
                [i \in 1..Len(log[s]) |-> IF IsKept(i) THEN since[t][i] ELSE clock[t]]]
        /\ term' = [term EXCEPT ![t] = term[s]]
        /\ leads' = [leads EXCEPT ![t] = FALSE]
        /\ UNCHANGED <<clock, commit, ticks, restarts, chosen, isStale>>

Earlier(s) == {i \in 1..Len(log[s]) : log[s][i] < term[s]}
Guard(s) == \A i \in Earlier(s) : (\A j \in Earlier(s) : j <= i) => Age(s, i) >= Wait

(* Nobody counts who has moved on to a later term since: its acknowledgement *)
(* would have been of this one.                                              *)
Commit(s, i) ==
    /\ leads[s] /\ i \in (commit[s] + 1)..Len(log[s]) /\ log[s][i] = term[s]
    /\ Guard(s)
    /\ IsMajority({t \in Server : term[t] = term[s] /\ Len(log[t]) >= i /\ log[t][i] = term[s]})
    /\ commit' = [commit EXCEPT ![s] = i]
    /\ chosen' = Max(chosen, i)
    /\ UNCHANGED <<clock, term, leads, log, since, ticks, restarts, isStale>>

(* The newest committed entry is of our own term, and young. *)
Read(s) ==
    /\ leads[s] /\ commit[s] > 0 /\ log[s][commit[s]] = term[s]
    /\ Age(s, commit[s]) < Lease
    /\ isStale' = (commit[s] < chosen)
    /\ UNCHANGED <<clock, term, leads, log, since, commit, ticks, restarts, chosen>>

Restart(s) ==
    /\ restarts < Restarts /\ restarts' = restarts + 1
    /\ leads' = [leads EXCEPT ![s] = FALSE]
    /\ commit' = [commit EXCEPT ![s] = 0]
    /\ since' = [since EXCEPT ![s] = [i \in 1..Len(log[s]) |-> clock[s]]]
    /\ UNCHANGED <<clock, term, log, ticks, chosen, isStale>>

Tick ==
    /\ ticks < Ticks /\ ticks' = ticks + 1
    /\ \E moved \in [Server -> {Slow, Fast}] : clock' = [s \in Server |-> clock[s] + moved[s]]
    /\ UNCHANGED <<term, leads, log, since, commit, restarts, chosen, isStale>>

Next ==
    \/ \E s \in Server :
        \/ \E voters \in SUBSET Server : Elect(s, voters)
        \/ Append_(s) \/ Read(s) \/ Restart(s)
        \/ \E t \in Server : Replicate(s, t)
        \/ \E i \in 1..Len(log[s]) : Commit(s, i)
    \/ Tick

Spec == Init /\ [][Next]_vars

ReadsAreLinearizable == ~isStale
CommittedStays == \A s, t \in Server :
    \A i \in 1..(IF commit[s] < commit[t] THEN commit[s] ELSE commit[t]) : log[s][i] = log[t][i]
=============================================================================
