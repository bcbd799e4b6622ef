"""`bezant archive`: keeps sealed segments of the history elsewhere, and brings back those that a folder lacks."""

import argparse
from pathlib import Path

from bezant.cli.errors import InputWrong
from bezant.cli.output import write_json, write_line, write_remark, write_table
from bezant.cli.progress import progress
from bezant.cli.session import add_json_argument, check_data_folder, positive_count, run_async
from bezant.protocol.errors import UsageError

MIB = 1 << 20
_TARGET = "a folder, or an address such as s3://BUCKET/PATH, hdfs://HOST/PATH"
_HEADINGS = ("log", "segment", "first entry", "last entry", "size", "digest")
_RIGHT = frozenset({"segment", "first entry", "last entry", "size"})


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the arguments of `bezant archive`."""
    parser = subparsers.add_parser(
        "archive",
        description="Keep the sealed segments of a history at a target, each verified entry by entry before it goes and"
        " read back after, and bring back those that a folder lacks. Snapshots at the same target share the files.",
    )
    actions = parser.add_subparsers(dest="action", metavar="push|list|drop|fetch", required=True)
    push = actions.add_parser("push", description="Keep the sealed segments of a data folder, whose node may run.")
    push.add_argument(
        "--replace",
        action="store_true",
        help="what is kept of a segment that is here makes room for what is here now, which has nothing of the metadata"
        " that was erased; files that nothing needs any more are removed. For a node alone",
    )
    push.set_defaults(act=_push)
    listing = actions.add_parser("list", description="List the segments of a log that are kept.")
    listing.set_defaults(act=_list)
    drop = actions.add_parser(
        "drop",
        description="Have sealed segments leave the disk of a data folder, whose node may run, once the target has been"
        " found to have them; the newest ones stay, and whatever a start needs. Who reads the history has them fetched"
        " into a cache beside it.",
    )
    drop.add_argument(
        "--keep",
        metavar="N",
        type=positive_count,
        default=4,
        help="the newest sealed segments that stay, at least 2 (default: %(default)s)",
    )
    drop.add_argument(
        "--cache-mib",
        metavar="MIB",
        type=positive_count,
        default=1024,
        help="what the cache of segments that were fetched may take on the disk (default: %(default)s)",
    )
    drop.set_defaults(act=_drop)
    fetch = actions.add_parser(
        "fetch",
        description="Bring back the segments that a folder lacks, whose node is stopped: the last one first, each"
        " proven to lead to the one behind it. One that is damaged counts when it is moved away.",
    )
    fetch.add_argument(
        "--free-space-floor-mib",
        metavar="MIB",
        type=positive_count,
        default=256,
        help="what must stay free on the disk (default: %(default)s)",
    )
    fetch.set_defaults(act=_fetch)
    for action in (push, listing, drop, fetch):
        action.add_argument("target", metavar="TARGET", help=_TARGET)
        action.add_argument("--data", metavar="DIR", type=Path, required=True, help="the data folder")
        add_json_argument(action)


def run(arguments: argparse.Namespace) -> int:
    """Do it; 0 if it is done."""
    check_data_folder(arguments.data)
    try:
        return int(arguments.act(arguments))
    except UsageError as error:
        raise InputWrong(str(error), "correct the command and run it again") from error


def _push(arguments: argparse.Namespace) -> int:
    from bezant.net.archive.removing import remove_unneeded
    from bezant.net.archive.segments import push_segments
    from bezant.net.archive.store import open_store

    store = open_store(arguments.target)
    pushed = run_async(push_segments(arguments.data, store, replaces=arguments.replace))
    files, files_bytes = run_async(remove_unneeded(store)) if arguments.replace else (0, 0)
    if arguments.json:
        write_json(pushed._asdict() | {"removed": files, "removed_bytes": files_bytes})
        return 0
    write_line(f"{pushed.written:,} segments kept, {pushed.written_bytes:,} bytes; {pushed.there:,} were before")
    if files:
        write_line(f"{files:,} files that nothing needs any more were removed, {files_bytes:,} bytes")
    return 0


def _list(arguments: argparse.Namespace) -> int:
    from bezant.net.archive.segments import log_of, read_records
    from bezant.net.archive.store import open_store

    log_id = log_of(arguments.data)
    records = run_async(read_records(open_store(arguments.target), log_id))
    found = [(record.sealed, record.digest) for number in sorted(records) for record in records[number]]
    if arguments.json:
        fields = ("number", "first_index", "last_index", "size_bytes")
        write_json(
            {
                "log_id": log_id,
                "segments": [
                    {**{field: getattr(sealed, field) for field in fields}, "digest": digest}
                    for sealed, digest in found
                ],
            }
        )
        return 0
    rows = [
        [
            log_id,
            f"{sealed.number}",
            f"{sealed.first_index:,}",
            f"{sealed.last_index:,}",
            f"{sealed.size_bytes:,}",
            digest,
        ]
        for sealed, digest in found
    ]
    write_table(_HEADINGS, rows, right=_RIGHT)
    return 0


def _drop(arguments: argparse.Namespace) -> int:
    from bezant.net.archive.segments import drop_segments
    from bezant.net.archive.store import open_store

    done = run_async(
        drop_segments(
            arguments.data,
            open_store(arguments.target),
            keep=arguments.keep,
            cache_bytes_max=arguments.cache_mib * MIB,
        )
    )
    if arguments.json:
        write_json(done._asdict())
    else:
        write_line(f"{len(done.dropped):,} segments have left the disk, {done.dropped_bytes:,} bytes")
        if done.waiting:
            write_remark(f"{len(done.waiting):,} more go when the node that has the folder open removes them")
        if done.not_kept:
            write_remark(f"{len(done.not_kept):,} more could go; the target does not have them: bezant archive push")
    return 0


def _fetch(arguments: argparse.Namespace) -> int:
    from bezant.net.archive.segments import fetch_segments
    from bezant.net.archive.store import open_store

    with progress("fetching", total=0, unit="segments") as bar:
        fetched = run_async(
            fetch_segments(
                arguments.data,
                open_store(arguments.target),
                free_space_floor=arguments.free_space_floor_mib * MIB,
                on_progress=bar.update,
            )
        )
    if arguments.json:
        write_json(fetched._asdict())
    else:
        write_line(f"{len(fetched.fetched):,} segments are back, {len(fetched.missing):,} are missing still")
    return 1 if fetched.missing else 0
