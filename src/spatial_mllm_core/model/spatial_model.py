"""SpatialModel: frames in, depth and parsed answers out; encode once, prefill once, ask often.

Under the visual-first prompt nothing computed for a frame depends on the question: a frame's
prefix (KV cache and tapped hidden states) is made once, gives the depth map, and serves every
later question. The second frame of a pair extends the first frame's prefix. Knows nothing of
ROS, bags or rewards. One inference thread owns an instance.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from spatial_mllm_core.answers import Answer, AskRequest
from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_core.frames.frame import Frame
from spatial_mllm_core.images.resize import resized
from spatial_mllm_core.model import told
from spatial_mllm_core.model.bundle import DOTS, MATCHER, Bundle, find_bundle, open_bundle
from spatial_mllm_core.model.choosing import (
    Choose,
    CoordinateParts,
    CoordinateReader,
    chooser,
    coordinate_parts,
)
from spatial_mllm_core.model.digits import Spelling
from spatial_mllm_core.model.dots import ASKED_ABOUT, read_dots
from spatial_mllm_core.model.embedding import load_embedding
from spatial_mllm_core.model.engine import DecoderOutput, Engine, Float32, KVCache
from spatial_mllm_core.model.pointing import cell, depth_code, neighbours, pointers
from spatial_mllm_core.model.prompt import position_after_visual, text_positions, visual_positions
from spatial_mllm_core.model.question import Question, read_request
from spatial_mllm_core.tasks.dots import Dots, asks_for_letter, speaks_of_dots
from spatial_mllm_core.tasks.text import narrowed
from spatial_mllm_core.two_view.view_pair import View, ViewPair

PREFIXES_KEPT = 8

OnText = Callable[[str], None]
ShouldStop = Callable[[], bool]


@dataclass(frozen=True)
class Perception:
    """Dense depth of one frame, at the frame's own size.

    Attributes:
        depth_m: (H, W) float32 z-depth in metres, positive.
        confidence: (H, W) float32 in [0, 1], 1 - 1/c of the head's confidence; ordinal, not calibrated.
    """

    depth_m: Float32
    confidence: Float32


@dataclass(frozen=True)
class Prefix:
    """Frames already read by the decoder.

    Attributes:
        cache: their keys and values.
        next_position: first text position after them.
        taps: (4, N, D) hidden states of the last frame's visual tokens.
        visual: (N, D) visual tokens of the first frame, and of the last one where that is another.
        first_image: (H, W, 3) the first frame's at the size of the model's input.
        first_lifted: depth and confidence of the first frame, see `_lifted`; None for a model whose answers need none.
        first_view: the first frame as it is matched, made when that is first asked for; None for a model that matches
            nothing.
        pair: it and the last frame, where that is another.
    """

    cache: KVCache
    next_position: int
    taps: Float32
    visual: tuple[Float32, ...]
    first_image: NDArray[np.uint8]
    first_lifted: tuple[Float32, Float32] | None
    first_view: Callable[[], View] | None
    pair: ViewPair | None


class SpatialModel:
    """A loaded bundle with an engine."""

    def __init__(self, bundle: Bundle, engine: Engine) -> None:
        self.bundle = bundle
        self.manifest = bundle.manifest
        self.engine = engine
        self._tokenizer = Tokenizer.from_file(str(bundle.path("tokenizer.json")))
        self._embedding = load_embedding(bundle)
        self._stop_id = self.manifest.special_ids["stop"]
        self._chooser()  # a tokenizer without the digits that are needed is refused now, not at the first question
        # the frames stand beside their prefix so that an id() in the key cannot be reused while it is known
        self._prefixes: OrderedDict[tuple[tuple[int, int, int], ...], tuple[tuple[Frame, ...], Prefix]] = (
            OrderedDict()
        )

    @classmethod
    def load(cls, path: str | Path = "", *, backend: str = "cpu", threads: int | None = None) -> SpatialModel:
        """Open, verify and load a bundle by folder or name.

        Raises:
            SpatialError: a 5xx code, or BACKEND_UNAVAILABLE.
        """
        from spatial_mllm_core.model.ort_engine import OrtEngine

        bundle = open_bundle(find_bundle(str(path)))
        return cls(bundle, OrtEngine(bundle, backend=backend, threads=threads))

    @property
    def name(self) -> str:
        """`name/version` of the bundle."""
        return self.manifest.label

    # -- frames -----------------------------------------------------------------------------------

    def perceive(self, frame: Frame) -> Perception:
        """Depth and confidence of a frame, resampled to its size.

        Raises:
            SpatialError: a 2xx code when the frame has no usable camera; INVALID_OUTPUT.
        """
        frame.require_camera()
        prefix = self._prefix((frame,))
        depth_m, confidence = prefix.first_lifted or self._lifted(prefix.taps)
        size = (frame.width, frame.height)
        return Perception(
            np.asarray(cv2.resize(depth_m, size, interpolation=cv2.INTER_LINEAR), np.float32),
            np.asarray(cv2.resize(confidence, size, interpolation=cv2.INTER_LINEAR), np.float32),
        )

    def compare(self, first: Frame, later: Frame) -> ViewPair:
        """Which places two frames share and how the camera moved between them, as questions about both are told.

        Raises:
            SpatialError: a 2xx code when a frame has no usable camera; UNKNOWN_TASK for a bundle that matches nothing;
                SAME_FRAME_TWICE; INVALID_OUTPUT.
        """
        for frame in (first, later):
            frame.require_camera()
        if (first.camera_name, first.stamp_ns) == (later.camera_name, later.stamp_ns):
            raise SpatialError(
                ErrorCode.SAME_FRAME_TWICE, "a frame is compared with another one, not with itself"
            )
        pair = self._prefix((first, later)).pair
        if pair is None:
            raise SpatialError(ErrorCode.UNKNOWN_TASK, f"{self.name} has no {MATCHER}: it compares no frames")
        return pair

    def _lifted(self, taps: Float32) -> tuple[Float32, Float32]:
        """(z-depth in metres, confidence), each (h, w), of one frame's visual tokens.

        Raises:
            SpatialError: INVALID_OUTPUT.
        """
        depth_m, confidence = self.engine.lift(taps)
        if not np.isfinite(depth_m).all() or not (depth_m > 0).all():
            raise SpatialError(
                ErrorCode.INVALID_OUTPUT, "the depth map has values that are not finite and positive"
            )
        return depth_m, confidence

    def _prefix(self, frames: tuple[Frame, ...]) -> Prefix:
        key = tuple((f.stamp_ns, id(f.image_rgb), id(f.camera)) for f in frames)
        known = self._prefixes.get(key)
        if known is not None:
            self._prefixes.move_to_end(key)
            return known[1]
        before = self._prefix(frames[:-1]) if len(frames) > 1 else None
        prefix = self._extend(before, frames[-1], index=len(frames))
        self._prefixes[key] = (frames, prefix)
        while len(self._prefixes) > PREFIXES_KEPT:
            self._prefixes.popitem(last=False)
        return prefix

    def _extend(self, before: Prefix | None, frame: Frame, *, index: int) -> Prefix:
        m = self.manifest
        head = self._encode(m.prompt.frame_prefix.format(index=index))
        tail = self._encode(m.prompt.frame_suffix)
        start = 0 if before is None else before.next_position
        image_start = start + len(head)
        tail_start = position_after_visual(m.grid_h, m.grid_w, image_start)
        image = self._shown(frame)
        first_image = image if before is None else before.first_image
        rays = self._rays(frame)
        tokens = self.engine.vision(image, rays.reshape(-1, 4), frame.camera is not None, first_image)
        embeddings = np.concatenate([self._embedding[head], tokens, self._embedding[tail]])
        positions = np.concatenate(
            [
                text_positions(len(head), start),
                visual_positions(m.grid_h, m.grid_w, image_start),
                text_positions(len(tail), tail_start),
            ],
            axis=1,
        )
        out = self._decode(embeddings, positions, None if before is None else before.cache)
        taps = np.ascontiguousarray(out.taps[:, len(head) : len(head) + m.grid_h * m.grid_w])
        visual = (tokens,) if before is None else (before.visual[0], tokens)
        lifted = self._lifted(taps) if m.matching or (m.deep_pointers and before is None) else None
        view = None
        if m.matching and lifted is not None:
            view = cache(partial(self._view, image, lifted[0], None if frame.camera is None else rays))
        pair = None
        if before is not None and before.first_view is not None and view is not None:
            pair = ViewPair(before.first_view(), view())
        return Prefix(
            out.cache,
            tail_start + len(tail),
            taps,
            visual,
            first_image,
            lifted if before is None else before.first_lifted,
            view if before is None else before.first_view,
            pair,
        )

    def _rays(self, frame: Frame) -> Float32:
        """(grid_h, grid_w, 4) at the visual tokens; zeros without a camera."""
        m = self.manifest
        if frame.camera is None:
            return np.zeros((m.grid_h, m.grid_w, 4), np.float32)
        # the grid covers the image whatever the resize, so the raw camera gives the same rays
        camera = frame.camera.resized(m.width, m.height)
        return np.asarray(camera.token_rays(m.grid_w, m.grid_h), np.float32)

    def _view(self, image: NDArray[np.uint8], depth_m: Float32, rays: Float32 | None) -> View:
        return View(self.engine.features(image), depth_m, None if rays is None else rays[..., :2])

    def _shown(self, frame: Frame) -> NDArray[np.uint8]:
        """The image at the size of the model's input."""
        return resized(frame.image_rgb, self.manifest.width, self.manifest.height)

    def find_dots(self, frame: Frame, least: float = 0.0) -> Dots:
        """Where dots are drawn into a frame.

        Args:
            least: see `read_dots`.

        Raises:
            SpatialError: UNKNOWN_TASK for a bundle that finds none.
        """
        m = self.manifest
        if not m.dots_w:
            raise SpatialError(ErrorCode.UNKNOWN_TASK, f"{self.name} has no {DOTS}: it finds no dots")
        return read_dots(self.engine.dots(resized(frame.image_rgb, m.dots_w, m.dots_h)), least)

    # -- questions --------------------------------------------------------------------------------

    def ask(
        self, request: AskRequest, on_text: OnText | None = None, should_stop: ShouldStop | None = None
    ) -> Answer:
        """Answer a question about one or more frames.

        Args:
            request: the question; its frames need a camera unless the question is free text.
            on_text: called with the text so far after every token.
            should_stop: asked before every token; True ends with CANCELED.

        Raises:
            SpatialError: 2xx, 4xx, DEADLINE_EXCEEDED, INVALID_OUTPUT or UNPARSABLE_ANSWER.
        """
        began = time.monotonic()
        question = self._question(request)
        prefix = self._prefix(request.frames)
        words = question.words + self.manifest.prompt.question_suffix
        asked_of, spelling = self._embedded(words, prefix, tuple(question.letters.values()))
        deadline = None if request.deadline_s is None else began + request.deadline_s
        parts = self._coordinates if question.wants_coordinate and not question.said else None
        choose = CoordinateReader(parts).choose if parts else self._chooser(question.said)
        said, confidence = self._generate(
            prefix,
            asked_of,
            spelling,
            choose,
            request.max_new_tokens,
            deadline,
            None if question.is_said_otherwise else on_text,
            should_stop,
        )
        text = question.answer(said)
        if question.is_said_otherwise and on_text is not None:
            on_text(text)
        value = question.read(text)
        return Answer(
            task=request.task,
            question=question.words,
            text=text,
            kind=value.kind,
            values=value.values,
            unit=value.unit,
            label=value.label,
            frame_id=value.frame_id,
            stamps_ns=tuple(f.stamp_ns for f in request.frames),
            confidence=confidence,
            latency_s=time.monotonic() - began,
            model=self.name,
        )

    def _question(self, request: AskRequest) -> Question:
        """As it is read: by the coordinates of the dots that it names, where these are found."""
        reserved = [str(token.content) for token in self._tokenizer.get_added_tokens_decoder().values()]
        question = read_request(request, self.manifest, reserved)
        if not self.manifest.dots_w or not speaks_of_dots(question.words):
            return question
        first, *others = request.frames
        later = self.find_dots(others[-1], ASKED_ABOUT) if others and asks_for_letter(question.words) else {}
        return question.with_dots(self.find_dots(first, ASKED_ABOUT), later)

    def _generate(
        self,
        prefix: Prefix,
        embeddings: Float32,
        spelling: Spelling | None,
        choose: Choose,
        max_new_tokens: int,
        deadline: float | None,
        on_text: OnText | None,
        should_stop: ShouldStop | None,
    ) -> tuple[str, float]:
        """(text, mean probability of its tokens) after the (S, D) embeddings of a question, with its spelling."""
        room = self.manifest.context - prefix.cache.length - len(embeddings)
        if room < 1:
            raise SpatialError(
                ErrorCode.QUESTION_TOO_LONG,
                f"frames and question take {prefix.cache.length + len(embeddings)} tokens of {self.manifest.context}",
            )
        position, cache = prefix.next_position, prefix.cache
        answer: list[int] = []
        probabilities: list[float] = []
        for _ in range(min(max_new_tokens, room)):
            if should_stop is not None and should_stop():
                raise SpatialError(ErrorCode.CANCELED, f"canceled after {len(answer)} tokens")
            if deadline is not None and time.monotonic() > deadline:
                raise SpatialError(
                    ErrorCode.DEADLINE_EXCEEDED, f"the deadline passed after {len(answer)} tokens"
                )
            out = self._decode(embeddings, text_positions(len(embeddings), position), cache)
            position, cache = position + len(embeddings), out.cache
            logits = out.logits if spelling is None else spelling.logits(out.logits)
            token = choose(logits)
            shifted = logits.astype(np.float64) - float(logits.max())
            probabilities.append(float(np.exp(shifted[token]) / np.exp(shifted).sum()))
            if token == self._stop_id:
                break
            answer.append(token)
            if on_text is not None:
                on_text(self._words(answer))
            embeddings = self._embedding[[token]]
            if spelling is not None:
                spelling.follow(token)
                embeddings = embeddings + spelling.code
        return self._words(answer).strip(), float(np.mean(probabilities))

    def _embedded(
        self, words: str, prefix: Prefix, among: Sequence[tuple[float, float]] = ()
    ) -> tuple[Float32, Spelling | None]:
        """(S, D) embeddings of a question behind its frames, and how its answer is spelled, see `digits`.

        Args:
            among: coordinates of the last frame, of which the answer is one; (): any.
        """
        embeddings = self._embedding[self._encode(words)]
        m = self.manifest
        found = pointers(words, self._encode) if m.pointers else []
        known: told.Told | None = None
        depths_m: list[float] = []
        if prefix.pair is not None:
            known = told.of_question(prefix.pair, [(pointer.x, pointer.y) for pointer in found], among)
            embeddings[0] += told.code(known.shares, m.hidden)
        for pointer in found:
            tokens, weights = neighbours(pointer.x, pointer.y, m.grid_h, m.grid_w)
            for visual in prefix.visual:
                embeddings[pointer.at] += weights @ visual[tokens]
            if prefix.first_lifted is not None:
                depth_m, _ = prefix.first_lifted
                there_m = depth_m.ravel()[[cell(pointer.x, pointer.y, *depth_m.shape)]]
                embeddings[pointer.at] += depth_code(there_m, m.hidden)[0]
                depths_m.append(float(there_m[0]))
        if not m.told_digits:
            return embeddings, None
        numbers = (known or told.of_depths(depths_m)).spelled
        spelling = Spelling(numbers, self._digit_ids, m.hidden, copies=m.copied_digits)
        embeddings[-1] += spelling.code
        return embeddings, spelling

    def _words(self, answer: list[int]) -> str:
        text = str(self._tokenizer.decode(answer))
        return narrowed(text) if self.manifest.prompt.number_digits else text

    def _chooser(self, choices: tuple[str, ...] = ()) -> Choose:
        return chooser(
            choices,
            digits=self.manifest.prompt.number_digits,
            encode=self._encode,
            id_of=self._id_of,
            stop_id=self._stop_id,
        )

    @cached_property
    def _coordinates(self) -> CoordinateParts | None:
        return coordinate_parts(self._encode, self._stop_id)

    @cached_property
    def _digit_ids(self) -> tuple[int, ...]:
        return tuple(self._id_of(digit) for digit in "0123456789")

    def _id_of(self, character: str) -> int:
        found = self._tokenizer.token_to_id(character)
        if found is None:
            raise SpatialError(
                ErrorCode.MODEL_SIGNATURE, f"the tokenizer of {self.name} has no token '{character}'"
            )
        return int(found)

    def _decode(
        self, embeddings: Float32, positions: NDArray[np.int64], cache: KVCache | None
    ) -> DecoderOutput:
        out = self.engine.decode(embeddings, positions, cache)
        if not np.isfinite(out.logits).all():
            raise SpatialError(ErrorCode.INVALID_OUTPUT, "the decoder's output is not finite")
        return out

    def _encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)
