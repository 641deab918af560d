"""The parameters of config.pbtxt: defaults from the environment, errors that name them."""

from __future__ import annotations

from pathlib import Path

import pytest

from castmate.errors import BundleMismatch, BundleNotFound, SettingsError
from castmate.triton.loading import ModelSettings, open_service
from castmate.triton.metrics import Metrics

pytestmark = pytest.mark.usefixtures("own_folder")


def test_an_empty_parameter_takes_the_environment_and_then_the_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CASTMATE_BUNDLE", "flux")
    settings = ModelSettings.from_parameters({"bundle": "", "threads": " ", "max_waiting": "3"})
    assert (settings.bundle, settings.threads, settings.max_waiting) == ("flux", 0, 3)


def test_a_parameter_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CASTMATE_THREADS", "8")
    assert ModelSettings.from_parameters({"threads": "2"}).threads == 2


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"threads": "many"}, "parameter `threads`: Input should be a valid integer"),
        ({"threads": "-1"}, "parameter `threads`: Input should be greater than or equal to 0"),
        ({"max_waiting": "0"}, "parameter `max_waiting`"),
        ({"pulse_s": "0"}, "parameter `pulse_s`"),
        ({"bundel": "toon"}, "unknown parameter `bundel`; allowed: bundle, engine"),
    ],
)
def test_a_bad_parameter_is_named(parameters: dict[str, str], said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        ModelSettings.from_parameters(parameters)
    assert said in str(caught.value)


def test_a_bundle_that_is_not_there_is_named(metrics: Metrics, tmp_path: Path) -> None:
    with pytest.raises(BundleNotFound, match="no-such-bundle"):
        open_service({"bundle": str(tmp_path / "no-such-bundle")}, metrics)


def test_an_engine_that_the_bundle_was_not_made_for_is_refused(metrics: Metrics) -> None:
    with pytest.raises(BundleMismatch, match="asks for engine 'tensorrt'; bundle 'toon'"):
        open_service({"bundle": "toon", "engine": "tensorrt"}, metrics)


@pytest.fixture
def metrics() -> Metrics:
    return None  # type: ignore[return-value]  # nothing is counted before the model is loaded
