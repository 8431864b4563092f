"""Where Gnomon keeps what outlives a command: the store and the caches. `GNOMON_HOME` moves all of it."""

import os
from pathlib import Path

from gnomon.core.errors import NotRunnable


def home() -> Path:
    """`$GNOMON_HOME`, else the platform's cache folder for the user; made when it is missing. Raises NotRunnable."""
    base = os.environ.get("GNOMON_HOME")
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gnomon"
    folder = Path(base).expanduser() if base else default
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NotRunnable(
            f"{folder} cannot be made ({error.strerror}); set GNOMON_HOME to a folder of yours"
        ) from error
    return folder
