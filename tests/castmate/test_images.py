"""Every picture that people really have is read right; everything else is refused with a reason."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from castmate import images
from castmate.errors import ImageRejected
from castmate.images import Reference, base64_length, encode, preview
from castmate.schema import OutputFormat
from tests.doubles import encoded, noise, picture

RED, WHITE = (255, 0, 0), (255, 255, 255)


def read(data: bytes) -> Image.Image:
    image = Reference.from_bytes(data, "it").image
    assert image.mode == "RGB"
    return image


def refusal(data: bytes) -> str:
    with pytest.raises(ImageRejected) as caught:
        Reference.from_bytes(data, "fox.png")
    return str(caught.value)


def png_of_size(width: int, height: int) -> bytes:
    """A valid header and hardly any pixels: what a decompression bomb looks like at the start."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = (
        chunk(b"IHDR", header),
        chunk(b"IDAT", zlib.compress(bytes(1000))),
        chunk(b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "GIF"])
def test_the_four_formats_are_read(file_format: str) -> None:
    data = picture((64, 48), format=file_format)
    reference = Reference.from_bytes(data, "it")
    assert reference.image.size == (64, 48)
    assert np.allclose(np.asarray(reference.image)[9, 9], RED, atol=3)
    assert reference.data == data
    assert reference.sha256 == hashlib.sha256(data).hexdigest()


def test_transparency_becomes_white() -> None:
    layer = Image.new("RGBA", (40, 40), (255, 0, 0, 0))
    layer.putpixel((5, 5), (255, 0, 0, 255))
    layer.putpixel((6, 5), (255, 0, 0, 51))
    image = read(encoded(layer))
    assert [image.getpixel(at) for at in ((0, 0), (5, 5), (6, 5))] == [WHITE, RED, (255, 204, 204)]


@pytest.mark.parametrize("mode", ["P", "L", "RGB"])
def test_a_colour_that_stands_for_transparent_becomes_white(mode: str) -> None:
    image = Image.new("RGB", (40, 40), "black").convert(mode)
    clear: Any = {"P": image.getpixel((0, 0)), "L": 0, "RGB": (0, 0, 0)}[mode]
    assert read(encoded(image, transparency=clear)).getpixel((0, 0)) == WHITE


def test_an_exif_rotated_photo_is_turned_upright() -> None:
    photo = Image.new("RGB", (60, 40), "white")
    photo.paste("red", (0, 0, 30, 40))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it
    image = read(encoded(photo, exif=exif))
    assert image.size == (40, 60)
    assert (image.getpixel((20, 5)), image.getpixel((20, 55))) == (RED, WHITE)


def test_a_cmyk_jpeg_has_its_colours() -> None:
    image = read(encoded(Image.new("CMYK", (40, 40), (0, 255, 255, 0)), format="JPEG"))
    assert np.allclose(np.asarray(image)[9, 9], RED, atol=3)


def test_sixteen_bits_are_scaled_and_not_clipped() -> None:
    ramp = np.linspace(0, 65535, 40 * 40).astype(np.uint16).reshape(40, 40)
    levels = np.asarray(read(encoded(Image.fromarray(ramp))))
    assert np.array_equal(levels[..., 0], ramp >> 8)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA"])
def test_every_other_mode_of_a_white_picture_is_white(mode: str) -> None:
    assert read(encoded(Image.new("L", (40, 40), 255).convert(mode))).getpixel((9, 9)) == WHITE


@pytest.mark.parametrize("file_format", ["GIF", "PNG", "WEBP"])
def test_an_animation_gives_its_first_frame(file_format: str) -> None:
    frames = [Image.new("RGB", (40, 40), colour) for colour in ("red", "blue")]
    data = encoded(
        frames[0], format=file_format, save_all=True, append_images=frames[1:], lossless=True
    )
    assert read(data).getpixel((9, 9)) == RED


def test_text_called_png_is_refused() -> None:
    assert refusal(b"just some words\n") == (
        "`image`: fox.png is not a picture; allowed: a PNG, JPEG, WEBP, GIF, AVIF or HEIC picture"
    )


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (picture(format="TIFF"), "a TIFF picture"),
        (picture(format="BMP"), "a BMP picture"),
        (b"\0\0\0\x1cftypheic\0\0\0\0mif1heic", "a HEIC picture"),
        (b"\0\0\0\x1cftypavif\0\0\0\0avif", "an AVIF picture"),
        (b"\0\0\0\x1cftypisom\0\0\0\0", "a video"),
        (b"%PDF-1.7\n", "a PDF document"),
        (b"\n <svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG drawing"),
    ],
)
def test_a_file_of_another_kind_is_called_by_its_name(data: bytes, name: str) -> None:
    message = refusal(data)
    assert f"fox.png is {name}; allowed: a PNG, JPEG" in message
    assert "Convert it to PNG or JPEG" in message


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.95])
def test_a_cut_off_picture_is_refused(file_format: str, kept: float) -> None:
    data = encoded(noise((80, 80)), format=file_format)
    assert "fox.png" in refusal(data[: int(len(data) * kept)])


def test_a_cut_off_png_is_told_to_be_damaged() -> None:
    data = encoded(noise((80, 80)))
    assert "fox.png is damaged or cut off" in refusal(data[: len(data) // 2])


@pytest.mark.parametrize("size", [(30_000, 30_000), (8000, 8000), (10_000, 10_000), (40, 9000)])
def test_a_picture_with_too_many_pixels_is_refused_before_it_is_decoded(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def decode(*_: Any) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", decode)
    message = refusal(png_of_size(*size))
    assert "pixels; allowed: at most 40 megapixels and 8192 pixels a side" in message


def test_a_tiny_picture_is_refused() -> None:
    assert "fox.png has 31*200 pixels, too few to see a character" in refusal(picture((31, 200)))
    assert read(picture((32, 200))).size == (32, 200)


def test_too_many_bytes_are_refused_unread() -> None:
    message = refusal(picture() + bytes(images.MAX_BYTES))
    assert "fox.png has more than 20 MiB; allowed: at most 20 MiB" in message


@settings(max_examples=300)
@given(st.data())
def test_damaged_bytes_are_refused_or_read_and_never_anything_else(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["PNG", "JPEG", "WEBP", "GIF"]))
    damaged = bytearray(picture((40, 40), format=kind))
    for at in data.draw(st.lists(st.integers(0, len(damaged) - 1), max_size=8)):
        damaged[at] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ImageRejected):
        assert read(bytes(damaged)).size


@pytest.mark.parametrize("output_format", OutputFormat)
def test_the_same_pixels_are_always_the_same_bytes_and_decode_to_what_they_were(
    output_format: OutputFormat,
) -> None:
    pixels = np.asarray(Image.linear_gradient("L").convert("RGB"))
    data = encode(pixels, output_format)
    assert data == encode(pixels.copy(), output_format)
    with Image.open(io.BytesIO(data)) as image:
        assert image.get_format_mimetype() == output_format.mime_type
        found = np.asarray(image.convert("RGB")).astype(int)
    assert np.abs(found - pixels).max() <= (0 if output_format is OutputFormat.PNG else 8)


def test_as_png_keeps_a_png_and_converts_the_rest() -> None:
    png, webp = picture(), picture(format="WEBP", lossless=True)
    assert images.as_png(png) == png
    assert read(images.as_png(webp)).getpixel((0, 0)) == RED


@pytest.mark.parametrize("limit", [90_000, 45_000, 15_000])
@pytest.mark.parametrize("size", [(1536, 1536), (512, 1536)])
def test_a_preview_fits_its_limit_even_for_noise(limit: int, size: tuple[int, int]) -> None:
    small = preview(encoded(noise(size)), limit)
    assert len(base64.b64encode(small)) == base64_length(small) <= limit
    with Image.open(io.BytesIO(small)) as image:
        assert image.format == "JPEG"
        assert image.width / image.height == pytest.approx(size[0] / size[1], rel=0.02)


def test_a_preview_is_as_large_as_fits_and_never_larger_than_the_picture() -> None:
    for side, expected in ((1024, 512), (200, 200)):
        with Image.open(io.BytesIO(preview(picture((side, side))))) as image:
            assert image.size == (expected, expected)
