"""Files written whole or not at all: under a temporary name in the same folder, then renamed."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from spatial_mllm_core.errors import ErrorCode, SpatialError


def write_atomically(path: Path, data: bytes, *, replace: bool = False) -> None:
    """Write `data` to `path`; a reader sees the old file or the new one, never a part.

    Raises:
        SpatialError: OUTPUT_EXISTS when there is something and `replace` is False; NOT_WRITABLE.
    """
    temporary = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        # mkstemp gives 0600; a new file should be as readable as any other of this user
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        if replace:
            os.replace(temporary, path)
        else:
            os.link(temporary, path)
    except FileExistsError:
        raise SpatialError(
            ErrorCode.OUTPUT_EXISTS,
            f"'{path}' exists already and is not overwritten; remove it or name another output",
        ) from None
    except OSError as error:
        raise SpatialError(
            ErrorCode.NOT_WRITABLE, f"'{path}' cannot be written ({error.strerror or error})"
        ) from error
    finally:
        if temporary and os.path.exists(temporary):
            os.unlink(temporary)
