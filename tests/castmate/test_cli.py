"""The command draws, names what it wrote, and turns every mistake into one message and a code."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from anyio.from_thread import start_blocking_portal
from PIL import Image
from typer.testing import CliRunner, Result

import castmate
from castmate import cli
from castmate.doctor import examine
from castmate.engines.bundle import Bundle, shipped
from castmate.errors import BundleCorrupt, CastmateError
from castmate.schema import GenerateRequest, GenerateResult
from castmate.settings import Settings
from tests.doubles import FlatClient, picture
from tests.fakes.wavespeed import KEY, FakeWaveSpeed

pytestmark = pytest.mark.usefixtures("own_folder")

SCENE = ["--image", "fox.png", "--prompt", "waving", "--size", "512*640"]
HEAVY = ("torch", "diffusers", "transformers")


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch, own_folder: Path) -> FlatClient:
    """What draws instead of a model; a reference lies in the folder."""
    (own_folder / "fox.png").write_bytes(picture())
    drawing = FlatClient(warnings=("The prompt was cut.",))
    monkeypatch.setattr(cli, "open_client", lambda settings: drawing)
    return drawing


def castmate_(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, arguments, catch_exceptions=False)


def generate(*arguments: str) -> Result:
    return castmate_("generate", *SCENE, *arguments)


def drawn(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "fox.png")


def test_it_draws_and_prints_path_size_seed_and_time(client: FlatClient, own_folder: Path) -> None:
    result = generate("--seed", "7", "--output", "out/scene.png")
    assert result.exit_code == 0
    assert result.stdout == "out/scene.png  512*640  seed 7\nDrawn by flat (flat) in 0.0 s\n"
    assert result.stderr == "Warning: The prompt was cut.\n"
    with Image.open("out/scene.png") as image:
        assert (image.format, image.size) == ("PNG", (512, 640))
    assert drawn(own_folder / "out") == ["scene.png"]
    assert client.closed


def test_a_triton_server_that_is_down_is_told_and_another_client_draws(
    monkeypatch: pytest.MonkeyPatch, own_folder: Path
) -> None:
    (own_folder / "fox.png").write_bytes(picture())
    monkeypatch.setenv("CASTMATE_CLIENTS", "triton,local")
    monkeypatch.setenv("CASTMATE_TRITON_URLS", "127.0.0.1:1")
    result = generate("--steps", "1", "--seed", "7", "--output", "scene.png")
    assert result.exit_code == 0
    assert "Drawn by local (toon)" in result.stdout
    assert result.stderr.startswith("Warning: triton could not make it: ")
    assert "local made it instead." in result.stderr


def test_clients_that_are_not_set_up_are_named_with_what_they_lack(
    monkeypatch: pytest.MonkeyPatch, own_folder: Path
) -> None:
    (own_folder / "fox.png").write_bytes(picture())
    monkeypatch.setenv("CASTMATE_CLIENTS", "triton")
    result = generate()
    assert result.exit_code != 0
    assert "triton: CASTMATE_TRITON_URLS is not set" in result.stderr


def test_every_flag_reaches_the_request_and_its_defaults_are_the_requests(
    client: FlatClient,
) -> None:
    generate()
    generate(
        *["--seed", "7", "--negative-prompt", "rain", "--steps", "4", "--guidance-scale", "2.5"],
        *[
            "--num-images",
            "2",
            "--subject-scale",
            "0.5",
            "--true-cfg-scale",
            "3",
            "--format",
            "webp",
        ],
        "--no-safety-checker",
    )
    told = {"prompt": "waving", "size": "512*640"}
    told["image"] = f"sha256:{client.references[0].sha256}"  # what the ledger keeps of it
    drawn_seed = client.requests[0].seed
    assert drawn_seed >= 0
    assert client.requests == [
        GenerateRequest.parse(told | {"seed": drawn_seed}),
        GenerateRequest.parse(
            told
            | {
                "seed": 7,
                "negative_prompt": "rain",
                "num_inference_steps": 4,
                "guidance_scale": 2.5,
                "num_images": 2,
                "subject_scale": 0.5,
                "true_cfg_scale": 3.0,
                "output_format": "webp",
                "enable_safety_checker": False,
            }
        ),
    ]


def test_the_help_has_every_field_with_its_description_and_default() -> None:
    text = " ".join(castmate_("generate", "--help").output.split())
    for name, field in GenerateRequest.model_fields.items():
        flag = {"enable_safety_checker": "safety-checker", "output_format": "format"}.get(
            name, name
        )
        assert f"--{flag.replace('_', '-')}" in text
        if name not in ("image", "output_format"):
            assert " ".join(str(field.description).split()) in text
    assert "a whole number from 1 to 50" in text
    assert "[default: 28]" in text


def test_several_pictures_are_numbered_before_the_suffix(
    client: FlatClient, own_folder: Path
) -> None:
    result = generate("--seed", "7", "--num-images", "3", "-o", "scene.png")
    assert drawn(own_folder) == ["scene-1.png", "scene-2.png", "scene-3.png"]
    assert re.findall(r"seed (\d)", result.stdout) == ["7", "8", "9"]


def test_a_named_file_is_replaced_and_an_unnamed_one_never(
    client: FlatClient, own_folder: Path
) -> None:
    for _ in range(2):
        generate("--seed", "7", "-o", "scene.png")
        generate("--seed", "7")
    assert drawn(own_folder) == ["castmate-7-2.png", "castmate-7.png", "scene.png"]


def test_a_folder_as_output_gets_files_named_by_seed(client: FlatClient, own_folder: Path) -> None:
    (own_folder / "pictures").mkdir()
    generate("--seed", "7", "--num-images", "2", "-o", "pictures")
    assert drawn(own_folder / "pictures") == ["castmate-7.png", "castmate-8.png"]


@pytest.mark.parametrize(
    ("name", "file_format"), [("a.png", "PNG"), ("a.JPG", "JPEG"), ("a.webp", "WEBP"), ("a", "PNG")]
)
def test_the_suffix_chooses_the_format(client: FlatClient, name: str, file_format: str) -> None:
    assert generate("-o", name).exit_code == 0
    with Image.open(name) as image:
        assert image.format == file_format


def test_json_is_one_document_with_paths_and_timings(client: FlatClient, own_folder: Path) -> None:
    result = generate("--seed", "7", "-o", "scene.png", "--json")
    assert json.loads(result.stdout) == {
        "images": [
            {
                "output_format": "png",
                "width": 512,
                "height": 640,
                "seed": 7,
                "has_nsfw": False,
                "num_bytes": (own_folder / "scene.png").stat().st_size,
                "path": str(own_folder / "scene.png"),
            }
        ],
        "client": "flat",
        "model": "flat",
        "timings_ms": {"total": 12.0},
        "warnings": ["The prompt was cut."],
        "cost_usd": 0.0,
        "computed_steps": None,
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--size", "511*512"], "`size`: '511*512' is not allowed; allowed: 'W*H' in pixels"),
        (["--size", "1024"], "`size`: '1024' is not allowed"),
        (["--size", "axb"], "`size`: 'axb' is not allowed"),
        (["--seed", "-2"], "`seed`: -2 is not allowed; allowed: a whole number from -1 to"),
        (["--steps", "51"], "`num_inference_steps`: 51 is not allowed; allowed: a whole number"),
        (["--num-images", "5"], "`num_images`: 5 is not allowed"),
        (
            ["--subject-scale", "nan"],
            "`subject_scale`: nan is not allowed; allowed: a number from 0",
        ),
        (["--prompt", ""], "`prompt`: '' is not allowed; allowed: text of 1..4096 characters"),
        (["--prompt", "a" * 10_000], "(10000 characters) is not allowed"),
        (["--image", "nope.png"], "`image`: nope.png does not exist; allowed: an https URL"),
        (["--image", "https://127.0.0.1/a.png"], "is not on the public internet"),
        (["--output", "a.tiff"], "`output`: 'a.tiff' ends in .tiff; allowed: .png, .jpg"),
        (["-o", "a.png", "--format", "webp"], "`output`: 'a.png' does not fit --format webp"),
        (["-o", "fox.png/a.png"], "`output`: fox.png cannot be written"),
        (["--sed", "7"], "No such option: --sed"),
        (["--seed", "many"], "Invalid value for '--seed'"),
        (["--format", "bmp"], "Invalid value for '--format'"),
    ],
)
def test_a_bad_call_is_code_2_and_one_message_before_a_model_is_loaded(
    arguments: list[str], message: str, client: FlatClient, own_folder: Path
) -> None:
    result = generate(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stdout == ""
    assert (client.requests, drawn(own_folder)) == ([], [])


def test_text_called_png_is_refused_by_name(client: FlatClient, own_folder: Path) -> None:
    (own_folder / "fox.png").write_text("words")
    assert "`image`: fox.png is not a picture; allowed: a PNG" in generate().stderr


def test_an_error_as_json_is_one_document_with_each_problem(client: FlatClient) -> None:
    result = generate("--size", "1024", "--seed", "-9", "--json")
    assert result.exit_code == 2
    error = json.loads(result.stdout)["error"]
    assert (error["code"], error["charged"]) == ("invalid_request", False)
    assert [problem["parameter"] for problem in error["problems"]] == ["size", "seed"]


def test_a_broken_setting_is_code_2(client: FlatClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CASTMATE_THREADS", "many")
    result = generate()
    assert (result.exit_code, "CASTMATE_THREADS" in result.stderr) == (2, True)


def test_a_broken_bundle_is_code_1(client: FlatClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(settings: Any) -> Any:
        raise BundleCorrupt("vae_decoder.onnx was changed. Export it again.")

    monkeypatch.setattr(cli, "open_client", broken)
    result = generate()
    assert result.exit_code == 1
    assert result.stderr == "Error: vae_decoder.onnx was changed. Export it again.\n"


def test_a_failed_generation_is_code_1_and_closes_the_client(
    monkeypatch: pytest.MonkeyPatch, client: FlatClient
) -> None:
    failing = FlatClient(error=CastmateError("The GPU went away."))
    monkeypatch.setattr(cli, "open_client", lambda settings: failing)
    result = generate("-o", "scene.png")
    assert (result.exit_code, result.stderr) == (1, "Error: The GPU went away.\n")
    assert failing.closed
    assert not Path("scene.png").exists()


def test_a_full_disk_is_code_1(client: FlatClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("castmate.output.write_atomically", full)
    result = generate("-o", "scene.png")
    assert result.exit_code == 1
    assert result.stderr == "Error: scene.png cannot be written: No space left on device.\n"


def test_ctrl_c_cancels_the_generation_closes_the_client_and_is_code_130(
    client: FlatClient, monkeypatch: pytest.MonkeyPatch, own_folder: Path
) -> None:
    class Interrupted(FlatClient):
        async def generate(self, *args: Any, **kwargs: Any) -> GenerateResult:
            signal.raise_signal(signal.SIGINT)
            await asyncio.wait_for(asyncio.Event().wait(), 5)
            raise AssertionError("not cancelled")

    interrupted = Interrupted()
    monkeypatch.setattr(cli, "open_client", lambda settings: interrupted)
    result = generate()
    assert (result.exit_code, result.stderr) == (130, "Cancelled: nothing was written.\n")
    assert interrupted.closed
    assert drawn(own_folder) == []


def test_the_version_is_printed() -> None:
    assert castmate_("--version").stdout == f"{castmate.__version__}\n"


def test_help_is_quick_because_it_loads_neither_numpy_nor_pillow_nor_an_engine_nor_mcp() -> None:
    loaded = modules_of("--help")
    assert "castmate_mcp.cli" in loaded
    assert not {"numpy", "PIL", "onnxruntime", "tokenizers", "httpx2", "mcp", "rich"} & loaded


def test_the_shipped_bundle_is_listed_and_whole() -> None:
    listed = json.loads(castmate_("bundle", "list", "--json").stdout)
    assert [bundle["name"] for bundle in listed] == shipped() == ["toon"]
    assert castmate_("bundle", "list").stdout.startswith("toon  ")
    checked = castmate_("bundle", "check", "toon")
    assert (checked.exit_code, "every file is whole" in checked.stdout) == (0, True)
    assert json.loads(castmate_("bundle", "check", "toon", "--json").stdout) == listed[0]


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


def test_an_unknown_bundle_is_told_with_those_that_exist() -> None:
    result = castmate_("bundle", "check", "nope")
    assert result.exit_code == 1
    assert "There is no bundle 'nope': neither a shipped one (toon)" in result.stderr


def test_doctor_finds_this_installation_healthy_by_drawing_with_it() -> None:
    result = castmate_("doctor")
    assert result.exit_code == 0, result.output
    assert set(re.findall(r"^(\S+) ", result.stdout, re.MULTILINE)) == {"ok"}
    assert re.search(r"^ok +drawing +local loads in", result.stdout, re.MULTILINE)


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
        (KEY, "ok    wavespeed    http://127.0.0.1:PORT takes the key; $4.20 left"),
        (
            "wsk_other",
            "      -> WaveSpeed does not take the key. Check CASTMATE_WAVESPEED_API_KEY.",
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


def test_doctor_tells_which_clients_are_not_set_up_and_why(own_folder: Path) -> None:
    told = {c.name: c.found for c in examine(Settings.load(clients="local,wavespeed", bundle="-"))}
    assert told["clients"] == (
        "local; not set up: wavespeed (CASTMATE_WAVESPEED_API_KEY is not set)"
    )
    checks = {check.name: check for check in examine(Settings.load(clients="wavespeed"))}
    assert not checks["clients"].ok
    assert checks["clients"].fix.startswith("Set up one of them: wavespeed (CASTMATE_WAVESPEED")


def test_the_real_command_draws_the_same_bytes_twice_and_loads_no_torch(own_folder: Path) -> None:
    reference = sorted((Bundle.open("toon").path / "references").glob("*.png"))[0]
    call = ["generate", "-i", str(reference), "-p", "waving on a beach", "--size", "520*512"]
    loaded = modules_of(*call, "--seed", "7", "--steps", "2", "-o", "one.png")
    assert "onnxruntime" in loaded
    assert not loaded.intersection(HEAVY)
    modules_of(*call, "--seed", "7", "--steps", "2", "-o", "two.png")
    assert Path("one.png").read_bytes() == Path("two.png").read_bytes()
    with Image.open("one.png") as image:
        assert image.size == (520, 512)


def modules_of(*arguments: str) -> set[str]:
    """Run the command in a process of its own, and return the names of the modules it loaded."""
    code = (
        "import atexit, sys; from castmate.cli import main;"
        "atexit.register(lambda: print('MODULES', *sys.modules, file=sys.stderr)); main()"
    )
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-2000:]
    return set(done.stderr.partition("MODULES ")[2].split())


def copy_of_toon(folder: Path) -> Path:
    copy = folder / "toon"
    copy.mkdir()
    for path in Bundle.open("toon").path.iterdir():
        if path.is_file():
            (copy / path.name).write_bytes(path.read_bytes())
    return copy
