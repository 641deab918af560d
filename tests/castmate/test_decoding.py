"""Pixels are read whatever surrounds them, in their true colours, and in bounded memory."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
import pytest
from PIL import Image, ImageCms, ImageDraw, PngImagePlugin

from castmate.errors import ImageRejected, Overloaded
from castmate.images import Reference
from castmate.memory import ByteGate
from tests.doubles import encoded, noise, picture

RED, WHITE = (255, 0, 0), (255, 255, 255)
BROKEN_EXIF = {
    "without end": b"Exif\0\0II*\0\xff\xff\xff\xff\xff\xff",
    "no TIFF": b"Exif\0\0nonsense",
    "an orientation in words": b"Exif\0\0II*\0"
    + struct.pack("<IHHHI4s4x", 8, 1, 0x0112, 2, 4, b"six"),
}


def read(data: bytes) -> Image.Image:
    return Reference.from_bytes(data, "it").image


def refusal(data: bytes) -> str:
    with pytest.raises(ImageRejected) as caught:
        Reference.from_bytes(data, "fox")
    return str(caught.value)


def display_p3() -> bytes:
    """The profile of phones' photos: sRGB's with other primaries."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    primaries = {
        b"rXYZ": (0.51512, 0.24120, -0.00105),
        b"gXYZ": (0.29198, 0.69225, 0.04189),
        b"bXYZ": (0.15710, 0.06657, 0.78407),
    }
    (count,) = struct.unpack_from(">I", profile, 128)
    for entry in range(count):
        tag, offset, _ = struct.unpack_from(">4sII", profile, 132 + 12 * entry)
        if tag in primaries:
            numbers = [round(value * 65536) for value in primaries[tag]]
            struct.pack_into(">3i", profile, offset + 8, *numbers)
    return bytes(profile)


def padded(profile: bytes, num_bytes: int) -> bytes:
    return struct.pack(">I", len(profile) + num_bytes) + profile[4:] + bytes(num_bytes)


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "AVIF", "HEIF"])
@pytest.mark.parametrize("extra", [0, 3 * 2**20], ids=["small", "over 1 MiB"])
def test_a_picture_in_display_p3_has_its_true_colours(file_format: str, extra: int) -> None:
    pillow_heif.register_heif_opener()
    image = Image.new("RGB", (64, 64), (200, 120, 80))
    data = encoded(image, format=file_format, icc_profile=padded(display_p3(), extra))
    expected = (213, 115, 70)  # by the two spaces' definitions
    assert np.abs(np.asarray(read(data))[9, 9].astype(int) - expected).max() <= 3


def test_transparency_survives_the_conversion_of_colours() -> None:
    layer = Image.new("RGBA", (64, 64), (200, 120, 80, 0))
    layer.paste((200, 120, 80, 255), (0, 0, 32, 64))
    image = read(encoded(layer, icc_profile=display_p3()))
    assert np.abs(np.asarray(image)[9, 9].astype(int) - (213, 115, 70)).max() <= 1
    assert image.getpixel((50, 9)) == WHITE


def test_a_profile_that_is_srgb_changes_no_pixel() -> None:
    image = noise((64, 64))
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert np.array_equal(np.asarray(read(encoded(image, icc_profile=profile))), np.asarray(image))


@pytest.mark.parametrize("profile", [b"nonsense", bytes(200), bytes(3 * 2**20)])
@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP"])
def test_a_broken_profile_decides_nothing(file_format: str, profile: bytes) -> None:
    image = read(
        encoded(Image.new("RGB", (64, 64), "red"), format=file_format, icc_profile=profile)
    )
    assert np.allclose(np.asarray(image)[9, 9], RED, atol=3)


@pytest.mark.parametrize("compressed", [False, True])
def test_a_png_with_long_texts_is_read(compressed: bool) -> None:
    texts = PngImagePlugin.PngInfo()
    texts.add_text("workflow", "x" * (3 * 2**20), zip=compressed)
    assert read(picture(pnginfo=texts)).getpixel((9, 9)) == RED


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")  # an error in the other tests
@pytest.mark.parametrize("broken", BROKEN_EXIF.values(), ids=BROKEN_EXIF)
@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP"])
def test_broken_exif_turns_nothing(file_format: str, broken: bytes) -> None:
    image = noise((64, 48))
    found = read(encoded(image, format=file_format, exif=broken, lossless=True))
    assert found.size == (64, 48)
    if file_format != "JPEG":
        assert np.array_equal(np.asarray(found), np.asarray(image))


def test_a_process_says_nothing_of_broken_exif(tmp_path: Path) -> None:
    names: list[str] = []
    for file_format in ("PNG", "JPEG", "WEBP"):
        for broken in BROKEN_EXIF.values():
            names.append(f"fox-{len(names)}")
            data = encoded(noise((64, 48)), format=file_format, exif=broken)
            (tmp_path / names[-1]).write_bytes(data)
    code = (
        "import sys; from castmate.images import Reference;"
        "[Reference.from_bytes(open(name, 'rb').read(), 'it') for name in sys.argv[1:]]"
    )
    command = [sys.executable, "-c", code, *(str(tmp_path / name) for name in names)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_that_lacks_its_end_alone_is_read_as_it_was(progressive: bool) -> None:
    data = encoded(noise((80, 80)), format="JPEG", progressive=progressive)
    for cut in (1, 2):
        assert np.array_equal(np.asarray(read(data[:-cut])), np.asarray(read(data)))
    assert "is damaged or cut off" in refusal(data[: len(data) * 9 // 10])


@pytest.mark.parametrize("brand", [b"heic", b"heix", b"mif1", b"msf1", b"miaf", b"MiHB"])
def test_heic_of_every_brand_is_read_and_kept_as_png_for_those_who_cannot(brand: bytes) -> None:
    pillow_heif.register_heif_opener()
    data = picture(format="HEIF", quality=100)
    reference = Reference.from_bytes(data[:8] + brand + data[12:], "it")
    assert np.allclose(np.asarray(reference.image)[9, 9], RED, atol=4)
    with Image.open(io.BytesIO(reference.data)) as kept:
        assert (kept.format, kept.size) == ("PNG", (64, 48))


def test_avif_is_read() -> None:
    assert np.allclose(np.asarray(read(picture(format="AVIF")))[9, 9], RED, atol=4)


def test_heic_without_the_extra_is_named_with_two_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    message = refusal(b"\0\0\0\x1cftypheic\0\0\0\0mif1heic")
    assert "fox is a HEIC picture, and this installation cannot read those" in message
    assert "Convert it to PNG or JPEG and try again. Or install the extra `photos`" in message


@pytest.mark.parametrize(
    ("data", "name", "hint"),
    [
        (b"", "fox is empty", "download it again"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "a Git LFS pointer", "git lfs pull"),
        (b"\xef\xbb\xbf\n<!doctype HTML>", "a web page", "may be a sign-in page"),
        (b"<HTML lang=en>", "a web page", "the address of the picture itself"),
        (b'{"error": "denied"}', "a JSON document", "an error message"),
        (b"\xff\x0a" + bytes(90), "a JPEG XL picture", "Convert it to PNG or JPEG"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL picture", "Convert it to PNG or JPEG"),
        (b"PK\3\4" + bytes(90), "a ZIP archive", "Unpack it"),
    ],
)
def test_what_is_no_picture_is_named_for_what_it_is(data: bytes, name: str, hint: str) -> None:
    message = refusal(data)
    assert name in message
    assert hint in message


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "file_format"),
    [("RGB", "PNG"), ("RGBA", "PNG"), ("L", "PNG"), ("P", "GIF"), ("RGB", "JPEG"), ("RGB", "WEBP")],
)
def test_a_large_picture_is_reduced_and_shows_the_same(mode: str, file_format: str) -> None:
    image = Image.new("RGB", (4500, 3001), "white")
    ImageDraw.Draw(image).rectangle((0, 0, 2249, 1500), fill="red")
    found = read(encoded(image.convert(mode), format=file_format))
    assert 1024 <= max(found.size) <= 2048
    assert found.width / found.height == pytest.approx(4500 / 3001, rel=0.01)
    seen = np.asarray(found.resize((4, 4), Image.Resampling.BOX)).astype(int)
    red = Image.new("RGB", (1, 1), "red").convert(mode).convert("RGB").getpixel((0, 0))
    assert np.abs(seen[0, 0] - red).max() <= 4
    assert np.abs(seen[3, 3] - WHITE).max() <= 4


def test_a_large_jpeg_is_reduced_while_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    class Recorded(ByteGate):
        def hold(self, num_bytes: int) -> Any:
            held.append(num_bytes)
            return super().hold(num_bytes)

    held: list[int] = []
    monkeypatch.setattr("castmate.decoding.DECODING", Recorded(2**30, patience_s=30))
    read(encoded(Image.new("RGB", (4500, 3001)), format="JPEG"))
    assert held[0] < 4500 * 3001 * 3, "its pixels alone would take as much"


def test_a_picture_of_2048_pixels_keeps_every_one() -> None:
    image = noise((2048, 64))
    assert np.array_equal(np.asarray(read(encoded(image))), np.asarray(image))


@pytest.mark.slow
def test_many_large_pictures_at_once_stay_within_a_bound_of_memory(tmp_path: Path) -> None:
    (tmp_path / "large.png").write_bytes(encoded(Image.new("RGBA", (8000, 5000), "red")))
    code = """
import asyncio, os, re, sys
os.cpu_count = lambda: 8  # so many decode at a time, on any machine
from castmate.decoding import DECODING
from castmate.references import resolve

DECODING._patience_s = 90  # seven wait, and this machine may be busy

def mib(field):  # getrusage would count the memory of the process that started this one
    return int(re.search(rf"{field}:\\s+(\\d+)", open("/proc/self/status").read())[1]) // 1024

async def main():
    await asyncio.gather(*(resolve(sys.argv[1]) for _ in range(8)))
    print(mib("VmHWM"), mib("VmRSS"))

asyncio.run(main())
"""
    command = [sys.executable, "-c", code, str(tmp_path / "large.png")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
    most, left = map(int, done.stdout.split())
    assert most < 600  # MiB; eight at once would be 1,280 for the pixels alone
    assert left < 300


def test_the_gate_lets_in_what_fits_in_turn_and_what_is_too_large_alone() -> None:
    gate = ByteGate(100, patience_s=30)
    order: list[int] = []
    waiting = threading.Event()

    def work(num_bytes: int, ready: Any) -> None:
        ready.set()
        with gate.hold(num_bytes):
            order.append(num_bytes)

    with gate.hold(60):
        thread = threading.Thread(target=work, args=(500, waiting))
        thread.start()
        assert waiting.wait(10)
        assert order == []
    thread.join(10)
    assert order == [500]
    with gate.hold(40), gate.hold(60):
        order.append(100)
    assert order == [500, 100]


def test_who_waits_too_long_for_room_is_asked_to_come_again() -> None:
    gate = ByteGate(100, patience_s=0)
    with (
        gate.hold(60),
        pytest.raises(Overloaded, match="Try again in a few seconds"),
        gate.hold(60),
    ):
        pass
    with gate.hold(100):
        pass
