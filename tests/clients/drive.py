"""Uploads and draws with WaveSpeed's Python client: `drive.py BASE_URL KEY PICTURE [langchain]`.

Needs no package of ours: it runs in the environment of the clients.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from typing import Any

import wavespeed

INPUTS: dict[str, Any] = {
    "prompt": "waving on the beach",
    "size": "512*512",
    "seed": 7,
    "num_inference_steps": 4,
}
MODEL = "wavespeed-ai/instant-character"


def by_client(picture: str) -> dict[str, Any]:
    """What the client itself gave."""
    image = wavespeed.upload(picture)
    report: dict[str, Any] = {"version": version("wavespeed"), "image": image}
    inputs = INPUTS | {"image": image}
    report["outputs"] = wavespeed.run(MODEL, inputs, poll_interval=0.2)["outputs"]
    report["sync"] = wavespeed.run(MODEL, inputs, enable_sync_mode=True)["outputs"]
    try:
        wavespeed.run(MODEL, inputs | {"num_images": 9})
    except Exception as error:
        report["refused"] = str(error)
    return report


def by_langchain(picture: str) -> dict[str, Any]:
    """What the tool for agents gave."""
    from langchain_wavespeed import WaveSpeedRunModel

    tool = WaveSpeedRunModel(poll_interval=0.2)
    inputs = INPUTS | {"image": wavespeed.upload(picture)}
    return {"outputs": tool.invoke({"model": MODEL, "input": inputs}).splitlines()}


if __name__ == "__main__":
    base_url, key, picture, *chosen = sys.argv[1:]
    wavespeed.config.api.base_url = base_url
    wavespeed.config.api.api_key = key
    print(json.dumps((by_langchain if chosen else by_client)(picture)))
