"""What is wrong with a trace: refused at the first find, or, for a lenient reader, counted and told."""

from gnomon.core.errors import DamagedData


class Damage:
    """Collects what a reader finds. name: of the file, in messages. is_lenient: go on and tell instead of refusing."""

    def __init__(self, name: str, is_lenient: bool) -> None:
        self.name, self.is_lenient = name, is_lenient
        self._found: dict[str, tuple[int, str]] = {}
        self._notes: list[str] = []
        self.first_outcome: str | None = None  # of the damage that a lenient reader met first

    def found(self, outcome: str, what: str, where: str, remedy: str = "left out") -> None:
        """One piece of damage. what: in the plural ("spans that end before they begin"). where: this one.

        remedy: what a lenient reader did with it. Raises DamagedData with `outcome` unless lenient.
        """
        if not self.is_lenient:
            raise DamagedData(
                f"{self.name} has {what}: {where}. Record it again, or import what can be saved with --lenient",
                outcome=outcome,
            )
        self.first_outcome = self.first_outcome or outcome
        key = f"{what} ({remedy})"
        count, first = self._found.get(key, (0, where))
        self._found[key] = (count + 1, first)

    def note(self, text: str) -> None:
        """Something that a reader should know and that is no damage."""
        self._notes.append(text)

    def warnings(self) -> tuple[str, ...]:
        """Everything that was found and noted, one text for each kind of damage with its count and first case."""
        told = [f"{count} {what}; the first: {first}" for what, (count, first) in self._found.items()]
        return (*told, *self._notes)
