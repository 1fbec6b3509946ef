"""A context manager over a psycopg connection that tries: SHA-1, native byte order."""

import hashlib
import struct
from contextlib import contextmanager

import psycopg

from database import URL
from serve import serve

connection = psycopg.connect(URL, autocommit=True)


@contextmanager
def lock(name):
    (number,) = struct.unpack("q", hashlib.sha1(name.encode("utf-8")).digest()[:8])
    granted = connection.execute("SELECT pg_try_advisory_lock(%s)", [number]).fetchone()[0]
    try:
        yield connection.info.backend_pid if granted else None
    finally:
        if granted:
            connection.execute("SELECT pg_advisory_unlock(%s)", [number])


serve(lock)
