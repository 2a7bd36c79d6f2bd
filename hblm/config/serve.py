"""The configuration of `python -m hblm.serve`."""

from __future__ import annotations

from dataclasses import dataclass

from hblm.config.schema import key
from hblm.config.stored_model import Confidence, StoredModel


@dataclass
class ServeConfig(Confidence, StoredModel):
    """One run of `python -m hblm.serve`: what a request gets by default, where it listens, and its limits."""

    host: str = key("127.0.0.1", "address to listen at; 0.0.0.0: of all networks, without authentication")
    port: int = key(8000, "port to listen at; 0: a free one, which is printed", low=0, high=65_535)
    max_texts: int = key(256, "texts of one request, at most", low=1)
    max_characters: int = key(100_000, "characters of one text, at most", low=1)
    max_body: int = key(8_388_608, "bytes of one request, at most", low=1)
    queue: int = key(1024, "texts that wait, at most; requests beyond them get code 429", low=1)
    max_batch: int = key(32, "texts that are computed together, at most", low=1)
    batch_wait: float = key(
        10,
        "milliseconds that a batch waits for clients that were answered together; 0: none",
        low=0,
        high=1000,
    )
    timeout: float = key(
        30, "seconds for a request to arrive, and for its answer", low=0, open_low=True, high=86_400
    )
    access_log: bool = key(False, "log a line a request")

    def conflicts(self) -> list[str]:
        """Return a message for each combination of valid values that is invalid."""
        messages = super().conflicts()
        if self.max_texts > self.queue:
            messages.append(
                f"max_texts={self.max_texts} is more than queue={self.queue}: such a request would never "
                "have room; write a larger queue="
            )
        return messages
