"""Document: an HTML page that needs nothing else: no network, no script, one style sheet, and SVG inside.

The page's own policy forbids a browser to run or load anything. What comes from a card, a tile or the command line is
to be escaped by who writes it.
"""

from __future__ import annotations

from html import escape
from pathlib import Path

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def mark_of_verb(verb: str) -> str:
    """What marks a file, near its top, as a page of a verb's."""
    return f'<meta name="generator" content="edgeslim {verb}">'


def is_page_of(verb: str, path: Path) -> bool:
    """Whether a file is such a page, and may be replaced by another."""
    try:
        with path.open("rb") as file:
            return mark_of_verb(verb).encode() in file.read(1024)
    except OSError:
        return False


def document(verb: str, title: str, body: str, kind: str = "") -> str:
    """The page of a verb, whose plain-text `title` is escaped here; `body` is HTML, `kind` the body's class."""
    style = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")
    of_kind = f' class="{kind}"' if kind else ""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
{mark_of_verb(verb)}
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>
{style}</style>
</head>
<body{of_kind}>
{body}
</body>
</html>
"""
