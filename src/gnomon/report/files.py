"""Writing a whole file at once, so that a reader never meets half of one."""

import os
import tempfile
from pathlib import Path

from gnomon.core.errors import NotRunnable, outcome_of


def write_text(path: Path, content: str) -> Path:
    """Write `content` as UTF-8 beside `path`, then move it there; missing folders are made. Returns `path`.

    Raises NotRunnable when the place cannot be written.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, prefix=".", delete=False) as file:
            temporary = Path(file.name)
            file.write(content)
        temporary.chmod(0o666 & ~_umask())  # a temporary file is private; a report is an ordinary file
        return temporary.replace(path)
    except BaseException as error:  # an interrupt too leaves nothing behind
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            outcome = outcome_of(error) if outcome_of(error) == "disk-full" else None
            text = f"cannot write {path}: {error.strerror}. Choose another place with --out"
            raise NotRunnable(text, outcome=outcome) from error
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
