"""A real ZooKeeper server for tests, of Debian's packages: fetched once, unpacked in a cache folder, not installed."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType

from bezant.cli.ports import free_addresses

PACKAGES = (
    "libzookeeper-java",
    "libcommons-cli-java",
    "libcommons-io-java",
    "libdropwizard-metrics-java",
    "libfindbugs-annotations-java",
    "libguava-java",
    "libjackson2-annotations-java",
    "libjackson2-core-java",
    "libjackson2-databind-java",
    "libjetty9-extra-java",
    "libjetty9-java",
    "liblog4j1.2-java",
    "libnetty-java",
    "libservlet-api-java",
    "libslf4j-java",
    "libsnappy-java",
)
JAVA_PACKAGE = "openjdk-17-jre-headless"
FETCH_S = 300.0
START_S = 60.0


class CannotBeHad(Exception):
    """Neither this machine nor its package sources have what the server needs; the message says what is missing."""


def cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bezant-tests"


def unpacked(name: str, packages: tuple[str, ...]) -> Path:
    """The folder in which packages are unpacked, fetched if it is not there. Raises `CannotBeHad`."""
    folder = cache_folder() / name
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f"{name}-") as made:
        root = Path(made) / "root"
        try:
            _run("apt-get", "download", *packages, folder=made)
            for package in sorted(Path(made).glob("*.deb")):
                _run("dpkg-deb", "-x", package.name, "root", folder=made)
        except (OSError, subprocess.SubprocessError) as error:
            raise CannotBeHad(f"{' '.join(packages)}: cannot be fetched: {error}") from error
        if not folder.is_dir():  # another test run may have been quicker
            root.rename(folder)
    return folder


def _run(*words: str, folder: str) -> None:
    subprocess.run(words, cwd=folder, check=True, capture_output=True, timeout=FETCH_S)


def java() -> str:
    """The path of a Java. Raises `CannotBeHad`."""
    found = shutil.which("java")
    if found is None:
        installed = sorted(unpacked("java", (JAVA_PACKAGE,)).glob("usr/lib/jvm/*/bin/java"))
        if not installed:
            raise CannotBeHad(f"there is no java here, and {JAVA_PACKAGE} has none")
        found = str(installed[0])
    try:
        subprocess.run([found, "-version"], check=True, capture_output=True, timeout=START_S)
    except (OSError, subprocess.SubprocessError) as error:
        raise CannotBeHad(f"{found} does not run: {error}") from error
    return found


class ZooKeeperServer:
    """One server alone, with its data in a folder. A context manager; `stop` and `start` restart it there."""

    def __init__(self, folder: Path) -> None:
        """Raises `CannotBeHad`."""
        self._java = java()
        self._jars = unpacked("zookeeper", PACKAGES) / "usr/share/java"
        (self.address,) = free_addresses(1)
        self._log = folder / "zookeeper.log"
        self._settings = folder / "zoo.cfg"
        self._settings.write_text(
            f"tickTime=200\ndataDir={folder}\nclientPort={self.address.rpartition(':')[2]}\n"
            "clientPortAddress=127.0.0.1\nadmin.enableServer=false\n"
        )
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "ZooKeeperServer":
        self.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    self._java,
                    "-Xmx128m",
                    "-XX:TieredStopAtLevel=1",
                    "-cp",
                    f"{self._jars}/*",
                    "org.apache.zookeeper.server.quorum.QuorumPeerMain",
                    str(self._settings),
                ],
                stdout=log,
                stderr=log,
            )
        self._await_listening(time.monotonic() + START_S)

    def _await_listening(self, deadline_s: float) -> None:
        host, _, port = self.address.rpartition(":")
        while True:
            try:
                socket.create_connection((host, int(port)), 1.0).close()
            except OSError:
                assert self._process is not None
                if self._process.poll() is not None or time.monotonic() > deadline_s:
                    raise AssertionError(f"ZooKeeper does not start: {self._log.read_text()[-2000:]}") from None
                time.sleep(0.05)
            else:
                return

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
