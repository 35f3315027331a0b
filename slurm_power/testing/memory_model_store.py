"""A model store in memory."""

from __future__ import annotations


class MemoryModelStore:
    def __init__(self) -> None:
        self.texts: dict[str, str] = {}

    def load(self, name: str) -> str | None:
        return self.texts.get(name)

    def save(self, name: str, text: str) -> None:
        self.texts[name] = text
