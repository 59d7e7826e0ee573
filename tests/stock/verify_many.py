"""Lets the independent verifier judge many logs: LIST has `ENTRIES CHECKPOINT`, of one or
more that follow each other, a line; an answer a line, 0 or 4 first.

usage: verify_many.py FOLDER-OF-VERIFY LIST LOG-KEY
"""

import sys

sys.dont_write_bytecode = True
sys.path.insert(0, sys.argv[1])
from verify import verify  # noqa: E402

with open(sys.argv[2]) as file:
    for line in file:
        found = verify(sys.argv[3], *line.split())
        print(4 if found else 0, *found[:3])
