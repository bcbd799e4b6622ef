"""Safeguards of transfers between shards, each switched off by taking one method away: does the simulator notice?"""

import asyncio
import itertools
from typing import Any

import numpy as np

from bezant.engine.moves import leaving, taking
from bezant.engine.moves.copies import WITH_FATE
from bezant.engine.transactions import parts
from bezant.net.server import coordinating, ending, transacting_steps
from bezant.net.server import legs as lane_module
from bezant.net.server.coordinating import Coordinator
from bezant.net.server.ending import Ending
from bezant.net.server.legs import LegsLane
from bezant.net.server.moving_out import MoveOut
from bezant.net.server.placing import Placing
from bezant.net.server.transacting import Transactor
from bezant.net.server.transacting_steps import Steps
from bezant.protocol.codes import ResultCode
from bezant.protocol.kinds import COPY_OF, CommandKind
from bezant.protocol.records import RESULT

from ..ablations import Patch, Row
from ..node import Node
from . import node as node_module
from .node import ShardNode

_COMMITTED = int(ResultCode.COMMITTED)
_REFUSED = int(ResultCode.CREDIT_ACCOUNT_UNKNOWN)


def ids_of_legs_are_new_each_time(patch: Patch) -> None:
    salts = itertools.count(1)
    for module, name in (
        (coordinating, "build_try_credits"),
        (coordinating, "build_decisions"),
        (ending, "build_second_legs"),
    ):
        whole = getattr(module, name)
        patch.setattr(module, name, lambda *args, whole=whole, **times: whole(*args, **times, salt=next(salts)))


def legs_are_answered_before_the_commit(patch: Patch) -> None:
    whole = LegsLane.reply

    def reply(self: Any, committed_index: int, confirmed_ticket: int) -> None:
        whole(self, self._member.replica.log.last_index, confirmed_ticket)

    patch.setattr(LegsLane, "reply", reply)


def answers_do_not_wait_for_the_decision(patch: Patch) -> None:
    patch.setattr(ShardNode, "_is_known", Node._is_known)


def tries_that_were_found_are_dropped(patch: Patch) -> None:
    whole = Coordinator._carry_on

    def carry_on(self: Any, found: Any) -> Any:
        return whole(self, found._replace(open_tries=found.open_tries[:0]))

    patch.setattr(Coordinator, "_carry_on", carry_on)


def decisions_that_were_found_are_dropped(patch: Patch) -> None:
    whole = Coordinator._carry_on

    def carry_on(self: Any, found: Any) -> Any:
        return whole(self, found._replace(unsettled=found.unsettled[:0]))

    patch.setattr(Coordinator, "_carry_on", carry_on)


def no_answer_counts_as_a_refusal(patch: Patch) -> None:
    """And so the other shard is told nothing."""
    _count_silence_as(_REFUSED, patch)


def no_answer_counts_as_done(patch: Patch) -> None:
    _count_silence_as(_COMMITTED, patch)


def _count_silence_as(code: int, patch: Patch) -> None:
    whole = Coordinator._try

    async def try_there(self: Any, flight: Any, question: Any) -> Any:
        answers = await whole(self, flight, question)
        return answers._replace(codes=np.where(coordinating.is_open(answers.codes), code, answers.codes))

    patch.setattr(Coordinator, "_try", try_there)


def settled_before_the_other_shard_has_answered(patch: Patch) -> None:
    whole = Ending._end

    async def end(self: Any, transit: Any, decided: Any) -> None:
        self._hooks.settle(decided.sequences)
        await whole(self, transit, decided)

    patch.setattr(Ending, "_end", end)


def repeats_are_told_undecided(patch: Patch) -> None:
    patch.setattr(Coordinator, "_note_repeated", lambda self, batch, rows: None)


def cancels_leave_no_tombstone(patch: Patch) -> None:
    """A cancel of what has not come is answered, and not executed."""
    whole = LegsLane.add

    def add(self: Any, commands: Any, respond: Any) -> None:
        if (commands["kind"] == CommandKind.CANCEL).all() and self._member.is_leader:
            keys = commands.copy()
            keys["id_head"], keys["id_tail"] = commands["reference_head"], commands["reference_tail"]
            has_come = False
            for kind in (CommandKind.TRY_CREDIT, CommandKind.TRY_DEBIT):
                keys["kind"] = int(kind)
                has_come = has_come or bool(self._member.replica.ledger.find_events(keys)[0].any())
            if not has_come:
                respond(np.zeros(len(commands), RESULT))
                return
        whole(self, commands, respond)

    patch.setattr(LegsLane, "add", add)


def lost_coordinators_go_on(patch: Patch) -> None:
    patch.setattr(Coordinator, "lose", lambda self: None)


def nobody_looks_for_orphans(patch: Patch) -> None:
    patch.setattr(Coordinator, "_sweep", lambda self: None)


def legs_take_no_time_along(patch: Patch) -> None:
    patch.setattr(lane_module, "floor_of", lambda commands: 0)


def what_comes_again_is_taken_back(patch: Patch) -> None:
    whole = LegsLane.add

    def add(self: Any, commands: Any, respond: Any) -> None:
        kept, self.watch = self.watch, None
        whole(self, commands, respond)
        self.watch = kept

    patch.setattr(LegsLane, "add", add)


def who_does_not_lead_says_what_is_known(patch: Patch) -> None:
    """Of tries of other shards, without asking the others of its group."""
    whole = LegsLane.reply

    def reply(self: Any, committed_index: int, confirmed_ticket: int) -> None:
        whole(self, committed_index, 1 << 60)

    patch.setattr(LegsLane, "reply", reply)


def transactions_that_were_found_are_dropped(patch: Patch) -> None:
    patch.setattr(Transactor, "carry_on", lambda self, begun, sequences, decisions: None)


def sagas_taken_over_take_back_what_this_leader_did(patch: Patch) -> None:
    whole = Steps.step_by_step
    patch.setattr(Steps, "step_by_step", lambda self, *, is_resumed: whole(self, is_resumed=False))


def what_was_confirmed_is_not_given_back(patch: Patch) -> None:
    async def give_back(self: Any, numbers: Any, ids: Any) -> Any:
        return []

    patch.setattr(Steps, "_give_back", give_back)


def what_gives_back_has_new_ids_each_time(patch: Patch) -> None:
    salts = itertools.count(1)

    def next_ids(halves: Any, ids: Any) -> Any:
        return parts.next_ids(halves, ids + next(salts))

    patch.setattr(transacting_steps, "next_ids", next_ids)


def what_is_parked_is_dropped(patch: Patch) -> None:
    """A refusal to give back is taken for the end of it."""
    whole = Steps._give_back

    async def give_back(self: Any, numbers: Any, ids: Any) -> Any:
        await whole(self, numbers, ids)
        return []

    patch.setattr(Steps, "_give_back", give_back)


def shards_that_do_not_answer_have_confirmed(patch: Patch) -> None:
    whole = Steps._verdict

    def verdict(self: Any, codes: Any, numbers: Any) -> Any:
        return whole(self, np.where(transacting_steps.is_open(codes), _COMMITTED, codes), numbers)

    patch.setattr(Steps, "_verdict", verdict)


def transactions_are_settled_when_they_are_decided(patch: Patch) -> None:
    whole = Steps.end

    async def end(self: Any, verdict: Any) -> None:
        self.ending = asyncio.ensure_future(whole(self, verdict))

    patch.setattr(Steps, "end", end)


def what_a_slot_has_left_is_asked_for_ever(patch: Patch) -> None:
    """A shard that has not tried a half, of an account whose slot has left it."""
    patch.setattr(transacting_steps, "_MOVED", -1)


def what_could_not_be_given_back_has_a_new_id(patch: Patch) -> None:
    """Also where its slot has left, so that nothing has happened."""
    whole = Steps._answers

    async def answers(self: Any, halves: Any, commands: Any) -> Any:
        results = await whole(self, halves, commands)
        is_try = np.isin(commands["kind"], (int(CommandKind.TRY_CREDIT), int(CommandKind.TRY_PART)))
        results["code"][is_try & (results["code"] == int(ResultCode.WRONG_SHARD))] = _REFUSED
        return results

    patch.setattr(Steps, "_answers", answers)


def slots_are_whose_the_map_says(patch: Patch) -> None:
    """Whatever the log has decided: the source serves behind the seal."""
    patch.setattr(Placing, "follow_moves", lambda self, moves: None)


def ids_stay_behind(patch: Patch) -> None:
    """But for those of holds."""
    whole = MoveOut._send_copies

    async def send_copies(self: Any, copies: Any) -> None:
        await whole(self, copies[np.isin(copies["kind"] - COPY_OF, [int(kind) for kind in WITH_FATE])])

    patch.setattr(MoveOut, "_send_copies", send_copies)


def what_comes_again_is_taken_again(patch: Patch) -> None:
    """Of accounts, with their balances."""
    patch.setitem(taking._UNKNOWN_OF, "accounts", lambda ledger, records: records)


def what_became_of_holds_stays_behind(patch: Patch) -> None:
    patch.setattr(leaving, "fates_of", lambda ledger, events, sequences: np.zeros(len(events), np.int64))


def legs_are_not_looked_at_again(patch: Patch) -> None:
    """As they are executed, behind a seal that was not there when they came."""
    patch.setattr(lane_module, "preset_of_moved", lambda placing, ledger, commands: np.zeros(0, np.int64))


def legs_are_taken_before_the_slots(patch: Patch) -> None:
    legs_are_not_looked_at_again(patch)
    patch.setattr(node_module, "without_legs_elsewhere", lambda places, ledger, commands, respond: (commands, respond))


def slots_leave_before_the_map_says_that_they_came(patch: Patch) -> None:
    async def may_replace_map(self: Any) -> bool:
        return True

    patch.setattr(MoveOut, "_may_replace_map", may_replace_map)


ROWS = (
    Row(ids_of_legs_are_new_each_time, "shards", 5),
    Row(legs_are_answered_before_the_commit, "shards", 10),
    Row(answers_do_not_wait_for_the_decision, "shards", 5),
    Row(tries_that_were_found_are_dropped, "shards", 10),
    Row(decisions_that_were_found_are_dropped, "shards", 20, 1),
    Row(no_answer_counts_as_done, "shards", 40, 3),
    Row(settled_before_the_other_shard_has_answered, "shards", 10),
    Row(repeats_are_told_undecided, "shards", 10),
    Row(cancels_leave_no_tombstone, "shards", 40, 3),
    Row(lost_coordinators_go_on, "shards", 40, 4),
    Row(nobody_looks_for_orphans, "shards", 100, 11),
    Row(legs_take_no_time_along, "shards", 40, 8),
    Row(transactions_that_were_found_are_dropped, "shards", 30, 2),
    Row(what_was_confirmed_is_not_given_back, "shards", 10),
    Row(what_gives_back_has_new_ids_each_time, "shards", 10),
    Row(what_is_parked_is_dropped, "shards", 40, 4),
    Row(shards_that_do_not_answer_have_confirmed, "shards", 40, 6),
    Row(transactions_are_settled_when_they_are_decided, "shards", 10, 1),
    Row(what_a_slot_has_left_is_asked_for_ever, "shards", 100, 24),
    Row(what_could_not_be_given_back_has_a_new_id, "shards", 40, 3),
    Row(slots_are_whose_the_map_says, "shards", 40, 6),
    Row(ids_stay_behind, "shards", 20),
    Row(what_comes_again_is_taken_again, "shards", 200, 6),
    Row(legs_are_taken_before_the_slots, "shards", 40, 6),
    Row(what_became_of_holds_stays_behind, "shards", 160, 108),
)
RARE = (
    Row(sagas_taken_over_take_back_what_this_leader_did, "shards", 300),
    Row(no_answer_counts_as_a_refusal, "shards", 300),
    Row(what_comes_again_is_taken_back, "shards", 300),
    Row(who_does_not_lead_says_what_is_known, "shards", 300),
    Row(slots_leave_before_the_map_says_that_they_came, "shards", 300),
    Row(legs_are_not_looked_at_again, "shards", 1000, 768),
)
"""Noticed too seldom to be waited for in a test, or not at all yet."""
