"""WaveSpeed's API at the wire, with all its bad days; words in the prompt choose among them.

What was started, and so charged, is counted where it counts: in `charged`.
`python -m tests.fakes.wavespeed PORT` runs it alone; GET /_charged then gives the count.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from PIL import Image

from tests.fakes.http import Answer, Call, serving

KEY = "wsk_0123456789abcdef0123456789abcdef"
MODEL = "wavespeed-ai/instant-character"
FILES = "http://files.example"
FOUR = ("prompt", "image", "size", "seed")
NINE = (
    *FOUR,
    "negative_prompt",
    "guidance_scale",
    "num_inference_steps",
    "num_images",
    "enable_safety_checker",
)
PAGE = b"<!DOCTYPE html><html><title>Bad gateway</title><h1>Sorry</h1></html>"


def ok(data: Any) -> Answer:
    return as_json(200, {"code": 200, "message": "success", "data": data})


def no(status: int, message: str, **headers: str) -> Answer:
    return as_json(status, {"code": status, "message": message}, **headers)


def as_json(status: int, value: Any, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, json.dumps(value).encode(), {"content-type": "application/json"} | named)


def page(status: int) -> Answer:
    return Answer(status, PAGE, {"content-type": "text/html"})


class FakeWaveSpeed:
    """The service.

    Attributes:
        calls: Every request, in order.
        charged: The id of every prediction that was started.
        takes: The parameters that the hosted model takes; others are refused.
        lists: Whether the list of models tells them; None fails.
        price: What the price endpoint says; None: there is only the older one; "down" fails.
        tickets: Whether uploads go through tickets, or by the older form.
        polls: How often a prediction is asked for before it is completed.
    """

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.charged: list[str] = []
        self.takes: tuple[str, ...] = NINE
        self.lists: bool | None = True
        self.price: float | str | None = 0.1
        self.tickets = True
        self.polls = 2
        self.files: dict[str, bytes] = {}
        self.predictions: dict[str, dict[str, Any]] = {}
        self.asked: dict[str, int] = {}

    def count(self, method: str, path: str) -> int:
        """How many requests matched."""
        return len([c for c in self.calls if c.method == method and re.fullmatch(path, c.path)])

    @property
    def submissions(self) -> list[Any]:
        """The inputs of every paid request, whatever came of it."""
        path = f"/api/v3/{MODEL}"
        return [call.json() for call in self.calls if (call.method, call.path) == ("POST", path)]

    @asynccontextmanager
    async def running(self, port: int = 0) -> AsyncIterator[int]:
        """On a loopback port, API and files alike."""
        async with serving(self.answer, port) as bound:
            yield bound

    async def answer(self, call: Call) -> Answer:
        if call.path == "/_charged":
            return as_json(200, len(self.charged))
        self.calls.append(call)
        if call.path.startswith(("/files/", "/upload/")):
            return self._file(call)
        if call.headers.get("authorization") != f"Bearer {KEY}":
            message = f"invalid api key {call.headers.get('authorization', '')}"
            return no(401, message)
        match call.method, call.path.removeprefix("/api/v3/").split("/"):
            case "GET", ["balance"]:
                return ok({"balance": 4.2})
            case "GET", ["models"]:
                return self._models()
            case "POST", ["model", "price" | "pricing" as which]:
                return self._price(which)
            case "POST", ["media", "uploads"]:
                return self._ticket(call)
            case "POST", ["media", "upload", "binary"]:
                return self._store(call.body)
            case "GET", ["predictions", name, "result"]:
                return self._result(name)
            case "POST", [*_] if call.path == f"/api/v3/{MODEL}":
                return self._submit(call)
        return no(404, "not found")

    def _models(self) -> Answer:
        if self.lists is None:
            return page(502)
        properties = {name: {"type": "string"} for name in self.takes}
        if "seed" in self.takes:
            properties["seed"] = {"type": "integer", "minimum": -1, "maximum": 2147483647}  # type: ignore[dict-item]
        schema = {
            "type": "object",
            "properties": properties,
            "required": ["prompt", "image"],
            "additionalProperties": False,
        }
        described = {"type": "model_run", "method": "POST", "request_schema": schema}
        entry = {"model_id": MODEL, "api_schema": {"api_schemas": [described]}}
        return ok([{"model_id": "other/model"}, *([entry] if self.lists else [])])

    def _price(self, which: str) -> Answer:
        if self.price == "down":
            return page(500)
        if which == "pricing":
            return ok({"model_id": MODEL, "unit_price": 0.2, "currency": "USD"})
        if self.price is None:
            return no(404, "not found")
        return ok({"model_id": MODEL, "price": self.price, "discounted_price": 0.05})

    def _ticket(self, call: Call) -> Answer:
        if not self.tickets:
            return no(404, "not found")
        name = f"{len(self.files)}-{call.json()['filename']}"
        upload = {
            "method": "PUT",
            "url": f"{FILES}/upload/{name}",
            "headers": {"Content-Type": call.json()["content_type"]},
        }
        return ok({"type": "image", "download_url": f"{FILES}/files/{name}", "upload": upload})

    def _store(self, body: bytes) -> Answer:
        name = f"{len(self.files)}-form.png"
        self.files[name] = body
        return ok({"type": "image", "download_url": f"{FILES}/files/{name}"})

    def _file(self, call: Call) -> Answer:
        assert "authorization" not in call.headers, "the key went to a file host"
        name = call.path.rpartition("/")[2]
        if call.method == "PUT":
            self.files[name] = call.body
            return Answer(200)
        return Answer(200, self.files[name]) if name in self.files else page(404)

    def _submit(self, call: Call) -> Answer:
        inputs = call.json()
        words = inputs["prompt"].split()
        if unknown := set(inputs) - set(self.takes):
            return no(400, f"unknown field {min(unknown)}")
        for word in words:
            if early := re.fullmatch(r"SUBMIT(\d{3})(HTML)?", word):
                status = int(early[1])
                headers = {"retry_after": "7"} if "RETRYAFTER" in words else {}
                return page(status) if early[2] else no(status, f"told {KEY} so", **headers)
        if "ENVELOPE400" in words:
            return as_json(200, {"code": 400, "message": "bad guidance_scale", "data": None})
        if "REDIRECT" in words:
            return Answer(307, headers={"location": f"/api/v3/{MODEL}"})
        name = f"{len(self.charged):032x}"
        self.charged.append(name)  # from here on it costs money
        self.predictions[name] = {"inputs": inputs, "words": words}
        if "LOST" in words:
            return Answer(drop=True)
        if "SLOW" in words:
            return Answer(hang=True)
        if "CUT" in words:
            return Answer(200, b'{"code": 200, "data": {"id": "', {"content-length": "400"})
        if "CHARGED502" in words:
            return page(502)
        if "CHARGEDPAGE" in words:
            return page(200)
        if "NOID" in words:
            return ok({})
        if "ODDID" in words:
            return ok({"id": "../../balance"})
        return ok({"id": name, "status": "created", "outputs": [], "error": ""})

    def _result(self, name: str) -> Answer:
        if name not in self.predictions or "FORGOTTEN" in self.predictions[name]["words"]:
            return no(404, "prediction not found")
        words = self.predictions[name]["words"]
        self.asked[name] = asked = self.asked.get(name, 0) + 1
        if asked <= 2:
            for word, bad in {
                "POLL503": no(503, "busy"),
                "POLL429": no(429, "slow down", retry_after="3"),
                "POLLHTML": page(200),
                "POLL500": page(500),
                "POLLDROP": Answer(drop=True),
                "POLLSLOW": Answer(hang=True),
                "POLLNULL": ok(None),
                "POLL404": no(404, "prediction not found"),
            }.items():
                if word in words:
                    return bad
        if "POLLDEAD" in words:
            return page(503)
        if "POLL401" in words:
            return no(401, "this key was revoked")
        if asked <= self.polls or "FOREVER" in words:
            return ok(self._told(name, "processing"))
        for word in words:
            if end := re.fullmatch(r"(FAILED|TIMEOUT|CANCELLED|DELETED)(\d*)", word):
                code = {"code": int(end[2])} if end[2] else {}
                why = {"error": "the task did not work out"}
                return ok(self._told(name, end[1].lower()) | why | code)
        flags = {"has_nsfw_contents": ["NSFW" in words]}
        return ok(self._told(name, "completed") | flags | {"outputs": self._outputs(name, words)})

    def _told(self, name: str, status: str) -> dict[str, Any]:
        return {"id": name, "status": status, "outputs": [], "error": "", "urls": {}}

    def _outputs(self, name: str, words: list[str]) -> list[str] | None:
        if "NOOUTPUT" in words:
            return None
        if "INTERNAL" in words:
            return ["http://10.0.0.7/secret.png"]
        if "EXPIRED" not in words:
            self.files[f"{name}.png"] = self._draw(name, words)
        return [f"{FILES}/files/{name}.png"]

    def _draw(self, name: str, words: list[str]) -> bytes:
        if "NOPICTURE" in words:
            return PAGE
        inputs = self.predictions[name]["inputs"]
        width, height = map(int, inputs.get("size", "1024*1024").split("*"))
        width -= 64 if "SMALLER" in words else 0
        colour = (int(inputs.get("seed", 0)) % 256, 120, 40)
        stream = io.BytesIO()
        Image.new("RGB", (width, height), colour).save(stream, "JPEG" if "JPEG" in words else "PNG")
        return stream.getvalue()


async def main(port: int) -> None:
    async with FakeWaveSpeed().running(port) as bound:
        print(bound, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(int(sys.argv[1]) if sys.argv[1:] else 0))
