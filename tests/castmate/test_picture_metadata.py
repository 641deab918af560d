"""What pictures say of themselves: put in without touching a pixel, read with distrust."""

from __future__ import annotations

import io
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

from castmate import __version__, file_metadata
from castmate.cli import app
from castmate.errors import ImageRejected
from castmate.images import encode
from castmate.picture_metadata import PictureMetadata, described
from castmate.schema import GeneratedImage, GenerateRequest, GenerateResult, OutputFormat
from tests.doubles import noise

runner = CliRunner()
HASH = "ab" * 32
REQUEST = GenerateRequest.parse(
    {
        "prompt": "waving on the beach",
        "image": f"sha256:{HASH}",
        "negative_prompt": "trees",
        "size": "512*640",
        "seed": 7,
        "num_images": 2,
        "num_candidates": 4,
    }
)


def pixels_of(width: int, height: int) -> NDArray[np.uint8]:
    return np.asarray(noise((width, height)))


def drawn(
    output_format: OutputFormat, request: GenerateRequest = REQUEST, channels: int = 3
) -> GenerateResult:
    pixels = pixels_of(48, 64)
    if channels == 4:
        pixels = np.dstack([pixels, pixels[..., 0]])
    image = GeneratedImage(
        data=encode(pixels, output_format),
        output_format=output_format,
        width=48,
        height=64,
        seed=9,
    )
    return GenerateResult(
        (image,),
        "local",
        "toon",
        {"total": 1.0},
        drawn_with={"num_inference_steps": 28, "guidance_scale": 3.5},
        model_hash="cd" * 32,
    )


def file_of(output_format: OutputFormat, **options: Any) -> bytes:
    request = options.get("request", REQUEST)
    return described(request, drawn(output_format, **options)).images[0].data


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("output_format", OutputFormat)
def test_a_picture_says_how_it_is_drawn_again_and_keeps_its_pixels(
    output_format: OutputFormat, channels: int
) -> None:
    if channels == 4 and output_format is OutputFormat.JPEG:
        return
    plain = drawn(output_format, channels=channels).images[0].data
    data = file_of(output_format, channels=channels)
    assert data == file_of(output_format, channels=channels)  # no date, no machine
    before, after = opened(plain), opened(data)
    assert (after.mode, after.size, after.format) == (before.mode, before.size, before.format)
    assert after.tobytes() == before.tobytes()
    found = PictureMetadata.read(data, "it")
    assert (found.request.seed, found.request.num_images) == (9, 1)
    assert found.request.num_candidates is None
    assert found.request.image == f"sha256:{HASH}"
    assert found.request.prompt == "waving on the beach"
    assert (found.client, found.model, found.model_hash) == ("local", "toon", "cd" * 32)
    assert found.castmate == __version__
    assert found.drawn_with == {"num_inference_steps": 28, "guidance_scale": 3.5}


@pytest.mark.parametrize("output_format", OutputFormat)
@pytest.mark.parametrize("prompt", ["waving", "caf\u00e9", "\u732b \U0001f98a"])
def test_other_tools_find_their_own_form_of_it(output_format: OutputFormat, prompt: str) -> None:
    data = file_of(output_format, request=REQUEST.model_copy(update={"prompt": prompt}))
    image = opened(data)
    if output_format is OutputFormat.PNG:
        text = image.info["parameters"]
    else:
        comment = image.getexif().get_ifd(0x8769)[0x9286]
        assert comment.startswith(b"UNICODE\0")
        text = comment.removeprefix(b"UNICODE\0").decode("utf-16-be")
    assert text.splitlines() == [
        prompt,
        "Negative prompt: trees",
        "Steps: 28, Sampler: Euler, CFG scale: 3.5, Seed: 9, Size: 512x640, "
        f"Model hash: cdcdcdcdcd, Model: toon, Version: castmate {__version__}",
    ]
    assert PictureMetadata.read(data, "it").request.prompt == prompt


@pytest.mark.parametrize("output_format", OutputFormat)
def test_the_longest_prompts_fit(output_format: OutputFormat) -> None:
    longest = "\U0001f98a" * 4096
    request = REQUEST.model_copy(update={"prompt": longest, "negative_prompt": longest})
    found = PictureMetadata.read(file_of(output_format, request=request), "it")
    assert found.request == request.model_copy(
        update={"seed": 9, "num_images": 1, "num_candidates": None}
    )


@pytest.mark.parametrize("lossless", [False, True])
def test_any_webp_of_pillows_takes_it(lossless: bool) -> None:
    stream = io.BytesIO()
    noise((33, 47)).save(stream, "webp", lossless=lossless)
    data = file_metadata.put_in(stream.getvalue(), "ours", "theirs")
    assert file_metadata.find(data) == "ours"
    assert opened(data).tobytes() == opened(stream.getvalue()).tobytes()
    assert file_metadata.put_in(data, "other", "") == data  # it has an Exif block


def test_a_hosted_file_with_exif_of_its_own_stays_as_it_is() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for kind in ("jpeg", "webp"):
        stream = io.BytesIO()
        noise((33, 47)).save(stream, kind, exif=exif)
        assert file_metadata.put_in(stream.getvalue(), "ours", "") == stream.getvalue()
        assert file_metadata.find(stream.getvalue()) is None


def written(values: object) -> bytes:
    """A PNG whose metadata is what somebody else has put there."""
    text = values if isinstance(values, str) else json.dumps(values)
    return file_metadata.put_in(encode(pixels_of(16, 16), OutputFormat.PNG), text, "")


GOOD = {"request": {"prompt": "waving", "image": f"sha256:{HASH}"}}


@pytest.mark.parametrize(
    "values",
    [
        "",
        "[]",
        "null",
        '{"request": []}',
        '{"request": {"prompt": "x"}}',
        "[" * 60_000,
        GOOD | {"request": GOOD["request"] | {"image": "https://evil.example/x.png"}},
        GOOD | {"request": GOOD["request"] | {"image": "/etc/passwd"}},
        GOOD | {"request": GOOD["request"] | {"prompt": "x" * 5000}},
        GOOD | {"request": GOOD["request"] | {"seed": 10**30}},
        GOOD | {"model": "x" * 1000},
        GOOD | {"model_hash": "<script>"},
        GOOD | {"drawn_with": {str(n): n for n in range(1000)}},
        GOOD | {"drawn_with": {"steps": "many"}},
    ],
)
def test_what_no_castmate_has_written_is_refused(values: object) -> None:
    with pytest.raises(ImageRejected, match="no Castmate has written"):
        PictureMetadata.read(written(values), "it")


def test_what_a_later_release_adds_is_left_out() -> None:
    values = {"request": GOOD["request"] | {"mood": "merry"}, "weather": "fine"}
    assert PictureMetadata.read(written(values), "it").request.prompt == "waving"


def test_metadata_costs_no_memory_however_it_is_packed() -> None:
    plain = encode(pixels_of(16, 16), OutputFormat.PNG)
    packed = zlib.compress(b" " * 50_000_000, 9)
    for body in (b"castmate\0\1\0\0\0" + packed, b"castmate\0\0\0\0\0" + b" " * 100_000):
        chunk = struct.pack(">I", len(body)) + b"iTXt" + body + bytes(4)
        assert file_metadata.find(plain[:33] + chunk + plain[33:]) is None


def test_a_file_without_or_with_broken_metadata_says_so() -> None:
    for output_format in OutputFormat:
        whole = file_of(output_format)
        plain = drawn(output_format).images[0].data
        with pytest.raises(ImageRejected, match="does not say how it was drawn"):
            PictureMetadata.read(plain, "it")
        for cut in range(0, min(len(whole), 1500), 7):  # never anything else
            try:
                PictureMetadata.read(whole[:cut], "it")
            except ImageRejected:
                continue
    with pytest.raises(ImageRejected):
        PictureMetadata.read(b"no picture", "it")


def test_the_command_shows_it(tmp_path: Path) -> None:
    path = tmp_path / "fox.webp"
    path.write_bytes(file_of(OutputFormat.WEBP))
    result = runner.invoke(app, ["show", str(path)])
    assert result.exit_code == 0
    assert result.stdout.startswith("waving on the beach\nNegative prompt: trees\nSteps: 28")
    assert f"Reference: sha256:{HASH}. Drawn by local (toon)." in result.stdout
    values = json.loads(runner.invoke(app, ["show", str(path), "--json"]).stdout)
    assert values["request"]["seed"] == 9
    path.write_bytes(drawn(OutputFormat.WEBP).images[0].data)
    result = runner.invoke(app, ["show", str(path)])
    assert result.exit_code == 2
    assert "does not say how it was drawn" in result.stderr
    assert runner.invoke(app, ["show", str(tmp_path / "missing.png")]).exit_code == 2
