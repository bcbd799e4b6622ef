"""How a member that lacks much begins with the state of its group, and fills in the history behind it.

    leader                                      member
    begin_snapshot, SnapshotOffer      ->       wants it? SnapshotReply
    its newest checkpoint, held open   <-       PartRequest: the file, then the runs of ids that it lists
    PartReply, 256 KiB each            ->       written beside the log by a helper thread
    entries of one segment             <- ->    EntriesRequest, EntriesReply: those up to the checkpoint's
                                                all verified, `ready` left: the folder is opened again
    snapshot_done, ordinary Appends    <-       SnapshotReply: installed; it counts in the quorum
    any member with the history        <- ->    EntriesRequest, EntriesReply: the segments before, the last one first

`making.py` makes files of what arrives; `installing.py` puts them in the place of the log, however often that is
interrupted; `sending.py`, `receiving.py` and `backfill.py` are the three parts above; `transfer.py` holds them together
for whoever drives a member. No sockets, clocks or threads of its own: time comes as ticks, and files are written by the
helper that their `Directory` gives. May import all of the engine.
"""
