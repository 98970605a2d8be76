"""Entry point of `spatial-mllm`: chooses the verb, and turns every fault into one sentence.

Exit status: 0 done; 1 a fault; 2 wrong arguments; 3 done, but the bag is incomplete or outputs differ;
130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import sys
from importlib import import_module
from typing import Protocol

from spatial_mllm_core import __version__
from spatial_mllm_core.errors import SpatialError, one_line

PROGRAM = "spatial-mllm"
VERBS = {
    "doctor": "show what this machine has: Python, libraries, ROS 2, model",
    "depth": "depth of one image file, as 16-bit PNG and as colours",
    "ask": "ask a question about image files",
    "annotate": "bag in, bag with depth, answers and rewards out",
    "evaluate": "figures and a report of a bag with known truth; compare a live recording with a fresh run",
    "models": "list the model bundles and verify them",
}
DONE, FAULT, USAGE, INCOMPLETE, INTERRUPTED = 0, 1, 2, 3, 130
TRACEBACK_VARIABLE = "SPATIAL_MLLM_TRACEBACK"


class Verb(Protocol):
    """What a verb's module has."""

    EXAMPLE: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, options: argparse.Namespace) -> int: ...


def main(arguments: list[str] | None = None) -> int:
    """Run one verb; returns the exit status and never raises for a fault of the user's."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        return _main(arguments)
    except SystemExit as end:  # argparse
        return end.code if isinstance(end.code, int) else USAGE
    except SpatialError as fault:
        return _tell(str(fault), FAULT)
    except KeyboardInterrupt:
        return _tell("interrupted", INTERRUPTED)
    except BrokenPipeError:
        # the reader of our output is gone (`| head`); nothing more to say, and nothing to flush
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAULT
    except Exception as error:
        if os.environ.get(TRACEBACK_VARIABLE):
            raise
        words = f"unexpected {type(error).__name__}: {error} (a bug; {TRACEBACK_VARIABLE}=1 shows where)"
        return _tell(words, FAULT)


def _main(arguments: list[str]) -> int:
    name = arguments[0] if arguments else ""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Metric depth, answers and rewards from calibrated images, bags and cameras.",
        epilog=f"{PROGRAM} VERB --help tells the rest, with an example.",
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    verbs = parser.add_subparsers(metavar="VERB", dest="verb", required=True)
    chosen: Verb | None = None
    for verb, words in VERBS.items():
        if verb != name:
            verbs.add_parser(verb, help=words, add_help=False)
            continue
        module: Verb = import_module(f"spatial_mllm_core.cli.{verb}")
        verb_parser = verbs.add_parser(
            verb,
            help=words,
            description=f"{words[0].upper()}{words[1:]}.",
            epilog=f"example:\n{module.EXAMPLE}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(verb_parser)
        chosen = module
    options = parser.parse_args(arguments)
    assert chosen is not None  # argparse leaves when there is no verb
    return chosen.run(options)


def _tell(words: str, status: int) -> int:
    sys.stdout.flush()
    print(f"{PROGRAM}: {one_line(words)}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
