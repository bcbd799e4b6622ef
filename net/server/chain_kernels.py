"""Compiled work on chains: a batch joins the commands of many frames, and a chain must not reach into the next frame.

Else the last command of one client's frame could be made to stand and fall with the first command of another's.
"""

from typing import Any, Final

from bezant.engine.compiled import inlined, kernel
from bezant.protocol.codes import ResultCode
from bezant.protocol.kinds import CommandFlag
from bezant.protocol.records import COMMAND, Records, Words

_LINKED: Final = int(CommandFlag.LINKED)
_CHAIN_UNTERMINATED: Final = int(ResultCode.CHAIN_UNTERMINATED)
_FLAGS_AT: Final = 116
_FLAGS_WORD: Final = _FLAGS_AT // 8
_FLAGS_SHIFT: Final = _FLAGS_AT % 8 * 8

if COMMAND.fields is None or COMMAND.fields["flags"][1] != _FLAGS_AT:
    raise AssertionError("the flags of a command are not where chains look for them")


@inlined
def is_linked(command_words: Words, number: int) -> Any:
    """Whether a command stands and falls with the next one."""
    return (command_words[number, _FLAGS_WORD] >> _FLAGS_SHIFT) & _LINKED != 0


@inlined
def refuse_open_chain(command_words: Words, first: int, end: int, preset: Words) -> None:
    """Refuse the chain, if any, that the commands from `first` up to `end` leave open.

    Also over a code that is there already: a chain that another code refuses would still reach behind `end`.
    """
    number = end - 1
    while number >= first and is_linked(command_words, number):
        preset[number] = _CHAIN_UNTERMINATED
        number -= 1


@kernel
def preset_unterminated(frames: Records, frame_count: int, command_words: Words, preset: Words) -> None:
    """Refuse the chains that frames leave open."""
    for index in range(frame_count):
        frame = frames[index]
        first = frame["first_command"]
        refuse_open_chain(command_words, first, first + frame["command_count"], preset)


@kernel
def preset_unterminated_span(command_words: Words, first: int, end: int, preset: Words) -> None:
    """Refuse the chain that the commands from `first` up to `end` leave open."""
    refuse_open_chain(command_words, first, end, preset)
