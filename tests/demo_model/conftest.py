"""The network that is shipped, read once for all tests of a worker."""

from __future__ import annotations

import pytest

from demo_model.warm import shipped_network
from export.families.instantcharacter.network import InstantCharacter


@pytest.fixture(scope="session")
def network() -> InstantCharacter:
    return shipped_network()
