"""A lock that brings its own asyncpg connection: `async with` gives the connection, or raises. MD5, by the server."""

import asyncio

import asyncpg

from database import URL
from serve import answer, parts, question, until_release

KEY = "('x' || substr(md5($1), 1, 16))::bit(64)::bigint"


class NotAvailable(Exception):
    """Another session has the lock."""


class OwnConnectionLock:
    def __init__(self, name):
        self.name = name

    async def __aenter__(self):
        self.connection = await asyncpg.connect(URL)
        if not await self.connection.fetchval(f"SELECT pg_try_advisory_lock({KEY})", self.name):
            await self.connection.close()
            raise NotAvailable(self.name)
        return self.connection

    async def __aexit__(self, *_):
        try:
            await self.connection.fetchval(f"SELECT pg_advisory_unlock({KEY})", self.name)
        finally:
            await self.connection.close()


async def serve():
    while words := await asyncio.to_thread(question):
        try:
            async with OwnConnectionLock(*parts(words[1:])) as connection:
                answer(f"granted {await connection.fetchval('SELECT pg_backend_pid()')}")
                await asyncio.to_thread(until_release)
        except NotAvailable:
            answer("refused")
        else:
            answer("released")


asyncio.run(serve())
