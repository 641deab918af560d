"""What each known client trips over: one test for every row of what is known of them."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from castmate.errors import DeadlineExceeded, Unavailable
from castmate_mcp.rest.presenter import without_rerun_words
from tests.doubles import DEFAULTS, FlatClient, StuckClient, picture
from tests.mcp_server.running import MODEL, Api, serving

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("own_folder")]


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with serving(FlatClient(), tmp_path / "data") as api:
        yield api


async def test_submit_and_ticket_answer_200_and_a_flat_prediction(api: Api) -> None:
    answer = await api.http.post(MODEL, json=api.inputs())
    assert answer.status_code == 200
    body = answer.json()
    assert body.keys() == {"code", "message", "data"}
    assert (body["code"], body["message"]) == (200, "success")
    data = body["data"]
    assert len(data["id"]) == 32
    assert data["model"] == "wavespeed-ai/instant-character"
    assert (data["outputs"], data["has_nsfw_contents"], data["error"]) == ([], [], "")
    assert data["urls"] == {"get": f"{api.url}/api/v3/predictions/{data['id']}/result"}
    assert data["created_at"].endswith("Z")
    for number in (data["executionTime"], data["timings"]["inference"], body["code"]):
        assert type(number) is int
    assert data["status"] in ("created", "processing", "completed")
    assert "code" not in data


async def test_a_result_has_one_flag_an_output_and_times_in_whole_milliseconds(api: Api) -> None:
    data = await api.final((await api.submit(num_images=3))["id"])
    assert data["status"] == "completed"
    assert len(data["outputs"]) == len(data["has_nsfw_contents"]) == 3
    assert data["has_nsfw_contents"] == [False] * 3
    assert data["identity"] == [None] * 3  # this client judges nothing
    assert data["seeds"] == [7, 8, 9]
    assert type(data["executionTime"]) is type(data["timings"]["inference"]) is int
    same = await api.ask("GET", f"/api/v3/predictions/{data['id']}")
    assert {**same, "outputs": []} == {**data, "outputs": []}


async def test_an_error_has_a_real_status_and_its_sentence_in_message_and_in_error(
    api: Api,
) -> None:
    wrong = api.inputs(num_images=5, seed="x", enable_matting="no")
    body = await api.ask("POST", MODEL, 422, json=wrong)
    assert body["error_code"] == 1401
    named = {problem["parameter"] for problem in body["problems"]}
    assert named == {"num_images", "seed", "enable_matting"}
    assert "allowed: auto, true, false" in body["message"]
    assert "`num_images`" in body["message"]
    assert "from 1 to 4" in body["message"]
    await api.ask("GET", "/api/v3/predictions/nope/result", 404)
    await api.ask("GET", "/api/v3/nothing", 404)
    await api.ask("PUT", "/api/v3/balance", 405)


@pytest.mark.parametrize(
    ("client", "version", "expected"),
    [
        ("", "", "failed"),
        ("wavespeed-python", "1.0.14", "failed"),
        ("wavespeed-js", "0.2.3", "failed"),
        ("wavespeed-python", "2.0.5", "cancelled"),
        ("wavespeed-js", "0.3.2", "cancelled"),
        ("wavespeed-python", "new", "failed"),
    ],
)
async def test_cancelled_is_told_as_failed_to_clients_that_would_poll_for_ever(
    tmp_path: Path, client: str, version: str, expected: str
) -> None:
    async with serving(StuckClient(), tmp_path / "data") as api:
        name = (await api.submit())["id"]
        await api.ask("POST", f"/api/v3/predictions/{name}/cancel")
        data = await api.final(name, headers={"x-client-name": client, "x-client-version": version})
        assert data["status"] == expected
        assert data["outputs"] == []
        assert "ancelled" in data["error"]
        assert data["code"] == 1403


async def test_a_failed_task_is_http_200_with_its_reason_and_code(tmp_path: Path) -> None:
    error = DeadlineExceeded("The connection had a timeout, HTTP 503 and HTTP 429. Sorry.")
    async with serving(FlatClient(error), tmp_path / "data", wait_s=0) as api:
        data = await api.final((await api.submit())["id"])
        assert (data["status"], data["outputs"], data["code"]) == ("failed", [], 5003)
        for word in ("HTTP 5", "HTTP 429", "timeout", "connection"):
            assert word not in data["error"]
        assert data["error"].endswith("Sorry.")


@pytest.mark.parametrize(
    "text", ["HTTP 502", "http 429", "Timeout", "time-out", "timed out", "ConnectionError"]
)
def test_no_error_has_a_word_for_which_a_client_submits_again(text: str) -> None:
    reworded = without_rerun_words(f"a {text} happened").lower()
    assert not any(
        word in reworded for word in ("http 5", "http 4", "timeout", "timed out", "connection")
    )


async def test_a_result_is_answered_at_once_and_polls_never_count(tmp_path: Path) -> None:
    async with serving(StuckClient(), tmp_path / "data") as api:
        key = await api.key("ann", per_minute=6)
        name = (await api.ask("POST", MODEL, json=api.inputs(), headers=key))["id"]
        for _ in range(50):
            data = await api.ask("GET", f"/api/v3/predictions/{name}/result", headers=key)
            assert data["status"] in ("created", "processing")


async def test_a_ticket_is_absolute_signed_and_good_for_one_file(api: Api) -> None:
    data = picture((40, 30))
    asked = {"filename": "a.png", "size": len(data), "content_type": "image/png"}
    ticket = await api.ask("POST", "/api/v3/media/uploads", json=asked)
    upload = ticket["upload"]
    assert (upload["method"], upload["headers"]) == ("PUT", {"Content-Type": "image/png"})
    assert upload["url"].startswith(f"{api.url}/upload/")
    sent = await api.http.put(upload["url"], content=data, headers=upload["headers"])
    assert sent.status_code == 200
    assert (await api.http.get(ticket["download_url"])).content == data
    again = await api.http.put(upload["url"], content=data)
    assert again.status_code == 409
    forged = upload["url"].replace(f"-{len(data)}-", f"-{len(data) + 1}-")
    assert (await api.http.put(forged, content=data + b"x")).status_code == 403


@pytest.mark.parametrize("content", [picture()[:-1], picture() + b"x", b""])
async def test_a_file_of_another_size_than_announced_is_refused(api: Api, content: bytes) -> None:
    asked = {"filename": "a.png", "size": len(picture())}
    ticket = await api.ask("POST", "/api/v3/media/uploads", json=asked)

    async def chunks() -> AsyncIterator[bytes]:  # as an empty file comes: without a length
        yield content

    sent = await api.http.put(ticket["upload"]["url"], content=chunks())
    assert sent.status_code in (400, 413)
    assert (await api.http.get(ticket["download_url"])).status_code == 404


async def test_an_empty_file_is_told_to_be_no_picture(api: Api) -> None:
    ticket = await api.ask("POST", "/api/v3/media/uploads", json={"filename": "a", "size": 0})
    sent = await api.http.put(ticket["upload"]["url"], content=b"")
    assert sent.status_code == 422
    assert "no picture" in sent.json()["message"]


@pytest.mark.parametrize(
    ("filename", "content_type", "suffix"),
    [
        ("upload", None, ".png"),
        ("upload", "image/webp", ".webp"),
        ("狐狸 🦊.jpeg", "image/jpeg", ".jpeg"),
        ("../../etc/passwd", "image/jpeg", ".jpg"),
        ("a.svg", "image/png", ".png"),
    ],
)
async def test_every_filename_gets_an_address_with_the_suffix_of_a_picture(
    api: Api, filename: str, content_type: str | None, suffix: str
) -> None:
    asked = {"filename": filename, "size": 10} | (
        {"content_type": content_type} if content_type else {}
    )
    ticket = await api.ask("POST", "/api/v3/media/uploads", json=asked)
    assert ticket["filename"] == filename
    assert ticket["download_url"].endswith(suffix)
    assert isinstance(ticket["upload"]["headers"], dict)


async def test_what_was_uploaded_and_drawn_is_fetched_without_a_key_by_a_suffix(api: Api) -> None:
    key = await api.key("ann")
    data = await api.ask("POST", MODEL, json=api.inputs(output_format="jpeg"), headers=key)
    data = await api.final(data["id"], headers=key)
    (output,) = data["outputs"]
    assert output.endswith(".jpeg")
    drawn = await api.http.get(output)
    assert (drawn.status_code, drawn.headers["content-type"]) == (200, "image/jpeg")
    with Image.open(io.BytesIO(drawn.content)) as image:
        assert image.size == (512, 512)
    assert api.image.endswith(".png")
    assert (await api.http.get(api.image)).status_code == 200


async def test_an_output_is_the_reference_of_the_next_picture(api: Api) -> None:
    data = await api.final((await api.submit())["id"])
    data = await api.final((await api.submit(image=data["outputs"][0]))["id"])
    assert data["status"] == "completed"


async def test_an_address_of_another_service_that_is_gone_is_a_clear_1402(api: Api) -> None:
    stale = "https://d1q70pf5vjeyhc.cloudfront.invalid/media/a.png"
    body = await api.ask("POST", MODEL, 422, json=api.inputs(image=stale))
    assert body["error_code"] == 1402
    assert body["problems"][0]["parameter"] == "image"
    expired = api.image.replace("/files/", "/files/1").replace("uploads", "outputs")
    body = await api.ask("POST", MODEL, 422, json=api.inputs(image=expired))
    assert body["error_code"] == 1402
    assert "has expired" in body["message"]


@pytest.mark.parametrize("image", ["/etc/passwd", "file:///etc/passwd", "mira.png", "image://a"])
async def test_no_file_of_the_server_is_read(api: Api, image: str) -> None:
    body = await api.ask("POST", MODEL, 422, json=api.inputs(image=image))
    assert "is no address" in body["message"]


@pytest.mark.parametrize(
    "changed",
    [
        {"size": "512x512"},
        {"size": "512 X 512"},
        {"size": "512\u00d7512"},
        {"seed": 9_999_999_999},
        {"seed": -1},
        {"enable_base64_output": False, "enable_sync_mode": False},
        {"negative_prompt": None, "seed": None},
        {
            "negative_prompt": "rain",
            "guidance_scale": 3.5,
            "num_images": 1,
            "enable_safety_checker": True,
        },
    ],
)
async def test_what_clients_send_is_taken(api: Api, changed: dict[str, Any]) -> None:
    data = await api.final((await api.submit(**changed))["id"])
    assert data["status"] == "completed"


async def test_the_four_parameters_of_the_newest_schema_are_enough(api: Api) -> None:
    asked = {"prompt": "waving", "image": api.image, "size": "512*512", "seed": -1}
    assert (await api.ask("POST", MODEL, json=asked))["status"] == "created"


@pytest.mark.parametrize("prefix", ["data:image/png;base64,", ""])
async def test_a_data_uri_is_an_image_and_so_is_its_base64_alone(api: Api, prefix: str) -> None:
    uri = f"{prefix}{base64.b64encode(picture()).decode()}"
    assert (await api.final((await api.submit(image=uri))["id"]))["status"] == "completed"


async def test_unknown_client_headers_and_a_slash_behind_the_base_url_are_fine(api: Api) -> None:
    headers = {"x-client-name": "n8n", "x-client-version": "?", "x-client-os": "beos"}
    data = await api.ask("POST", f"{api.url}/{MODEL}", json=api.inputs(), headers=headers)
    assert (await api.ask("GET", f"{api.url}//api/v3/predictions/{data['id']}/result"))[
        "id"
    ] == data["id"]


async def test_the_older_paths_are_aliases(api: Api) -> None:
    files = {"file": ("fox.png", picture(), "image/png")}
    image = (await api.ask("POST", "/api/v2/media/upload/binary", files=files))["download_url"]
    older = MODEL.replace("v3", "v2")
    name = (await api.ask("POST", older, json=api.inputs(image=image)))["id"]
    await api.final(name)
    assert (await api.ask("GET", f"/api/v2/predictions/{name}/result"))["status"] == "completed"


async def test_the_list_of_models_is_bare_and_tells_the_inputs_in_order(api: Api) -> None:
    (model,) = await api.ask("GET", "/api/v3/models")
    assert model["licences"]["toon"]["name"] == "Apache-2.0"
    assert model["model_id"] == "wavespeed-ai/instant-character"
    assert model["type"] == "image-to-image"
    (schema,) = model["api_schema"]["api_schemas"]
    assert schema["type"] == "model_run"
    assert schema["api_path"] == MODEL
    inputs = schema["request_schema"]
    assert inputs["type"] == "object"
    assert inputs["required"] == ["prompt", "image"]
    assert inputs["x-order-properties"] == list(inputs["properties"])
    assert inputs["additionalProperties"] is False
    assert "$ref" not in json.dumps(inputs)
    assert inputs["properties"]["output_format"]["enum"] == ["png", "jpeg", "webp"]
    assert model["defaults"] == DEFAULTS.model_dump()
    steps = {"type": "integer", "minimum": 1, "maximum": 50, "default": 28}
    assert inputs["properties"]["num_inference_steps"].items() >= steps.items()


async def test_prices_and_the_balance_are_numbers_in_dollars(api: Api) -> None:
    asked = {"model_id": "wavespeed-ai/instant-character", "inputs": {"num_images": 2}}
    price = await api.ask("POST", "/api/v3/model/price", json=asked)
    assert (price["price"], price["currency"]) == (0.0, "USD")
    unit = await api.ask("POST", "/api/v3/model/pricing", json=asked)
    assert unit == {"model_id": asked["model_id"], "unit_price": 0.0, "currency": "USD"}
    assert (await api.ask("GET", "/api/v3/balance"))["balance"] == 5.0
    await api.ask("POST", "/api/v3/model/price", 404, json={"model_id": "a/b"})


async def test_where_only_the_hosted_model_draws_its_price_is_told(tmp_path: Path) -> None:
    options = {"clients": "wavespeed", "wavespeed_api_key": "wsk_0123456789abcdef"}
    async with serving(FlatClient(), tmp_path / "data", **options) as api:
        asked = {"model_id": "wavespeed-ai/instant-character", "inputs": {"num_images": 3}}
        assert (await api.ask("POST", "/api/v3/model/price", json=asked))["price"] == 0.3


async def test_another_model_is_not_there_and_an_alias_is(tmp_path: Path) -> None:
    names = "wavespeed-ai/instant-character, house/toon"
    async with serving(FlatClient(), tmp_path / "data", served_models=names) as api:
        body = await api.ask("POST", "/api/v3/wavespeed-ai/flux-dev", 404, json=api.inputs())
        assert "house/toon" in body["message"]
        data = await api.ask("POST", "/api/v3/house/toon", json=api.inputs())
        assert data["model"] == "wavespeed-ai/instant-character"


async def test_addresses_follow_the_proxy_in_front(api: Api) -> None:
    headers = {"x-forwarded-proto": "https", "x-forwarded-host": "cast.example.com"}
    data = await api.ask("POST", MODEL, json=api.inputs(), headers=headers)
    assert data["urls"]["get"].startswith("https://cast.example.com/api/v3/predictions/")
    headers["x-forwarded-host"] = "evil.example/path?"
    data = await api.ask("POST", MODEL, json=api.inputs(), headers=headers)
    assert "evil" not in data["urls"]["get"]


async def test_a_public_url_wins(tmp_path: Path) -> None:
    public = {"public_url": "https://cast.example.com/"}
    async with serving(FlatClient(), tmp_path / "data", **public) as api:
        assert api.image.startswith("https://cast.example.com/files/")
        data = await api.final((await api.submit())["id"])  # and is known as our own
        assert data["outputs"][0].startswith("https://cast.example.com/files/")


async def test_while_nothing_can_draw_submits_are_still_taken(tmp_path: Path) -> None:
    down = FlatClient(Unavailable("The GPU is down."))
    async with serving(down, tmp_path / "data", wait_s=0) as api:
        data = await api.final((await api.submit())["id"])
        assert (data["status"], data["code"]) == ("failed", 5003)
