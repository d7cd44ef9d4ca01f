//! One test for each text scenario in `tests/scripts`, named as the file is.

use crate::script::file;

/// Makes a test of each script, and a list of them.
macro_rules! scripts {
    ($($family:ident: $($name:ident)*;)*) => {
        $(mod $family {
            $(#[test]
            fn $name() {
                super::file::check(stringify!($family), stringify!($name));
            })*
        })*

        const LISTED: &[(&str, &[&str])] = &[$((stringify!($family), &[$(stringify!($name)),*])),*];
    };
}

scripts! {
    election:
        candidate_needs_a_majority
        candidate_yields_to_a_leader_of_its_term
        check_quorum_step_down
        cut_off_node_does_not_disturb
        deaf_leader_steps_down
        higher_term_deposes_leader
        no_vote_within_a_leaders_timeout
        restart_keeps_term_and_vote
        single_voter
        split_vote
        stale_candidate_gets_no_vote
        vote_waits_for_the_disk;
    membership:
        change_that_cannot_be_committed_is_taken_back
        change_with_a_member_down_is_finished
        first_entry_binds_the_founders
        founding_needs_all_founders
        interrupted_change_is_finished
        joint_needs_both_majorities
        lagging_voter_votes_for_whom_it_does_not_know
        learner_is_promoted
        leaving_node_wins_to_finish_the_change
        lost_node_is_replaced
        one_change_at_a_time
        operator_takes_a_change_back
        promotion_waits_until_in_sync
        removed_leader_hands_over
        removed_node_stays_quiet
        uncommitted_members_are_rolled_back
        voter_is_promoted_by_itself
        wiped_founder_founds_no_second_cluster
        wiped_node_does_not_count;
    read:
        confirmed_round_serves_a_batch
        delayed_reply_confirms_nothing_later
        follower_asks_the_leader
        no_read_before_the_first_commit_of_a_term
        step_down_fails_reads;
    repair:
        answer_that_a_snapshot_has_overtaken_is_dropped
        damage_votes_and_does_not_campaign
        entries_that_nobody_else_had_go
        every_node_is_damaged_somewhere
        follower_gets_it_from_whoever_has_the_joint
        leader_that_finds_damage_is_helped_by_a_follower
        leaders_word_replaces_a_lost_end
        long_damage_goes_in_steps
        own_snapshot_covers_damage
        what_was_compacted_comes_with_a_snapshot;
    replication:
        acknowledgement_waits_for_the_disk
        commit_needs_a_majority_of_disks
        conflict_skips_a_term_at_once
        failed_write_stops_the_node
        figure_2_append_entries
        figure_6_log
        figure_7_follower_logs
        figure_8_earlier_term_is_not_counted
        figure_8_own_term_commits
        follower_catches_up_from_disk
        late_append_removes_nothing
        lost_append_is_probed_again
        pipeline_window_closes
        restart_of_all_keeps_what_was_committed
        write_completions_of_a_replaced_entry;
    snapshot:
        acknowledged_only_when_durable
        compaction_keeps_some_entries
        crash_while_installing_keeps_the_old_log
        far_behind_follower_gets_one
        resumes_after_a_lost_piece;
    transfer:
        leader_chooses_the_most_complete
        leader_held_up_by_its_disk_hands_over
        leader_leads_on_if_nobody_takes_over
        only_a_voter_that_keeps_up
        target_gets_the_whole_log_first
        target_takes_over_at_once;
}

#[test]
#[expect(clippy::disallowed_methods, reason = "scripts are real files")]
fn every_script_on_disk_is_run() {
    for (family, listed) in LISTED {
        let files = std::fs::read_dir(file::directory(family)).unwrap();
        let mut found: Vec<String> =
            files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        found.sort();
        assert_eq!(found, *listed, "{family}");
    }
}
