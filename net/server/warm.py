"""Compiles every kernel of the node before it listens, so that no first request pays for it."""

import numpy as np

from bezant.engine.ids.warm import warm_ids
from bezant.engine.ledger.ledger import Ledger
from bezant.engine.ledger.warm import warm_ledger
from bezant.engine.transactions.building import warm_building
from bezant.engine.transactions.ids import derived_ids
from bezant.engine.transactions.marking import MARKED_SIZE, mark_transfers_out
from bezant.engine.transactions.times import floor_of
from bezant.net.server.batch import Batch
from bezant.net.server.chain_kernels import preset_unterminated, preset_unterminated_span
from bezant.net.server.flight_kernels import FOUND_SIZE, find_tries, has_repeats, note_answers, write_outcomes
from bezant.net.server.frame_kernels import encode_replies, preset_expired, scan_frames
from bezant.net.server.leg_kernels import any_for_slots, are_all_legs, has_suspects, preset_legs, preset_legs_span
from bezant.net.server.placing_kernels import preset_wrong_shard
from bezant.protocol.frames import Operation, encode_frame
from bezant.protocol.placement import SLOT_COUNT
from bezant.protocol.records import COMMAND, EVENT, RESULT
from bezant.protocol.transactions import Leg


def warm_kernels() -> None:
    """Run each kernel once on data that is thrown away. Seconds without a cache, a moment with one."""
    warm_ledger()
    warm_ids()
    command = np.zeros(1, COMMAND)
    batch = Batch()
    frame = np.frombuffer(encode_frame(Operation.COMMANDS, 1, command.tobytes()), np.uint8).copy()
    scan_frames(frame, len(frame), batch.command_words, batch.frames, 0, batch.cursor)
    preset = np.zeros(1, np.int64)
    preset_expired(batch.frames, 1, 1, preset)
    preset_unterminated(batch.frames, 1, batch.command_words, preset)
    preset_wrong_shard(batch.frames, 1, batch.command_words, np.ones(SLOT_COUNT, np.uint8), preset)
    preset_unterminated_span(batch.command_words, 0, 1, preset)
    has_suspects(batch.command_words, 0, 1)
    preset_legs(batch.frames, 1, batch.command_words, preset)
    preset_legs_span(batch.command_words, 0, 1, preset)
    are_all_legs(batch.command_words)
    any_for_slots(batch.command_words, np.ones(SLOT_COUNT, np.uint8))
    arrays = Ledger(accounts_max=1, holds_max=1, ids_capacity_initial=16).arrays
    slots, transits = np.zeros(SLOT_COUNT, np.int64), np.zeros((1, 1, 2), np.int64)
    mark_transfers_out(arrays, batch.commands[:1], slots, 0, transits, preset, np.zeros(MARKED_SIZE, np.int64))
    warm_building()
    derived_ids(command, Leg.TRY_CREDIT)
    floor_of(command)
    results = np.zeros(1, RESULT)
    find_tries(results, np.zeros(1, EVENT), preset, preset, preset, np.zeros(FOUND_SIZE, np.int64))
    note_answers(results, np.zeros(1, np.int64), preset, preset, 0)
    has_repeats(results)
    write_outcomes(results, preset, np.zeros(1, np.int64), results)
    out = np.zeros(12, np.int64)
    encode_replies(batch.frames, 1, results.view(np.int64).reshape(1, 8), out, out.view(np.uint8))
