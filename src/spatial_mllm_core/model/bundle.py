"""A model bundle: a folder with a manifest, hashed files and nothing that can execute code.

Loading verifies the manifest's shape, every file's size and SHA-256, and that no file name
leaves the folder. It does not run anything; `ort_engine` checks the graphs' signatures.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_core.model.digits import DIGITS
from spatial_mllm_core.model.prompt import PromptFormat

FORMAT_VERSIONS = (1, 2, 3, 4, 5, 6, 7, 8)
"""That are read. 2 has clips or pointers, 3 deep pointers, 4 letters for named points, 5 matching, 6 dots, 7 digits, 8
copies; a bundle is of the first format that can say it."""
FIRST_IMAGE = "first_image"
"""Input of the vision graph of a bundle with clips."""
MANIFEST = "manifest.json"
MATCHER = "matcher.onnx"
"""File of a bundle of matching."""
DOTS = "dots.onnx"
"""File of a bundle that finds dots."""
REQUIRED_FILES = ("vision.onnx", "decoder.onnx", "lift.onnx", "embedding.safetensors", "tokenizer.json")
_ALLOWED_SUFFIXES = frozenset({".onnx", ".safetensors", ".json", ".md"})
DEFAULT_BUNDLE = "spatial-mllm-mini"
MODEL_PATH_VARIABLE = "SPATIAL_MLLM_MODEL"


@dataclass(frozen=True)
class Manifest:
    """What a bundle says of itself.

    Attributes:
        width, height: model input, pixels; grid_w, grid_h: visual tokens per image.
        clips: an image is read together with the first one of its prompt, so that its tokens see what changed.
        pointers: the coordinates of a question carry what its images show there, see `pointing`.
        deep_pointers: and how far that is.
        matching: questions about several images are told how these belong together, see `told`.
        told_digits: what deep pointers and matching tell is told in digits, too, while it is answered, see `digits`.
        copied_digits: the decoder may copy these: its output has a chance for each number, too.
        dots_w, dots_h: size of the image in which dots are found, pixels; 0 where none are.
        depth_w, depth_h: cells of the lifted depth map.
        tap_layers: hidden_states indices that feed the lift graph.
        special_ids: image pad and stop token ids.
        tasks: subtasks that it answers; () for depth alone.
        files: name -> (sha256, bytes).
        metrics, training: as the trainer wrote them.
    """

    name: str
    version: str
    family: str
    precision: str
    width: int
    height: int
    clips: bool
    pointers: bool
    deep_pointers: bool
    matching: bool
    told_digits: bool
    copied_digits: bool
    dots_w: int
    dots_h: int
    grid_w: int
    grid_h: int
    depth_w: int
    depth_h: int
    hidden: int
    layers: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    context: int
    tap_layers: tuple[int, ...]
    special_ids: Mapping[str, int]
    prompt: PromptFormat
    tasks: tuple[str, ...]
    files: Mapping[str, tuple[str, int]]
    training: Mapping[str, Any]
    metrics: Mapping[str, Any]

    @property
    def label(self) -> str:
        """`name/version`, as it stands in every answer."""
        return f"{self.name}/{self.version}"

    @property
    def _format_version(self) -> int:
        if self.copied_digits:
            return 8
        if self.told_digits:
            return 7
        if self.dots_w:
            return 6
        if self.matching:
            return 5
        if self.prompt.named_letters:
            return 4
        return 3 if self.deep_pointers else 2 if self.clips or self.pointers else 1

    def to_json(self) -> str:
        return json.dumps(
            {
                "format_version": self._format_version,
                "name": self.name,
                "version": self.version,
                "family": self.family,
                "precision": self.precision,
                "input": {
                    "width": self.width,
                    "height": self.height,
                    "grid_w": self.grid_w,
                    "grid_h": self.grid_h,
                    **({"clips": True} if self.clips else {}),
                    **({"pointers": True} if self.pointers else {}),
                    **({"deep_pointers": True} if self.deep_pointers else {}),
                    **({"matching": True} if self.matching else {}),
                    **({"told_digits": True} if self.told_digits else {}),
                    **({"copied_digits": True} if self.copied_digits else {}),
                    **({"dots": [self.dots_w, self.dots_h]} if self.dots_w else {}),
                },
                "depth": {"width": self.depth_w, "height": self.depth_h},
                "decoder": {
                    "hidden": self.hidden,
                    "layers": self.layers,
                    "kv_heads": self.kv_heads,
                    "head_dim": self.head_dim,
                    "vocabulary": self.vocabulary,
                    "context": self.context,
                    "tap_layers": list(self.tap_layers),
                },
                "special_ids": dict(self.special_ids),
                "prompt": self.prompt.to_json(),
                "tasks": list(self.tasks),
                "files": {k: {"sha256": s, "bytes": n} for k, (s, n) in sorted(self.files.items())},
                "training": dict(self.training),
                "metrics": dict(self.metrics),
            },
            indent=2,
        )

    @staticmethod
    def from_json(text: str, where: str) -> Manifest:
        """Parse and check a manifest.

        Raises:
            SpatialError: BAD_MANIFEST naming the first thing that is wrong.
        """
        try:
            raw = json.loads(text)
            if raw["format_version"] not in FORMAT_VERSIONS:
                known = ", ".join(map(str, FORMAT_VERSIONS))
                raise ValueError(f"format_version is {raw['format_version']}, this software reads {known}")
            files = {str(k): (str(v["sha256"]), int(v["bytes"])) for k, v in raw["files"].items()}
            decoder = raw["decoder"]
            dots_w, dots_h = map(int, raw["input"].get("dots", (0, 0)))
            manifest = Manifest(
                name=str(raw["name"]),
                version=str(raw["version"]),
                family=str(raw["family"]),
                precision=str(raw["precision"]),
                **{k: int(raw["input"][k]) for k in ("width", "height", "grid_w", "grid_h")},
                clips=bool(raw["input"].get("clips", False)),
                pointers=bool(raw["input"].get("pointers", False)),
                deep_pointers=bool(raw["input"].get("deep_pointers", False)),
                matching=bool(raw["input"].get("matching", False)),
                told_digits=bool(raw["input"].get("told_digits", False)),
                copied_digits=bool(raw["input"].get("copied_digits", False)),
                dots_w=dots_w,
                dots_h=dots_h,
                depth_w=int(raw["depth"]["width"]),
                depth_h=int(raw["depth"]["height"]),
                **{
                    k: int(decoder[k])
                    for k in ("hidden", "layers", "kv_heads", "head_dim", "vocabulary", "context")
                },
                tap_layers=tuple(int(i) for i in decoder["tap_layers"]),
                special_ids={str(k): int(v) for k, v in raw["special_ids"].items()},
                prompt=PromptFormat(**raw["prompt"]),
                tasks=tuple(str(t) for t in raw["tasks"]),
                files=files,
                training=raw.get("training", {}),
                metrics=raw.get("metrics", {}),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as fault:
            what = f"'{fault.args[0]}' is missing" if isinstance(fault, KeyError) else str(fault)
            raise SpatialError(ErrorCode.BAD_MANIFEST, f"{where} is not a bundle manifest: {what}") from None
        sizes = (
            manifest.width,
            manifest.height,
            manifest.grid_w,
            manifest.grid_h,
            manifest.hidden,
            manifest.layers,
        )
        largest = max(manifest.width, manifest.height, dots_w, dots_h)
        if min(sizes) < 1 or min(dots_w, dots_h) < 0 or (dots_w == 0) != (dots_h == 0) or largest > 8192:
            raise SpatialError(ErrorCode.BAD_MANIFEST, f"{where} has sizes out of range: {sizes}")
        if manifest.deep_pointers and not manifest.pointers:
            raise SpatialError(ErrorCode.BAD_MANIFEST, f"{where} has deep pointers, but no pointers")
        if manifest.matching and not manifest.deep_pointers:
            raise SpatialError(ErrorCode.BAD_MANIFEST, f"{where} has matching, but no deep pointers")
        if manifest.told_digits and not manifest.deep_pointers:
            raise SpatialError(ErrorCode.BAD_MANIFEST, f"{where} tells digits, but has no deep pointers")
        if manifest.told_digits and manifest.prompt.number_digits != DIGITS:
            raise SpatialError(
                ErrorCode.BAD_MANIFEST,
                f"{where} tells the digits of numbers of {DIGITS}, but answers have {manifest.prompt.number_digits}",
            )
        if manifest.copied_digits and not manifest.told_digits:
            raise SpatialError(ErrorCode.BAD_MANIFEST, f"{where} copies digits, but tells none")
        if dots_w and not manifest.pointers:
            raise SpatialError(ErrorCode.BAD_MANIFEST, f"{where} finds dots, but has no pointers")
        beside = {MATCHER: manifest.matching, DOTS: bool(dots_w)}
        required = (*REQUIRED_FILES, *(name for name, wanted in beside.items() if wanted))
        missing = [f for f in required if f not in files]
        if missing:
            raise SpatialError(ErrorCode.BAD_MANIFEST, f"{where} lists no {', '.join(missing)}")
        for name in files:
            if Path(name).name != name or name in ("", ".", ".."):
                raise SpatialError(
                    ErrorCode.UNSAFE_MODEL_FILE, f"{where} names '{name}', which leaves its folder"
                )
            if Path(name).suffix not in _ALLOWED_SUFFIXES:
                raise SpatialError(
                    ErrorCode.UNSAFE_MODEL_FILE,
                    f"{where} lists '{name}'; only {', '.join(sorted(_ALLOWED_SUFFIXES))} files are loaded",
                )
        return manifest


@dataclass(frozen=True)
class Bundle:
    """A verified bundle folder."""

    folder: Path
    manifest: Manifest

    def path(self, name: str) -> Path:
        return self.folder / name


def file_sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        while chunk := handle.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def read_manifest(folder: Path) -> Manifest:
    """What a bundle folder says of itself; its files are not looked at.

    Raises:
        SpatialError: MODEL_MISSING, BAD_MANIFEST or UNSAFE_MODEL_FILE.
    """
    manifest_path = folder / MANIFEST
    if not manifest_path.is_file():
        raise SpatialError(
            ErrorCode.MODEL_MISSING, f"no model bundle at '{folder}': expected a folder with a {MANIFEST}"
        )
    try:
        text = manifest_path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as fault:
        raise SpatialError(ErrorCode.BAD_MANIFEST, f"cannot read {manifest_path}: {fault}") from None
    return Manifest.from_json(text, str(manifest_path))


def open_bundle(path: str | Path) -> Bundle:
    """Open and verify a bundle folder.

    Raises:
        SpatialError: MODEL_MISSING, BAD_MANIFEST, UNSAFE_MODEL_FILE or HASH_MISMATCH.
    """
    folder = Path(path)
    manifest = read_manifest(folder)
    for name, (sha256, size) in manifest.files.items():
        file = folder / name
        if file.is_symlink() and folder.resolve() not in file.resolve().parents:
            raise SpatialError(ErrorCode.UNSAFE_MODEL_FILE, f"{file} is a link that leaves the bundle")
        if not file.is_file():
            raise SpatialError(ErrorCode.MODEL_MISSING, f"the bundle at '{folder}' lacks {name}")
        found = file.stat().st_size
        if found != size:
            raise SpatialError(ErrorCode.HASH_MISMATCH, f"{file} has {found} bytes, its manifest says {size}")
        digest = file_sha256(file)
        if digest != sha256:
            raise SpatialError(
                ErrorCode.HASH_MISMATCH,
                f"{file} has SHA-256 {digest[:12]}…, its manifest says {sha256[:12]}…; fetch the bundle again",
            )
    return Bundle(folder, manifest)


def find_bundle(name: str = "") -> Path:
    """Folder of a bundle by path or name.

    A path wins; then $SPATIAL_MLLM_MODEL when no name is given; then `models/<name>` beside or above the
    working directory, in the source checkout and in the installed share folders.

    Raises:
        SpatialError: MODEL_MISSING, with the places that were looked at.
    """
    wanted = name or os.environ.get(MODEL_PATH_VARIABLE, "") or DEFAULT_BUNDLE
    if (Path(wanted) / MANIFEST).is_file() or os.sep in wanted:
        return Path(wanted)
    roots = [Path.cwd(), *Path.cwd().parents, *Path(__file__).resolve().parents]
    roots += [
        Path(p) / "share" / "spatial_mllm" for p in os.environ.get("AMENT_PREFIX_PATH", "").split(":") if p
    ]
    for root in roots:
        candidate = root / "models" / wanted
        if (candidate / MANIFEST).is_file():
            return candidate
    raise SpatialError(
        ErrorCode.MODEL_MISSING,
        f"no model bundle named '{wanted}': give a folder, set {MODEL_PATH_VARIABLE}, or run where models/{wanted} is",
    )
