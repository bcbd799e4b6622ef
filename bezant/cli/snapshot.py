"""`bezant snapshot`: makes, lists, restores and deletes snapshots, in a folder or at any address that fsspec knows."""

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bezant.cli.errors import CommandFailed, InputWrong
from bezant.cli.output import write_json, write_line, write_remark, write_table
from bezant.cli.progress import progress
from bezant.cli.session import add_json_argument, check_data_folder, positive_count, run_async
from bezant.protocol.errors import CorruptLog, UsageError

if TYPE_CHECKING:
    from bezant.engine.archive.manifest import SnapshotManifest

MIB = 1 << 20
_TARGET = "a folder, or an address such as s3://BUCKET/PATH, hdfs://HOST/PATH"
_HEADINGS = ("snapshot", "made", "shard", "entries", "events", "size", "history", "erased since", "state digest")
_RIGHT = frozenset({"shard", "entries", "events", "size", "erased since"})


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the arguments of `bezant snapshot`."""
    parser = subparsers.add_parser(
        "snapshot",
        description="Make, list, restore and delete snapshots: all that a node needs to be what it was at a position,"
        " proven by its digest. A target is a folder or any address that fsspec knows; where its library takes"
        " credentials from the environment, so does this.",
    )
    actions = parser.add_subparsers(dest="action", metavar="create|list|restore|delete", required=True)
    create = actions.add_parser(
        "create",
        description="Make a snapshot of a data folder, whose node may run: of all that is committed and durable there."
        " Files that an earlier snapshot has are not written again; all are read back before the snapshot counts.",
    )
    create.add_argument("target", metavar="TARGET", help=_TARGET)
    create.add_argument("--data", metavar="DIR", type=Path, required=True, help="the data folder")
    create.set_defaults(act=_create)
    listing = actions.add_parser(
        "list",
        description="List the snapshots at a target. `erased since` is of how many subjects one has metadata that has"
        " been erased or replaced since, as far as the newest snapshot of the same log knows: see `delete --erased`.",
    )
    listing.add_argument("target", metavar="TARGET", help=_TARGET)
    listing.set_defaults(act=_list)
    restore = actions.add_parser(
        "restore",
        description="Make a data folder of a snapshot. It is there when executing what lies behind its checkpoint has"
        " led to the digest of the snapshot, and not before. What was acknowledged after it is not in it; nor is"
        " metadata that was erased after it, as far as a newer snapshot of the same log at the target knows.",
    )
    restore.add_argument("target", metavar="TARGET", help=_TARGET)
    restore.add_argument("--data", metavar="DIR", type=Path, required=True, help="a folder that is empty or not there")
    restore.add_argument("--snapshot", metavar="NAME", default="", help="which one, by the beginning of its name or of"
                         " its digest (default: the newest)")  # fmt: skip
    restore.add_argument(
        "--as-lost-node",
        action="store_true",
        help="for a snapshot of a member of a group: its disk is lost for ever, and this folder takes its place. It"
        " votes again when a leader has let it catch up; if a majority is lost: bezant members recover",
    )
    restore.add_argument(
        "--as-it-was",
        action="store_true",
        help="with metadata that has been erased since, too",
    )
    restore.add_argument(
        "--free-space-floor-mib",
        metavar="MIB",
        type=positive_count,
        default=256,
        help="what must stay free on the disk (default: %(default)s)",
    )
    restore.set_defaults(act=_restore)
    delete = actions.add_parser(
        "delete",
        description="Delete snapshots, and all files at the target that no other one and no archived segment needs; not"
        " while a snapshot is being made there.",
    )
    delete.add_argument("target", metavar="TARGET", help=_TARGET)
    which = delete.add_mutually_exclusive_group(required=True)
    which.add_argument("--snapshot", metavar="NAME", action="append", help="this one, by its whole name; may be given"
                       " again")  # fmt: skip
    which.add_argument("--keep", metavar="N", type=positive_count, help="all but the newest so many of each log")
    which.add_argument(
        "--erased",
        action="store_true",
        help="all that have metadata which has been erased since; make a new snapshot before, which knows that",
    )
    delete.set_defaults(act=_delete)
    for action in (create, listing, restore, delete):
        add_json_argument(action)


def run(arguments: argparse.Namespace) -> int:
    """Do it; 0 if it is done."""
    try:
        return int(arguments.act(arguments))
    except UsageError as error:
        raise InputWrong(str(error), "correct the command and run it again") from error


def _create(arguments: argparse.Namespace) -> int:
    from bezant.net.archive.snapshots import create_snapshot
    from bezant.net.archive.store import open_store

    check_data_folder(arguments.data)
    with progress("making a snapshot", total=0, unit="bytes") as bar:
        created = run_async(create_snapshot(arguments.data, open_store(arguments.target), on_progress=bar.update))
    if arguments.json:
        write_json({**_fields(created.name, created.manifest), "written_bytes": created.written_bytes})
        return 0
    write_line(f"snapshot {created.name}: {_words(created.manifest)}; {created.written_bytes:,} bytes were new")
    write_line(f"state digest  {created.manifest.state_digest}")
    return 0


def _list(arguments: argparse.Namespace) -> int:
    from bezant.net.archive.removing import erased_since
    from bezant.net.archive.snapshots import list_snapshots
    from bezant.net.archive.store import open_store

    found = run_async(list_snapshots(open_store(arguments.target)))
    erased = erased_since(found)
    whole = [(one.name, one.manifest) for one in found if one.manifest is not None]
    problems = {one.name: one.problem for one in found if one.manifest is None}
    if arguments.json:
        told = [_fields(*one) | {"metadata_erased_since": erased[one[0]]} for one in whole]
        write_json({"snapshots": told, "damaged": problems})
    else:
        write_table(_HEADINGS, [_row(*one, erased[one[0]]) for one in whole], right=_RIGHT)
        if not found:
            write_remark(f"bezant: there are no snapshots at {arguments.target}")
        for problem in problems.values():
            write_remark(f"bezant: {problem}")
    return 1 if problems else 0


def _restore(arguments: argparse.Namespace) -> int:
    from bezant.net.archive.snapshots import restore_snapshot
    from bezant.net.archive.store import open_store

    try:
        with progress("restoring", total=0, unit="bytes") as bar:
            name, manifest, left_out = run_async(
                restore_snapshot(
                    arguments.data,
                    open_store(arguments.target),
                    arguments.snapshot,
                    as_lost_node=arguments.as_lost_node,
                    free_space_floor=arguments.free_space_floor_mib * MIB,
                    as_it_was=arguments.as_it_was,
                    on_progress=bar.update,
                )
            )
    except CorruptLog as error:
        raise CommandFailed(
            f"the snapshot: {error}",
            f"nothing is at {arguments.data}; restore another, or from another target: bezant snapshot list"
            f" {shlex.quote(arguments.target)}",
        ) from error
    if arguments.json:
        write_json({**_fields(name, manifest), "data": str(arguments.data), "metadata_left_out": left_out})
        return 0
    write_line(f"{arguments.data}: snapshot {name}, {_words(manifest)}")
    write_line(f"state digest  {manifest.state_digest}, as it was")
    if left_out:
        write_line(f"metadata of {left_out:,} accounts and events was erased since, and is left out")
    write_line("what was acknowledged after that is not in it; never start it beside the folder that it was made of")
    write_line(f"start it: bezant serve --data {arguments.data}")
    return 0


def _delete(arguments: argparse.Namespace) -> int:
    from bezant.net.archive.removing import erased_since, remove_snapshots
    from bezant.net.archive.snapshots import list_snapshots
    from bezant.net.archive.store import open_store

    store = open_store(arguments.target)
    found = run_async(list_snapshots(store))
    unknown: list[str] = []
    if arguments.erased:
        erased = erased_since(found)
        names = [name for name, count in erased.items() if count]
        unknown = [name for name, count in erased.items() if count is None]
    elif arguments.keep is not None:
        logs: dict[str, list[str]] = {}
        for one in found:
            if one.manifest is not None:
                logs.setdefault(one.manifest.log_id, []).append(one.name)
        names = [name for of_log in logs.values() for name in of_log[: -arguments.keep]]
    else:
        names = list(dict.fromkeys(arguments.snapshot))
    done = run_async(remove_snapshots(store, names))
    if arguments.json:
        write_json(done._asdict() | {"unknown": unknown})
    else:
        for name in done.names:
            write_line(f"deleted: snapshot {name}")
        write_line(f"{len(done.names):,} snapshots, {done.files:,} files, {done.files_bytes:,} bytes deleted")
    for name in unknown:
        write_remark(f"bezant: snapshot {name} does not say which metadata it has: it was left, and may have what was "
                     "erased")  # fmt: skip
    return 1 if unknown else 0


def _words(manifest: "SnapshotManifest") -> str:
    return f"{manifest.next_sequence - 1:,} events in {manifest.index:,} entries, {manifest.size_bytes:,} bytes"


def _row(name: str, manifest: "SnapshotManifest", erased: int | None) -> list[str]:
    return [
        name,
        manifest.created_at,
        f"{manifest.shard}",
        f"{manifest.index:,}",
        f"{manifest.next_sequence - 1:,}",
        f"{manifest.size_bytes:,}",
        "yes" if manifest.has_history else "no",
        "?" if erased is None else f"{erased:,}",
        manifest.state_digest,
    ]


def _fields(name: str, manifest: "SnapshotManifest") -> dict[str, Any]:
    return {
        "snapshot": name,
        "made": manifest.created_at,
        "log_id": manifest.log_id,
        "shard": manifest.shard,
        "entries": manifest.index,
        "events": manifest.next_sequence - 1,
        "size_bytes": manifest.size_bytes,
        "history": manifest.has_history,
        "state_digest": manifest.state_digest,
        "chain_hash": manifest.chain_hash,
    }
