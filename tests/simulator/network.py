"""The network between members: it delays, reorders, loses, repeats, clogs, cuts and resets. It damages nothing, as the
transport's checksums would find that."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from typing_extensions import Buffer

from bezant.protocol.transfer_messages import PeerMessage, decode_peer_message, encode_peer_message

from .schedule import Schedule

Link = tuple[int, int]
Deliver = Callable[[int, PeerMessage, memoryview], None]


class Weather(NamedTuple):
    """How bad the network is."""

    loss: float
    repeat: float
    delay_us_max: int


FINE = Weather(0.0, 0.0, 2_000)


class Network:
    """Links from each member to each other one."""

    def __init__(self, schedule: Schedule, counts: Counter[str], weather: Weather, deliver: Deliver) -> None:
        self._schedule = schedule
        self._counts = counts
        self._deliver = deliver
        self.weather = weather
        self.cut: set[Link] = set()
        self._clogged_until_us: dict[Link, int] = {}
        self._resets: Counter[Link] = Counter()

    def send(self, message: PeerMessage, buffers: Sequence[Buffer]) -> None:
        """Take a message; the bytes beside it are copied now."""
        link = (message.sender, message.receiver)
        weather, chance = self.weather, self._schedule.chance
        if link in self.cut:
            self._counts["messages cut off"] += 1
            return
        if weather.loss and chance("loss").random() < weather.loss:
            self._counts["messages lost"] += 1
            return
        body, payload = encode_peer_message(message), b"".join(buffers) if buffers else b""
        copies = 1
        if weather.repeat and chance("repeat").random() < weather.repeat:
            copies = 2
            self._counts["messages repeated"] += 1
        for _ in range(copies):
            delay_us = chance("delay").randrange(100, weather.delay_us_max + 101)
            clogged_us = self._clogged_until_us.get(link, 0) - self._schedule.now_us
            if clogged_us > 0:
                self._counts["messages clogged"] += 1
                delay_us += clogged_us
            self._schedule.after(delay_us, self._arrive, link, self._resets[link], body, payload)

    def _arrive(self, link: Link, resets: int, body: bytes, payload: bytes) -> None:
        if link not in self.cut and resets == self._resets[link]:
            self._deliver(link[1], decode_peer_message(body), memoryview(payload))

    def clog(self, link: Link, duration_us: int) -> None:
        """Nothing arrives for a while, and then all of it."""
        self._clogged_until_us[link] = self._schedule.now_us + duration_us

    def is_fine(self, link: Link) -> bool:
        """Whether a connection could be made."""
        return link not in self.cut and link[::-1] not in self.cut

    def reset(self, link: Link) -> None:
        """What is on its way is lost."""
        self._resets[link] += 1

    def heal(self) -> None:
        """End all faults."""
        self.weather = FINE
        self.cut.clear()
        self._clogged_until_us.clear()
