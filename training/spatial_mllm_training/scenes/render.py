"""Draws a blueprint with MuJoCo: colour, z-depth and body ids for exact pinhole cameras."""

from __future__ import annotations

import atexit
import ctypes
import ctypes.util
import importlib
import os
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_training.scenes.blueprint import Blueprint, Matrix, Shape, quaternion_from_rotation
from spatial_mllm_training.scenes.record import MAX_DEPTH_M

_SENSOR_M_PER_PX = 1e-3


def choose_gl() -> str:
    """Return the OpenGL route: MUJOCO_GL when set, EGL beside a GPU, else OSMesa, else EGL in software.

    Raises:
        SpatialError: BACKEND_UNAVAILABLE when no library for drawing without a screen is there.
    """
    wanted = os.environ.get("MUJOCO_GL", "").strip().lower()
    if wanted:
        return wanted
    has_gpu = Path("/dev/nvidia0").exists() or any(Path("/dev/dri").glob("renderD*"))
    if has_gpu and _loads("EGL"):
        return "egl"
    if _loads("OSMesa"):
        return "osmesa"
    if _loads("EGL"):
        return "egl"
    raise SpatialError(
        ErrorCode.BACKEND_UNAVAILABLE,
        "no OpenGL library that draws without a screen was found: install libosmesa6 (or libegl1 with libgl1-mesa-dri)",
    )


def _loads(name: str) -> bool:
    found = ctypes.util.find_library(name)
    if not found:
        return False
    try:
        ctypes.CDLL(found)
    except OSError:
        return False
    return True


def load_mujoco() -> ModuleType:
    """Import MuJoCo with the chosen OpenGL route.

    Raises:
        SpatialError: BACKEND_UNAVAILABLE when MuJoCo or OpenGL is missing.
    """
    os.environ["MUJOCO_GL"] = choose_gl()
    if os.environ["MUJOCO_GL"] in ("egl", "osmesa"):
        os.environ.setdefault("PYOPENGL_PLATFORM", os.environ["MUJOCO_GL"])
    try:
        import mujoco
    except ImportError as error:
        raise SpatialError(
            ErrorCode.BACKEND_UNAVAILABLE, f"MuJoCo cannot be imported ({error}): pip install mujoco"
        ) from error
    return mujoco


class SceneRenderer:
    """A compiled blueprint and its OpenGL context; use it in a `with` block, in one thread."""

    def __init__(
        self,
        blueprint: Blueprint,
        k: Matrix,
        width: int,
        height: int,
        *,
        supersample: int = 1,
        shadow_px: int = 512,
    ) -> None:
        """Compile `blueprint` for cameras of matrix `k` (3, 3) and pictures of width x height.

        Args:
            supersample: colour is drawn this many times finer and averaged; depth and ids never are.
            shadow_px: side of the shadow map; it costs more than the picture itself.
        """
        self._mujoco: Any = load_mujoco()
        mj = self._mujoco
        self.k, self.width, self.height, self._factor = k, width, height, supersample
        self._body_count = len(blueprint.bodies)
        self._model = _compile(mj, blueprint, width, height, supersample, shadow_px)
        self._model.cam_intrinsic[0] = _mujoco_intrinsics(k, width, height)
        self._data = mj.MjData(self._model)
        self._body_of_geom = np.zeros(self._model.ngeom + 1, np.uint8)
        self._body_of_geom[1:] = np.where(
            self._model.geom_bodyid > 0, self._model.geom_bodyid, 0
        )  # bodies are added in order, so MuJoCo's number is ours
        self._scene = mj.MjvScene(model=self._model, maxgeom=self._model.ngeom + 16)
        self._options = mj.MjvOption()
        self._camera = mj.MjvCamera()
        self._camera.type = mj.mjtCamera.mjCAMERA_FIXED
        self._camera.fixedcamid = 0
        self._gl: Any = _context(mj, width * supersample, height * supersample)
        self._gl.make_current()
        self._drawer = mj.MjrContext(self._model, mj.mjtFontScale.mjFONTSCALE_50)
        mj.mjr_setBuffer(mj.mjtFramebuffer.mjFB_OFFSCREEN, self._drawer)
        self._drawer.readDepthMap = mj.mjtDepthMap.mjDEPTH_ZEROFAR

    def __enter__(self) -> SceneRenderer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._drawer.free()

    def place(self, world_from_body: Matrix) -> None:
        """Put the bodies at `world_from_body` (B, 4, 4); index 0, the world, is passed over."""
        for index in range(1, self._body_count + 1):
            self._data.mocap_pos[index - 1] = world_from_body[index, :3, 3]
            self._data.mocap_quat[index - 1] = quaternion_from_rotation(world_from_body[index, :3, :3])
        self._mujoco.mj_kinematics(self._model, self._data)

    def _update(self, world_from_camera: Matrix) -> None:
        mj = self._mujoco
        # MuJoCo's camera looks along -z with y up: half a turn about x from the optical frame.
        self._model.cam_pos[0] = world_from_camera[:3, 3]
        self._model.cam_quat[0] = quaternion_from_rotation(
            world_from_camera[:3, :3] @ np.diag([1.0, -1.0, -1.0])
        )
        mj.mj_camlight(self._model, self._data)
        mj.mjv_updateScene(
            self._model,
            self._data,
            self._options,
            None,
            self._camera,
            mj.mjtCatBit.mjCAT_ALL.value,
            self._scene,
        )

    def colour(self, world_from_camera: Matrix) -> NDArray[np.uint8]:
        """Return the picture (H, W, 3) uint8 RGB that a camera at `world_from_camera` sees."""
        mj = self._mujoco
        self._update(world_from_camera)
        height, width = self.height * self._factor, self.width * self._factor
        rectangle = mj.MjrRect(0, 0, width, height)
        image = np.empty((height, width, 3), np.uint8)
        mj.mjr_render(rectangle, self._scene, self._drawer)
        mj.mjr_readPixels(image, None, rectangle, self._drawer)
        image = image[::-1]
        if self._factor > 1:
            image = np.asarray(
                cv2.resize(image, (self.width, self.height), interpolation=cv2.INTER_AREA), np.uint8
            )
        return np.ascontiguousarray(image)

    def scale_light(self, gain: float) -> None:
        """Make every lamp `gain` times as bright, as a camera's exposure would."""
        self._model.light_diffuse *= gain
        self._model.light_specular *= gain
        self._model.vis.headlight.ambient *= gain
        self._model.vis.headlight.diffuse *= gain

    def geometry(self, world_from_camera: Matrix) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Return z-depth (H, W) float32 metres, 0 beyond 20 m, and body ids (H, W) uint8."""
        mj = self._mujoco
        self._update(world_from_camera)
        flags = self._scene.flags.copy()
        rectangle = mj.MjrRect(0, 0, self.width, self.height)
        ids = np.empty((self.height, self.width, 3), np.uint8)
        raw = np.empty((self.height, self.width), np.float32)
        try:
            self._scene.flags[mj.mjtRndFlag.mjRND_SEGMENT] = True
            self._scene.flags[mj.mjtRndFlag.mjRND_IDCOLOR] = True
            mj.mjr_render(rectangle, self._scene, self._drawer)
            mj.mjr_readPixels(ids, raw, rectangle, self._drawer)
        finally:
            self._scene.flags[:] = flags
        extent = self._model.stat.extent
        near, far = self._model.vis.map.znear * extent, self._model.vis.map.zfar * extent
        # Reversed z (ARB_clip_control): raw = near (far - z) / (z (far - near)).
        depth_m = near * far / (raw[::-1].astype(np.float64) * (far - near) + near)
        depth_m[depth_m > MAX_DEPTH_M] = 0
        number = ids[::-1].astype(np.int32) @ np.array([1, 256, 65536], np.int32)
        count = self._scene.ngeom
        body_of_number = np.zeros(count + 1, np.uint8)
        for geom in self._scene.geoms[:count]:
            if geom.segid >= 0 and geom.objtype == mj.mjtObj.mjOBJ_GEOM:
                body_of_number[geom.segid + 1] = self._body_of_geom[geom.objid + 1]
        return depth_m.astype(np.float32), body_of_number[number]


_contexts: dict[tuple[int, int, int], Any] = {}
atexit.register(_contexts.clear)  # left to the interpreter's end, they fail to free and print so


def _context(mj: Any, width: int, height: int) -> Any:
    """Return this process's OpenGL context of a size; making one costs more than a picture."""
    key = (os.getpid(), width, height)
    if key not in _contexts:
        try:
            _contexts[key] = _context_class(mj)(width, height)
        except Exception as error:  # each OpenGL route raises its own kind
            raise SpatialError(
                ErrorCode.BACKEND_UNAVAILABLE,
                f"OpenGL through {os.environ.get('MUJOCO_GL')} does not start: {error}",
            ) from error
    return _contexts[key]


def _context_class(mj: Any) -> Any:
    """Return the class for the chosen route, also where someone imported MuJoCo before us."""
    route = os.environ["MUJOCO_GL"]
    if route in ("egl", "osmesa"):
        return importlib.import_module(f"mujoco.{route}").GLContext
    return mj.GLContext


def _mujoco_intrinsics(k: Matrix, width: int, height: int) -> NDArray[np.float32]:
    """Return MuJoCo's (focal x, focal y, principal x, principal y) in sensor metres.

    MuJoCo measures the principal point from the image's centre, which lies at pixel (W - 1) / 2
    when integers are pixel centres, and with the opposite sign.
    """
    pixels = [k[0, 0], k[1, 1], (width - 1) / 2 - k[0, 2], (height - 1) / 2 - k[1, 2]]
    return np.asarray(np.array(pixels) * _SENSOR_M_PER_PX, np.float32)


def _compile(mj: Any, blueprint: Blueprint, width: int, height: int, factor: int, shadow_px: int) -> Any:
    spec = mj.MjSpec()
    spec.visual.global_.offwidth = width * factor
    spec.visual.global_.offheight = height * factor
    spec.visual.quality.shadowsize = shadow_px
    spec.visual.quality.offsamples = 0
    x0, y0, x1, y1, top = blueprint.room_m
    extent = float(max(x1 - x0, y1 - y0))
    spec.stat.extent = extent
    spec.stat.center = [(x0 + x1) / 2, (y0 + y1) / 2, top / 3]
    spec.visual.map.znear = 0.02 / extent
    spec.visual.map.zfar = 60.0 / extent
    # Parallel light casts shadows within this half width (times extent); smaller is sharper.
    spec.visual.map.shadowclip = 1.4 / extent if blueprint.kind == "tabletop" else 0.6
    spec.visual.headlight.ambient = [blueprint.ambient] * 3
    spec.visual.headlight.diffuse = [blueprint.headlight] * 3
    spec.visual.headlight.specular = [0.05] * 3
    spec.add_texture(
        name="sky",
        type=mj.mjtTexture.mjTEXTURE_SKYBOX,
        builtin=mj.mjtBuiltin.mjBUILTIN_GRADIENT,
        width=64,
        height=384,
        rgb1=blueprint.sky[0],
        rgb2=blueprint.sky[1],
    )
    for texture in blueprint.textures.values():
        size = texture.image.shape[0]
        kind = mj.mjtTexture.mjTEXTURE_CUBE if texture.cube else mj.mjtTexture.mjTEXTURE_2D
        added = spec.add_texture(
            name=texture.name, type=kind, width=size, height=6 * size if texture.cube else size, nchannel=3
        )
        added.data = np.tile(texture.image, (6 if texture.cube else 1, 1, 1)).tobytes()
    for material in blueprint.materials.values():
        added = spec.add_material(
            name=material.name,
            rgba=[*material.rgb, 1.0],
            specular=material.specular,
            shininess=material.shininess,
            emission=material.emission,
        )
        if material.texture is not None:
            added.textures[mj.mjtTextureRole.mjTEXROLE_RGB] = material.texture
            added.texrepeat = [material.repeat, material.repeat]
            added.texuniform = not blueprint.textures[material.texture].cube
    for light in blueprint.lights:
        spec.worldbody.add_light(
            pos=light.position_m,
            dir=light.direction,
            diffuse=light.diffuse,
            ambient=[0.0] * 3,
            specular=[0.3 * v for v in light.diffuse],
            castshadow=light.casts_shadow,
            type=mj.mjtLightType.mjLIGHT_DIRECTIONAL if light.directional else mj.mjtLightType.mjLIGHT_POINT,
            attenuation=[1, 0, 0],
        )
    spec.worldbody.add_camera(
        name="eye",
        resolution=[width, height],
        sensor_size=[width * _SENSOR_M_PER_PX, height * _SENSOR_M_PER_PX],
        focal_pixel=[width, width],
    )
    for shape in blueprint.static_shapes:
        _add_shape(mj, spec.worldbody, shape)
    for body in blueprint.bodies:
        added = spec.worldbody.add_body(mocap=True)
        for shape in body.shapes:
            _add_shape(mj, added, shape)
    return spec.compile()


def _add_shape(mj: Any, parent: Any, shape: Shape) -> None:
    size = [*shape.size_m, 0.0, 0.0, 0.0][:3]
    if shape.kind == "plane":
        size = [shape.size_m[0], shape.size_m[1], 0.1]
    parent.add_geom(
        type=getattr(mj.mjtGeom, f"mjGEOM_{shape.kind.upper()}"),
        size=size,
        pos=shape.position_m,
        quat=shape.quaternion,
        material=shape.material,
        contype=0,
        conaffinity=0,
        castshadow=shape.casts_shadow,
    )
