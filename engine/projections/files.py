"""The files of projections: which count, how they are found whole again, how they are sealed and merged.

Order of writes, each durable before the next: the new files; the database, which names them; then those that it names
no more are removed. Whatever a crash leaves between two of them, the database names files that are whole.
"""

import contextlib
from collections.abc import Callable
from contextlib import closing
from typing import Final, NamedTuple

import msgspec
import numpy as np

from bezant.engine.ids.merge import Merge
from bezant.engine.ids.merge import plan_merge as plan_id_merge
from bezant.engine.ids.run import RunIdentity, RunInfo, run_name, write_run
from bezant.engine.ids.run_set import RunSet, open_runs
from bezant.engine.ledger.ledger import new_salts
from bezant.engine.log.resume import ResumePoint
from bezant.engine.log.storage import Directory, FolderLock
from bezant.engine.projections.layout import ACCOUNT_OPENED, ACCOUNT_WORDS
from bezant.engine.projections.merging import merge_spans, plan_merge
from bezant.engine.projections.span import Span, SpanInfo, open_span, span_name, write_span
from bezant.engine.projections.store import FORMAT_VERSION, Identity, Manifest, Store, remove_store
from bezant.engine.projections.tables import ACCOUNTS_PER_BLOCK, Tables
from bezant.protocol.errors import CorruptLog, LedgerError, StorageError
from bezant.protocol.records import Words

STORE_NAME: Final = "store"
FREE_SPACE_FLOOR: Final = 512 << 20
"""Bytes that stay free on the file system: twice of what a node's log leaves, so that the log never waits for this."""
FREE_SPACE_FOR_SEALS: Final = 64 << 20
"""Bytes besides those, for what is in memory and not sealed yet."""
_ID_BYTES_MAX: Final = 20
"""Bytes of a file of ids for each."""
Swap = Callable[[Callable[[], None]], None]
"""Runs a function while nobody asks."""


class Sealing(NamedTuple):
    """What is to be made durable together, as it was at the end of its last block."""

    spans: tuple[Span, ...]
    ids: tuple[tuple[Words, Words], ...]
    sequence: int
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    timestamp_ns: int
    accounts: dict[int, bytes]
    account_count: int
    currencies: tuple[tuple[str, int], ...]
    resume_point: ResumePoint | None


class Files:
    """What is durable. Changed by one thread; `spans` and `runs` are exchanged whole, and only within a `Swap`."""

    def __init__(
        self,
        directory: Directory,
        lock: FolderLock,
        store: Store,
        identity: Identity,
        manifest: Manifest,
        *,
        fan_in: int,
        filter_bytes_max: int,
    ) -> None:
        self.manifest = manifest
        self.spans: tuple[Span, ...] = ()
        self.runs = RunSet(())
        self.tables = Tables(manifest.salts)
        self.resume_point: ResumePoint | None = None
        self._directory = directory
        self._lock = lock
        self._store = store
        self._identity = identity
        self._fan_in = fan_in
        self._filter_bytes_max = filter_bytes_max
        self._stopping = False

    @property
    def _run_identity(self) -> RunIdentity:
        # Runs want a number for the log: the public id is one, too.
        log_id = int.from_bytes(bytes.fromhex(self._identity.log_id), "little", signed=True)
        return RunIdentity(self._identity.shard, log_id, *self.manifest.salts)

    # ---- open ----

    def load(self, on_notice: Callable[[str], None]) -> None:
        """Open everything that counts; what is behind damage is given up. Raises `StorageError` if nothing is left."""
        _check_manifest(self.manifest)
        self.runs = open_runs(self._directory, self._run_identity, self.manifest.runs, self._filter_bytes_max)
        spans: list[Span] = []
        for info in self.manifest.spans:
            try:
                spans.append(open_span(self._directory, self._identity.log_id, info))
            except CorruptLog as error:
                on_notice(f"{error}; what comes from event {info.first_sequence} on is made again from the log")
                break
        tables, accounts = self.tables, self.manifest.account_count
        for code, decimals in self.manifest.currencies:
            tables.register_currency(code, decimals)
        blocks = [self._store.read_accounts(block) for block in range(-(-accounts // ACCOUNTS_PER_BLOCK))]
        if len(spans) < len(self.manifest.spans):
            accounts = self._give_up_behind(spans, blocks)
        tables.restore_accounts(blocks, accounts)
        for span in spans:
            tables.restore_span(span)
        self.spans = tuple(spans)
        point = self._store.read_resume_point()
        if point is not None and point.next_sequence <= self.manifest.sequence + 1:
            self.resume_point = point
        self._clean()

    def _give_up_behind(self, spans: list[Span], blocks: list[bytes]) -> int:
        """Let the manifest end with these spans; the number of accounts that had been opened by then."""
        sequence = spans[-1].last_sequence if spans else 0
        opened = np.frombuffer(b"".join(blocks), np.int64).reshape(-1, ACCOUNT_WORDS)
        count = int(np.searchsorted(opened[:, ACCOUNT_OPENED], sequence, side="right"))
        self._write(
            msgspec.structs.replace(
                self.manifest,
                sequence=sequence,
                index=0,
                timestamp_ns=spans[-1].timestamp_ns if spans else 0,
                spans=self.manifest.spans[: len(spans)],
                account_count=count,
            )
        )
        return count

    def _clean(self) -> None:
        """Remove files that nothing names: a crash left them."""
        self._directory.remove_unfinished()
        named = {span_name(info.number) for info in self.manifest.spans}
        named |= {run_name(info.number) for info in self.manifest.runs}
        for name in self._directory.names():
            if name.startswith(("index-", "ids-")) and name not in named:
                self._directory.remove(name)

    # ---- seal and merge; one thread ----

    def seal(self, sealing: Sealing, swap: Swap) -> None:
        """Make blocks durable: as files first, then all together in the database."""
        if sealing.spans[0].first_sequence != self.manifest.sequence + 1:
            raise LedgerError(
                f"a seal that begins at {sealing.spans[0].first_sequence} follows one that ends at "
                f"{self.manifest.sequence}"
            )
        span = merge_spans(sealing.spans)
        if not self._has_room(span.lists.size_bytes + _ID_BYTES_MAX * sum(len(pair[0]) for pair in sealing.ids)):
            raise StorageError(
                f"{self._directory.path}: less than {FREE_SPACE_FLOOR >> 20} MiB would be free on the disk; what can "
                "be asked about the past stays behind until there is more room"
            )
        number = self.manifest.number_next
        info = write_span(self._directory, self._identity.log_id, number, span)
        runs, number = self.manifest.runs, number + 1
        hashes = np.concatenate([pair[0] for pair in sealing.ids])
        if len(hashes):
            values = np.concatenate([pair[1] for pair in sealing.ids])
            runs = (write_run(self._directory, self._run_identity, number, hashes, values, 0), *runs)
            number += 1
        manifest = msgspec.structs.replace(
            self.manifest,
            sequence=sealing.sequence,
            index=sealing.index,
            timestamp_ns=sealing.timestamp_ns,
            spans=(*self.manifest.spans, info),
            runs=runs,
            account_count=sealing.account_count,
            currencies=sealing.currencies,
            number_next=number,
        )
        self._write(manifest, accounts=sealing.accounts, resume_point=sealing.resume_point)
        spans = (*self.spans, open_span(self._directory, self._identity.log_id, info))
        self._exchange(spans, self._open_runs(), swap)

    def merge(self, swap: Swap) -> None:
        """Merge what is due, until nothing is or the stop is near."""
        while not self._stopping and (self._merge_spans(swap) or self._merge_runs(swap)):
            pass

    def _merge_spans(self, swap: Swap) -> bool:
        seal_events = self._identity.block_events * self._identity.blocks_per_seal
        chosen = plan_merge(self.manifest.spans, seal_events, self._fan_in)
        if not chosen:
            return False
        first, count = self.manifest.spans.index(chosen[0]), len(chosen)
        if not self._has_room(sum(span.lists.size_bytes for span in self.spans[first : first + count])):
            return False
        merged = merge_spans(self.spans[first : first + count])
        number = self.manifest.number_next
        info = write_span(self._directory, self._identity.log_id, number, merged)
        infos: tuple[SpanInfo, ...] = (*self.manifest.spans[:first], info, *self.manifest.spans[first + count :])
        self._write(msgspec.structs.replace(self.manifest, spans=infos, number_next=number + 1))
        opened = open_span(self._directory, self._identity.log_id, info)
        self._exchange((*self.spans[:first], opened, *self.spans[first + count :]), self.runs, swap)
        for old in chosen:
            self._directory.remove(span_name(old.number))
        return True

    def _merge_runs(self, swap: Swap) -> bool:
        chosen = plan_id_merge(self.manifest.runs)
        if not chosen or not self._has_room(sum(info.size_bytes for info in chosen)):
            return False
        number = self.manifest.number_next
        try:
            merge = Merge(self._directory, self._run_identity, chosen, number)
            with closing(iter(merge)) as steps:
                for _ in steps:
                    if self._stopping:
                        return False
        except CorruptLog as error:
            raise self.damaged_runs(error) from error
        numbers = {info.number for info in chosen}
        place = next(place for place, info in enumerate(self.manifest.runs) if info.number in numbers)
        runs: tuple[RunInfo, ...] = (
            *self.manifest.runs[:place],
            merge.info,
            *self.manifest.runs[place + len(numbers) :],
        )
        self._write(msgspec.structs.replace(self.manifest, runs=runs, number_next=number + 1))
        self._exchange(self.spans, self._open_runs(), swap)
        for old in chosen:
            self._directory.remove(run_name(old.number))
        return True

    def _has_room(self, size_bytes: int) -> bool:
        """Whether the disk has room for a file, and more than the log leaves free besides."""
        return self._directory.free_bytes() - size_bytes >= FREE_SPACE_FLOOR

    def _open_runs(self) -> RunSet:
        return open_runs(self._directory, self._run_identity, self.manifest.runs, self._filter_bytes_max, self.runs)

    def _exchange(self, spans: tuple[Span, ...], runs: RunSet, swap: Swap) -> None:
        def change() -> None:
            self.spans, self.runs = spans, runs

        swap(change)

    def _write(
        self,
        manifest: Manifest,
        accounts: dict[int, bytes] | None = None,
        resume_point: ResumePoint | None = None,
    ) -> None:
        self._store.write(manifest=manifest, identity=self._identity, accounts=accounts, resume_point=resume_point)
        self.manifest = manifest

    # ---- end ----

    def condemn(self, name: str) -> None:
        """Remove a file that was found damaged, so that the next opening makes it again."""
        self._directory.remove(name)

    def damaged_runs(self, error: CorruptLog) -> CorruptLog:
        """The same for all files of ids that count, one of which was found damaged: what to raise for that."""
        for info in self.manifest.runs:
            with contextlib.suppress(FileNotFoundError):  # condemned already, or just merged into another
                (self._directory.path / run_name(info.number)).unlink()
        # What files of ids say themselves is for those of checkpoints.
        found = str(error.args[0]).partition(";")[0]
        return CorruptLog(
            f"the index of ids is damaged: {found}; it is made again from the log when the reader is started again"
        )

    def stop(self) -> None:
        """Give up the merge that is under way; none is begun any more."""
        self._stopping = True

    def close(self) -> None:
        """Close the database and let others have the folder."""
        self._store.close()
        self._lock.release()


def open_files(
    directory: Directory,
    *,
    log_id: str,
    shard: int,
    block_events: int,
    blocks_per_seal: int,
    fan_in: int,
    filter_bytes_max: int,
    on_notice: Callable[[str], None],
) -> Files:
    """Open a folder; what is of another log, or cannot be read, is said, removed and begun anew.

    Raises `DataFolderInUse`, `StorageError`.
    """
    directory.create()
    lock = directory.lock()
    identity = Identity(FORMAT_VERSION, log_id, shard, block_events, blocks_per_seal)
    try:
        for is_last_try in (False, True):
            store: Store | None = None
            try:
                store = Store(directory.path / STORE_NAME)
                found = store.read_identity()
                if found is not None and found != identity:
                    raise StorageError(_describe_other(found, identity))
                manifest = store.read_manifest() or Manifest(salts=new_salts())
                files = Files(
                    directory, lock, store, identity, manifest, fan_in=fan_in, filter_bytes_max=filter_bytes_max
                )
                files.load(on_notice)
            except StorageError as error:
                if store is not None:
                    store.close()
                if is_last_try:
                    raise
                on_notice(f"{directory.path}: {error}; all of it is made again from the log")
                _remove_all(directory)
                continue
            return files
        raise StorageError(f"{directory.path}: cannot be begun anew")
    except BaseException:
        lock.release()
        raise


def _check_manifest(manifest: Manifest) -> None:
    """Raise `StorageError` unless the files that count follow one another and end where the manifest says."""
    last = 0
    for info in manifest.spans:
        if info.first_sequence != last + 1:
            raise StorageError(f"the index {info.number} begins at event {info.first_sequence}, behind event {last}")
        last = info.last_sequence
    if last != manifest.sequence:
        raise StorageError(f"the indexes end at event {last}, and not at {manifest.sequence}")


def _describe_other(found: Identity, expected: Identity) -> str:
    if (found.log_id, found.shard) != (expected.log_id, expected.shard):
        return f"the folder is of log {found.log_id}, shard {found.shard}, and not of {expected.log_id}"
    return f"the folder was made by other settings or in another format ({found.format_version})"


def _remove_all(directory: Directory) -> None:
    remove_store(directory.path / STORE_NAME)
    directory.remove_unfinished()
    for name in directory.names():
        if name.startswith(("index-", "ids-")):
            directory.remove(name)
