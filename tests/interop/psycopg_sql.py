"""Keys that the server derives, as PormG for Julia and many others have it do, over psycopg.

The first part chooses the expression.
"""

from contextlib import contextmanager

import psycopg

from database import URL
from serve import serve

MD5 = "(('x' || substr(md5({}), 1, 16))::bit(64))::bigint"
EXPRESSIONS = {
    "md5": MD5.format("%s"),
    "hashtext": "hashtext(%s)",
    "hashtext_pair": "hashtext(%s), hashtext(%s)",
    "hashtextextended": "hashtextextended(%s, %s)",
}

connection = psycopg.connect(URL, autocommit=True)


@contextmanager
def lock(expression, *values):
    key = EXPRESSIONS[expression]
    granted = connection.execute(f"SELECT pg_try_advisory_lock({key})", values).fetchone()[0]
    try:
        yield connection.info.backend_pid if granted else None
    finally:
        if granted:
            released = connection.execute(f"SELECT pg_advisory_unlock({key})", values).fetchone()[0]
            if not released:
                raise RuntimeError("the lock was not held")


serve(lock)
