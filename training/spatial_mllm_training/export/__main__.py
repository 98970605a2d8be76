"""Turn a run folder into what is used: a verified bundle, or the files of a run on a published checkpoint.

    python -m spatial_mllm_training.export --run runs/tiny --out models/spatial-mllm-mini --version 0.1.0
    python -m spatial_mllm_training.export --run runs/qwen --out exported/qwen --merge

A run of a small model gives a bundle that the runtime serves. A run on a published checkpoint gives additions,
a LoRA adapter in peft's format and, with --merge, a stock checkpoint with the adapter in its weights.
The folder is written beside its place, checked by loading a bundle with the runtime, then moved in.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_core.model.bundle import DOTS, MANIFEST
from spatial_mllm_training.export import published
from spatial_mllm_training.export.record import Measured
from spatial_mllm_training.export.write_bundle import claimed_subtasks, load_run, with_dots, write_bundle


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the command's arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m spatial_mllm_training.export",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--run", type=Path, required=True, help="run folder of `train`")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder to write; an earlier export there is replaced"
    )
    bundle = parser.add_argument_group("a run of a small model")
    bundle.add_argument("--version", help="of the bundle (default 0.1.0)")
    bundle.add_argument(
        "--metrics", type=Path, help="JSON file of held-out figures for the manifest, of `score --out`"
    )
    bundle.add_argument("--notes", type=Path, help="Markdown for the model card: what was measured elsewhere")
    bundle.add_argument(
        "--dots",
        type=Path,
        help=f"folder with a {DOTS}: of `train_dots`, or an earlier bundle that finds dots",
    )
    files = parser.add_argument_group("a run on a published checkpoint")
    files.add_argument("--merge", action="store_true", help="also write the merged stock checkpoint")
    files.add_argument(
        "--checkpoint", type=Path, help="folder of the base, as for `train` (default: the recipe's hub name)"
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    arguments = parse_arguments(argv)
    out: Path = arguments.out
    part = out.with_name(f".{out.name}.part")
    try:
        _check_replaceable(out)
        of_published = published.run_config(arguments.run).published is not None
        if (arguments.merge or arguments.checkpoint) and not of_published:
            raise SpatialError(
                ErrorCode.MODEL_SIGNATURE,
                f"'{arguments.run}' is a run of a small model: --merge and --checkpoint are for published ones",
            )
        if of_published and (arguments.version or arguments.metrics or arguments.notes or arguments.dots):
            raise SpatialError(
                ErrorCode.MODEL_SIGNATURE,
                f"'{arguments.run}' adapts a published model: --version, --metrics, --notes and --dots are for bundles",
            )
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        (_write_files if of_published else _write_bundle)(arguments, part)
        if out.exists():
            shutil.rmtree(out)
        part.rename(out)
    except SpatialError as error:
        print(error.sentence, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"'{out}' cannot be written ({error.strerror or error})", file=sys.stderr)
        return 2
    finally:
        shutil.rmtree(part, ignore_errors=True)
    total = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    print(f"{out}: {total / 1e6:.1f} MB")
    return 0


def _write_bundle(arguments: argparse.Namespace, part: Path) -> None:
    name, version = arguments.out.name, arguments.version or "0.1.0"
    metrics = _metrics(arguments.metrics)
    measured, label = metrics.get("model"), f"{name}/{version}"
    if measured not in (None, label):
        raise SpatialError(
            ErrorCode.BAD_MANIFEST, f"'{arguments.metrics}' holds figures of '{measured}', this is '{label}'"
        )
    notes = _text(arguments.notes)
    model, config, tokenizer, progress = load_run(arguments.run)
    subtasks = claimed_subtasks(arguments.run)
    write_bundle(
        model,
        config,
        tokenizer,
        part,
        name=name,
        version=version,
        subtasks=with_dots(subtasks) if arguments.dots else subtasks,
        progress=progress,
        metrics=metrics,
        notes=notes,
        dots=None if arguments.dots is None else arguments.dots / DOTS,
    )


def _write_files(arguments: argparse.Namespace, part: Path) -> None:
    run = published.open_run(arguments.run, arguments.checkpoint)
    for name in published.write_files(run, part, merge=arguments.merge):
        print(f"{arguments.out / name}")


def _text(file: Path | None) -> str:
    if file is None:
        return ""
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise SpatialError(
            ErrorCode.MODEL_MISSING, f"'{file}' cannot be read ({error.strerror or error})"
        ) from None
    except UnicodeDecodeError:
        raise SpatialError(ErrorCode.BAD_MANIFEST, f"'{file}' is not text") from None


def _metrics(file: Path | None) -> dict[str, Any]:
    """What `score --out` wrote, {} without a file."""
    if file is None:
        return {}
    try:
        metrics = json.loads(_text(file))
        for figure in metrics["figures"]:
            Measured.from_json(figure)
        return dict(metrics)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SpatialError(
            ErrorCode.BAD_MANIFEST, f"'{file}' is not what `score --out` writes: {error}"
        ) from None


def _check_replaceable(out: Path) -> None:
    """Raise OUTPUT_EXISTS for a folder that is no earlier export: it is somebody's."""
    ours = (MANIFEST, published.ADDITIONS)
    if out.exists() and not any((out / name).is_file() for name in ours) and any(out.iterdir()):
        raise SpatialError(
            ErrorCode.OUTPUT_EXISTS,
            f"'{out}' holds no earlier export and is not replaced; name another folder",
        )


if __name__ == "__main__":
    sys.exit(main())
