"""Load a published checkpoint of any family with the stock loader, and what was trained beside it.

    model = load("Qwen/Qwen2.5-VL-3B-Instruct", dtype="auto", additions="additions.safetensors", adapter="adapter")

Knows no family by name: `config.model_type` picks it from the registry.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_training.model import adapter_file, additions_file
from spatial_mllm_training.model.camera_aware import CameraAwareVLM
from spatial_mllm_training.model.families import FAMILIES, ModelFamily
from spatial_mllm_training.model.heads import HeadsConfig
from spatial_mllm_training.model.preprocess import Processing


def load(
    path_or_name: str | Path,
    *,
    family: str | None = None,
    additions: str | Path | None = None,
    adapter: str | Path | None = None,
    tap_layers: tuple[int, int, int, int] | None = None,
    heads: HeadsConfig | None = None,
    head_features: int = 64,
    camera_dropout: float = 0.0,
    **stock: Any,
) -> CameraAwareVLM:
    """Wrap a checkpoint, sharded or not, from a folder or the hub.

    Args:
        family: refuse any other; None takes what the checkpoint says.
        additions: a file of `save_additions`; None leaves the additions at initialisation. With a file,
            its own taps and heads are used.
        adapter: folder of a LoRA adapter in peft's format, put into the base in place.
        tap_layers, heads, head_features, camera_dropout: of the wrapper; with an additions file, taps and
            heads other than its own are refused, and `head_features` is not looked at.
        stock: arguments of `from_pretrained` (dtype, device_map, revision, attn_implementation).

    Raises:
        SpatialError: MODEL_MISSING; MODEL_SIGNATURE for another family, width, taps or heads, for the
            adapter of another base, or a torn file.
    """
    revision = {k: v for k, v in stock.items() if k in ("revision", "token", "cache_dir", "local_files_only")}
    config = _config(path_or_name, revision)
    chosen = _family(path_or_name, config.model_type, family)
    found = None if adapter is None else adapter_file.read(Path(adapter))
    header = None
    if additions is not None:  # before gigabytes are read for nothing
        header = additions_file.read_header(Path(additions))
        width = config.get_text_config().hidden_size
        header.check(Path(additions), family=chosen.name, hidden_size=width)
        if tap_layers is not None:
            header.check_taps(Path(additions), tap_layers)
        if heads is not None:
            header.check_heads(Path(additions), heads)
        tap_layers, heads = header.tap_layers, header.heads
    model = CameraAwareVLM(
        _base(path_or_name, chosen, stock),
        family=chosen.name,
        tap_layers=tap_layers,
        heads=heads,
        head_features=head_features,
        camera_dropout=camera_dropout,
        processing=_processing(path_or_name, chosen, revision),
    )
    if found is not None:
        adapter_file.apply(model, found)
    if additions is not None:
        model.load_additions(Path(additions))
    return model


def _config(path_or_name: str | Path, revision: dict[str, Any]) -> Any:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(path_or_name, **revision)
    except (OSError, ValueError, KeyError) as error:
        raise SpatialError(
            ErrorCode.MODEL_MISSING, f"no configuration of a model at '{path_or_name}': {_first(error)}"
        ) from None


def _family(path_or_name: str | Path, found: str, wanted: str | None) -> ModelFamily:
    if found not in FAMILIES:
        raise SpatialError(
            ErrorCode.MODEL_SIGNATURE,
            f"'{path_or_name}' is a {found}; served are {', '.join(sorted(FAMILIES))}",
        )
    if wanted not in (None, found):
        raise SpatialError(
            ErrorCode.MODEL_SIGNATURE, f"'{path_or_name}' is a {found}, but a {wanted} was asked for"
        )
    return FAMILIES[found]


def _base(path_or_name: str | Path, family: ModelFamily, stock: dict[str, Any]) -> Any:
    try:
        hf, report = family.stock_class().from_pretrained(
            path_or_name,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # the report below says it better
            **stock,
        )
    except SafetensorError as error:
        raise SpatialError(
            ErrorCode.MODEL_SIGNATURE,
            f"a weight file of '{path_or_name}' is not a complete safetensors file ({error}); copy it again",
        ) from None
    except (OSError, RuntimeError, ValueError) as error:
        raise SpatialError(
            ErrorCode.MODEL_MISSING, f"the weights of '{path_or_name}' cannot be loaded: {_first(error)}"
        ) from None
    for tensor, found, expected in sorted(report["mismatched_keys"]):
        raise SpatialError(
            ErrorCode.MODEL_SIGNATURE,
            f"{tensor} of '{path_or_name}' is {tuple(found)}, but its configuration asks for {tuple(expected)}",
        )
    missing = sorted(report["missing_keys"])
    if missing:
        raise SpatialError(
            ErrorCode.MODEL_SIGNATURE,
            f"'{path_or_name}' lacks {len(missing)} tensors of a {family.name}, first {missing[0]}; they would "
            "start as noise",
        )
    return hf


def _processing(path_or_name: str | Path, family: ModelFamily, revision: dict[str, Any]) -> Processing:
    from transformers.image_processing_utils import BaseImageProcessor

    try:
        saved, _ = BaseImageProcessor.get_image_processor_dict(str(path_or_name), **revision)
    except OSError:  # a checkpoint without its processor: what the published ones do
        return family.PROCESSING
    return family.PROCESSING.updated(saved)


def _first(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
