"""Claim: imports go downwards only, and what must stay light, pure or without I/O imports nothing that is not.

Every rule is a function over one syntax tree, so that it can be shown to find what it forbids.
"""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest

ROOMS = frozenset({"protocol", "engine", "net", "perf"})
EVERYTHING = ROOMS | {"bezant"}
MAY_IMPORT = {
    "protocol": frozenset({"protocol"}),
    "engine": frozenset({"protocol", "engine"}),
    "net": frozenset({"protocol", "engine", "net"}),
    "bezant": EVERYTHING,
    "perf": EVERYTHING,
    "tests": EVERYTHING,
}

# All that the protocol may stand on: pure computing. `names.py` alone reads a clock and the system's randomness, for
# the ids that clients make.
PROTOCOL_LIBRARIES = frozenset(
    {
        "blake3",
        "cryptography",
        "enum",
        "hmac",
        "msgspec",
        "numpy",
        "re",
        "struct",
        "typing",
        "typing_extensions",
        "xxhash",
    }
)
PROTOCOL_EXCEPTIONS = {"protocol/names.py": {"os": {"urandom"}, "time": {"time_ns"}}}
INPUT_AND_OUTPUT_CALLS = frozenset({"open", "input", "print", "exec", "eval", "__import__", "breakpoint"})

# Folders that hold pure state machines, and what would make them depend on anything but their input.
PURE_FOLDERS = ("engine/ledger/", "engine/raft/", "engine/transactions/")
IMPURE_MODULES = frozenset(
    {"asyncio", "datetime", "random", "secrets", "select", "socket", "ssl", "threading", "time", "uuid", "uvloop"}
)
# A secret salt keeps chosen ids from clogging a hash index. It moves rows within the index and reaches no output.
PURITY_EXCEPTIONS = {"engine/ledger/ledger.py": frozenset({"secrets"})}
GATEWAY_IMPORTS = (
    "bezant.net.access.addresses",
    "bezant.net.access.credentials",
    "bezant.net.access.tls",
    "bezant.net.client.",
    "bezant.net.gateway.",
    "bezant.net.metrics.",
    "bezant.protocol.",
)
NETWORK_MODULES = frozenset({"asyncio", "http", "select", "selectors", "socket", "socketserver", "ssl", "uvloop"})


def package_of(path: str) -> str:
    """The dotted package that a file's relative imports start from."""
    parents = PurePosixPath(path).parent.parts
    return ".".join(parents if parents[0] in {"bezant", "tests"} else ("bezant", *parents))


def imports_of(path: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, absolute dotted name) of every import, wherever it stands and however it is spelt."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = package_of(path).split(".")
                base = ".".join([*package[: len(package) - node.level + 1], *([base] if base else [])])
            for alias in node.names:
                yield node.lineno, f"{base}.{alias.name}"
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in {"import_module", "__import__"} and isinstance(node.args[0].value, str):
                yield node.lineno, node.args[0].value


def room_of(module: str) -> str | None:
    """The room that a module of ours belongs to; None for other people's modules."""
    first, _, rest = module.partition(".")
    if first != "bezant":
        return None
    second = rest.partition(".")[0]
    return second if second in ROOMS else "bezant"


def wrong_directions(path: str, tree: ast.Module) -> list[str]:
    """Imports that go upwards, that name a room without `bezant.`, or that take the tests for product."""
    folder = path.partition("/")[0]
    allowed = MAY_IMPORT[folder]
    bare = ROOMS if folder == "tests" else ROOMS | {"tests"}
    found = []
    for line, module in imports_of(path, tree):
        room = room_of(module)
        if room is not None and room not in allowed:
            found.append(f"{path}:{line} must not import {module}")
        if module.partition(".")[0] in bare:
            found.append(f"{path}:{line} imports {module} by its folder's name")
    return found


def protocol_impurities(path: str, tree: ast.Module) -> list[str]:
    """What a file of the protocol does that could be input, output, time or chance."""
    exceptions = PROTOCOL_EXCEPTIONS.get(path, {})
    found = []
    for line, module in imports_of(path, tree):
        first = module.partition(".")[0]
        if first not in PROTOCOL_LIBRARIES and first != "bezant" and module not in exceptions:
            found.append(f"{path}:{line} imports {module}")
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            allowed = exceptions.get(node.value.id)
            if allowed is not None and node.attr not in allowed:
                found.append(f"{path}:{node.lineno} uses {node.value.id}.{node.attr}")
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in INPUT_AND_OUTPUT_CALLS:
            found.append(f"{path}:{node.lineno} calls {node.func.id}()")
    return found


def forbidden_imports(path: str, tree: ast.Module, forbidden: frozenset[str]) -> list[str]:
    """Imports of the forbidden libraries, and of the random numbers that NumPy brings along."""
    found = []
    for line, module in imports_of(path, tree):
        if module.partition(".")[0] in forbidden or module.startswith("numpy.random"):
            found.append(f"{path}:{line} imports {module}")
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node) in {"np.random", "numpy.random"}:
            found.append(f"{path}:{node.lineno} uses numpy.random")
    return found


def test_imports_go_downwards_only(trees: dict[str, ast.Module]) -> None:
    assert [fault for path, tree in trees.items() for fault in wrong_directions(path, tree)] == []


def test_the_protocol_does_no_input_or_output(trees: dict[str, ast.Module]) -> None:
    own = {path: tree for path, tree in trees.items() if path.startswith("protocol/")}
    assert own
    assert [fault for path, tree in own.items() for fault in protocol_impurities(path, tree)] == []


def test_state_machines_have_no_clock_no_chance_and_no_sockets(trees: dict[str, ast.Module]) -> None:
    own = {path: tree for path, tree in trees.items() if path.startswith(PURE_FOLDERS)}
    found = []
    for path, tree in own.items():
        found += forbidden_imports(path, tree, IMPURE_MODULES - PURITY_EXCEPTIONS.get(path, frozenset()))
    assert found == []


def gateway_excesses(path: str, tree: ast.Module) -> list[str]:
    """What a file of the gateway imports of ours beside the client, what it shows, and the protocol: no engine."""
    return [
        f"{path}:{line} must not import {module}"
        for line, module in imports_of(path, tree)
        if room_of(module) is not None and not module.startswith(GATEWAY_IMPORTS)
    ]


def test_the_gateway_stands_on_the_client_alone(trees: dict[str, ast.Module]) -> None:
    own = {path: tree for path, tree in trees.items() if path.startswith("net/gateway/")}
    assert own
    assert [fault for path, tree in own.items() for fault in gateway_excesses(path, tree)] == []


@pytest.mark.parametrize(
    "source",
    [
        "from bezant.net.server import serve",
        "import bezant.engine.log",
        "from bezant.net import embedded",
        "import bezant.net.access.guard",
    ],
)
def test_the_rule_of_the_gateway_finds(source: str) -> None:
    assert len(gateway_excesses("net/gateway/a.py", ast.parse(source))) == 1


def test_the_engine_has_no_network(trees: dict[str, ast.Module]) -> None:
    own = {path: tree for path, tree in trees.items() if path.startswith("engine/")}
    assert [fault for path, tree in own.items() for fault in forbidden_imports(path, tree, NETWORK_MODULES)] == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("protocol/a.py", "import bezant.engine.log"),
        ("protocol/a.py", "from bezant import engine"),
        ("protocol/a.py", "from ..net import server"),
        ("protocol/a.py", "def later():\n    from bezant.net import server"),
        ("engine/log/a.py", "from bezant.net.server import Server"),
        ("engine/log/a.py", "from ...net.server import Server"),
        ("engine/log/a.py", "from bezant import connect"),
        ("engine/a.py", "import bezant"),
        ("engine/a.py", "import importlib\nimportlib.import_module('bezant.net')"),
        ("net/a.py", "from bezant.cli import main"),
        ("net/a.py", "from bezant.perf import load"),
        ("bezant/cli/a.py", "import engine"),
        ("perf/a.py", "from protocol.names import account_id"),
        ("tests/a.py", "import net.client"),
        ("tests/a.py", "__import__('perf')"),
        ("bezant/a.py", "from tests.engine import model"),
    ],
)
def test_the_direction_rule_finds(path: str, source: str) -> None:
    assert len(wrong_directions(path, ast.parse(source))) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("protocol/a.py", "from .names import account_id\nfrom bezant.protocol import money"),
        (
            "engine/log/a.py",
            "from bezant.protocol.records import EVENT\nfrom .segment import Segment\nfrom .. import b",
        ),
        ("net/a.py", "from bezant.engine.log import Log\nfrom . import frames"),
        ("bezant/__init__.py", "from .net import client\nimport network, engineering"),
        ("tests/engine/a.py", "from bezant.engine import ledger\nfrom .model import Model"),
    ],
)
def test_the_direction_rule_allows(path: str, source: str) -> None:
    assert wrong_directions(path, ast.parse(source)) == []


@pytest.mark.parametrize(
    "source",
    [
        "import socket",
        "import asyncio",
        "from pathlib import Path",
        "import time",
        "from os import urandom",
        "import numba",
        "open('x')",
        "print('x')",
    ],
)
def test_the_protocol_rule_finds(source: str) -> None:
    assert len(protocol_impurities("protocol/frames.py", ast.parse(source))) == 1


@pytest.mark.parametrize("source", ["import os\nos.open('x', 0)", "import time\ntime.sleep(1)", "from os import open"])
def test_the_protocol_rule_keeps_its_exceptions_narrow(source: str) -> None:
    assert len(protocol_impurities("protocol/names.py", ast.parse(source))) == 1


@pytest.mark.parametrize(
    "source",
    ["import time", "from datetime import datetime", "import numpy as np\nnp.random.default_rng()", "import random"],
)
def test_the_purity_rule_finds(source: str) -> None:
    assert len(forbidden_imports("engine/ledger/a.py", ast.parse(source), IMPURE_MODULES)) == 1


HEAVY = frozenset({"numba", "llvmlite", "rocksdict", "cryptography"})


def modules_after(statement: str) -> set[str]:
    """Names of all modules that a fresh interpreter has loaded after running the statement."""
    program = f"{statement}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    completed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert completed.returncode == 0, completed.stderr
    return set(json.loads(completed.stdout))


@pytest.mark.parametrize(
    ("statement", "needs", "text"),
    [
        ("import bezant", "bezant/__init__.py", ""),
        ("import bezant.net.client", "net/client", ""),
        ("import bezant; bezant.connect", "bezant/__init__.py", "connect"),
        ("import bezant; bezant.connect_blocking", "bezant/__init__.py", "connect_blocking"),
    ],
)
def test_the_client_is_light(root: Path, statement: str, needs: str, text: str) -> None:
    """Whoever only talks to a node must not wait for a compiler or a storage engine to load, nor need them."""
    place = root / needs
    if not place.exists() or (text and text not in place.read_text(encoding="utf-8")):
        pytest.skip(f"{needs} does not have this part yet")
    loaded = modules_after(statement)
    heavy = {name for name in loaded if name.partition(".")[0] in HEAVY}
    assert heavy == set()
    assert {name for name in loaded if name.startswith("bezant.engine")} == set()


def test_the_gateway_loads_no_kind_of_body_but_its_own() -> None:
    """Whatever else is installed: a library that is there by chance takes its time at each start."""
    loaded = modules_after(
        "from unittest.mock import MagicMock as M\nfrom bezant.net.gateway.application import make_application\n"
        "make_application(M(), M(), M(), None)"
    )
    assert {name.partition(".")[0] for name in loaded} & {"pydantic", "attr", "attrs"} == set()
