"""The machine's certificates, read once in a process: each HTTP client reads them anew.

That takes 20 ms of a processor, a sixth of what the tests of the REST API took in all.
"""

from __future__ import annotations

import functools
import os
import ssl

import httpcore2


def read_once() -> None:
    """From now on, for as long as the variables that name other certificates stay as they are."""
    read = httpcore2.default_ssl_context

    @functools.cache
    def of(trust_env: bool, *named: str | None) -> ssl.SSLContext:
        return read(_trust_env=trust_env)

    def default_ssl_context(*, _trust_env: bool = True) -> ssl.SSLContext:
        return of(_trust_env, *map(os.environ.get, ("SSL_CERT_FILE", "SSL_CERT_DIR")))

    httpcore2.default_ssl_context = default_ssl_context
