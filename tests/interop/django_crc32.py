"""A function of a Django application that locks within its transaction: CRC-32, waiting."""

from contextlib import contextmanager
from zlib import crc32

from database import django
from serve import serve

connection, pid = django()

from django.db import transaction  # noqa: E402, after the settings


def lock_in_transaction(name):
    """Waits for the lock, which goes with the transaction."""
    if connection.get_autocommit():
        raise transaction.TransactionManagementError("no transaction that could keep the lock")
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [crc32(name.encode("utf-8"))])


@contextmanager
def lock(name):
    with transaction.atomic():
        lock_in_transaction(name)
        yield pid()


serve(lock)
