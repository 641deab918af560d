"""Turns a hosted file into the requested picture: size, format and safety as promised."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

from castmate.colour import ToSrgb
from castmate.decoding import decode
from castmate.images import Reference, encode
from castmate.schema import GeneratedImage, GenerateRequest, OutputFormat

UPLOAD_TYPES = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}


@dataclass(frozen=True)
class Finished:
    """One picture, and warnings about changes to it."""

    image: GeneratedImage
    warnings: tuple[str, ...] = ()


def finish(request: GenerateRequest, seed: int, number: int, data: bytes, nsfw: bool) -> Finished:
    """Make a downloaded file exactly what the request asks for.

    Args:
        request: The request.
        seed: The picture's.
        number: The picture's number in the request, from 1.
        data: The file.
        nsfw: Whether the hosted model flagged it.

    Raises:
        ImageRejected: It is not a picture.
    """
    if nsfw and request.enable_safety_checker:
        return blacked_out(request, seed, number)
    wanted, size = request.output_format, (request.width, request.height)
    warnings = []
    if nsfw:
        warnings.append(f"WaveSpeed flagged picture {number} as unsafe; you asked to keep it.")
    picture = decode(data, f"WaveSpeed's picture {number}").image
    found_format, is_plain = _look(data)
    if picture.size != size:
        warnings.append(
            f"WaveSpeed made picture {number} with {picture.width}*{picture.height} pixels; it was "
            f"scaled and cut to {request.size}."
        )
        picture = ImageOps.fit(picture, size, Image.Resampling.LANCZOS)
        is_plain = False
    if found_format != wanted.value.upper():
        lossy = " and lost what JPEG loses" if found_format == "JPEG" else ""
        warnings.append(
            f"WaveSpeed made picture {number} as {found_format}{lossy}; it was converted to "
            f"{wanted.value}."
        )
        is_plain = False
    kept = data if is_plain else encode(np.asarray(picture), wanted)
    image = GeneratedImage(
        data=kept, output_format=wanted, width=size[0], height=size[1], seed=seed
    )
    return Finished(image, tuple(warnings))


def blacked_out(request: GenerateRequest, seed: int, number: int) -> Finished:
    """A black picture in place of one that was flagged."""
    black = np.zeros((request.height, request.width, 3), np.uint8)
    data = encode(black, request.output_format)
    warning = (
        f"WaveSpeed flagged picture {number} as unsafe; it is replaced by a black one. Change the "
        "prompt or the seed."
    )
    image = GeneratedImage(
        data=data,
        output_format=request.output_format,
        width=request.width,
        height=request.height,
        seed=seed,
        has_nsfw=True,
    )
    return Finished(image, (warning,))


def upload_form(reference: Reference) -> tuple[str, str, bytes]:
    """File name, media type and bytes with which the reference is uploaded."""
    found_format, is_plain = _look(reference.data)
    data = reference.data
    if found_format not in UPLOAD_TYPES or not is_plain:
        found_format, data = "PNG", encode(np.asarray(reference.image), OutputFormat.PNG)
    suffix = found_format.lower().replace("jpeg", "jpg")
    return f"{reference.sha256[:32]}.{suffix}", UPLOAD_TYPES[found_format], data


def _look(data: bytes) -> tuple[str, bool]:
    """The format of a picture, and whether viewers show its pixels unchanged."""
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP", "GIF")) as image:
            upright = image.getexif().get(0x0112, 1) == 1
            in_srgb = ToSrgb.of(image.info.get("icc_profile"), image.mode) is None
            return str(image.format), image.mode == "RGB" and upright and in_srgb
    except Exception:  # it has been decoded, so only its metadata can be broken
        return "unknown", False
