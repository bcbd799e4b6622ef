"""Claim: every safeguard is needed, and a test notices when it is switched off.

Each row takes one method away, or what it protects against out of its hands, and names the tests that must then fail.
"""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from bezant.engine.raft import core as core_module
from bezant.engine.raft import following as following_module
from bezant.engine.raft import leading as leading_module
from bezant.engine.raft.core import Core
from bezant.engine.raft.following import Following
from bezant.engine.raft.leading import Leading
from bezant.engine.raft.reads import Reads
from bezant.engine.raft.state import State
from bezant.engine.raft.voting import Election
from bezant.protocol.errors import LedgerError

from . import test_durability as durability
from . import test_elections as elections
from . import test_lost_disks as lost_disks
from . import test_membership as membership
from . import test_reads as reads
from . import test_replication as replication
from . import test_snapshots as snapshots
from .checks import Violation
from .simulation import Simulation

Patch = pytest.MonkeyPatch
DIVERGENT = ([1] * 10 + [3] * 300, [1] * 10 + [2] * 300)


def nothing(*_: Any, **__: Any) -> None:
    """Do nothing."""


def always(*_: Any, **__: Any) -> bool:
    """Say yes."""
    return True


def never(*_: Any, **__: Any) -> bool:
    """Say no."""
    return False


def hard_state_is_not_written(patch: Patch) -> None:
    whole = State.set_hard_state

    def set_hard_state(self: State, **fields: Any) -> None:
        whole(self, **fields)
        self.hard_state_changed = False

    patch.setattr(State, "set_hard_state", set_hard_state)


def acknowledges_before_the_sync(patch: Patch) -> None:
    patch.setattr(Following, "_acknowledgeable", lambda self: self._matched_index)


def leader_counts_what_it_has_not_synced(patch: Patch) -> None:
    whole = Leading.on_appended

    def on_appended(self: Any, last_index: int, configurations: Any) -> None:
        whole(self, last_index, configurations)
        self._progress[self._state.node_id].match_index = last_index
        self._maybe_commit()

    patch.setattr(Leading, "on_appended", on_appended)


def any_sync_of_the_same_entry_counts(patch: Patch) -> None:
    patch.setattr(Core, "_is_current_sync", lambda self, index, term, _: self._state.log.term_at(index) == term)


def any_sync_counts(patch: Patch) -> None:
    patch.setattr(Core, "_is_current_sync", always)


def entries_of_earlier_terms_commit_by_counting(patch: Patch) -> None:
    patch.setattr(Leading, "_may_commit", always)


def every_append_cuts_the_log(patch: Patch) -> None:
    patch.setattr(following_module, "first_difference", lambda _log, index, _runs, _last: index + 1)


def all_that_comes_is_new(patch: Patch) -> None:
    patch.setattr(
        following_module,
        "first_difference",
        lambda _log, _index, runs, last: runs[0].first_index if runs else last + 1,
    )


def what_is_committed_is_compared_like_the_rest(patch: Patch) -> None:
    patch.setattr(Following, "_is_committed", never)


def the_leaders_commit_index_is_believed(patch: Patch) -> None:
    patch.setattr(Following, "_believable", lambda self, index: min(index, self._state.log.last_index))


def no_term_hints(patch: Patch) -> None:
    for module in (following_module, leading_module):
        patch.setattr(module, "last_index_of_term", lambda _log, _floor, index, _term: index)


def a_full_window_waits_for_ever(patch: Patch) -> None:
    patch.setattr(Leading, "_ask", nothing)


def longer_logs_win(patch: Patch) -> None:
    patch.setattr(core_module, "is_up_to_date", lambda log, message: message.last_index >= log.last_index)


def earlier_terms_count(patch: Patch) -> None:
    patch.setattr(Core, "_on_earlier_term", lambda self, message: self._handlers[type(message)](message, ()))


def later_terms_do_not_end_a_leadership(patch: Patch) -> None:
    patch.setattr(Core, "_on_later_term", always)


def earlier_terms_get_no_answer(patch: Patch) -> None:
    patch.setattr(Core, "_on_earlier_term", nothing)


def no_pre_vote(patch: Patch) -> None:
    def campaign(self: Any) -> None:
        if self._leading is None and self._may_campaign():
            self._ask_for_votes(is_pre=False)

    patch.setattr(Core, "campaign", campaign)


def no_lease(patch: Patch) -> None:
    patch.setattr(Core, "_is_in_lease", never)


def leader_does_not_ask_for_its_quorum(patch: Patch) -> None:
    patch.setattr(Leading, "_hears_quorum", always)


def a_transfer_is_never_given_up(patch: Patch) -> None:
    patch.setattr(Leading, "_maybe_give_up_transfer", nothing)


def a_transfer_outlives_its_leader(patch: Patch) -> None:
    begin, transfer = Leading.__init__, Leading.transfer

    def begin_as_before(self: Any, state: Any) -> None:
        begin(self, state)
        self.transfer_to = getattr(state, "kept_transfer_to", 0)

    def transfer_and_keep(self: Any, to: int) -> None:
        self._state.kept_transfer_to = to
        transfer(self, to)

    patch.setattr(Leading, "__init__", begin_as_before)
    patch.setattr(Leading, "transfer", transfer_and_keep)


def who_led_leads_on_after_a_restart(patch: Patch) -> None:
    whole = Core.__init__

    def start(self: Any, **given: Any) -> None:
        whole(self, **given)
        if given["hard_state"].voted_for == given["node_id"]:
            self._become_leader()

    patch.setattr(Core, "__init__", start)


def leadership_is_handed_over_at_once(patch: Patch) -> None:
    patch.setattr(Leading, "_has_all", always)


def any_state_is_wanted(patch: Patch) -> None:
    patch.setattr(Core, "wants_snapshot", always)


def a_state_keeps_later_configurations(patch: Patch) -> None:
    whole = Core.installed

    def installed(self: Any, index: int, term: int, configuration: Any) -> None:
        known = self._state.configurations
        whole(self, index, term, configuration)
        self._state.configurations = known

    patch.setattr(Core, "installed", installed)


def a_state_that_failed_is_sent_again_at_once(patch: Patch) -> None:
    whole = Leading.on_snapshot_done

    def on_snapshot_done(self: Any, node_id: int, index: int | None) -> None:
        whole(self, node_id, index)
        self._progress[node_id].is_paused = False
        self._has_news = True

    patch.setattr(Leading, "on_snapshot_done", on_snapshot_done)


def members_change_at_any_time(patch: Patch) -> None:
    patch.setattr(Leading, "_check_may_change", nothing)


def a_joint_quorum_is_one_over_the_union(patch: Patch) -> None:
    def quorum_value(configuration: Any, values: dict[int, int]) -> int:
        voters = {*configuration.voters, *configuration.voters_outgoing}
        return sorted(values.get(voter, 0) for voter in voters)[(len(voters) - 1) // 2]

    patch.setattr(leading_module, "quorum_value", quorum_value)


def a_joint_election_counts_the_union(patch: Patch) -> None:
    def is_won(self: Any) -> bool:
        configuration = self._state.configuration
        voters = {*configuration.voters, *configuration.voters_outgoing}
        return 2 * sum(self._votes.get(voter, False) for voter in voters) > len(voters)

    patch.setattr(Election, "is_won", property(is_won))


def a_configuration_survives_its_entry(patch: Patch) -> None:
    def truncate(self: State, index: int) -> None:
        self.durable_index = min(self.durable_index, index)
        self.truncation_count += 1

    patch.setattr(State, "truncate", truncate)


def only_known_voters_vote(patch: Patch) -> None:
    whole = Core._grants
    patch.setattr(
        Core,
        "_grants",
        lambda self, message: self.configuration.voters.count(self._state.node_id) > 0 and whole(self, message),
    )


def everyone_campaigns(patch: Patch) -> None:
    patch.setattr(Core, "_may_campaign", always)


def a_removed_leader_goes_on(patch: Patch) -> None:
    patch.setattr(Leading, "_after_commit", nothing)


def a_member_is_known_by_its_number_alone(patch: Patch) -> None:
    patch.setattr(Leading, "_is_current", always)


def lost_disks_vote(patch: Patch) -> None:
    patch.setattr(Core, "_grants", lambda self, message: core_module.is_up_to_date(self._state.log, message))


def lost_disks_trust_what_they_are_told(patch: Patch) -> None:
    patch.setattr(Following, "_must_rejoin", never)
    patch.setattr(Following, "_is_rejoined", always)


def lost_disks_trust_a_leader_that_does_not_know_yet(patch: Patch) -> None:
    patch.setattr(Following, "_knows_all", always)


def learners_are_promoted_blank(patch: Patch) -> None:
    patch.setattr(Leading, "_check_caught_up", nothing)


def changes_may_leave_too_few(patch: Patch) -> None:
    patch.setattr(Leading, "_check_can_elect", nothing)


def who_forgot_counts_at_once(patch: Patch) -> None:
    patch.setattr(Reads, "ask", lambda _: 0)


def who_forgot_confirms_a_leader(patch: Patch) -> None:
    whole = Leading.on_heartbeat_reply

    def on_heartbeat_reply(self: Any, message: Any) -> None:
        whole(self, msgspec.structs.replace(message, is_barred=False))

    patch.setattr(Leading, "on_heartbeat_reply", on_heartbeat_reply)


def reads_do_not_wait_for_the_term(patch: Patch) -> None:
    patch.setattr(Leading, "is_settled", property(always))


def reads_do_not_wait_for_a_quorum(patch: Patch) -> None:
    whole = Reads.confirmed
    patch.setattr(Reads, "confirmed", lambda self, _: whole(self, self.round))


ROWS: list[tuple[Callable[[Patch], None], list[Callable[[], None]]]] = [
    (
        hard_state_is_not_written,
        [
            durability.test_a_crash_between_a_vote_and_its_answer_gives_no_second_vote,
            durability.test_a_rejection_leaves_with_the_term_that_it_rests_on,
        ],
    ),
    (
        acknowledges_before_the_sync,
        [
            durability.test_a_follower_does_not_acknowledge_what_it_has_not_synced,
            durability.test_all_that_is_not_synced_may_be_lost_on_every_member_at_once,
        ],
    ),
    (
        leader_counts_what_it_has_not_synced,
        [
            durability.test_a_leader_counts_itself_only_through_what_it_has_synced_its_first_entry_included,
            durability.test_a_group_of_one_commits_when_its_disk_has_it,
        ],
    ),
    (
        any_sync_of_the_same_entry_counts,
        [durability.test_a_sync_that_ends_late_does_not_count_for_what_was_cut_and_written_again],
    ),
    (
        any_sync_counts,
        [
            durability.test_a_sync_of_what_another_term_has_replaced_does_not_count,
            snapshots.test_a_sync_that_began_before_the_state_does_not_count,
        ],
    ),
    (
        entries_of_earlier_terms_commit_by_counting,
        [replication.test_an_entry_of_an_earlier_term_is_not_committed_by_counting],
    ),
    (every_append_cuts_the_log, [replication.test_a_resent_prefix_does_not_cut_what_matches_behind_it]),
    (all_that_comes_is_new, [snapshots.test_entries_that_were_sent_before_the_state_take_nothing_back]),
    (
        what_is_committed_is_compared_like_the_rest,
        [
            replication.test_an_append_that_begins_before_the_snapshot_is_no_conflict,
            replication.test_a_conflict_with_what_is_committed_stops_the_member,
        ],
    ),
    (
        the_leaders_commit_index_is_believed,
        [
            replication.test_a_follower_commits_only_what_the_leader_has_shown_it_to_have,
            replication.test_a_heartbeat_that_overtakes_a_repair_commits_nothing_wrong,
        ],
    ),
    (
        no_term_hints,
        [lambda: replication.test_hundreds_of_divergent_entries_are_repaired_in_a_few_steps(*DIVERGENT)],
    ),
    (
        a_full_window_waits_for_ever,
        [
            replication.test_a_window_whose_messages_were_all_lost_is_found_out,
            replication.test_what_is_lost_at_the_end_of_a_window_is_found_out,
            replication.test_a_restarted_follower_of_an_idle_leader_learns_what_is_committed,
        ],
    ),
    (longer_logs_win, [elections.test_logs_are_compared_by_their_last_term_and_only_then_by_their_length]),
    (
        earlier_terms_count,
        [
            elections.test_an_answer_to_an_earlier_term_does_not_count,
            elections.test_an_acknowledgement_of_an_earlier_term_does_not_count,
        ],
    ),
    (later_terms_do_not_end_a_leadership, [elections.test_a_leader_that_hears_of_a_later_term_leads_no_more]),
    (
        earlier_terms_get_no_answer,
        [
            elections.test_a_longer_log_of_a_lower_term_and_a_shorter_one_of_a_higher_term_elect_a_leader,
            lambda: elections.test_a_member_that_was_cut_off_comes_back(pre_vote=False, check_quorum=True),
        ],
    ),
    (
        no_pre_vote,
        [
            elections.test_a_pre_vote_changes_no_term,
            elections.test_a_member_that_comes_back_deposes_nobody,
        ],
    ),
    (
        no_lease,
        [
            elections.test_a_member_that_cannot_hear_the_leader_deposes_nobody_who_can,
            elections.test_a_hint_that_is_wrong_deposes_nobody,
        ],
    ),
    (
        leader_does_not_ask_for_its_quorum,
        [elections.test_a_leader_that_hears_nobody_steps_down_and_another_takes_over],
    ),
    (
        a_transfer_is_never_given_up,
        [elections.test_a_transfer_that_leads_to_nothing_is_given_up_after_one_elections_time],
    ),
    (
        a_transfer_outlives_its_leader,
        [elections.test_a_transfer_that_is_cut_off_by_a_step_down_leaves_nothing_behind],
    ),
    (who_led_leads_on_after_a_restart, [elections.test_a_leader_that_restarts_is_a_follower]),
    (leadership_is_handed_over_at_once, [elections.test_a_transfer_waits_until_the_other_has_the_whole_log]),
    (any_state_is_wanted, [snapshots.test_a_state_that_is_older_than_what_is_committed_is_not_wanted]),
    (
        a_state_that_failed_is_sent_again_at_once,
        [snapshots.test_a_state_that_did_not_arrive_is_asked_for_again_and_not_without_pause],
    ),
    (a_state_keeps_later_configurations, [snapshots.test_a_state_resets_a_configuration_that_was_never_committed]),
    (
        members_change_at_any_time,
        [
            membership.test_no_change_before_the_leader_has_committed_in_its_term,
            membership.test_one_change_at_a_time,
        ],
    ),
    (
        a_joint_quorum_is_one_over_the_union,
        [membership.test_a_joint_configuration_is_left_by_itself_once_both_halves_have_it],
    ),
    (a_joint_election_counts_the_union, [membership.test_a_joint_configuration_counts_from_the_start]),
    (a_configuration_survives_its_entry, [membership.test_a_configuration_that_is_cut_off_is_in_force_no_more]),
    (only_known_voters_vote, [membership.test_a_voter_that_does_not_know_of_its_promotion_votes]),
    (
        everyone_campaigns,
        [
            lambda: membership.test_who_does_not_vote_does_not_campaign(membership.configuration([1, 2, 3])),
            lost_disks.test_a_barred_member_neither_votes_nor_campaigns,
            replication.test_a_leader_that_cannot_read_its_log_hands_over,
        ],
    ),
    (
        a_removed_leader_goes_on,
        [membership.test_a_leader_that_removes_itself_leads_until_that_is_committed_and_then_hands_over],
    ),
    (
        a_member_is_known_by_its_number_alone,
        [
            membership.test_an_acknowledgement_from_before_a_removal_does_not_count_for_what_was_added_again,
            lost_disks.test_an_acknowledgement_from_before_the_loss_does_not_count_after_it,
        ],
    ),
    (learners_are_promoted_blank, [membership.test_a_learner_that_lacks_much_is_not_promoted]),
    (changes_may_leave_too_few, [membership.test_a_change_that_would_leave_too_few_to_elect_is_refused]),
    (
        lost_disks_vote,
        [
            lost_disks.test_a_member_that_lost_a_committed_entry_helps_to_elect_nobody_who_lacks_it,
            lost_disks.test_a_blank_disk_neither_votes_nor_campaigns,
        ],
    ),
    (
        lost_disks_trust_what_they_are_told,
        [lost_disks.test_what_was_told_before_the_leader_knew_of_the_loss_does_not_do],
    ),
    (
        lost_disks_trust_a_leader_that_does_not_know_yet,
        [lost_disks.test_what_a_leader_tells_that_has_not_committed_in_its_term_does_not_do],
    ),
    (
        who_forgot_counts_at_once,
        [lost_disks.test_a_leader_of_the_past_commits_nothing_with_a_disk_that_forgot_its_successor],
    ),
    (
        who_forgot_confirms_a_leader,
        [
            lost_disks.test_a_leader_of_the_past_commits_nothing_with_a_disk_that_forgot_its_successor,
            lost_disks.test_a_leader_of_the_past_answers_no_read_with_a_disk_that_forgot_its_successor,
        ],
    ),
    (reads_do_not_wait_for_the_term, [reads.test_a_read_waits_until_the_leader_has_committed_in_its_term]),
    (
        reads_do_not_wait_for_a_quorum,
        [
            reads.test_a_read_waits_until_a_quorum_knows_no_other_leader,
            reads.test_an_answer_to_an_earlier_question_confirms_no_later_read,
        ],
    ),
]
CASES = [
    pytest.param(switch_off, test, id=f"{switch_off.__name__}-{number}")
    for switch_off, tests in ROWS
    for number, test in enumerate(tests, 1)
]


@pytest.mark.parametrize(("switch_off", "test"), CASES)
def test_without_its_safeguard_the_test_fails(
    switch_off: Callable[[Patch], None], test: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    test()
    switch_off(monkeypatch)
    with pytest.raises((AssertionError, LedgerError, pytest.fail.Exception)):
        test()


SEEDS_MAX = 60


@pytest.mark.parametrize(
    "switch_off",
    [
        acknowledges_before_the_sync,
        the_leaders_commit_index_is_believed,
        every_append_cuts_the_log,
        hard_state_is_not_written,
        lost_disks_vote,
        reads_do_not_wait_for_a_quorum,
        a_full_window_waits_for_ever,
    ],
)
def test_the_simulation_finds_what_is_switched_off(
    switch_off: Callable[[Patch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    switch_off(monkeypatch)
    for seed in range(SEEDS_MAX):
        try:
            Simulation(seed).run()
        except (Violation, LedgerError, KeyError, IndexError, TypeError):
            return
    pytest.fail(f"{SEEDS_MAX} seeds found nothing")
