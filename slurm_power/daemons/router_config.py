"""Table [router]: where requests arrive, who may send them, and how many may wait."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from slurm_power.errors import require


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterConfig:
    listen_host: str = "127.0.0.1"
    """0.0.0.0: reachable from other hosts; put TLS in front."""

    listen_port: int = 8080

    api_keys_file: Path | None = None
    """One NAME:KEY per line, not readable by others. None: whoever reaches the port may ask, so only on 127.0.0.1."""

    max_body_bytes: int = 4 * 1024 * 1024

    max_waiting: int = 1024
    """Requests that wait for a place; more are answered with 429 and Retry-After."""

    patience_s: float = 10.0
    """A request that cannot begin within its deadline and so much more is refused at once, not after it has waited."""

    silence_s: float = 300.0
    """An instance that says nothing for so long in the middle of an answer has died."""

    ttft_small_s: float = 0.25
    ttft_medium_s: float = 0.4
    ttft_large_s: float = 2.0
    """When the first token is due, by the size of the prompt. Assumptions, as all deadlines here."""

    tbt_s: float = 0.1
    """The longest time between two tokens."""

    def __post_init__(self) -> None:
        require(0 <= self.listen_port <= 65535, "listen_port", self.listen_port, "must be 0 to 65535")
        require(self.max_body_bytes >= 1024, "max_body_bytes", self.max_body_bytes, "must be at least 1024")
        require(self.max_waiting >= 1, "max_waiting", self.max_waiting, "must be at least 1")
        for key in ("patience_s", "silence_s", "ttft_small_s", "ttft_medium_s", "ttft_large_s", "tbt_s"):
            require(getattr(self, key) > 0, key, getattr(self, key), "must be above 0")
        local = self.listen_host in ("127.0.0.1", "::1", "localhost")
        require(
            local or self.api_keys_file is not None,
            "listen_host",
            self.listen_host,
            "needs api_keys_file: without keys only this host may ask",
        )
