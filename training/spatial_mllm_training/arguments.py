"""Numbers and sources on a command line, with the sentence that argparse shows for others; knows no command."""

from __future__ import annotations

import argparse
import math


def whole_number(text: str) -> int:
    """A whole number from 0 on; raises ArgumentTypeError."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number from 0 on, found '{text}'")
    return int(text)


def positive_number(text: str) -> int:
    """A whole number above 0; raises ArgumentTypeError."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, found '{text}'")
    return int(text)


def positive_amount(text: str) -> float:
    """A number above 0, such as minutes; raises ArgumentTypeError."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"expected a number above 0, found '{text}'")
    return value


def add_budget(parser: argparse.ArgumentParser, minutes: float) -> None:
    """`--minutes`, of which `minutes` are the default, or `--steps`; and `--threads`."""
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--minutes", type=positive_amount, default=minutes, help="default %(default)g")
    budget.add_argument("--steps", type=positive_number, help="instead of minutes")
    parser.add_argument("--threads", type=positive_number, default=2, help="of a CPU (default 2)")


def add_depth_sources(parser: argparse.ArgumentParser, words: str) -> None:
    """`--depth KIND PATH`, any number of times: the sources of rows' depth images."""
    parser.add_argument(
        "--depth",
        nargs=2,
        action="append",
        default=[],
        metavar=("KIND", "PATH"),
        help=f"{words}, as --source of make_multispa",
    )
