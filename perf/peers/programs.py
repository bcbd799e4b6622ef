"""Where the servers' programs are: on this machine already, or fetched from Debian's packages without being root.

What is fetched goes to the user's cache folder (``$XDG_CACHE_HOME/bezant/peers``), package files and what is in them,
and is found there the next time. Nothing is installed: apt-get only resolves and downloads, dpkg-deb only unpacks.
"""

import fcntl
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from bezant.cli.errors import CommandFailed

FETCH_TIMEOUT_S: Final = 300.0
"""For one call of apt-get or dpkg-deb."""
_VERSION_TIMEOUT_S: Final = 20.0
_TOLD_SIZE_MAX: Final = 300
_NEW_PACKAGE: Final = re.compile(r"^Inst (\S+)", re.MULTILINE)
# PostgreSQL loads them only to compile queries, which is switched off; they are a hundred megabytes.
_NOT_NEEDED: Final = ("libllvm", "libz3")

Say = Callable[[str], None]


class PeerUnavailable(CommandFailed):
    """The programs of a peer cannot be had on this machine."""


class Wanted(NamedTuple):
    """A server to look for: its Debian package, the programs that must lie together, and patterns of folders that
    have them though they are not on the PATH, which hold below the top of unpacked packages too."""

    package: str
    programs: tuple[str, ...]
    folders: tuple[str, ...]


POSTGRES: Final = Wanted("postgresql", ("postgres", "initdb"), ("usr/lib/postgresql/*/bin",))
CHROMIUM: Final = Wanted("chromium-headless-shell", ("chromium-headless-shell",), ("usr/lib/chromium",))
REDIS: Final = Wanted("redis-server", ("redis-server",), ("usr/bin",))


class Programs(NamedTuple):
    """The programs of one server. ``top`` is where its packages were unpacked, None if it is installed."""

    folder: Path
    version: str
    top: Path | None

    def environment(self) -> dict[str, str]:
        """What the programs need in their environment: nothing of ours, and their own libraries if unpacked."""
        found = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
        if self.top is not None:
            folders = ("usr/lib/*-linux-gnu", "lib/*-linux-gnu", "usr/lib/*-linux-gnu/pulseaudio")
            libraries = [library for pattern in folders for library in self.top.glob(pattern)]
            found["LD_LIBRARY_PATH"] = ":".join(map(str, libraries))
        return found

    def copied_to(self, top: Path) -> "Programs":
        """The same programs in another place, if they were unpacked: for a user who cannot read the cache folder."""
        if self.top is None:
            return self
        shutil.copytree(self.top, top, symlinks=True)
        return self._replace(folder=top / self.folder.relative_to(self.top), top=top)


def cache_folder() -> Path:
    """Where fetched packages are kept."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "bezant" / "peers"


def have_programs(wanted: Wanted, say: Say, cache: Path | None = None) -> Programs:
    """Find the programs, or fetch them, and say what is fetched. Raises `PeerUnavailable`."""
    installed = _find_installed(wanted)
    if installed is not None:
        return _described(wanted, installed, None)
    top = (cache or cache_folder()) / wanted.package
    if not top.is_dir():
        try:
            with _alone(top.parent):
                if not top.is_dir():
                    _fetch(wanted, top, say)
        except OSError as error:
            raise PeerUnavailable(f"{wanted.package} cannot be fetched: {error}") from error
    folder = _find_below(wanted, top)
    if folder is None:
        raise PeerUnavailable(f"{' and '.join(wanted.programs)} are not in {top}", "remove that folder and try again")
    return _described(wanted, folder, top)


def _find_installed(wanted: Wanted) -> Path | None:
    found = shutil.which(wanted.programs[0])
    if found is not None:
        folder = Path(found).resolve().parent
        # Where a program is a link to another name, its folder is the link's.
        for candidate in (folder, Path(found).parent):
            if _has_all(candidate, wanted):
                return candidate
    return _find_below(wanted, Path("/"))


def _find_below(wanted: Wanted, top: Path) -> Path | None:
    folders = [folder for pattern in wanted.folders for folder in top.glob(pattern) if _has_all(folder, wanted)]
    return max(folders, key=lambda folder: [int(part) for part in re.findall(r"\d+", str(folder))], default=None)


def _has_all(folder: Path, wanted: Wanted) -> bool:
    return all(os.access(folder / program, os.X_OK) for program in wanted.programs)


def _described(wanted: Wanted, folder: Path, top: Path | None) -> Programs:
    programs = Programs(folder, "", top)
    command = [str(folder / wanted.programs[0]), "--version"]
    told = _run(command, _VERSION_TIMEOUT_S, environment=programs.environment())
    return programs._replace(version=told.strip().splitlines()[0] if told.strip() else "unknown")


# ---- fetching ----


@contextmanager
def _alone(cache: Path) -> Iterator[None]:
    """One fetches at a time: the package lists are of all, and apt-get, without rights, locks nothing."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _fetch(wanted: Wanted, top: Path, say: Say) -> None:
    """Download the package with all that it needs and this machine lacks, and unpack it to `top`, whole or not."""
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise PeerUnavailable(
                f"{wanted.package} is not installed, and without {tool} it cannot be fetched", "install it"
            )
    files = top.with_name(f"{top.name}.{os.getpid()}.packages")
    files.mkdir()
    options = _apt_options(top.parent)
    packages = _resolve(wanted, options, say)
    say(f"fetching {', '.join(packages)} from Debian's packages to {top}")
    _run(["apt-get", *options, "download", *packages], FETCH_TIMEOUT_S, folder=files)
    unpacked = top.with_name(f"{top.name}.{os.getpid()}.new")
    try:
        for package in sorted(files.glob("*.deb")):
            _run(["dpkg-deb", "-x", str(package), str(unpacked)], FETCH_TIMEOUT_S)
        unpacked.rename(top)
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)
        shutil.rmtree(files, ignore_errors=True)


def _apt_options(cache: Path) -> list[str]:
    """Options with which apt-get needs no rights: package lists, locks and caches of our own.

    Downloads run as ourselves, also if we are root, because the folder is ours alone.
    """
    lists = cache / "lists"
    options = ["-o", "Debug::NoLocking=1", "-o", "APT::Sandbox::User=", "-o", f"Dir::Cache={cache / 'apt'}"]
    for folder in (lists / "partial", cache / "apt" / "archives" / "partial"):
        folder.mkdir(parents=True, exist_ok=True)
    return [*options, "-o", f"Dir::State::Lists={lists}"]


def _resolve(wanted: Wanted, options: Sequence[str], say: Say) -> list[str]:
    """The package and what it needs that is not installed, by package lists of our own, which may be newer."""
    command = ["apt-get", *options, "--simulate", "--no-install-recommends", "install", wanted.package]
    say(f"asking Debian's package lists for {wanted.package}")
    _run(["apt-get", *options, "update"], FETCH_TIMEOUT_S)
    found = [name for name in _NEW_PACKAGE.findall(_run(command, FETCH_TIMEOUT_S)) if not name.startswith(_NOT_NEEDED)]
    if not found:
        raise PeerUnavailable(f"{wanted.package} is installed, but {' and '.join(wanted.programs)} cannot be found")
    return found


def _run(
    command: Sequence[str], timeout_s: float, *, folder: Path | None = None, environment: dict[str, str] | None = None
) -> str:
    """Run a program to its end and return what it wrote. Raises `PeerUnavailable` if it fails."""
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment or {**os.environ, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PeerUnavailable(f"{command[0]} cannot be run: {error}") from error
    if done.returncode:
        told = " | ".join(line for line in done.stderr.splitlines() if line.strip())
        raise PeerUnavailable(f"{Path(command[0]).name} failed with status {done.returncode}: {told[-_TOLD_SIZE_MAX:]}")
    return done.stdout
