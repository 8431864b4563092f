"""How the stages say what they are doing."""

from collections.abc import Callable

Progress = Callable[[str], None]


def silent(message: str) -> None:
    """No progress is wanted."""
