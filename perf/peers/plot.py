"""A plot of a comparison as SVG, written by hand: bars of transfers a second on a logarithmic scale."""

import math
from html import escape
from typing import Final

from bezant.perf.peers.plan import PeerKind
from bezant.perf.peers.report import Comparison

_WIDTH: Final = 960
_LABEL_WIDTH: Final = 370
_VALUE_WIDTH: Final = 150
_ROW_HEIGHT: Final = 24
_BAR_HEIGHT: Final = 15
_TOP: Final = 64
_BOTTOM: Final = 40
_COLOURS: Final[dict[PeerKind, str]] = {
    "bezant": "#1b7837",
    "postgres": "#2166ac",
    "postgres-2pc": "#67a9cf",
    "redis": "#b2182b",
    "redis-sharded": "#ef8a62",
}


def draw(comparison: Comparison) -> str:
    """The plot as the text of an SVG file, which stands alone."""
    bars = [
        (peer.peer, f"{peer.title}, {one.in_flight} in flight", one.transfers_per_s)
        for peer in comparison.peers
        for one in peer.measured
    ]
    # Whole powers of ten around the values; whatever is below 1 has no length.
    top_power = max((math.ceil(math.log10(max(value, 10))) for _, _, value in bars), default=1)
    room = _WIDTH - _LABEL_WIDTH - _VALUE_WIDTH
    height = _TOP + len(bars) * _ROW_HEIGHT + _BOTTOM
    where = f"{comparison.cores} cores, {comparison.file_system}, {comparison.seconds:g} s each"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" font-family="sans-serif"'
        ' font-size="12">',
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>',
        '<text x="12" y="24" font-size="16">Transfers a second, every answer synced to disk (logarithmic scale)</text>',
        f'<text x="12" y="44" fill="#555">{escape(where)}</text>',
    ]
    for power in range(top_power + 1):
        x = _LABEL_WIDTH + room * power / top_power
        parts.append(f'<line x1="{x:.1f}" y1="{_TOP - 6}" x2="{x:.1f}" y2="{height - _BOTTOM}" stroke="#ddd"/>')
        parts.append(f'<text x="{x:.1f}" y="{height - 20}" text-anchor="middle" fill="#555">{10**power:,}</text>')
    for number, (peer, label, value) in enumerate(bars):
        y = _TOP + number * _ROW_HEIGHT
        length = room * max(0.0, math.log10(max(value, 1))) / top_power
        middle = y + _BAR_HEIGHT - 3
        parts.append(f'<text x="{_LABEL_WIDTH - 8}" y="{middle}" text-anchor="end">{escape(label)}</text>')
        parts.append(
            f'<rect x="{_LABEL_WIDTH}" y="{y}" width="{length:.1f}" height="{_BAR_HEIGHT}" fill="{_COLOURS[peer]}"/>'
        )
        parts.append(f'<text x="{_LABEL_WIDTH + length + 6:.1f}" y="{middle}">{value:,.0f}</text>')
    return "\n".join([*parts, "</svg>", ""])
