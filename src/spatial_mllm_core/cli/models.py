"""`spatial-mllm models`: the bundles that are found, their hashes verified."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from spatial_mllm_core.errors import SpatialError
from spatial_mllm_core.model.bundle import (
    DEFAULT_BUNDLE,
    MANIFEST,
    MODEL_PATH_VARIABLE,
    find_bundle,
    open_bundle,
)

EXAMPLE = """  spatial-mllm models
  spatial-mllm models path/to/a/bundle"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "bundle", nargs="*", help="bundle folders or names (default: every one that is found)"
    )


def run(options: argparse.Namespace) -> int:
    folders = [find_bundle(name) for name in options.bundle] or found_bundles()
    if not folders:
        find_bundle()  # says where it looked
    status = 0
    for folder in folders:
        try:
            bundle = open_bundle(folder)
        except SpatialError as fault:
            print(f"BAD   {folder}\n      {fault}")
            status = 1
            continue
        m = bundle.manifest
        megabytes = sum(size for _, size in m.files.values()) / 1e6
        mark = "  (default)" if m.name == DEFAULT_BUNDLE else ""
        print(f"good  {m.label}{mark}\n      {folder}")
        print(
            f"      {m.family}, {m.precision}, {megabytes:.1f} MB, images {m.width}x{m.height}, {len(m.tasks)} tasks"
        )
    return status


def found_bundles() -> list[Path]:
    """Folders with a manifest beside the default bundle, and the one the environment names."""
    roots = []
    named = os.environ.get(MODEL_PATH_VARIABLE)
    if named and (Path(named) / MANIFEST).is_file():
        roots.append(Path(named))
    try:
        home = find_bundle(DEFAULT_BUNDLE).parent
    except SpatialError:
        return roots
    return roots + sorted(p.parent for p in home.glob(f"*/{MANIFEST}") if p.parent not in roots)
