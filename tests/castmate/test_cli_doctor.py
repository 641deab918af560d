"""`castmate doctor` finds what is broken, and says how to repair it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from anyio.from_thread import start_blocking_portal

from castmate.doctor import examine
from castmate.engines.bundle import Bundle
from castmate.settings import Settings
from tests.castmate.command import castmate_
from tests.fakes.wavespeed import KEY, FakeWaveSpeed

pytestmark = pytest.mark.usefixtures("own_folder")


def test_a_bundle_with_a_changed_byte_is_told_by_check_and_by_doctor(tmp_path: Path) -> None:
    bundle = copy_of_toon(tmp_path)
    damaged = bytearray((bundle / "vae_decoder.onnx").read_bytes())
    damaged[1000] ^= 1
    (bundle / "vae_decoder.onnx").write_bytes(damaged)
    checked = castmate_("bundle", "check", str(bundle))
    assert (checked.exit_code, "vae_decoder.onnx was changed" in checked.stderr) == (1, True)
    examined = castmate_("doctor", "--bundle", str(bundle), "--json")
    assert examined.exit_code == 1
    report = json.loads(examined.stdout)
    (broken,) = [check for check in report["checks"] if not check["ok"]]
    assert broken["name"] == "bundle"
    assert "vae_decoder.onnx was changed" in broken["fix"]


def test_doctor_finds_this_installation_healthy_by_drawing_with_it() -> None:
    result = castmate_("doctor")
    assert result.exit_code == 0, result.output
    assert set(re.findall(r"^(\S+) ", result.stdout, re.MULTILINE)) == {"ok"}
    assert re.search(r"^ok +drawing +local loads in", result.stdout, re.MULTILINE)
    assert re.search(r"^ok +ledger +SQLite in", result.stdout, re.MULTILINE)


def test_doctor_tells_how_to_repair_what_is_broken(
    own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (own_folder / "file").touch()
    monkeypatch.setenv("CASTMATE_DATA_DIR", str(own_folder / "file/data"))
    monkeypatch.setenv("CASTMATE_IMAGE_ROOTS", str(own_folder / "gone"))
    monkeypatch.setenv("CASTMATE_BUNDLE", "nope")
    result = castmate_("doctor")
    assert result.exit_code == 1
    assert re.findall(r"^FAIL +(\w+)", result.stdout, re.MULTILINE) == [
        "data_dir",
        "image_roots",
        "bundle",
    ]
    assert "set CASTMATE_DATA_DIR to another folder (Not a directory)" in result.stdout
    assert f"Not a folder: {own_folder / 'gone'}. Change CASTMATE_IMAGE_ROOTS." in result.stdout


@pytest.mark.parametrize(
    ("key", "line"),
    [
        (KEY, "ok    wavespeed    http://127.0.0.1:PORT accepts the key; $4.20 left"),
        (
            "wsk_other",
            "      -> WaveSpeed rejected the key. Check CASTMATE_WAVESPEED_API_KEY.",
        ),
    ],
)
def test_doctor_asks_the_hosted_service_whether_it_takes_the_key(
    key: str, line: str, own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeWaveSpeed()
    monkeypatch.setenv("CASTMATE_CLIENTS", "wavespeed")
    monkeypatch.setenv("CASTMATE_WAVESPEED_API_KEY", key)
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(fake.running()) as at:
        monkeypatch.setenv("CASTMATE_WAVESPEED_BASE_URL", f"http://127.0.0.1:{at}")
        result = castmate_("doctor")
    shown = re.sub(" {10,}", "      ", result.stdout)
    assert line.replace("PORT", str(at)) in shown
    assert "ok    clients      wavespeed\n" in shown
    assert (result.exit_code == 0) == (key == KEY)
    assert key not in result.output
    assert [call.path for call in fake.calls] == ["/api/v3/balance"]


def test_doctor_asks_the_model_of_every_triton_server_and_tells_no_password(
    own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CASTMATE_CLIENTS", "triton")
    monkeypatch.setenv("CASTMATE_TRITON_URLS", "127.0.0.1:1,127.0.0.1:2")
    monkeypatch.setenv("CASTMATE_DATABASE_URL", "mysql://ann:hunter2@db/castmate")
    result = castmate_("doctor")
    assert result.exit_code == 1
    failed = re.findall(r"^FAIL +(\w+) +(\S+)", result.stdout, re.MULTILINE)
    assert failed == [("ledger", "the"), ("triton", "127.0.0.1:1"), ("triton", "127.0.0.1:2")]
    assert "'mysql' cannot hold a ledger" in result.stdout
    assert "hunter2" not in result.output


def test_doctor_tells_which_clients_are_not_set_up_and_why(own_folder: Path) -> None:
    found = {c.name: c.found for c in examine(Settings.load(clients="local,wavespeed", bundle="-"))}
    assert found["clients"] == (
        "local; not set up: wavespeed (CASTMATE_WAVESPEED_API_KEY is not set)"
    )
    checks = {check.name: check for check in examine(Settings.load(clients="wavespeed"))}
    assert not checks["clients"].ok
    assert checks["clients"].fix.startswith("Set up one of them: wavespeed (CASTMATE_WAVESPEED")


def copy_of_toon(folder: Path) -> Path:
    copy = folder / "toon"
    copy.mkdir()
    for path in Bundle.open("toon").path.iterdir():
        if path.is_file():
            (copy / path.name).write_bytes(path.read_bytes())
    return copy


def test_doctor_finds_a_guessable_secret_and_an_open_data_folder(own_folder: Path) -> None:
    data_dir = Settings.load().data_dir
    data_dir.mkdir(parents=True)
    data_dir.chmod(0o755)
    (data_dir / "files.secret").write_bytes(b"abc")
    result = castmate_("doctor", "--json")
    checks = {check["name"]: check for check in json.loads(result.stdout)["checks"]}
    assert not checks["private"]["ok"]
    assert f"chmod -R go= {data_dir}" in checks["private"]["fix"]
    assert not checks["secret"]["ok"]
    assert "holds 3 bytes instead of 32" in checks["secret"]["fix"]
