"""An agent sees its character drawn from one call, and can repair every call that fails."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import pytest
from mcp.types import ImageContent, ResourceLink, TextContent
from PIL import Image

from castmate.errors import (
    BudgetExceeded,
    BundleCorrupt,
    MaybeCharged,
    Overloaded,
    Unavailable,
)
from castmate_mcp.agent.server import GENERATE
from tests.doubles import DEFAULTS, FlatClient, SlowClient, StuckClient, encoded, noise, picture
from tests.mcp_server.conftest import SCENE, Agent, Connect, decode

pytestmark = pytest.mark.anyio


async def test_one_call_gives_the_finished_picture_in_every_form(agent: Agent) -> None:
    result = await agent.call()
    assert not result.is_error
    text, preview, link = result.content
    out = result.structured_content
    assert isinstance(out, dict)
    (image,) = out["images"]
    path, image_id = Path(image["file_path"]), image["image_id"]
    assert out == {
        "status": "completed",
        "job_id": f"job_{image_id[4:36]}",
        "images": [
            {
                "image_id": image_id,
                "image_uri": f"image://{image_id}",
                "file_path": str(path),
                "width": 512,
                "height": 640,
                "seed": 7,
                "has_nsfw": False,
            }
        ],
        "client": "flat",
        "elapsed_s": out["elapsed_s"],
        "cost_usd": 0.0,
        "drawn_with": DEFAULTS.model_dump(),
        "reference": {"framing": "alpha", "box": [0.25, 0.0, 0.75, 1.0], "others": []},
        "deduplicated": False,
        "failed": [],
        "saved_to": [],
        "warnings": [],
        "next_step": out["next_step"],
    }
    assert "generate again" in out["next_step"]
    assert isinstance(text, TextContent)
    assert json.loads(text.text) == out
    assert isinstance(preview, ImageContent)
    assert (preview.mime_type, decode(preview.data).size) == ("image/jpeg", (410, 512))
    assert isinstance(link, ResourceLink)
    assert (link.uri, link.mime_type) == (image["image_uri"], "image/png")
    with Image.open(path) as saved:
        assert (saved.format, saved.size) == ("PNG", (512, 640))


async def test_every_step_is_reported_and_the_numbers_grow(agent: Agent) -> None:
    reports: list[tuple[float, float | None, str | None]] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        reports.append((progress, total, message))

    arguments = SCENE | {"num_inference_steps": 3, "num_images": 2}
    await agent.client.call_tool(GENERATE, arguments, progress_callback=on_progress)
    assert [(done, total) for done, total, _ in reports] == [(step, 6) for step in range(7)]
    assert [(said or "").split(",")[0] for *_, said in reports] == [
        f"Step {step} of 6" for step in range(7)
    ]


async def test_previews_of_several_pictures_fit_the_smallest_host_together(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    worst = encoded(noise((1024, 1024)))
    monkeypatch.setattr("tests.doubles.encode", lambda *_: worst)
    result = await agent.call(num_images=4)
    previews = [content for content in result.content if isinstance(content, ImageContent)]
    assert len(previews) == 4
    assert sum(len(preview.data) for preview in previews) <= 90_000
    assert len({image["image_id"] for image in (result.structured_content or {})["images"]}) == 4


async def test_what_was_drawn_may_be_drawn_from_by_id_uri_and_path(agent: Agent) -> None:
    first = await agent.draw()
    for name in ("image_id", "image_uri", "file_path"):
        await agent.succeed(image=first[name])
        assert agent.drawing.references[-1].data == Path(first["file_path"]).read_bytes()


async def test_a_data_uri_is_taken(agent: Agent) -> None:
    uri = f"data:image/png;base64,{base64.b64encode(picture(colour='blue')).decode()}"
    await agent.succeed(image=uri)
    assert agent.drawing.references[-1].image.getpixel((0, 0)) == (0, 0, 255)


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        ({"size": "511*512"}, ["`size`: '511*512' is not allowed; allowed: 'W*H' in pixels"]),
        ({"size": "1024"}, ["`size`: '1024' is not allowed"]),
        ({"size": "axb"}, ["`size`: 'axb' is not allowed"]),
        ({"size": 1024}, ["`size`: 1024 is not allowed"]),
        (
            {"seed": -2},
            ["`seed`: -2 is not allowed; allowed: a whole number from -1 to 9999999999"],
        ),
        ({"seed": "any"}, ["`seed`: 'any' is not allowed; allowed: a whole number"]),
        (
            {"num_images": 5},
            ["`num_images`: 5 is not allowed; allowed: a whole number from 1 to 4"],
        ),
        ({"num_inference_steps": 0}, ["`num_inference_steps`: 0 is not allowed"]),
        ({"guidance_scale": 21}, ["`guidance_scale`: 21 is not allowed; allowed: a number from 0"]),
        ({"subject_scale": True}, ["`subject_scale`: True is not allowed"]),
        ({"output_format": "bmp"}, ["`output_format`: 'bmp' is not allowed; allowed: png, jpeg"]),
        ({"enable_matting": "no"}, ["`enable_matting`: 'no' is not allowed; allowed: auto, true"]),
        ({"prompt": ""}, ["`prompt`: '' is not allowed; allowed: text of 1..4096 characters"]),
        ({"prompt": "  "}, ["`prompt`: '  ' is not allowed"]),
        ({"prompt": "a" * 10_000}, ["(10000 characters) is not allowed; allowed: text of 1..4096"]),
        (
            {"negative_promt": "rain", "width": 512},
            [
                "`negative_promt`: unknown parameter; allowed: prompt, image, size",
                "did you mean `negative_prompt`?",
                "`width`: unknown parameter",
            ],
        ),
    ],
)
async def test_a_wrong_argument_is_refused_with_what_to_change(
    agent: Agent, arguments: dict[str, Any], lines: list[str]
) -> None:
    message = await agent.fail(**arguments)
    assert message.startswith("Invalid arguments; nothing was generated or charged:\n- ")
    assert message.endswith(f"Correct these and call {GENERATE} again.")
    assert all(line in message for line in lines)
    assert len(message) < 1000
    assert agent.drawing.requests == []


async def test_missing_arguments_are_named(agent: Agent) -> None:
    result = await agent.client.call_tool(GENERATE, {})
    assert result.is_error
    (text,) = result.content
    assert isinstance(text, TextContent)
    assert "- `prompt`: is required" in text.text
    assert "- `image`: is required" in text.text


async def test_a_picture_outside_the_allowed_folders_is_refused_and_they_are_named(
    agent: Agent, tmp_path: Path
) -> None:
    (tmp_path / "secret.png").write_bytes(picture())
    Path("link.png").symlink_to(tmp_path / "secret.png")
    for source in (str(tmp_path / "secret.png"), "../secret.png", "link.png", "/etc/passwd"):
        message = await agent.fail(image=source)
        assert "is outside the folders that may be read" in message
        assert str(Path.cwd()) in message
    assert agent.drawing.requests == []


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("fxo.png", "Pictures in"),
        ("text.png", "is not a picture"),
        ("https://169.254.169.254/a.png", "is not on the public internet"),
        ("http://a.example/a.png", "allowed: https://"),
        ("C:\\fox.png", "is a Windows path"),
    ],
)
async def test_a_bad_reference_is_refused_with_what_to_do(
    agent: Agent, source: str, reason: str
) -> None:
    Path("text.png").write_text("words")
    message = await agent.fail(image=source)
    assert message.startswith("Invalid arguments; nothing was generated or charged:\n- `image`: ")
    assert reason in message


async def test_an_unknown_tool_is_told_with_those_that_exist(agent: Agent) -> None:
    result = await agent.client.call_tool("draw", {})
    assert result.is_error
    assert isinstance(result.content[0], TextContent)
    assert result.content[0].text == (
        f"There is no tool 'draw'. Tools: {GENERATE}, draw_scenes, get_job, cancel_job, "
        "view_image, create_character, list_library, edit_library, get_status."
    )


@pytest.mark.parametrize("wrong", ["reference", "reference_image", "character_id"])
async def test_other_words_for_a_parameter_are_understood_well_enough_to_say_which_is_meant(
    agent: Agent, wrong: str
) -> None:
    message = await agent.fail(**{wrong: "fox.png"})
    assert f"`{wrong}`: unknown parameter" in message
    assert "did you mean `image`?" in message


async def test_an_id_that_does_not_exist_is_answered_with_those_that_do(agent: Agent) -> None:
    drawn = await agent.succeed()
    saved = await agent.succeed("create_character", name="Fox", references=["fox.png"])
    message = await agent.fail(image="chr_0123456789abcdef")
    assert f"Saved characters: {saved['character_id']} (Fox)" in message
    assert drawn["images"][0]["image_id"] in await agent.fail(image=drawn["job_id"])


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            Overloaded("8 requests wait already.", retry_after_s=30),
            f"8 requests wait already. Nothing was charged. Call {GENERATE} again in 30 s.",
        ),
        (
            Unavailable("The GPU is down."),
            "The GPU is down. Nothing was charged. The request is fine: "
            f"call {GENERATE} again later.",
        ),
        (
            BundleCorrupt("vae_decoder.onnx was changed."),
            "vae_decoder.onnx was changed. Nothing was charged. No change of arguments helps: ask "
            "the user to run `castmate doctor`.",
        ),
        (
            BudgetExceeded("$5.00 was spent today."),
            "$5.00 was spent today. Nothing was charged. Ask the user to raise the cap, or wait "
            "until tomorrow (UTC).",
        ),
        (
            MaybeCharged("The reply was lost."),
            f"The reply was lost. It may have been charged. Do not call {GENERATE} again for it "
            "before the user has looked at the account.",
        ),
    ],
)
async def test_a_failure_says_why_what_it_cost_and_what_to_do(
    connect: Connect, error: Exception, expected: str
) -> None:
    async with connect(FlatClient(error=error), wait_s=0) as agent:
        said = await agent.fail()
        assert said.startswith("Job job_")
        assert said.endswith(f" failed. {expected}")
        assert await agent.fail("get_job", job_id=said.split()[1]) == said


async def test_a_bug_of_ours_keeps_its_text_from_the_agent(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    async with connect(FlatClient(error=RuntimeError("secret path"))) as agent:
        said = await agent.fail()
    assert "A bug in Castmate: RuntimeError" in said
    assert "secret path" not in said
    assert "secret path" in caplog.text


async def test_a_call_that_the_agent_gives_up_goes_on_and_is_found_again(connect: Connect) -> None:
    slow = SlowClient()
    async with connect(slow) as agent:
        call = asyncio.create_task(agent.call())
        await slow.started.wait()
        call.cancel()
        (job,) = (await agent.succeed("list_library", kind="jobs"))["items"]
        assert job["status"] == "running"
        slow.may_end.set()
        found = await agent.succeed("get_job", job_id=job["id"])
        assert (found["status"], len(slow.requests)) == ("completed", 1)


async def test_a_picture_that_takes_too_long_is_a_job_to_wait_for_and_no_error(
    connect: Connect,
) -> None:
    slow = SlowClient()
    async with connect(slow, hold_s=0) as agent:
        running = await agent.succeed()
        assert (running["status"], running["images"]) == ("running", [])
        assert f"call get_job with job_id {running['job_id']}" in running["next_step"]
        again = await agent.succeed()
        assert (again["job_id"], again["deduplicated"]) == (running["job_id"], True)
        slow.may_end.set()
        done = await agent.succeed("get_job", job_id=running["job_id"], wait_seconds=20)
        assert done["status"] == "completed"
        assert len(slow.requests) == 1
        assert (await agent.succeed(wait_seconds=20))["job_id"] != running["job_id"]


async def test_a_key_of_ones_own_gives_the_same_job_also_when_it_is_finished(agent: Agent) -> None:
    first = await agent.succeed(idempotency_key="page 1")
    again = await agent.succeed(idempotency_key="page 1")
    assert (again["job_id"], again["deduplicated"]) == (first["job_id"], True)
    message = await agent.fail(idempotency_key="page 1", prompt="running")
    assert "stands for another request" in message
    assert "with another idempotency_key" in message
    assert len(agent.drawing.requests) == 1


async def test_the_server_answers_others_while_one_generates(connect: Connect) -> None:
    stuck = StuckClient()
    async with connect(stuck) as agent:
        call = asyncio.create_task(agent.call())
        await stuck.started.wait()
        assert (await agent.succeed("get_status"))["running"] == 1
        call.cancel()


async def test_a_cancelled_job_stops_and_says_that_nothing_was_charged(connect: Connect) -> None:
    stuck = StuckClient()
    async with connect(stuck, hold_s=0) as agent:
        job_id = (await agent.succeed())["job_id"]
        await stuck.started.wait()
        out = await agent.succeed("cancel_job", job_id=job_id)
        assert (out["status"], out["charged"]) == ("cancelled", False)
        await stuck.cancelled.wait()
        found = await agent.succeed("get_job", job_id=job_id)
        assert (found["status"], found["images"]) == ("cancelled", [])
        assert "Nothing was charged." in found["next_step"]


async def test_cancelling_what_is_finished_changes_nothing_and_says_so(agent: Agent) -> None:
    job_id = (await agent.succeed())["job_id"]
    out = await agent.succeed("cancel_job", job_id=job_id)
    assert out["status"] == "completed"
    assert "get_job gives its pictures" in out["next_step"]


@pytest.mark.parametrize("job_id", ["", "job_1", "img_" + "0" * 32 + "-0", "job_" + "0" * 32])
async def test_a_job_that_does_not_exist_is_told_with_where_to_look(
    agent: Agent, job_id: str
) -> None:
    for tool in ("get_job", "cancel_job"):
        message = await agent.fail(tool, job_id=job_id)
        assert "job_id" in message or "list_library with kind=jobs" in message


async def test_jobs_and_pictures_survive_a_restart(connect: Connect) -> None:
    stuck = StuckClient()
    async with connect(stuck, hold_s=0) as agent:
        job_id = (await agent.succeed())["job_id"]
        await stuck.started.wait()
    async with connect(FlatClient()) as agent:
        done = await agent.succeed("get_job", job_id=job_id)
        assert done["status"] == "completed"
        assert Path(done["images"][0]["file_path"]).is_file()


@pytest.mark.parametrize("size", ["512x640", "512\u00d7640"])
async def test_a_size_is_understood_with_any_sign_between(agent: Agent, size: str) -> None:
    image = await agent.draw(size=size)
    assert (image["width"], image["height"]) == (512, 640)
