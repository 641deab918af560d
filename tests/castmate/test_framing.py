"""A character is cut out of its picture, and so counts as much however small it is there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageOps

from castmate.families.instantcharacter.subject import reference_crops
from castmate.framing import Margins
from castmate.images import Reference
from castmate.pipeline.framing import Framer
from castmate.pipeline.matte import Matte
from castmate.schema import FramedReference, Framing, Matting
from tests.doubles import encoded, noise

BOX = (100, 40, 180, 200)  # of the figure below, in a picture of 400*300
SHARES = (0.25, 0.1333, 0.45, 0.6667)
WHOLE = (0, 0, 1, 1)


class KnownMatte:
    """Finds the figure below, in any picture; counts how often it was asked."""

    def __init__(self, box: tuple[int, int, int, int] | None = BOX) -> None:
        self.box, self.asked = box, 0

    def alpha(self, image: Image.Image) -> Image.Image:
        self.asked += 1
        alpha = Image.new("L", image.size)
        if self.box:
            ImageDraw.Draw(alpha).rectangle(_inside(self.box), fill=255)
        return alpha


def _inside(box: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    return box[0], box[1], box[2] - 1, box[3] - 1


def figure(background: Any = "white", size: tuple[int, int] = (400, 300)) -> Image.Image:
    """A red figure with a hole of the background's colour, on a picture or a colour."""
    on = Image.new("RGB", size, background) if isinstance(background, str) else background.copy()
    draw = ImageDraw.Draw(on)
    hole = on.getpixel((0, 0))
    draw.rectangle(_inside(BOX), fill=(200, 30, 40))
    draw.rectangle((130, 100, 149, 119), fill=cast(Any, hole))
    return on


def transparent(alpha: int = 0) -> Image.Image:
    """The figure, on pixels of this alpha."""
    image = figure().convert("RGBA")
    layer = Image.new("L", image.size, alpha)
    ImageDraw.Draw(layer).rectangle(_inside(BOX), fill=255)
    image.putalpha(layer)
    return image


def gradient() -> Image.Image:
    ramp = np.linspace(170, 250, 400, dtype=np.uint8)
    return Image.fromarray(np.broadcast_to(ramp[None, :, None], (300, 400, 3)).copy())


def landscape() -> Image.Image:
    image = Image.new("RGB", (400, 300), "skyblue")
    image.paste("green", (0, 180, 400, 300))
    return image


def reference(image: Image.Image, **options: Any) -> Reference:
    return Reference.from_bytes(encoded(image, **options), "it")


def frame(
    image: Image.Image | Reference,
    matting: Matting = Matting.AUTO,
    matte: KnownMatte | None = None,
    margins: Margins = (0.0, 0.0),
) -> tuple[Image.Image, FramedReference]:
    given = image if isinstance(image, Reference) else reference(image)
    return Framer(cast(Matte, matte), margins).frame(given, matting)


def test_a_transparent_picture_is_cut_to_what_is_opaque() -> None:
    framed, how = frame(transparent())
    assert how == FramedReference(framing=Framing.ALPHA, box=SHARES)
    assert framed.size == (80, 160)
    assert framed.getpixel((0, 0)) == (200, 30, 40)


def test_what_is_hardly_there_is_outside() -> None:
    assert frame(transparent(alpha=90))[1].box == SHARES


@pytest.mark.parametrize(
    "encode",
    [
        lambda image: encoded(image),
        lambda image: encoded(image, format="WEBP", lossless=True),
        lambda image: encoded(image.quantize(16)),
    ],
    ids=["PNG", "WEBP", "palette"],
)
def test_transparency_counts_in_every_format_that_has_it(
    encode: Callable[[Image.Image], bytes],
) -> None:
    image = Reference.from_bytes(encode(transparent()), "it")
    assert frame(image)[1].framing is Framing.ALPHA


def test_the_box_is_that_of_the_upright_picture() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned clockwise: what was at the bottom is at the left
    turned = reference(transparent(), exif=exif)
    assert turned.image.size == (300, 400)
    assert frame(turned)[1].box == (0.3333, 0.25, 0.8667, 0.45)


def test_a_large_transparent_picture_is_reduced_and_its_box_with_it() -> None:
    large = reference(transparent().resize((4000, 3000), Image.Resampling.NEAREST))
    assert large.image.size == (2000, 1500)
    assert frame(large)[1] == FramedReference(framing=Framing.ALPHA, box=SHARES)


def test_round_corners_make_no_cut_out() -> None:
    image = gradient().convert("RGBA")
    corners = Image.new("L", image.size)
    ImageDraw.Draw(corners).rounded_rectangle((0, 0, 399, 299), 30, fill=255)
    image.putalpha(corners)
    assert reference(image).cutout is None


@pytest.mark.parametrize("color", ["white", "#f4f0ee", "grey", "black", "lime"])
@pytest.mark.parametrize("options", [{}, {"format": "JPEG", "quality": 70}], ids=["PNG", "JPEG"])
def test_a_plain_background_is_cut_away(color: str, options: dict[str, Any]) -> None:
    framed, how = frame(reference(figure(color), **options))
    assert how.framing is Framing.BACKGROUND
    assert np.abs(np.subtract(how.box, SHARES)).max() < 0.02
    assert max(abs(a - b) for a, b in zip(framed.size, (80, 160), strict=True)) <= 8


def test_a_background_of_another_colour_becomes_white_and_the_character_keeps_it() -> None:
    image = figure("grey")
    image.paste("blue", (180, 190, 300, 200))  # an arm, with background above and below
    framed, _ = frame(image)
    assert framed.size == (200, 160)
    assert framed.getpixel((150, 40)) == (255, 255, 255)
    assert framed.getpixel((40, 70)) == (128, 128, 128), "the hole is no way out"
    assert framed.getpixel((10, 10)) == (200, 30, 40)
    assert framed.getpixel((150, 155)) == (0, 0, 255)


def test_a_bust_that_touches_the_lower_edge_stands_on_a_plain_background() -> None:
    image = Image.new("RGB", (400, 300), "white")
    ImageDraw.Draw(image).rectangle((50, 150, 350, 300), fill="navy")
    assert frame(image)[1].box == (0.125, 0.5, 0.8775, 1)


def test_single_pixels_of_noise_do_not_widen_the_box() -> None:
    image = figure()
    for at in [(5, 5), (390, 290), (200, 280)]:
        image.putpixel(at, (0, 0, 0))
    assert frame(image)[1].box == SHARES


@pytest.mark.parametrize(
    "image",
    [figure(gradient()), figure(landscape()), figure(noise((400, 300))), gradient()],
    ids=["gradient", "landscape", "noise", "nobody"],
)
def test_any_other_background_leaves_the_picture_as_it_is(image: Image.Image) -> None:
    given = reference(image)
    framed, how = frame(given)
    assert how == FramedReference(framing=Framing.NONE, box=WHOLE)
    assert framed is given.image


@pytest.mark.parametrize(
    "image",
    [Image.new("RGB", (400, 300), "white"), figure().crop((95, 35, 185, 205))],
    ids=["nobody", "filled"],
)
def test_where_there_is_nothing_to_cut_away_the_picture_stays_as_it_is(image: Image.Image) -> None:
    given = reference(image)
    framed, how = frame(given)
    assert how.framing is Framing.NONE
    assert framed is given.image


@pytest.mark.parametrize("image", [figure(), figure(landscape()), transparent()])
def test_without_matting_the_picture_stays_as_it_is(image: Image.Image) -> None:
    matte, given = KnownMatte(), reference(image)
    framed, how = frame(given, Matting.FALSE, matte)
    assert how == FramedReference(framing=Framing.NONE, box=WHOLE)
    assert framed is given.image
    assert matte.asked == 0


def test_the_matte_is_asked_where_the_picture_itself_does_not_tell() -> None:
    matte = KnownMatte()
    assert frame(transparent(), matte=matte)[1].framing is Framing.ALPHA
    assert frame(figure("grey"), matte=matte)[1].framing is Framing.BACKGROUND
    assert matte.asked == 0
    framed, how = frame(figure(landscape()), matte=matte)
    assert how == FramedReference(framing=Framing.MATTE, box=SHARES)
    assert framed.size == (80, 160)
    assert frame(figure(landscape()), matte=KnownMatte(None))[1].framing is Framing.NONE


def test_what_is_outside_the_matte_becomes_white() -> None:
    class Corners(KnownMatte):
        def alpha(self, image: Image.Image) -> Image.Image:
            alpha = Image.new("L", image.size)
            alpha.paste(255, (100, 40, 120, 60))
            alpha.paste(255, (160, 180, 180, 200))
            return alpha

    framed, how = frame(figure(landscape()), matte=Corners())
    assert how.box == SHARES
    corners = [framed.getpixel(at) for at in [(5, 5), (70, 5), (5, 150), (70, 150)]]
    assert corners == [(200, 30, 40), (255, 255, 255), (255, 255, 255), (200, 30, 40)]


def test_the_matte_decides_alone_where_the_caller_wants_it() -> None:
    for image in (figure(), transparent(), figure(landscape())):
        framing = frame(image, Matting.TRUE, KnownMatte())[1].framing
        assert framing is Framing.MATTE


def test_a_caller_who_wants_a_matte_that_is_not_there_is_told() -> None:
    without, blind = (Framer(cast(Matte, matte), (0.0, 0.0)) for matte in (None, KnownMatte(None)))
    for framer, image, words in [
        (without, figure(), "has no matte graph, so enable_matting 'true' did nothing more than"),
        (without, figure(landscape()), "the whole picture was taken"),
        (without, transparent(), "it was cut out by its transparency"),
        (blind, figure(), "found no character in the reference"),
    ]:
        _, how = framer.frame(reference(image), Matting.TRUE)
        (warning,) = framer.warnings(how, Matting.TRUE)
        assert words in warning
        assert framer.warnings(how, Matting.AUTO) == ()


def test_margins_are_white_and_as_wide_as_the_bundle_says() -> None:
    framed, how = frame(figure(), margins=(0.15, 0.05))
    assert how.box == SHARES
    assert framed.size == (112, 192)
    assert framed.getpixel((15, 100)) == framed.getpixel((16, 23)) == (255, 255, 255)
    assert framed.getpixel((16, 24)) == framed.getpixel((95, 183)) == (200, 30, 40)
    assert framed.getpixel((95, 184)) == (255, 255, 255)


@pytest.mark.parametrize("background", ["white", "grey"])
@pytest.mark.parametrize("at", [(40, 60), (1500, 1100)])
def test_a_tiny_character_in_a_large_picture_looks_as_it_does_alone(
    background: str, at: tuple[int, int], character: Callable[[str], Reference]
) -> None:
    image = character("rusty").image
    mask = Image.fromarray(np.uint8(255) * (np.asarray(image) < 250).any(-1))
    large = Image.new("RGB", (2000, 1600), background)
    large.paste(image.resize((400, 400)), at, mask.resize((400, 400)))
    alone = ImageOps.expand(image.crop(mask.getbbox()), 30, "white")

    def crops(image: Image.Image, matting: Matting) -> np.ndarray:
        return reference_crops(frame(image, matting, margins=(0.04, 0.04))[0], 128).astype(float)

    def distance(matting: Matting) -> float:
        return float(np.abs(crops(large, matting) - crops(alone, matting)).mean())

    assert distance(Matting.AUTO) < 8
    assert distance(Matting.FALSE) > 40
