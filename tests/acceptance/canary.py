"""A secret to plant, and every form in which it could stand in a file."""

import base64
import json
from urllib.parse import quote, quote_plus

CANARY = "c4n4ry pA55+w/rd=&0123456789"


def forms(secret: str) -> list[bytes]:
    """Return how a text could stand in a file: plain, escaped, URL-encoded, base64 at each alignment, hex, UTF-16."""
    raw = secret.encode()
    found = [raw, json.dumps(secret)[1:-1].encode(), repr(secret)[1:-1].encode(), quote(secret).encode(), quote(secret, safe="").encode(),
             quote_plus(secret).encode(), raw.hex().encode(), secret.encode("utf-16-le")]
    for shift in range(3):
        whole = base64.b64encode(b"\0" * shift + raw)
        found.append(whole[4 if shift else 0:-4])
        found.append(base64.urlsafe_b64encode(b"\0" * shift + raw)[4 if shift else 0:-4])
    return list(dict.fromkeys(found))


def found_in(data: bytes) -> list[bytes]:
    """Return the forms of the canary that stand in `data`."""
    return [form for form in forms(CANARY) if form in data]


def echoes(secret: str) -> str:
    """Return the body of a provider that sends back what it was sent, in several spellings."""
    return json.dumps({"code": "INVALID_PASSWORD", "message": f"you sent {secret} / {quote(secret)}", "msg": secret, "text": quote_plus(secret)})
