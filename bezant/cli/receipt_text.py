"""What a receipt says, in words and as JSON."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bezant.net.client.results import Event
    from bezant.protocol.receipts import Receipt


def event_in(receipt: "Receipt") -> "Event":
    """The event of a receipt that was checked; amounts are in minor units, because nothing else is in it."""
    import numpy as np

    from bezant.net.client.results import event_of
    from bezant.protocol.errors import ReceiptInvalid
    from bezant.protocol.records import EVENT_ANSWER

    answer = np.zeros(1, EVENT_ANSWER)
    answer["found"], answer["position"], answer["event"] = 1, receipt.position, receipt.event
    event = event_of(answer, 0)
    if event is None:
        raise ReceiptInvalid("it has no event")
    return event


def receipt_fields(receipt: "Receipt") -> dict[str, Any]:
    """A receipt for ``--json``; amounts in minor units, as strings."""
    event, head = event_in(receipt), receipt.head
    return {
        "log_id": head.log_id.hex(),
        "position": receipt.position,
        "id": event.id.hex(),
        "kind": event.kind.name.lower(),
        "result": event.result.name,
        "timestamp_ns": event.timestamp_ns,
        "debit": event.debit.hex(),
        "credit": event.credit.hex(),
        "amount": str(event.amount),
        "effective_amount": str(event.effective_amount),
        "debit_balance": str(event.debit_balance),
        "credit_balance": str(event.credit_balance),
        "events": head.size,
        "head_timestamp_ns": head.timestamp_ns,
        "root": head.root.hex(),
        "key": head.key.hex(),
        "extends_events": receipt.earlier_size,
    }


def describe_receipt(receipt: "Receipt") -> Iterator[str]:
    """A receipt in lines."""
    event, head = event_in(receipt), receipt.head
    outcome = "done" if event.committed else f"refused: {event.result.name}"
    rows = [
        ("transfer" if event.kind.name == "TRANSFER" else event.kind.name.lower().replace("_", " "), event.id.hex()),
        ("outcome", outcome),
        ("from", event.debit.hex()),
        ("to", event.credit.hex()),
        ("amount", f"{event.effective_amount} of {event.amount} minor units"),
        ("time", _time(event.timestamp_ns)),
        ("position", str(receipt.position)),
        ("log", head.log_id.hex()),
        ("history", f"{head.size:,} events at {_time(head.timestamp_ns)}, root {head.root.hex()}"),
        ("signed by", head.key.hex()),
    ]
    if receipt.earlier_size:
        rows.append(("extends", f"the history of {receipt.earlier_size:,} events, root {receipt.earlier_root.hex()}"))
    for title, value in rows:
        yield f"{title:<12}{value}"


def _time(timestamp_ns: int) -> str:
    return datetime.fromtimestamp(timestamp_ns // 10**9, UTC).isoformat().replace("+00:00", "Z")
