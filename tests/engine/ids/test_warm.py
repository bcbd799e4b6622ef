"""Claim: warming compiles each kernel for exactly the arrays that come later, so that nobody waits for a compiler."""

from typing import Any

import numpy as np
import pytest

from bezant.engine.compiled import COMPILED
from bezant.engine.ids import kernels, times
from bezant.engine.ids.run_set import open_runs
from bezant.engine.ids.warm import warm_ids
from bezant.engine.kernel_compiler import KernelCompiler
from bezant.engine.log.storage import Directory

from .model import IDENTITY, WITHOUT_END, find, merge, write


def compiled_for() -> dict[str, list[Any]]:
    """What each kernel has been compiled for. A part of kernels is compiled with them, if they are compiled at all."""
    functions = [*vars(kernels).items(), *vars(times).items()]
    return {
        name: list(function.signatures)
        for name, function in functions
        if hasattr(function, "signatures") and function._compiler.pipeline_class is KernelCompiler
    }


@pytest.mark.skipif(not COMPILED, reason="nothing is compiled")
def test_nothing_is_compiled_after_warming(tmp_path_factory: pytest.TempPathFactory) -> None:
    warm_ids()
    warmed = compiled_for()
    assert all(warmed.values())
    directory = Directory(tmp_path_factory.mktemp("runs"))
    infos = [write(directory, number, [(number, 1), (9, number + 1)], number) for number in range(3)]
    for budget in (0, WITHOUT_END):
        assert find(open_runs(directory, IDENTITY, infos, budget), [1]) == [(1, 1)]
    merge(directory, infos, 7)
    times.latest_time_ms(np.zeros(3, np.int64))
    assert compiled_for() == warmed
