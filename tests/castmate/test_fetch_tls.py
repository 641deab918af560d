"""The certificate is checked against the name in the URL, although an address is connected."""

from __future__ import annotations

import asyncio
import datetime
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpcore2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from castmate.errors import ImageRejected
from castmate.fetch import PinnedBackend, fetch

pytestmark = pytest.mark.anyio


def certificate(folder: Path, name: str) -> Path:
    """A self-signed certificate for `name`, and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = folder / f"{name}.pem"
    path.write_bytes(private + signed.public_bytes(pem))
    return path


@asynccontextmanager
async def https_server(pem: Path) -> AsyncIterator[int]:
    """A real TLS server on this machine that answers every request with a fox."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pem)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\nconnection: close\r\n\r\nfox")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


class Tunnel(httpcore2.AnyIOBackend):
    """Leads every address to one port of this machine: nothing public is reached in a test."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def connect_tcp(self, host: str, port: int, *args: Any, **kwargs: Any) -> Any:
        assert (host, port) == ("93.184.215.14", 443)
        return await super().connect_tcp("127.0.0.1", self.port, *args, **kwargs)


async def public(host: str, port: int) -> list[str]:
    return ["93.184.215.14"]


async def test_a_certificate_for_the_name_in_the_url_is_accepted_and_another_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pem = certificate(tmp_path, "a.example")
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    with anyio.fail_after(10):
        async with https_server(pem) as port:
            backend = PinnedBackend(public, Tunnel(port))
            body = await fetch("https://a.example/fox.png", max_bytes=10, backend=backend)
            assert body == b"fox"
            with pytest.raises(ImageRejected, match=r"b\.example.*cannot be reached.*CERTIFICATE"):
                await fetch("https://b.example/fox.png", max_bytes=10, backend=backend)


async def test_a_certificate_that_nobody_vouches_for_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate(tmp_path, "other.example")))
    with anyio.fail_after(10):
        async with https_server(certificate(tmp_path, "a.example")) as port:
            backend = PinnedBackend(public, Tunnel(port))
            with pytest.raises(ImageRejected, match=r"cannot be reached.*CERTIFICATE"):
                await fetch("https://a.example/fox.png", max_bytes=10, backend=backend)
