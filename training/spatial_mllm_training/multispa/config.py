"""The numbers of the data engine, with the published ones as defaults (facts: MultiSPA sections C to G)."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class VisibilityConfig:
    """Which scene points an image shows.

    The published test 0 < z < D loses half of the true surface points and keeps floating ones, so
    ours has two sides: |z - D| <= max(absolute, relative * D).

    Attributes:
        tolerance_m, relative_tolerance: how far a point's z may differ from the depth image.
        voxel_m: grid of points fused from depth where a source has no mesh.
        max_points: upper bound of scene points; more are thinned evenly, which bounds the memory.
        max_depth_m: farther surfaces are not used.
    """

    tolerance_m: float = 0.05
    relative_tolerance: float = 0.03
    voxel_m: float = 0.02
    max_points: int = 200_000
    max_depth_m: float = 20.0


@dataclass(frozen=True)
class PairConfig:
    """Which pairs of images static questions are asked about.

    Attributes:
        overlap_percent: lowest and highest IoU of visible points, per cent.
        bin_percent: width of a balancing bin.
        swap_probability: chance that a pair is asked in the other order.
        min_shift_m, min_turn_deg: smallest movement that direction, distance and angle questions
            are asked about; 0 is as published (1 mm counts as "right").
        cycle_px: a correspondence must come back to its pixel within this through both depth images.
    """

    overlap_percent: tuple[float, float] = (6.0, 35.0)
    bin_percent: float = 1.0
    swap_probability: float = 0.5
    min_shift_m: float = 0.0
    min_turn_deg: float = 0.0
    cycle_px: float = 1.0


@dataclass(frozen=True)
class PointConfig:
    """Which pixels are asked about.

    Attributes:
        border_px: distance from the image border (the published circle has a radius of 10 px).
        edge_m, edge_relative: a pixel whose 3x3 neighbours' depths differ by more than the larger of
            these lies on an edge and is not asked about.
        min_depth_ratio: farther depth over nearer depth in a comparison.
        min_separation_px: between two points of a comparison and between choices.
        hard_share: share of multiple-choice rows whose distractors lie near the answer ("Hard").
        hard_radius: of the hard distractors, parts of the image width.
    """

    border_px: int = 8
    edge_m: float = 0.05
    edge_relative: float = 0.04
    min_depth_ratio: float = 1.05
    min_separation_px: float = 20.0
    hard_share: float = 0.0
    hard_radius: float = 0.12


@dataclass(frozen=True)
class ObjectSizeConfig:
    """Minimum-coverage sets (facts 2.3: tolerance 0.1, 25 images, 5000 combinations a level, K up to 5)."""

    tolerance: float = 0.1
    max_images: int = 5
    candidate_images: int = 25
    combinations_per_level: int = 5000
    visible_share: float = 0.05
    min_points: int = 20
    excluded: tuple[str, ...] = ("wall", "object", "floor", "ceiling", "window", "world")


@dataclass(frozen=True)
class ObjectMotionConfig:
    """Followed points (facts 2.3: average linkage at 0.1, groups over 5 points, 10 bins of displacement).

    Attributes:
        static_m: a point that never moves farther than this is static.
        min_displacement_m: shortest movement asked about; 0 is as published.
        still_camera_m, still_camera_deg: a camera that moves less counts as still (`pstudio`).
        max_points: points given to the segmentation, which costs their square.
    """

    linkage_threshold_m: float = 0.1
    smooth_m: float = 0.01
    min_group_points: int = 5
    static_m: float = 0.01
    bins: int = 10
    points_per_group: int = 15
    pairs_per_bin: int = 30
    swap_probability: float = 0.05
    min_displacement_m: float = 0.0
    still_camera_m: float = 1e-4
    still_camera_deg: float = 0.01
    max_points: int = 600


@dataclass(frozen=True)
class MultispaConfig:
    """Everything that decides what rows a scene gives, but the number of rows and the seed."""

    visibility: VisibilityConfig = field(default_factory=VisibilityConfig)
    pairs: PairConfig = field(default_factory=PairConfig)
    points: PointConfig = field(default_factory=PointConfig)
    object_size: ObjectSizeConfig = field(default_factory=ObjectSizeConfig)
    object_motion: ObjectMotionConfig = field(default_factory=ObjectMotionConfig)
