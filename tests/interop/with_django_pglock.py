"""django-pglock: names and integers."""

from contextlib import contextmanager

from database import django
from serve import serve

_, pid = django()

import pglock  # noqa: E402, after the settings


@contextmanager
def lock(name):
    with pglock.advisory(name, timeout=0) as granted:
        yield pid() if granted else None


serve(lock)
