"""django-pglocks: names, integers and pairs of integers."""

from contextlib import contextmanager

from database import django
from serve import serve

_, pid = django()

from django_pglocks import advisory_lock  # noqa: E402, after the settings


@contextmanager
def lock(*name):
    with advisory_lock(name if len(name) == 2 else name[0], wait=False) as granted:
        yield pid() if granted else None


serve(lock)
