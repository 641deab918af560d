"""`castmate generate` draws, names what it wrote, and tells a mistake by one message and a code."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import Result

from castmate.engines.bundle import Bundle
from castmate.errors import BundleCorrupt, CastmateError
from castmate.router import Router
from castmate.schema import GenerateRequest, GenerateResult
from tests.castmate.command import castmate_, modules_of
from tests.doubles import DEFAULTS, FlatClient, picture, routed

pytestmark = pytest.mark.usefixtures("own_folder")

SCENE = ["--image", "fox.png", "--prompt", "waving", "--size", "512*640"]
HEAVY = ("torch", "diffusers", "transformers")


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch, own_folder: Path) -> FlatClient:
    """What draws instead of a model; a reference lies in the folder."""
    (own_folder / "fox.png").write_bytes(picture())
    drawing = FlatClient(warnings=("The prompt was cut.",))
    monkeypatch.setattr(Router, "of", lambda settings: routed(drawing))
    return drawing


def generate(*arguments: str) -> Result:
    return castmate_("generate", *SCENE, *arguments)


def drawn(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "fox.png")


def test_it_draws_and_prints_path_size_seed_and_time(client: FlatClient, own_folder: Path) -> None:
    result = generate("--seed", "7", "--output", "out/scene.png")
    assert result.exit_code == 0
    line = "Drawn by flat (flat) in 0.0 s, character cut out by alpha"
    assert result.stdout == f"out/scene.png  512*640  seed 7\n{line}\n"
    assert result.stderr == "Warning: The prompt was cut.\n"
    with Image.open("out/scene.png") as image:
        assert (image.format, image.size) == ("PNG", (512, 640))
    assert drawn(own_folder / "out") == ["scene.png"]
    assert client.closed


@pytest.mark.slow
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
        "--enable-matting",
        "false",
    )
    inputs = {"prompt": "waving", "size": "512*640"}
    inputs["image"] = f"sha256:{client.references[0].sha256}"  # what the ledger keeps of it
    drawn_seed = client.requests[0].seed
    assert drawn_seed >= 0
    assert client.requests == [
        GenerateRequest.parse(inputs | {"seed": drawn_seed}),
        GenerateRequest.parse(
            inputs
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
                "enable_matting": "false",
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


@pytest.mark.parametrize("sign", ["x", "X", "\u00d7"])
def test_a_size_may_be_written_with_any_sign(client: FlatClient, sign: str) -> None:
    assert generate("--size", f"512{sign}768", "-o", "scene.png").exit_code == 0
    with Image.open("scene.png") as image:
        assert image.size == (512, 768)


def test_several_pictures_are_numbered_before_the_suffix(
    client: FlatClient, own_folder: Path
) -> None:
    result = generate("--seed", "7", "--num-images", "3", "-o", "scene.png")
    assert drawn(own_folder) == ["scene-1.png", "scene-2.png", "scene-3.png"]
    assert re.findall(r"seed (\d)", result.stdout) == ["7", "8", "9"]


@pytest.mark.slow
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
                "identity": None,
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
        "drawn_with": DEFAULTS.model_dump(),
        "reference": {"framing": "alpha", "box": [0.25, 0.0, 0.75, 1.0], "others": []},
        "no_identity": "",
        "selection": None,
        "model_hash": "",
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
        (["--enable-matting", "no"], "'no' is not one of 'auto', 'true', 'false'"),
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

    monkeypatch.setattr(Router, "of", broken)
    result = generate()
    assert result.exit_code == 1
    assert result.stderr == "Error: vae_decoder.onnx was changed. Export it again.\n"


def test_a_failed_generation_is_code_1_and_closes_the_client(
    monkeypatch: pytest.MonkeyPatch, client: FlatClient
) -> None:
    failing = FlatClient(error=CastmateError("The GPU went away."))
    monkeypatch.setattr(Router, "of", lambda settings: routed(failing))
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
    monkeypatch.setattr(Router, "of", lambda settings: routed(interrupted))
    result = generate()
    assert (result.exit_code, result.stderr) == (130, "Cancelled: nothing was written.\n")
    assert interrupted.closed
    assert drawn(own_folder) == []


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


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="needs a shell with process substitution")
@pytest.mark.parametrize(
    "line",
    [
        "cat fox.png | {command} --image -",
        "cat fox.png | {command} --image /dev/stdin",
        "{command} --image <(cat fox.png)",
    ],
    ids=["a dash", "stdin by its name", "process substitution"],
)
def test_the_reference_may_come_through_a_pipe(own_folder: Path, line: str) -> None:
    (own_folder / "fox.png").write_bytes(picture())
    scene = "-p waving --size 512*512 --steps 1 -o scene.png"
    command = f"{sys.executable} -m castmate.cli generate {scene}"
    script = ["bash", "-c", line.format(command=command)]
    done = subprocess.run(script, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    with Image.open("scene.png") as image:
        assert image.size == (512, 512)


@pytest.mark.slow
def test_a_negative_prompt_at_scale_1_is_the_picture_without_it_and_a_warning() -> None:
    reference = str(Bundle.open("toon").path / "references/mira.png")
    call = ["generate", "-i", reference, "-p", "waving", "--size", "512*512", "--seed", "7"]
    assert castmate_(*call, "--steps", "2", "-o", "without.png").exit_code == 0
    negative = ["--negative-prompt", "trees", "--true-cfg-scale", "1"]
    result = castmate_(*call, "--steps", "2", *negative, "-o", "with.png")
    assert "negative_prompt has no effect when true_cfg_scale is 1" in result.stderr
    with Image.open("with.png") as one, Image.open("without.png") as other:
        assert one.tobytes() == other.tobytes()  # each file says how it was asked for
