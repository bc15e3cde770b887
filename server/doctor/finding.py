"""One thing that was looked at, as one line."""

from dataclasses import asdict, dataclass
from typing import Literal, TypeAlias

State: TypeAlias = Literal["ok", "warning", "problem"]


@dataclass(frozen=True, slots=True)
class Finding:
    """`problem`: no video can be made before the remedy is applied."""

    subject: str
    state: State
    text: str
    remedy: str = ""

    def line(self) -> str:
        """For the terminal."""
        remedy = f" -> {self.remedy}" if self.remedy else ""
        return f"{self.state:<8} {self.subject:<11} {self.text}{remedy}"

    def as_dict(self) -> dict[str, str]:
        """For programs."""
        return asdict(self)
