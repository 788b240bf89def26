"""What commands that draw have in common.

matplotlib is imported when a plot is asked for, because nothing else needs it (docs/dependencies.md).
"""

from __future__ import annotations

import html
import io
from typing import TYPE_CHECKING, Literal

from quorate.cli.errors import CommandError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def require_matplotlib() -> None:
    """Before much is computed in vain.  Raises CommandError."""
    try:
        import matplotlib.figure  # noqa: F401  asked for, not used
    except ImportError as error:
        raise CommandError("plots need matplotlib, which is not installed: pip install quorate[plots]") from error


def saved(figure: Figure, form: Literal["svg", "png"]) -> bytes:
    import matplotlib

    buffer = io.BytesIO()
    # The same question gives the same bytes: no date, and ids that are not drawn at random.
    with matplotlib.rc_context({"svg.hashsalt": "quorate"}):
        figure.savefig(buffer, format=form, dpi=120, metadata={"Date": None} if form == "svg" else None)
    return buffer.getvalue()


def drawing(svg: bytes) -> str:
    """An SVG file for an HTML page: without the XML declaration, which HTML does not know."""
    text = svg.decode()
    return text[text.index("<svg") :]


def page(command: str, body: str, style: str = "") -> str:
    """One that loads nothing.  `body` is HTML."""
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{html.escape(command)}</title>\n'
        "<style>body { font-family: sans-serif; margin: 2em } svg { max-width: 100%; height: auto }"
        f"{style}</style>\n"
        f"</head>\n<body>\n{body}\n</body>\n</html>\n"
    )
