"""A parser for the Dockerfile instructions that this project uses."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import NamedTuple


class Instruction(NamedTuple):
    """One instruction of a stage."""

    stage: int
    name: str
    text: str

    @property
    def words(self) -> list[str]:
        """The list of an instruction in JSON form, or its words."""
        return (
            [str(one) for one in json.loads(self.text)]
            if self.text.startswith("[")
            else self.text.split()
        )


def read(path: Path) -> list[Instruction]:
    """Return the instructions in order, with joined lines and without comments."""
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    found: list[Instruction] = []
    stage = -1
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        if not line.strip():
            continue
        name, _, text = line.partition(" ")
        stage += name == "FROM"
        found.append(Instruction(stage, name, text.strip()))
    return found
