"""Python loads this by itself where its folder is on PYTHONPATH: from then on, no process reaches a network unseen.

Each try is written to the file NETWORK_LOG and fails: sockets and names looked up from Python, by an audit hook, which threads
and forked processes keep and spawned ones load again; sockets that compiled code opens, by ending the process (Linux). Sockets
of the kind AF_UNIX may be opened: they stay on this machine, and multiprocessing passes files through them.
"""

import ctypes
import os
import platform
import socket
import struct
import sys
import traceback

SYSCALLS = {"x86_64": 41, "aarch64": 198}  # the number of socket() in Linux
NO_NEW_PRIVILEGES, SECCOMP, FILTER = 38, 22, 2  # for prctl
LOAD, IS, RETURN, ALLOW, KILL = 0x20, 0x15, 0x06, 0x7FFF0000, 0x80000000  # of the small language of such filters


def refuse(event: str, details: tuple) -> None:
    """Record and fail what reaches for a network; other events pass."""
    lookups = ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "urllib.Request")
    if event not in lookups and not (event == "socket.__new__" and details[1] != socket.AF_UNIX):
        return
    with open(os.environ["NETWORK_LOG"], "a") as log:  # noqa: PTH123
        log.write(f"{event} {details}\n{''.join(traceback.format_stack(limit=12))}\n")
    raise PermissionError(f"{event}: nothing may be sent or fetched")


def end_at_sockets(number: int) -> None:
    """End this process, and those that it starts, when compiled code opens a socket that is not AF_UNIX."""
    steps = [
        (LOAD, 0, 0, 0),  # the number of the call
        (IS, 0, 3, number),
        (LOAD, 0, 0, 16),  # its first argument
        (IS, 1, 0, socket.AF_UNIX),
        (RETURN, 0, 0, KILL),
        (RETURN, 0, 0, ALLOW),
    ]
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    prctl = ctypes.CDLL(None).prctl
    prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    prctl(SECCOMP, FILTER, struct.pack("HxxxxxxQ", len(steps), ctypes.addressof(program)), 0, 0)


sys.addaudithook(refuse)
if sys.platform == "linux" and platform.machine() in SYSCALLS:
    end_at_sockets(SYSCALLS[platform.machine()])
