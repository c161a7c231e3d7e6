"""Chance where it is not a function of a broadcast's seed: ids, new seeds, secrets."""

from __future__ import annotations

import base64
import secrets

_ID_BYTES = 10  # 80 bits: sixteen letters and digits
_SECRET_BYTES = 32


class SystemChance:
    """The `Random` port on the operating system's own source."""

    def id(self, prefix: str) -> str:
        return f"{prefix}_{base64.b32encode(secrets.token_bytes(_ID_BYTES)).decode().lower()}"

    def seed(self) -> int:
        return secrets.randbelow(2**31)

    def secret(self) -> str:
        return secrets.token_urlsafe(_SECRET_BYTES)
