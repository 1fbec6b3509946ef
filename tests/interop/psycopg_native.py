"""This crate's own keys, derived as the documentation of `LockKey` says, for a Python program beside a Rust one."""

from contextlib import contextmanager

import psycopg
from blake3 import blake3

from database import URL
from serve import serve

connection = psycopg.connect(URL, autocommit=True)


def key(*values):
    """The key of parts: text, or integers as their decimal text."""
    hasher = blake3(derive_key_context="advisory-locking 2026-11-21 lock key v1")
    for value in values:
        data = str(value).encode("utf-8")
        hasher.update(len(data).to_bytes(8, "little") + data)
    return int.from_bytes(hasher.digest(length=8), "little", signed=True)


@contextmanager
def lock(*values):
    number = key(*values)
    granted = connection.execute("SELECT pg_try_advisory_lock(%s)", [number]).fetchone()[0]
    try:
        yield connection.info.backend_pid if granted else None
    finally:
        if granted:
            connection.execute("SELECT pg_advisory_unlock(%s)", [number])


serve(lock)
