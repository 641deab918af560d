"""A fleet on one machine: two gateways behind a balancer, a database, object storage, Tritons."""

from __future__ import annotations

from tests.triton_models.conftest import installation, start_server  # noqa: F401
