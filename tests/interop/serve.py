"""The conversation with the Rust program: it asks for locks by lines on standard input, and reads the answers from standard output.

    lock PART...   granted PID, or refused
    release        released

A part is `t` and a text in hexadecimal UTF-8, or `i` and an integer. PID is the server's process that the lock's own connection talks to.
Whatever fails ends the program, and shows on standard error.
"""

import sys


def parts(words):
    """The parts of a name."""
    return [
        int(word[1:]) if word[0] == "i" else bytes.fromhex(word[1:]).decode("utf-8")
        for word in words
    ]


def answer(line):
    print(line, flush=True)


def question():
    """The words of the next line; none at the end."""
    return sys.stdin.readline().split()


def until_release():
    words = question()
    if words != ["release"]:
        raise RuntimeError(f"expected release, got {words}")


def serve(lock):
    """Serves with `lock(*parts)`, a context manager that gives the process of the server, or None where the lock was refused."""
    while words := question():
        if words[0] != "lock":
            raise RuntimeError(f"expected lock, got {words}")
        with lock(*parts(words[1:])) as pid:
            if pid is None:
                answer("refused")
                continue
            answer(f"granted {pid}")
            until_release()
        answer("released")
