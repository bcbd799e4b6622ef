"""Every exception of Bezant is told as whose fault it is, what happened, and what to do next."""

import asyncio
import socket
import threading
from pathlib import Path

import pytest

import bezant
import bezant.protocol.errors as tree
from bezant.cli.errors import InputFileError, OutcomeNotKnown, describe, exit_status
from bezant.cli.main import main
from bezant.net.client.channel import OutcomeUnknown, unknown_results
from bezant.protocol.errors import BezantError, InvalidAmountOrName, RequestRefused, UsageError
from bezant.protocol.frames import FrameError


def _classes(root: type[BezantError]) -> list[type[BezantError]]:
    return [root, *(found for child in root.__subclasses__() for found in _classes(child))]


RECOVER = "--i-accept-that-acknowledged-transfers-may-be-lost"
PROTOCOL_CLASSES = [kind for kind in _classes(BezantError) if kind.__module__ == tree.__name__]


@pytest.mark.parametrize("kind", PROTOCOL_CLASSES)
def test_every_class_has_words_of_its_own(kind: type[BezantError]) -> None:
    error = kind(7, "the story") if issubclass(kind, RequestRefused) else kind("the story")
    line = describe(error)
    fault, story = line.split(": ", 1)
    assert fault
    assert story.startswith("the story")
    assert "\n" not in line
    if kind is not BezantError:
        assert "; " in story, "a next step is missing"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InvalidAmountOrName("x"), 1),
        (InputFileError("x"), 1),
        (OutcomeNotKnown("x", "y"), 1),
        (UsageError("x"), 2),
        (OutcomeUnknown("x", unknown_results(0), unknown_results(0)), 1),
    ],
)
def test_statuses(error: BezantError, status: int) -> None:
    assert exit_status(error) == status


def test_an_error_without_words_is_told_by_its_class() -> None:
    assert describe(BezantError()) == "failed: BezantError"


@pytest.mark.parametrize(
    ("code", "advice"), [(FrameError.OVERLOADED, "try again"), (FrameError.REQUEST_REFUSED, "correct the request")]
)
def test_who_is_refused_for_now_is_told_to_try_again(code: FrameError, advice: str) -> None:
    assert advice in describe(RequestRefused(int(code), "the story"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one currency and one account."""
    folder = tmp_path_factory.mktemp("errors") / "data"

    async def make() -> None:
        async with bezant.open(folder) as wallet:
            await wallet.open_account("ann", "EUR")

    asyncio.run(make())
    return folder


@pytest.mark.parametrize(
    "words",
    [
        ("transfers", "--account", "nobody", "--currency", "EUR"),
        ("holds", "--account", "nobody", "--currency", "EUR"),
        ("statement", "nobody", "EUR"),
        ("balance", "nobody", "EUR"),
    ],
)
def test_an_account_that_is_not_there_is_not_one_that_nothing_happened_to(
    data: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    assert main([*words, "--data", str(data)]) == 1
    told = capsys.readouterr().err
    assert told == "bezant: your input: there is no account 'nobody' in EUR; open it: bezant open nobody EUR\n"
    assert main(["transfers", "--account", "nobody", "--currency", "EUR", "--refused", "--data", str(data)]) == 0


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (("snapshot", "restore", "zz", "--data", "again"), "your input: zz has no snapshots; correct the command"),
        (("snapshot", "list", "none://x"), "your input: none://x: Protocol not known: none; correct the command"),
        (
            ("tokens", "generate", "--out", "."),
            "your input: the token cannot be written to .: File exists; give another",
        ),
        (
            ("members", "recover", "--data", "absent", "--node", "1", RECOVER),
            "your input: absent belongs to no group, not to node 1; name that node and its own folder",
        ),
        (
            ("transaction", "--file", "absent"),
            "your input: absent cannot be read: No such file or directory; name a file",
        ),
    ],
)
def test_what_is_not_there_is_said_once_and_with_what_to_do(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    fault: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(list(words)) == 1
    assert capsys.readouterr().err.startswith(f"bezant: {fault}")


def test_what_is_no_gateway_is_told_from_one_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"

        def answer() -> None:
            asking, _ = listening.accept()
            with asking:
                asking.recv(1 << 16)
                asking.sendall(b"\xff\xd0frames, as a node has them\r\n")

        answering = threading.Thread(target=answer)
        answering.start()
        assert main(["webhooks", "list", "--gateway", url]) == 1
        answering.join()
    assert capsys.readouterr().err == f"bezant: failed: {url} does not speak HTTP; name the address of a gateway\n"
    assert main(["webhooks", "list", "--gateway", url]) == 1
    assert "does not answer: [Errno 111] Connection refused; is it" in capsys.readouterr().err
