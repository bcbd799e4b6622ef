"""How kernels are compiled: Numba, without the interpreter lock, cached on disk under a digest of their sources.

Numba's own cache looks only at the file of the function it compiles; a constant or function imported from another file
can change without its noticing. So the cache folder is keyed by a digest of every kernel and protocol source and of
the versions of Python, NumPy, Numba and llvmlite: change any of them and the kernels are compiled anew.

With ``NUMBA_DISABLE_JIT=1`` the same functions run as plain Python, to be stepped through and to be compared.
"""

import hashlib
import os
import platform
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import llvmlite
import numba
import numpy as np

from bezant.engine.kernel_compiler import KernelCache, KernelCompiler, PartCompiler

_Function = TypeVar("_Function", bound=Callable[..., Any])

COMPILED: Final = not numba.config.DISABLE_JIT
"""False when kernels run as plain Python."""

PART_OPTIONS: Final[dict[str, Any]] = {
    "pipeline_class": PartCompiler,
    "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
}
"""How Numba compiles what is called from kernels only: as code, not as a function of its own."""

_ROOMS_READ: Final = ("protocol", "engine", "net", "perf")
_KERNEL_MARKS: Final = (b"\n@kernel\n", b"\n@called\n", b"\n@inlined\n")
_IMPORT: Final = re.compile(rb"\n(?:from|import) bezant\.([\w.]+)")


@cache
def kernel_digest() -> str:
    """Digest (16 hexadecimal digits) of all that decides what the kernels compute; the same code gives the same."""
    hasher = hashlib.blake2b(digest_size=8)
    versions = (platform.python_version(), np.__version__, numba.__version__, llvmlite.__version__)
    hasher.update("\0".join(versions).encode())
    root = Path(__file__).resolve().parent.parent
    for name, source in sorted(kernel_sources(root).items()):
        hasher.update(f"\0{name}\0".encode())
        hasher.update(source)
    return hasher.hexdigest()


def kernel_sources(root: Path) -> dict[str, bytes]:
    """The sources, by their names below `root`, that kernels are made from: every file that has one, and all that these
    import from the project, directly or through others; and the whole protocol."""
    sources = {name: source for room in _ROOMS_READ for name, source in _sources_in(str(root), room)}
    found: dict[str, bytes] = {}
    waiting = [name for name, source in sources.items() if name.startswith("protocol/") or _has_kernels(source)]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = sources[name]
            modules = [f"{match.decode().replace('.', '/')}.py" for match in _IMPORT.findall(found[name])]
            waiting += [module for module in modules if module in sources]
    return found


def _sources_in(root: str, room: str) -> Iterator[tuple[str, bytes]]:
    """Every source of a room, by its name below `root`. Every process does this when it starts, and a path made of
    objects for each of some hundreds of files would take three times as long."""
    for folder, _, files in os.walk(f"{root}/{room}"):
        for file in files:
            if file.endswith(".py"):
                path = f"{folder}/{file}"
                with open(path, "rb", buffering=0) as opened:  # noqa: PTH123 - see above
                    yield path[len(root) + 1 :], opened.read()


def _has_kernels(source: bytes) -> bool:
    return any(mark in source for mark in _KERNEL_MARKS)


@cache
def cache_directory() -> str:
    """Folder of the compiled kernels of exactly this code: ``$XDG_CACHE_HOME/bezant/kernels/<digest>``."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return str(Path(base) / "bezant" / "kernels" / kernel_digest())


def _compile(function: _Function, *, is_cached: bool = False, **options: Any) -> _Function:
    if not COMPILED:
        return function
    compiled = numba.njit(nogil=True, error_model="numpy", _nrt=False, **options)(function)
    if is_cached:
        before = numba.config.CACHE_DIR
        numba.config.CACHE_DIR = cache_directory()
        try:
            compiled._cache = KernelCache(function)
        finally:
            numba.config.CACHE_DIR = before
    return cast(_Function, _with_plain_types(compiled))


def direct(function: _Function) -> _Function:
    """The machine code of a kernel, past the dispatcher that looks at the types of all arguments at every call.

    For whoever always passes the same types and has called the kernel before: until then, or if it has been compiled
    for several, the kernel itself is returned. Nothing checks the arguments any more. (A batch of one command: 1 us
    instead of 6 us, and four times that when the caches are cold.)
    """
    overloads: list[Any] = list(getattr(function, "overloads", {}).values())
    return cast(_Function, overloads[0].entry_point) if len(overloads) == 1 else function


def quick(function: _Function) -> _Function:
    """The same, remembered: for functions that call a kernel, and have no place to keep its machine code in."""
    code = _machine_codes.get(function)
    if code is None:
        code = direct(function)
        if code is not function:
            _machine_codes[function] = code
    return cast(_Function, code)


_machine_codes: Final[dict[Any, Any]] = {}
"""Of kernels that have been compiled."""


def _with_plain_types(compiled: Any) -> Any:
    """Have a compiled function called from others with plain types: each constant argument, and each integer that a
    record keeps in fewer bits, would otherwise get a compilation of its own, a fifth of all the time that compiling
    takes."""
    get_call_template = compiled.get_call_template

    def get_plain(arguments: Any, keywords: Any) -> Any:
        return get_call_template(tuple(_plain_type(argument) for argument in arguments), keywords)

    compiled.get_call_template = get_plain
    return compiled


def _plain_type(argument: Any) -> Any:
    plain = numba.types.unliteral(argument)
    is_narrow = isinstance(plain, numba.types.Integer) and plain.signed and plain.bitwidth < 64
    return numba.types.int64 if is_narrow else plain


def kernel(function: _Function) -> _Function:
    """Compile a function over plain arrays and integers. It allocates nothing and never calls back into Python.

    Without Numba's reference counts (``_nrt=False``): they cost an atomic operation an array and call, which made
    a transfer take twice as long.
    """
    return _compile(function, is_cached=True, pipeline_class=KernelCompiler, no_cfunc_wrapper=True)


def called(function: _Function) -> _Function:
    """The same, for a part of kernels that is called from others only, never from Python: without the code that turns
    Python's arguments into its own, which takes longer to compile than most functions themselves."""
    return _compile(function, **PART_OPTIONS)


def inlined(function: _Function) -> _Function:
    """The same, for a part that is always inlined: a call would copy every field of every array it passes, some
    hundred and fifty words for a ledger's state."""
    return _compile(function, forceinline=True, **PART_OPTIONS)
