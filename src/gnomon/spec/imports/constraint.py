"""Version constraints as Go's Masterminds/semver writes them, as PEP 440 specifiers: '^1.2' is '>=1.2,<2'."""

import re

_PART = re.compile(r"(=|==|!=|>=|<=|=>|=<|>|<|~>|~|\^)?\s*v?([0-9]+)(?:\.([0-9]+|[xX*]))?(?:\.([0-9]+|[xX*]))?")
_HYPHEN = re.compile(r"v?([0-9.]+)\s+-\s+v?([0-9.]+)")
_ANY = ("", "*", "x", "X", "latest")


def specifier(constraint: str) -> str | None:
    """The specifier that means the same ('' when any version will do); None when there is none, as for '1.0 || 2.0'."""
    text = constraint.strip()
    if text in _ANY:
        return ""
    hyphen = _HYPHEN.fullmatch(text)
    if hyphen:
        return f">={hyphen[1]},<={hyphen[2]}"
    clauses = [_clause(part) for part in re.split(r"\s*,\s*|\s+(?=[=!<>~^v0-9])(?<![=!<>~^]\s)", text)]
    return None if not all(clauses) else ",".join(str(clause) for clause in clauses)


def _clause(text: str) -> str | None:
    match = _PART.fullmatch(text.strip())
    if match is None:
        return None
    operator = {"": "==", "=": "==", "=>": ">=", "=<": "<=", "~>": "~"}.get(match[1] or "", match[1] or "")
    numbers = [int(match[2])]
    for part in (match[3], match[4]):
        if part is None or part in "xX*":
            break
        numbers.append(int(part))
    version = ".".join(map(str, numbers))
    exact = len(numbers) == 3
    if operator in ("==", "!="):
        return f"{operator}{version}" if exact else f"{operator}{version}.*"
    if operator == "~":
        return f">={version},<{_next(numbers, min(len(numbers), 2))}"
    if operator == "^":  # the leftmost number that is not zero may not change
        keep = next((i + 1 for i, number in enumerate(numbers) if number), len(numbers))
        return f">={version},<{_next(numbers, keep)}"
    return f"{operator}{version}"


def _next(numbers: list[int], keep: int) -> str:
    return ".".join(map(str, [*numbers[: keep - 1], numbers[keep - 1] + 1]))
