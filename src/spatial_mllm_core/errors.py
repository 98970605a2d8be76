"""The one exception family: every fault a user can cause has a number and one sentence.

Hundreds tell the room the fault belongs to: 1xx input, 2xx calibration, 3xx time,
4xx request, 5xx model, 6xx resource. The sentence names what was expected, what was
found and, where it helps, what to do.
"""

from __future__ import annotations

from enum import IntEnum


class ErrorCode(IntEnum):
    """Stable fault numbers; they travel in messages, so a number never changes its meaning."""

    OK = 0
    # 1xx input: one message could not be used
    EMPTY_IMAGE = 101
    TRUNCATED_IMAGE = 102
    BAD_STEP = 103
    IMAGE_TOO_LARGE = 104
    UNSUPPORTED_ENCODING = 105
    UNDECODABLE_IMAGE = 106
    BAD_DEPTH = 107
    # 2xx calibration
    NO_CALIBRATION = 201
    UNCALIBRATED = 202
    BAD_INTRINSICS = 203
    SIZE_MISMATCH = 204
    UNKNOWN_DISTORTION_MODEL = 205
    BAD_DISTORTION = 206
    FRAME_MISMATCH = 207
    BAD_ROI = 208
    # 3xx time
    FRAME_EXPIRED = 301
    FRAME_NOT_YET = 302
    STAMP_REGRESSION = 303
    DUPLICATE_STAMP = 304
    DEADLINE_EXCEEDED = 305
    NO_FRAME = 306
    # 4xx request
    EMPTY_QUESTION = 401
    QUESTION_TOO_LONG = 402
    PIXEL_OUTSIDE = 403
    UNKNOWN_TASK = 404
    WRONG_FRAME_COUNT = 405
    SAME_FRAME_TWICE = 406
    BUSY = 407
    BAD_NUMBER = 408
    CANCELED = 409
    NO_REWARD_TASK = 410
    WRONG_POINT_COUNT = 411
    # 5xx model
    MODEL_MISSING = 501
    HASH_MISMATCH = 502
    MODEL_SIGNATURE = 503
    UNSAFE_MODEL_FILE = 504
    INVALID_OUTPUT = 505
    UNPARSABLE_ANSWER = 506
    BAD_MANIFEST = 507
    # 6xx resource
    BAG_MISSING = 601
    BAG_UNREADABLE = 602
    BAG_WITHOUT_IMAGES = 603
    BACKEND_UNAVAILABLE = 604
    OUTPUT_EXISTS = 605
    OUT_OF_MEMORY = 606
    NOT_WRITABLE = 607
    NOT_READY = 608


class SpatialError(Exception):
    """A fault with a stable code and one sentence for a person.

    Attributes:
        code: the fault's number.
        sentence: one sentence; never contains newlines or control characters, so that
            text from outside (an encoding name, a frame_id) cannot forge log lines.
    """

    def __init__(self, code: ErrorCode, sentence: str) -> None:
        self.code = ErrorCode(code)
        self.sentence = one_line(sentence)
        super().__init__(f"E{int(self.code)} {self.code.name}: {self.sentence}")

    def __reduce__(self) -> tuple[type[SpatialError], tuple[ErrorCode, str]]:
        return (SpatialError, (self.code, self.sentence))


def one_line(text: str, limit: int = 400) -> str:
    """Return `text` on one line, with control characters escaped, cut to `limit` characters."""
    clean = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"
