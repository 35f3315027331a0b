"""What one token leaves in the cache: the shapes of keys and values, by layer kind. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class KvLayout:
    """Of one rank. With multi-head latent attention there is one head: key = latent + rotary part, value = the latent,
    which is the front of the key and is not stored again."""

    layers: int
    kv_heads: int
    key_size: int
    """Numbers per head and token."""

    value_size: int
    values_in_keys: bool = False
    """True for latent attention: values are `keys[..., :value_size]`."""

    bytes_per_number: int
    block_tokens: int = 16

    @property
    def token_bytes(self) -> int:
        stored = self.key_size + (0 if self.values_in_keys else self.value_size)
        return self.layers * self.kv_heads * stored * self.bytes_per_number

    @property
    def block_bytes(self) -> int:
        return self.token_bytes * self.block_tokens
