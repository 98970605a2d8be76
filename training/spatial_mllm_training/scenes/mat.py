"""A measuring mat on floor and tables: a chessboard of known squares, from which scale can be read.

For experiments with models that are too small for rooms full of patterns of any size.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from spatial_mllm_training.scenes.blueprint import Blueprint, Texture

SQUARE_M = 0.2
_DARK, _LIGHT = (40, 70, 60), (215, 210, 190)
_TEXTURE_PX = 128


def lay_mats(blueprint: Blueprint) -> None:
    """Give the floor and every table top squares of `SQUARE_M`; everything else stays as it is."""
    squares = np.indices((2, 2)).sum(0) % 2
    board = (
        np.array([_LIGHT, _DARK], np.uint8)[squares].repeat(_TEXTURE_PX // 2, 0).repeat(_TEXTURE_PX // 2, 1)
    )
    name = blueprint.add_texture(Texture("mat", board, cube=False))
    tops = [body.shapes[0] for body in blueprint.bodies if body.category == "table"]
    for shape in (blueprint.static_shapes[0], *tops):
        material = blueprint.materials[shape.material]
        blueprint.materials[shape.material] = replace(
            material, rgb=(1.0, 1.0, 1.0), texture=name, repeat=1.0 / SQUARE_M, specular=0.0
        )
