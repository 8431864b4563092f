"""What an analysis answers: one table with units, and in words what it stands on and what is missing."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gnomon.core.records import record

Cell = str | bool | int | float | None


@dataclass(frozen=True, slots=True)
class Column:
    """unit: 's', 'B', 'FLOP', 'FLOP/s', 'B/s', 'FLOP/B', '1/s', 'share' (0..1), 'x' (a ratio), 'count', 'text', 'bool'.

    about: what the number is where the name does not say it.
    """

    name: str
    unit: str
    about: str = ""


@record("analysis", 1)
@dataclass(frozen=True, slots=True)
class Analysis:
    """One answered question. A cell of a row is None where the value is not known; `notes` say why.

    name: as in the registry. title: with the number of XSP where it has one. subject: what was looked at. missing: why
    there is no answer at all, else None.
    """

    name: str
    title: str
    subject: str
    question: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()
    missing: str | None = None

    def column(self, name: str) -> tuple[Cell, ...]:
        """The values of one column, in the order of the rows. Raises KeyError."""
        names = [column.name for column in self.columns]
        if name not in names:
            raise KeyError(f"{self.name} has no column {name!r}; it has {', '.join(names)}")
        return tuple(row[names.index(name)] for row in self.rows)


@dataclass(frozen=True, slots=True)
class Form:
    """What is known of an analysis before it is asked. uses: parts of a subject that make its answer complete."""

    name: str
    title: str
    question: str
    columns: tuple[Column, ...]
    uses: frozenset[str]

    def answer(self, subject: str, rows: Iterable[Sequence[Cell]], notes: Iterable[str] = ()) -> Analysis:
        """The filled-in form. Raises ValueError when a row does not fit the columns."""
        filled = tuple(tuple(row) for row in rows)
        for row in filled:
            if len(row) != len(self.columns):
                raise ValueError(f"{self.name}: wanted {len(self.columns)} cells, got {len(row)}: {row}")
        notes = tuple(dict.fromkeys(note for note in notes if note))
        return Analysis(self.name, self.title, subject, self.question, self.columns, filled, notes)

    def cannot(self, subject: str, reason: str) -> Analysis:
        """The form with the reason why there is no answer."""
        return Analysis(self.name, self.title, subject, self.question, self.columns, (), (), reason)
