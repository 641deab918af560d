"""Runs a command where no network is, and says which hosts it looked up: `python offline.py ...`.

Start it with `unshare --net --mount --map-root-user`: it answers on port 53 of its own loopback and
puts its own resolver in place of the machine's. Knows nothing of Castmate.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import socket
import struct
import subprocess
import tempfile
import threading
import time
from typing import Final

_SIOCSIFFLAGS: Final = 0x8914
_UP_AND_RUNNING: Final = 0x41
_NO_SUCH_NAME: Final = b"\x81\x83"
_POLL_S: Final = 0.05


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--for", dest="watch_s", type=float, required=True, help="seconds at most")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    _raise_loopback()
    found = _answer_lookups()
    with tempfile.TemporaryFile("w+") as printed:
        child = subprocess.Popen(arguments.command, stdout=printed, stderr=subprocess.STDOUT)
        ends = time.monotonic() + arguments.watch_s
        while child.poll() is None and time.monotonic() < ends:
            time.sleep(_POLL_S)
        code = child.poll()
        child.terminate()
        child.wait(30)
        printed.seek(0)
        print(json.dumps({"code": code, "hosts": sorted(found), "printed": printed.read()}))


def _raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sH14s", b"lo", _UP_AND_RUNNING, b"")
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, request)


def _answer_lookups() -> set[str]:
    """Names that were asked for; grows while the process runs."""
    with tempfile.NamedTemporaryFile("w", delete=False) as resolver:
        resolver.write("nameserver 127.0.0.1\n")
    subprocess.run(["mount", "--bind", resolver.name, "/etc/resolv.conf"], check=True)
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 53))
    found: set[str] = set()

    def answer() -> None:
        while True:
            query, sender = server.recvfrom(4096)
            name, end = _name(query)
            found.add(name)
            head = query[:2] + _NO_SUCH_NAME + query[4:6] + bytes(6)
            server.sendto(head + query[12 : end + 4], sender)

    threading.Thread(target=answer, daemon=True).start()
    return found


def _name(query: bytes) -> tuple[str, int]:
    """The name in a DNS query, and where it ends (RFC 1035, 4.1.2)."""
    labels, at = [], 12
    while length := query[at]:
        labels.append(query[at + 1 : at + 1 + length].decode("ascii", "replace"))
        at += 1 + length
    return ".".join(labels), at + 1


if __name__ == "__main__":
    main()
