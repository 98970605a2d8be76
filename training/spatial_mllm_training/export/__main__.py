"""Turn a run folder into a verified model bundle.

    python -m spatial_mllm_training.export --run runs/tiny --out models/spatial-mllm-mini --version 0.1.0

The folder is written beside its place, checked by loading it with the runtime, then moved in.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

from spatial_mllm_core.errors import SpatialError
from spatial_mllm_training.export.write_bundle import claimed_subtasks, load_run, write_bundle


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, required=True, help="run folder of `train`")
    parser.add_argument(
        "--out", type=Path, required=True, help="bundle folder to write; replaced when it exists"
    )
    parser.add_argument("--version", default="0.1.0")
    parser.add_argument("--metrics", type=Path, help="JSON file of held-out figures for the manifest")
    parser.add_argument("--notes", type=Path, help="Markdown for the model card: what was measured elsewhere")
    args = parser.parse_args()
    try:
        model, config, tokenizer, progress = load_run(args.run)
        subtasks = claimed_subtasks(args.run)
    except SpatialError as error:
        raise SystemExit(error.sentence) from None
    metrics = json.loads(args.metrics.read_text()) if args.metrics else {}
    part = args.out.with_name(args.out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    write_bundle(
        model,
        config,
        tokenizer,
        part,
        name=args.out.name,
        version=args.version,
        subtasks=subtasks,
        progress=progress,
        metrics=metrics,
        notes=args.notes.read_text() if args.notes else "",
    )
    if args.out.exists():
        shutil.rmtree(args.out)
    part.rename(args.out)
    total = sum(f.stat().st_size for f in args.out.iterdir())
    print(f"{args.out}: {total / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
