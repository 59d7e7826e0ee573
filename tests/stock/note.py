"""Verifies the signature of a checkpoint (a C2SP signed note) with its Ed25519 key.

usage: note.py CHECKPOINT VKEY
"""

import base64
import hashlib
import sys

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

with open(sys.argv[1]) as file:
    text, signatures = file.read().split("\n\n", 1)
name, key_id, key = sys.argv[2].split("+", 2)
key = base64.b64decode(key)
assert hashlib.sha256(name.encode() + b"\n" + key).digest()[:4].hex() == key_id, "the key id"
assert key[0] == 1, "an Ed25519 key"

signed = [line.split(" ")[1:] for line in signatures.splitlines()]
[signature] = [base64.b64decode(value) for by, value in signed if by == name]
assert signature[:4].hex() == key_id, "signed by this key"
Ed25519PublicKey.from_public_bytes(key[1:]).verify(signature[4:], text.encode() + b"\n")
print(text.split("\n")[0])
