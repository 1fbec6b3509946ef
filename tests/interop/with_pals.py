"""PALs: a name, or an application and a name."""

from contextlib import contextmanager

from sqlalchemy import func, select

import pals
from database import sqlalchemy_url
from serve import serve


@contextmanager
def lock(*names):
    application = names[0] if len(names) == 2 else None
    lock = pals.Locker(application, sqlalchemy_url()).lock(names[-1])
    granted = lock.acquire(blocking=False)
    yield lock.conn.execute(select(func.pg_backend_pid())).scalar_one() if granted else None
    # The question above began a transaction, in which PALs cannot begin its own.
    lock.conn.rollback()
    if granted and not lock.release():
        raise RuntimeError("the lock was not held")
    if not granted:
        lock.conn.close()


serve(lock)
