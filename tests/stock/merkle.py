"""Computes the root of a log (RFC 6962) from its entries, one a line, and compares it with a checkpoint.

usage: merkle.py ENTRIES CHECKPOINT; nothing but the standard library
"""

import base64
import hashlib
import sys


def root(leaves):
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return hashlib.sha256(b"\x01" + root(leaves[:split]) + root(leaves[split:])).digest()


with open(sys.argv[1], "rb") as file:
    leaves = [hashlib.sha256(b"\x00" + line.rstrip(b"\n")).digest() for line in file]
with open(sys.argv[2]) as file:
    origin, size, expected = file.read().split("\n")[:3]

leaves = leaves[: int(size)]
if len(leaves) < int(size):
    sys.exit(f"{len(leaves)} entries, and the checkpoint is of {size}")
found = base64.b64encode(root(leaves)).decode()
if found != expected:
    sys.exit(f"the entries lead to {found}, and the checkpoint says {expected}")
print(f"{origin}: {size} entries, {found}")
