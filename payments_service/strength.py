"""How strong a secret must be."""

from __future__ import annotations

import re

MIN_SECRET = 32  # characters
_MIN_DISTINCT = 8  # 32 random hexadecimal digits have fewer different ones once in thirty million

# Looked for in lower case without `-`, `_`, `.` and blanks. At seven letters or more, chance does not write them.
# Whatever the demo or the README shows as a sample contains `demo-only`; the last one is Standard Webhooks' sample.
_WEAK_WORDS = (
    "changeme", "replaceme", "example", "placeholder", "demoonly", "donotuse", "development", "insecure", "password",
    "secretsecret", "yoursecret", "mysecret", "supersecret", "testtest", "qwertyuiop", "0123456789", "1234567890",
    "abcdefghij", "mfkq9r8gkyqrtwjupd8ilpzio2lalasw",
)  # fmt: skip


def weakness_of(secret: str) -> str | None:
    """Why a secret is too weak for production, in words that do not quote it; None when it will do."""
    body = secret.removeprefix("whsec_")
    bare = re.sub(r"[-_.\s]", "", body).lower()
    if len(secret) < MIN_SECRET:
        return f"is shorter than {MIN_SECRET} characters"
    if any(word in bare for word in _WEAK_WORDS):
        return "contains a well-known word or a published sample"
    if len(set(body)) < _MIN_DISTINCT:
        return f"has fewer than {_MIN_DISTINCT} different characters"
    if body in (body + body)[1:-1]:
        return "repeats one short text"
    return None
