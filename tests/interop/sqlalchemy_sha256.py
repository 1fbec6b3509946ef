"""A function over a SQLAlchemy session that tries within its transaction and raises: SHA-256 of parts joined with a hyphen."""

import hashlib
from contextlib import contextmanager

from sqlalchemy import create_engine, func, select
from sqlalchemy.orm import Session

from database import sqlalchemy_url
from serve import serve

engine = create_engine(sqlalchemy_url())


class NotAvailable(Exception):
    """Another transaction has the lock."""


def lock_in_transaction(session, *ids):
    text = "-".join(str(part) for part in ids)
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    key = int.from_bytes(digest[:8], byteorder="big", signed=True)
    if not session.execute(select(func.pg_try_advisory_xact_lock(key))).scalar_one():
        raise NotAvailable(key)


@contextmanager
def lock(*ids):
    with Session(engine) as session:
        try:
            lock_in_transaction(session, *ids)
            # Again in the same session, which is no error.
            lock_in_transaction(session, *ids)
        except NotAvailable:
            yield None
            return
        yield session.execute(select(func.pg_backend_pid())).scalar_one()
        session.commit()


serve(lock)
