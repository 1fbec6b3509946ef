"""sqlalchemy-dlock: names and integers."""

from contextlib import closing, contextmanager

from sqlalchemy import create_engine, func, select
from sqlalchemy_dlock import create_sadlock

from database import sqlalchemy_url
from serve import serve

engine = create_engine(sqlalchemy_url())


@contextmanager
def lock(name):
    with engine.connect() as connection, closing(create_sadlock(connection, name)) as lock:
        granted = lock.acquire(block=False)
        yield connection.execute(select(func.pg_backend_pid())).scalar_one() if granted else None
        if granted:
            lock.release()


serve(lock)
