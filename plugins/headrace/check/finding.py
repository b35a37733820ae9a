"""A fault of a declaration or of a model: where it is, what was found, what was expected, the remedy."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One fault. file: the path of the file to correct. line: from 1; None where it is not known.

    expected and remedy are empty where `found` already says them: the texts of errors do.
    """

    file: str
    line: int | None
    found: str
    expected: str = ""
    remedy: str = "correct the file"

    def text(self) -> str:
        """The finding in one line."""
        where = self.file if self.line is None else f"{self.file}:{self.line}"
        expected = f", expected {self.expected}" if self.expected else ""
        return f"{where}: {self.found}{expected}" + (f"; {self.remedy}" if self.remedy else "")

    def document(self) -> dict[str, Any]:
        """The finding for JSON."""
        return asdict(self)
