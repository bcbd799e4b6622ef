"""Claim: a kernel is compiled anew whenever anything that it is made of has changed, and never for anything else."""

import ast
import gc
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import numba
import numpy as np
import pytest

from bezant.engine import compiled
from bezant.engine.compiled import (
    COMPILED,
    cache_directory,
    called,
    direct,
    inlined,
    kernel,
    kernel_digest,
    kernel_sources,
)
from bezant.protocol.records import Records, Words

ROOT: Final = Path(compiled.__file__).resolve().parent.parent
ROOMS: Final = ("engine", "net", "perf", "protocol")
DECORATORS: Final = frozenset({"kernel", "called", "inlined"})
TIMEOUT_S: Final = 120

needs_compiler = pytest.mark.skipif(not COMPILED, reason="this run is the uncompiled one")


# --- What a kernel is made of


def modules_of(tree: ast.Module) -> set[str]:
    """Names of the project's modules that a file imports, as paths below the root without their ending."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name.removeprefix("bezant.").replace(".", "/") for name in found if name.startswith("bezant.")}


def test_every_source_of_a_kernel_counts() -> None:
    """Found another way: from the syntax of the files, starting at the decorators."""
    trees = {
        path.relative_to(ROOT).as_posix(): ast.parse(path.read_bytes())
        for room in ROOMS
        for path in (ROOT / room).rglob("*.py")
    }
    waiting = {
        name
        for name, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        and any(isinstance(one, ast.Name) and one.id in DECORATORS for one in node.decorator_list)
    }
    assert {"engine/ledger/kernel.py", "engine/ledger/index.py", "net/server/frame_kernels.py"} <= waiting
    found: set[str] = set()
    while waiting:
        name = waiting.pop()
        found.add(name)
        waiting |= {f"{module}.py" for module in modules_of(trees[name])} & set(trees) - found
    assert {"engine/hashing.py", "engine/ledger/state.py", "engine/compiled.py"} <= found
    sources = kernel_sources(ROOT)
    assert found - set(sources) == set()
    assert {name for name in trees if name.startswith("protocol/")} - set(sources) == set()
    assert "net/server/reactor.py" not in sources


def test_the_sources_are_the_bytes_of_the_files() -> None:
    sources = kernel_sources(ROOT)
    assert all((ROOT / name).read_bytes() == source for name, source in sources.items())


# --- The digest


def test_the_digest_is_sixteen_digits_and_always_the_same() -> None:
    assert len(kernel_digest()) == 16
    assert int(kernel_digest(), 16) >= 0
    assert kernel_digest() == kernel_digest()


def run(root: Path, program: str, **environment: str) -> str:
    """The output of a program in a process of its own, whose `bezant` is the one below `root`, or this one."""
    finished = subprocess.run(
        [sys.executable, "-c", program],
        cwd=root,
        env=os.environ | {"PYTHONPATH": f"{root}{os.pathsep}{ROOT}"} | environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout.strip()


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the project's sources, to be changed."""
    for room in ROOMS:
        shutil.copytree(ROOT / room, tmp_path / "bezant" / room, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "bezant" / "__init__.py", tmp_path / "bezant")
    return tmp_path


DIGEST: Final = "from bezant.engine.compiled import kernel_digest; print(kernel_digest())"


def test_the_digest_changes_with_the_sources_of_kernels_alone(copy: Path) -> None:
    """It is that of another place with the same sources, and of no other sources."""
    assert run(copy, DIGEST) == kernel_digest()
    (copy / "bezant" / "net" / "server" / "reactor.py").write_text("# changed\n")
    (copy / "bezant" / "engine" / "ledger" / "README.md").write_text("changed\n")
    assert run(copy, DIGEST) == kernel_digest()
    digests = {kernel_digest()}
    for name in ("engine/hashing.py", "engine/ledger/state.py", "protocol/codes.py"):
        with (copy / "bezant" / name).open("a") as file:
            file.write("# changed\n")
        digests.add(run(copy, DIGEST))
    assert len(digests) == 4


def test_the_cache_lies_where_the_user_has_caches_under_the_digest(tmp_path: Path) -> None:
    program = "from bezant.engine.compiled import cache_directory; print(cache_directory())"
    for environment, base in (
        ({"XDG_CACHE_HOME": str(tmp_path)}, tmp_path),
        ({"XDG_CACHE_HOME": "", "HOME": str(tmp_path)}, tmp_path / ".cache"),
    ):
        assert run(ROOT, program, **environment) == str(base / "bezant" / "kernels" / kernel_digest())


KERNEL: Final = """
import numpy as np
from bezant.engine.compiled import kernel

@kernel
def double(values):
    for number in range(len(values)):
        values[number] *= 2

values = np.arange(5)
double(values)
"""
USE: Final = """
import made
print(made.values.tolist(), sum(made.double.stats.cache_hits.values()) if hasattr(made.double, "stats") else "plain")
"""


@needs_compiler
def test_a_kernel_is_compiled_once(tmp_path: Path) -> None:
    """The second process takes what the first one has left."""
    (tmp_path / "made.py").write_text(KERNEL)
    environment = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    assert run(tmp_path, USE, **environment) == "[0, 2, 4, 6, 8] 0"
    folder = tmp_path / "cache" / "bezant" / "kernels" / kernel_digest()
    assert [path for path in folder.rglob("*.nbc") if "made.double" in path.name]
    assert run(tmp_path, USE, **environment) == "[0, 2, 4, 6, 8] 1"


@needs_compiler
@pytest.mark.parametrize("damage", [b"", bytes(8192)], ids=["empty", "zeros"])
@pytest.mark.parametrize("ending", ["nbi", "nbc"])
def test_a_kernel_that_was_not_on_the_disk_when_the_power_went_is_compiled_again(
    tmp_path: Path, ending: str, damage: bytes
) -> None:
    """No start came past it, until somebody removed the folder."""
    (tmp_path / "made.py").write_text(KERNEL)
    environment = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    run(tmp_path, USE, **environment)
    (found,) = tmp_path.rglob(f"made.double*.{ending}")
    found.write_bytes(damage)
    for hits in (0, 1):
        assert run(tmp_path, USE, **environment) == f"[0, 2, 4, 6, 8] {hits}"


UNWRITABLE: Final = """
import tempfile

def refuse(*_, **__):
    raise PermissionError(13, "Permission denied")

tempfile.TemporaryFile = refuse
"""


@needs_compiler
def test_what_is_kept_where_nobody_may_write_is_used(tmp_path: Path) -> None:
    """In an image whose disk is not to be written to, every start compiled everything."""
    (tmp_path / "made.py").write_text(KERNEL)
    environment = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    assert run(tmp_path, USE, **environment) == "[0, 2, 4, 6, 8] 0"
    assert run(tmp_path, UNWRITABLE + USE, **environment) == "[0, 2, 4, 6, 8] 1"


@needs_compiler
def test_a_kernel_that_cannot_be_kept_is_kept_nowhere_else(tmp_path: Path) -> None:
    """Beside its source it would be taken for new after what that imports has changed."""
    (tmp_path / "made.py").write_text("from other import FACTOR\n" + KERNEL.replace("*= 2", "*= FACTOR"))
    (tmp_path / "file").touch()
    for factor in (2, 3):
        (tmp_path / "other.py").write_text(f"FACTOR = {factor}  # {'x' * factor}\n")
        expected = str([factor * number for number in range(5)])
        assert run(tmp_path, USE, XDG_CACHE_HOME=str(tmp_path / "file")) == f"{expected} 0"
    assert not list(tmp_path.rglob("*.nbc"))


@needs_compiler
def test_a_kernel_is_loaded_without_what_it_does_not_need(tmp_path: Path) -> None:
    """Each takes 12 ms of every start, or more."""
    (tmp_path / "made.py").write_text(KERNEL)
    environment = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    idle = ("numpy.ma", "numba.np.arrayobj")
    program = f"import bezant.engine.log.memory, made, sys; print([name for name in {idle} if name in sys.modules])"
    run(tmp_path, program, **environment)
    assert run(tmp_path, program, **environment) == "[]"


@needs_compiler
@pytest.mark.parametrize(
    "array",
    [
        np.zeros(3, np.int64),
        np.zeros((2, 3), np.int64),
        np.zeros((2, 3), np.uint8, order="F"),
        np.zeros((4, 4), np.int64)[::2, ::2],
        np.frombuffer(bytes(8), np.int64),
        np.zeros(2, [("of_16", np.int16), ("of_32", np.int32)]),
        np.zeros(2, [("of_16", np.int16), ("of_32", np.int32)])["of_32"],
        np.zeros((), np.float64),
        np.zeros(1, object),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}{array.strides}",
)
def test_arrays_have_the_types_that_numba_gives_them(array: np.ndarray[Any, Any]) -> None:
    context = numba.core.typing.typeof._TypeofContext(numba.core.typing.typeof.Purpose.argument)
    assert numba.typeof(array) == numba.core.typing.typeof._typeof_ndarray(array, context)


@needs_compiler
@pytest.mark.parametrize("array", [np.ma.zeros(1), np.zeros(1, np.longdouble)], ids=["masked", "long"])
def test_arrays_that_numba_knows_nothing_of_are_refused_as_ever(array: np.ndarray[Any, Any]) -> None:
    with pytest.raises((numba.core.errors.NumbaTypeError, numba.core.errors.NumbaValueError)):
        numba.typeof(array)


CONTEXT: Final = """
from numba.core.registry import cpu_target
import made
print(made.values.tolist(), bool(cpu_target.typing_context._registries))

@made.kernel
def halve(values):
    for number in range(len(values)):
        values[number] = max(values[number] // 2, 1)

halve(made.values)
print(made.values.tolist(), bool(cpu_target.typing_context._registries))
"""


@needs_compiler
def test_what_the_compiler_needs_is_gathered_only_to_compile(tmp_path: Path) -> None:
    """Not to load a kernel; and a kernel that is compiled after one was loaded has all that it needs."""
    (tmp_path / "made.py").write_text(KERNEL)
    (tmp_path / "use.py").write_text(CONTEXT)
    environment = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    assert run(tmp_path, USE, **environment).endswith(" 0")
    assert run(tmp_path, "import use", **environment) == "[0, 2, 4, 6, 8] False\n[1, 1, 2, 3, 4] True"


def test_without_compilation_a_kernel_is_the_function(tmp_path: Path) -> None:
    (tmp_path / "made.py").write_text(KERNEL)
    environment = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "NUMBA_DISABLE_JIT": "1"}
    assert run(tmp_path, USE, **environment) == "[0, 2, 4, 6, 8] plain"
    assert not (tmp_path / "cache").exists()


# --- The decorators


@kernel
def add(values: Words, more: int) -> int:
    for number in range(len(values)):
        values[number] += more
    return values[0]


@inlined
def half(value: int) -> int:
    return value // 2


@kernel
def halve(values: Words) -> None:
    for number in range(len(values)):
        values[number] = half(values[number])


@needs_compiler
def test_kernels_run_without_the_interpreter_s_lock() -> None:
    assert add.targetoptions["nogil"] is True
    assert half.targetoptions["nogil"] is True


def test_parts_are_used_by_kernels() -> None:
    values = np.array([7, 8, -7])
    halve(values)
    assert values.tolist() == [3, 4, -4]


def test_decorating_leaves_numba_s_own_cache_where_it_was() -> None:
    assert cache_directory() != numba.config.CACHE_DIR


@called
def difference(left: int, right: int) -> int:
    return left - right


@inlined
def twice_the_difference(left: int, right: int) -> int:
    return 2 * difference(left, right)


@kernel
def differ(values: Words, narrow: Records) -> None:
    values[0] = difference(values[0], 3) + twice_the_difference(values[1], narrow[0]["of_16"])
    values[1] = difference(narrow[0]["of_32"], 1 << 40)


@needs_compiler
def test_parts_compute_in_64_bits_whatever_they_are_called_with() -> None:
    narrow = np.zeros(1, [("of_16", np.int16), ("of_32", np.int32)])
    narrow["of_16"], narrow["of_32"] = -(1 << 15), -(1 << 31)
    values = np.array([10, 5])
    differ(values, narrow)
    assert values.tolist() == [7 + 2 * (5 + (1 << 15)), -(1 << 31) - (1 << 40)]


@needs_compiler
def test_a_part_is_compiled_once_and_to_no_machine_code_of_its_own() -> None:
    """Not for each constant, not for each width of integers, not for each kind of caller."""
    made_anew: Any = kernel(differ.py_func)
    made_anew._cache.disable()  # A kernel that an earlier run has left has no need of its parts.
    made_anew(np.zeros(2, np.int64), np.zeros(1, [("of_16", np.int16), ("of_32", np.int32)]))
    for part in (difference, twice_the_difference):
        (result,) = part.overloads.values()
        assert result.signature.args == (numba.types.int64, numba.types.int64)
        assert result.library.get_pointer_to_function(result.fndesc.llvm_cpython_wrapper_name) == 0
        assert not numba.core.registry.cpu_target.target_context.codegen()._engine.is_symbol_defined(
            result.fndesc.llvm_func_name
        )


@needs_compiler
@pytest.mark.parametrize("collects", [True, False])
def test_the_garbage_collector_is_found_as_it_was(collects: bool) -> None:
    @kernel
    def increase(values: Words) -> None:
        values[0] += 1

    before = gc.isenabled()
    (gc.enable if collects else gc.disable)()
    try:
        increase(np.zeros(1, np.int64))
        assert gc.isenabled() is collects
    finally:
        (gc.enable if before else gc.disable)()


@needs_compiler
def test_the_garbage_collector_is_found_as_it_was_if_there_was_nothing_to_compile() -> None:
    @kernel
    def wrong(values: Words) -> None:
        values[0] = values.no_such_thing

    with pytest.raises(numba.TypingError):
        wrong(np.zeros(1, np.int64))
    assert gc.isenabled()


@needs_compiler
def test_the_machine_code_of_a_kernel_does_what_the_kernel_does() -> None:
    """Once there is one: until then, and if it was compiled for several types, the kernel itself is used."""

    @kernel
    def add_here(values: Words, more: int) -> int:
        values[0] += more
        return values[0]

    assert direct(add_here) is add_here
    values = np.array([1, 2])
    assert add_here(values, 5) == 6
    code = direct(add_here)
    assert code is not add_here
    assert code(values, 10) == 16
    assert values.tolist() == [16, 2]
    assert add_here(np.array([1.5]), 1) == 2.5
    assert direct(add_here) is add_here


def test_a_function_that_is_not_compiled_is_its_own_code() -> None:
    def plain() -> int:
        return 5

    assert direct(plain) is plain
