"""What a load process does around its load: read the plan, say how it goes, tell a failure as a line, not a trace."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
import uvloop

from bezant.net.access.credentials import make_credentials, use_credentials
from bezant.perf.load.plan import LoadFailure, LoadLine, LoadOutcome, LoadPlan, LoadProgress
from bezant.protocol.errors import BezantError

_STDOUT: Final = 1

ProgressListener = Callable[[int], None]
PlanRunner = Callable[[LoadPlan, ProgressListener], Awaitable[LoadOutcome]]


def serve_plan(run_plan: PlanRunner) -> int:
    """Read one plan from stdin, run it on uvloop, write progress and the outcome to stdout; the exit status."""
    plan = msgspec.json.decode(sys.stdin.buffer.read(), type=LoadPlan)
    use_credentials(make_credentials(token=plan.token, insecure=plan.insecure))

    async def run() -> LoadOutcome:
        return await run_plan(plan, lambda done: _write(LoadProgress(done)))

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            _write(runner.run(run()))
    except BezantError as error:
        _write(LoadFailure(type(error).__name__, str(error)))
        return 1
    return 0


def _write(line: LoadLine) -> None:
    with open(_STDOUT, "wb", closefd=False) as stream:
        stream.write(msgspec.json.encode(line) + b"\n")
