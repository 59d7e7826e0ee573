"""A pool of psycopg that is used until a file appears; says how many statements it ran and how many connections it made."""

import pathlib
import sys
import threading
import time

from psycopg_pool import ConnectionPool

conninfo, lifetime_s, over = sys.argv[1], float(sys.argv[2]), pathlib.Path(sys.argv[3])
lock, ran, failed = threading.Lock(), 0, []


def use(pool):
    global ran
    while not over.exists() and not failed:
        try:
            with pool.connection() as connection:
                role = connection.execute("SELECT session_user").fetchone()[0]
            assert role == "billing_nightly", role
        except Exception as error:
            failed.append(repr(error))
        with lock:
            ran += 1
        time.sleep(0.05)


with ConnectionPool(conninfo, min_size=2, max_size=4, max_lifetime=lifetime_s, open=True) as pool:
    pool.wait(20)
    users = [threading.Thread(target=use, args=(pool,)) for _ in range(4)]
    for user in users:
        user.start()
    for user in users:
        user.join()
    made = pool.get_stats()["connections_num"]
if failed:
    sys.exit(failed[0])
print(ran, made)
