"""What PormG's `strategy=:block` sends: a wait in the server's queue, with a limit for that statement."""

from contextlib import contextmanager

import psycopg

from database import URL
from serve import serve

KEY = "(('x' || substr(md5(%s), 1, 16))::bit(64))::bigint"

connection = psycopg.connect(URL, autocommit=True)


@contextmanager
def lock(name):
    before = connection.execute("SHOW statement_timeout").fetchone()[0]
    connection.execute("SET statement_timeout = 30000")
    try:
        connection.execute(f"SELECT pg_advisory_lock({KEY})", [name])
    finally:
        connection.execute("SELECT set_config('statement_timeout', %s, false)", [before])
    try:
        yield connection.info.backend_pid
    finally:
        connection.execute(f"SELECT pg_advisory_unlock({KEY})", [name])


serve(lock)
