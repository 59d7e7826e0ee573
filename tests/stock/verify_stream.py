"""Verifies the tokens on standard input, one a line as they come, by a copy of the issuer's keys that is used for as
long as Cache-Control allows.

usage: verify_stream.py ISSUER AUDIENCE CA_FILE; prints how many tokens held, and under how many keys
"""

import json
import re
import ssl
import sys
import time
import urllib.request

import jwt

issuer, audience, ca_file = sys.argv[1:]
tls = ssl.create_default_context(cafile=ca_file)
algorithms = ["ES256", "RS256"]


class Copy:
    """The published keys, fetched again only when the copy may not be used any longer."""

    def __init__(self):
        self.stale_at = 0.0
        self.keys = {}

    def key(self, kid):
        while time.monotonic() >= self.stale_at:
            try:
                self.fetch()
            except OSError:  # the broker is away for a moment
                time.sleep(0.05)
        return self.keys[kid]

    def fetch(self):
        asked_at = time.monotonic()
        with urllib.request.urlopen(issuer + "/jwks", context=tls, timeout=5) as answer:
            found = json.load(answer)
            max_age = int(re.search(r"max-age=(\d+)", answer.headers["Cache-Control"])[1])
        self.keys = {key["kid"]: jwt.PyJWK(key) for key in found["keys"]}
        self.stale_at = asked_at + max_age


copy, held, kids = Copy(), 0, set()
for line in sys.stdin:
    token = line.strip()
    kid = jwt.get_unverified_header(token)["kid"]
    jwt.decode(token, copy.key(kid), algorithms=algorithms, audience=audience, issuer=issuer)
    held += 1
    kids.add(kid)
print(held, len(kids))
