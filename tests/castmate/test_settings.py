"""Settings come from the environment, and an error names the variable that is wrong."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from castmate.engines.bundle import Bundle, locate
from castmate.errors import SettingsError
from castmate.settings import Settings
from tests.castmate.command import castmate_


def test_without_any_variable_the_toon_bundle_and_the_current_folder_are_used(
    own_folder: Path,
) -> None:
    settings = Settings.load()
    assert settings.bundle == "toon"
    assert settings.image_roots == (own_folder,)
    assert settings.data_dir == Path(os.environ["XDG_DATA_HOME"]) / "castmate"


def test_variables_are_read_and_a_flag_wins_over_them(
    own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CASTMATE_BUNDLE", "flux")
    monkeypatch.setenv("CASTMATE_THREADS", "3")
    settings = Settings.load(bundle="toon", threads=None)
    assert (settings.bundle, settings.threads) == ("toon", 3)


def test_image_roots_are_a_list_like_path(
    own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CASTMATE_IMAGE_ROOTS", f"/pictures{os.pathsep}{os.pathsep}/more")
    assert Settings.load().image_roots == (Path("/pictures"), Path("/more"))


def test_a_server_that_starts_in_the_root_folder_opens_no_folder_by_itself(
    own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    assert Settings.load().image_roots == ()


def test_an_error_names_the_variable_and_the_value(
    own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CASTMATE_THREADS", "many")
    with pytest.raises(SettingsError, match=r"CASTMATE_THREADS: .*valid integer.*'many'"):
        Settings.load()


def test_clients_are_a_list_in_the_order_of_trying_them(
    own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Settings.load().clients is None
    monkeypatch.setenv("CASTMATE_CLIENTS", "wavespeed, local")
    assert Settings.load().clients == ("wavespeed", "local")


@pytest.mark.parametrize(("value", "key"), [(" wsk_x\n", "wsk_x"), ("", None), (" ", None)])
def test_a_key_is_kept_secret_without_the_space_around_it(
    own_folder: Path, monkeypatch: pytest.MonkeyPatch, value: str, key: str | None
) -> None:
    monkeypatch.setenv("CASTMATE_WAVESPEED_API_KEY", value)
    settings = Settings.load()
    kept = settings.wavespeed_api_key
    assert (kept.get_secret_value() if kept else None) == key
    assert "wsk_x" not in repr(settings) + str(settings.model_dump()) + settings.model_dump_json()


@pytest.mark.parametrize("key", ["wsk x", "wsk\r\nX-Evil: 1", "wsk_\u00e9"])
def test_a_key_that_cannot_be_one_is_refused_without_being_shown(
    own_folder: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("CASTMATE_WAVESPEED_API_KEY", key)
    with pytest.raises(SettingsError, match="CASTMATE_WAVESPEED_API_KEY: ") as caught:
        Settings.load()
    assert "wsk" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("https://hosted.example/", "https://hosted.example"),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("http://[::1]:8000", "http://[::1]:8000"),
        ("http://localhost:8000", "http://localhost:8000"),
        ("http://hosted.example", None),
        ("http://10.0.0.7", None),
        ("http://localhost.example", None),
        ("https://user:secret@hosted.example", None),
        ("https://hosted.example/?a=1", None),
        ("hosted.example", None),
    ],
)
def test_the_key_goes_unencrypted_to_no_other_machine(
    own_folder: Path, value: str, kept: str | None
) -> None:
    if kept:
        assert Settings.load(wavespeed_base_url=value).wavespeed_base_url == kept
    else:
        with pytest.raises(SettingsError, match="CASTMATE_WAVESPEED_BASE_URL: ") as caught:
            Settings.load(wavespeed_base_url=value)
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize("model", ["../balance", "a/../../b", "a b/c", "a/b?c=d", "model"])
def test_a_hosted_model_that_would_lead_elsewhere_is_refused(own_folder: Path, model: str) -> None:
    with pytest.raises(SettingsError, match="CASTMATE_WAVESPEED_MODEL: "):
        Settings.load(wavespeed_model=model)


def test_the_home_folder_may_be_abbreviated_in_every_path(
    own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(own_folder))
    monkeypatch.setenv("CASTMATE_DATA_DIR", "~/data")
    monkeypatch.setenv("CASTMATE_IMAGE_ROOTS", f"~/pictures{os.pathsep}/tmp")
    settings = Settings.load()
    assert settings.data_dir == own_folder / "data"
    assert settings.image_roots == (own_folder / "pictures", Path("/tmp"))
    assert Settings.load(data_dir=Path("~/flag")).data_dir == own_folder / "flag"


def test_the_home_folder_may_be_abbreviated_in_urls_and_options_too(
    own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(own_folder))
    (own_folder / "own.env").write_text(
        "CASTMATE_DATABASE_URL=sqlite:///~/kept/own.sqlite3\nCASTMATE_STORAGE_URL=file://~/pictures\n"
    )
    (own_folder / "model").symlink_to(locate("toon"))
    assert castmate_("--env-file", "~/own.env", "spend").exit_code == 0
    assert castmate_("bundle", "list").exit_code == 0
    assert Bundle.open("~/model").name == "toon"
    names = {path.name for path in own_folder.iterdir()}
    assert names == {"own.env", "model", "kept", "pictures"}


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("127.0.0.1:8001, gpu-1:8001,", ("127.0.0.1:8001", "gpu-1:8001")),
        ("[::1]:8001", ("[::1]:8001",)),
        ("triton_a.svc.cluster.local.:1", ("triton_a.svc.cluster.local.:1",)),
        ("", ()),
        ("http://127.0.0.1:8001", None),
        ("127.0.0.1", None),
        ("127.0.0.1:0", None),
        ("127.0.0.1:65536", None),
        ("127.0.0.1:8001/v2", None),
        ("user:password@127.0.0.1:8001", None),
        ("256.0.0.1:8001", None),
        ("::1:8001", None),
        ("[::g]:8001", None),
        ("gpu 1:8001", None),
        ("-gpu:8001", None),
        ("unix:/run/triton.sock", None),
        ("gpu:8001\n", ("gpu:8001",)),
        ("gp\u00fc:8001", None),
        ("gpu:\u0668001", None),
    ],
)
def test_triton_addresses_are_refused_when_they_are_read(
    own_folder: Path, monkeypatch: pytest.MonkeyPatch, value: str, kept: tuple[str, ...] | None
) -> None:
    monkeypatch.setenv("CASTMATE_TRITON_URLS", value)
    if kept is not None:
        assert Settings.load().triton_urls == kept
    else:
        result = castmate_("spend")
        assert (result.exit_code, "CASTMATE_TRITON_URLS: " in result.stderr) == (2, True)
        assert " allowed: host:port " in result.stderr
