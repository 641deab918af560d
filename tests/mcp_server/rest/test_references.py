"""Reference pictures as cameras, editors and object storage leave them, through the REST API."""

from __future__ import annotations

import base64
import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
import pytest
from PIL import Image, PngImagePlugin

from tests.castmate.test_decoding import BROKEN_EXIF, RED, display_p3, padded
from tests.doubles import FlatClient, encoded, noise, picture
from tests.fakes.web import Web, answer
from tests.mcp_server.running import MODEL, Api, serving

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("own_folder")]

P3 = Image.new("RGB", (64, 64), (200, 120, 80))
IN_SRGB = (213, 115, 70)


def long_text() -> PngImagePlugin.PngInfo:
    texts = PngImagePlugin.PngInfo()
    texts.add_text("workflow", "x" * (3 * 2**20), zip=True)
    return texts


def phone_photo() -> bytes:
    pillow_heif.register_heif_opener()
    data = picture(format="HEIF", quality=100)
    return data[:8] + b"miaf" + data[12:]


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with serving(FlatClient(), tmp_path / "data") as api:
        yield api


async def upload(api: Api, data: bytes, status: int = 200) -> Any:
    files = {"file": ("fox", data, "application/octet-stream")}
    return await api.ask("POST", "/api/v3/media/upload/binary", status, files=files)


async def colour_drawn(api: Api, image: str) -> tuple[int, ...]:
    """The double draws in the reference's mean colour."""
    data = await api.final((await api.submit(image=image, seed=0))["id"])
    assert data["status"] == "completed", data["error"]
    drawn = (await api.http.get(data["outputs"][0])).content
    with Image.open(io.BytesIO(drawn)) as found:
        return tuple(np.asarray(found.convert("RGB"))[9, 9].tolist())


@pytest.mark.parametrize(
    ("data", "colour"),
    [
        (encoded(P3, format="JPEG", icc_profile=display_p3()), IN_SRGB),
        (encoded(P3, icc_profile=padded(display_p3(), 3 * 2**20)), IN_SRGB),
        (picture(icc_profile=b"nonsense"), RED),
        (picture(pnginfo=long_text()), RED),
        (picture(format="JPEG", quality=100, exif=BROKEN_EXIF["an orientation in words"]), RED),
        (picture(format="JPEG", quality=100)[:-2], RED),
        (picture(format="AVIF", quality=100), RED),
        (phone_photo(), RED),
    ],
    ids=[
        "Display P3",
        "a profile of 3 MiB",
        "a broken profile",
        "a text of 3 MiB",
        "an orientation in words",
        "a JPEG without its end",
        "AVIF",
        "HEIC of an uncommon brand",
    ],
)
async def test_pixels_are_read_in_their_true_colours_whatever_surrounds_them(
    api: Api, data: bytes, colour: tuple[int, int, int]
) -> None:
    found = await colour_drawn(api, (await upload(api, data))["download_url"])
    assert np.abs(np.subtract(found, colour)).max() <= 4, found


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "is a Git LFS pointer"),
        (b"<!doctype html><title>Sign in</title>", "It may be a sign-in page"),
        (b"\xff\x0a" + bytes(90), "is a JPEG XL picture"),
    ],
)
async def test_what_is_no_picture_is_named_for_what_it_is(
    api: Api, data: bytes, expected: str
) -> None:
    assert expected in (await upload(api, data, 422))["error"]
    uri = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    answered = await api.ask("POST", MODEL, 422, json=api.inputs(image=uri))
    assert expected in answered["error"]


async def test_base64_may_be_in_the_alphabet_of_urls(api: Api) -> None:
    text = base64.urlsafe_b64encode(encoded(noise((40, 40)))).decode()
    assert set("-_") & set(text)
    for image in (text, text.rstrip("="), f"data:image/png;base64,{text}"):
        await colour_drawn(api, image)


@pytest.mark.parametrize("sign", ["x", "X", "\u00d7"])
async def test_a_size_may_be_written_with_any_sign(api: Api, sign: str) -> None:
    data = await api.final((await api.submit(size=f"512{sign}640"))["id"])
    with Image.open(io.BytesIO((await api.http.get(data["outputs"][0])).content)) as found:
        assert found.size == (512, 640)


@pytest.mark.parametrize("encoding", ["", "utf-8", "aws-chunked"])
async def test_a_url_of_object_storage_that_invents_an_encoding_is_read(
    api: Api, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    url = "https://bucket.example/fox.png"
    web = Web({url: answer(picture(), content_encoding=encoding)})
    monkeypatch.setattr("castmate.fetch.PinnedBackend", lambda: web.backend)
    assert await colour_drawn(api, url) == RED
