"""The console: a page for people, of files that are served as they are; all that it shows it asks of the routes.

What it may run and load is in the headers of every answer. It says the same to everybody, and so needs no token; those
who use it give theirs to the page, which sends it with each request.
"""

from pathlib import Path
from typing import Final

from litestar import Response, get

from bezant.net.gateway.problems import GatewayProblem, refusal

STATIC: Final = Path(__file__).parent / "static"
"""Files that are served as they are."""
_TYPES: Final = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
_FILES: Final = {path.name: path for path in sorted((STATIC / "console").iterdir()) if path.suffix in _TYPES}


@get(["/console", "/console/{name:str}"], include_in_schema=False, sync_to_thread=False)
def console_page(name: str = "index.html") -> Response[bytes]:
    """The page, and what belongs to it; a browser asks every time, so that a new version is never mixed with an old."""
    path = _FILES.get(name)
    if path is None:
        raise refusal(GatewayProblem.NOT_FOUND)
    return Response(path.read_bytes(), media_type=_TYPES[path.suffix], headers={"cache-control": "no-cache"})
