"""The frame of every page that the project writes; knows neither figures nor data sets."""

from __future__ import annotations

from html import escape


def document(title: str, body: str, style: str) -> str:
    """An HTML document that loads nothing from anywhere.

    Args:
        title: plain text.
        body, style: HTML of the page and its CSS.
    """
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{style}</style></head><body><main>{body}</main></body></html>\n"
    )
