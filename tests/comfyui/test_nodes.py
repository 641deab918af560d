"""Every node against a real server: what it gives, what it reports, and how it says no."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from castmate.clients.local import LocalClient
from castmate.errors import BundleCorrupt
from castmate.images import Reference
from castmate.schema import GenerateRequest
from castmate_mcp.settings import ServerSettings
from tests.comfyui import comfy_double
from tests.doubles import FlatClient, StuckClient
from tests.mcp_server.running import Api, serving

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("forgetful")]
SCENE = {"prompt": "waving", "width": 512, "height": 512, "seed": 7, "num_inference_steps": 2}
RED = torch.zeros(1, 64, 48, 3)
RED[..., 0] = 1


@asynccontextmanager
async def server(
    client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any
) -> AsyncIterator[Api]:
    async with asyncio.timeout(60), serving(client, tmp_path / "data", **settings) as api:
        monkeypatch.setenv("CASTMATE_URL", api.url)
        yield api


async def run(node_id: str, /, **inputs: Any) -> tuple[Any, ...]:
    """What a node gives, called as ComfyUI calls it."""
    from comfyui import comfy_entrypoint

    extension = await comfy_entrypoint()
    nodes = {node.define_schema().node_id: node for node in await extension.get_node_list()}
    node = nodes[f"Castmate{node_id}"]
    known = {one.id for one in node.define_schema().inputs}
    assert inputs.keys() <= known
    given = node.execute(**inputs)
    result: tuple[Any, ...] = (await given if asyncio.iscoroutine(given) else given).args
    return result


async def test_a_drawing_gives_a_batch_its_ids_and_seeds_and_reports_steps_and_previews(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reports: list[Any]
) -> None:
    client = LocalClient.open(ServerSettings.load(data_dir=tmp_path / "data"))
    async with server(client, tmp_path, monkeypatch) as api:
        images, mask, ids, seeds = await run("Generate", image=RED, **SCENE, num_images=2)
        assert images.shape == (2, 512, 512, 3)
        assert 0 <= images.min() < images.max() <= 1
        assert mask.shape == (2, 512, 512)
        assert not mask.any()
        assert seeds == [7, 8]
        steps = [value for value, _, _ in reports]
        assert steps == sorted(steps)
        assert reports[-1][:2] == (4, 4)
        shown = [preview for _, _, preview in reports if preview is not None]
        assert [preview.size for preview in shown] == [(512, 512)] * 2
        again, _ = await run("LoadPicture", id=ids[1])
        assert torch.equal(again[0], images[1])
        both, _ = await run("LoadPicture", id=f"job_{ids[0][4:36]}")
        assert torch.equal(both, images)
        scores, verdicts = await run("Identity", id=f"job_{ids[0][4:36]}")
        assert [0 <= score <= 1 for score in scores] == [True, True]
        assert await run("Identity", id=ids[1]) == ([scores[1]], [verdicts[1]])
        (item,) = (await api.ask("POST", "/api/v3/predictions", json={}))["items"]
        assert item["id"] == ids[0][4:36]


async def test_a_picture_that_nobody_judged_has_no_score_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with server(FlatClient(), tmp_path, monkeypatch):
        *_, ids, _ = await run("Generate", image=RED, **SCENE)
        with pytest.raises(Exception, match=f"{ids[0]} has no identity score: "):
            await run("Identity", id=ids[0])


async def test_a_mask_is_the_transparency_of_the_reference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reports: list[Any]
) -> None:
    client = FlatClient()
    async with server(client, tmp_path, monkeypatch):
        mask = torch.zeros(1, 64, 48)
        mask[:, :32] = 1
        await run("Generate", image=RED, mask=mask, **SCENE)
        await run("Generate", image=RED, mask=torch.zeros(1, 64, 64), **SCENE)
        cut, whole = (one.image for one in client.references)
        assert cut.getpixel((24, 5)) == (255, 255, 255)
        assert cut.getpixel((24, 60)) == whole.getpixel((24, 5)) == (255, 0, 0)


async def test_a_character_is_saved_chosen_and_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reports: list[Any]
) -> None:
    client = FlatClient()
    async with server(client, tmp_path, monkeypatch) as api:
        blue = RED.flip(-1)
        pair = torch.cat([RED, RED * 0.5])
        character, name = await run("Character", images=pair, name="Mira", images_2=blue, picture=3)
        await run("Generate", character=character, **SCENE)
        assert client.references[-1].image.getpixel((0, 0)) == (0, 0, 255)
        label = f"Mira ({name})"
        from comfyui.client.description import current

        assert current.characters == [label]
        chosen, same = await run("SavedCharacter", saved=label)
        assert same == name
        await run("Generate", character=chosen, **SCENE)
        assert client.references[-1].image.getpixel((0, 0)) == (255, 0, 0)
        with pytest.raises(Exception, match="`picture` is 4, and the character has 3"):
            await run("SavedCharacter", saved=name, picture=4)
        with pytest.raises(Exception, match="Saved there: Mira"):
            await run("SavedCharacter", saved=f"chr_{'0' * 16}")
        (link,) = await run("Server", url=f"{api.url}/")
        await run("Generate", character=character, server=link, **SCENE)


async def test_a_storyboard_is_a_batch_and_a_sheet_and_each_panel_can_be_drawn_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reports: list[Any]
) -> None:
    client = FlatClient()
    async with server(client, tmp_path, monkeypatch):
        common = {key: value for key, value in SCENE.items() if key != "prompt"}
        prompts = "waving\n\n# not yet\nrunning\n sitting "
        images, sheet, ids = await run(
            "Storyboard", image=RED, prompts=prompts, style_words="ink", columns=2, **common
        )
        assert images.shape == (3, 512, 512, 3)
        assert sheet.shape == (1, 2 * 528 + 16, 2 * 528 + 16, 3)
        assert torch.equal(sheet[0, 16:528, 544:1056], images[1])
        assert sheet[0, 600, 600].tolist() == [1, 1, 1]
        assert len(set(ids)) == 3
        asked = {one.seed: one.prompt for one in client.requests}
        assert asked == {7: "waving, ink", 8: "running, ink", 9: "sitting, ink"}
        alone = (await run("Generate", image=RED, **SCENE | {"prompt": "running, ink", "seed": 8}))[
            0
        ]
        assert torch.equal(alone[0], images[1])
        assert reports[-1][:2] == (2, 2)


async def test_more_panels_than_a_key_may_have_at_a_time_are_drawn_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reports: list[Any]
) -> None:
    async with server(FlatClient(), tmp_path, monkeypatch) as api:
        ann = await api.key("ann", concurrency=1)
        monkeypatch.setenv("CASTMATE_KEY", ann["authorization"].removeprefix("Bearer "))
        monkeypatch.setattr("comfyui.nodes.storyboard.WAIT_S", 0.02)
        common = {key: value for key, value in SCENE.items() if key != "prompt"}
        prompts = "\n".join(f"scene {number}" for number in range(6))
        images, _, _ = await run("Storyboard", image=RED, prompts=prompts, **common)
        assert images.shape[0] == 6


async def test_an_interrupt_stops_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reports: list[Any]
) -> None:
    client = StuckClient()
    async with server(client, tmp_path, monkeypatch) as api:
        drawing = asyncio.create_task(run("Generate", image=RED, **SCENE))
        await client.started.wait()
        comfy_double.Interruption.pressed = True
        with pytest.raises(comfy_double.InterruptProcessingException):
            await drawing
        await client.cancelled.wait()
        (item,) = (await api.ask("POST", "/api/v3/predictions", json={}))["items"]
        assert (await api.final(item["id"]))["error"].startswith("Cancelled")


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ({}, "Connect either `character` or `image`"),
        ({"image": RED.repeat(2, 1, 1, 1)}, "`image` has 2 pictures"),
        ({"image": RED, "width": 8000}, r"`size`: '8000\*512' is not allowed; allowed: 'W\*H'"),
        ({"image": RED, "guidance_scale": 99.0}, "`guidance_scale`: 99.0 is not allowed"),
        ({"image": RED, "mask": torch.ones(3, 8, 8)}, "`mask` has 3 masks for 1 pictures"),
    ],
)
async def test_what_cannot_be_drawn_is_refused_with_what_to_do(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    reports: list[Any],
    inputs: dict[str, Any],
    expected: str,
) -> None:
    async with server(FlatClient(), tmp_path, monkeypatch):
        with pytest.raises(Exception, match=expected):
            await run("Generate", **SCENE | inputs)


async def test_a_failed_drawing_says_why_and_is_tried_again_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reports: list[Any]
) -> None:
    client = FlatClient(BundleCorrupt("vae.onnx was changed."))
    async with server(client, tmp_path, monkeypatch):
        with pytest.raises(Exception, match=r"vae\.onnx was changed"):
            await run("Generate", image=RED, **SCENE)
        client._error = None
        assert (await run("Generate", image=RED, **SCENE))[0].shape == (1, 512, 512, 3)


async def test_a_full_queue_says_when_to_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reports: list[Any]
) -> None:
    client = StuckClient()
    async with server(client, tmp_path, monkeypatch, queue_limit=1) as api:
        await api.submit()
        await client.started.wait()
        await api.submit(seed=8)
        with pytest.raises(Exception, match=r"1 predictions are waiting.* Try again in \d+ s"):
            await run("Generate", image=RED, **SCENE)


async def test_a_server_that_is_not_there_is_named_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, reports: list[Any]
) -> None:
    monkeypatch.setenv("CASTMATE_URL", "http://127.0.0.1:9")
    with pytest.raises(
        Exception, match=r"No Castmate server answers at http://127.0.0.1:9 .*serve"
    ):
        await run("Generate", image=RED, **SCENE)


async def test_a_workflow_that_is_run_again_is_not_drawn_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reports: list[Any]
) -> None:
    client = FlatClient()
    async with server(client, tmp_path, monkeypatch) as api:
        first = await run("Generate", image=RED, **SCENE)
        again = await run("Generate", image=RED, **SCENE)
        assert again[2] == first[2]
        assert len(client.requests) == 1
        await api.ask("DELETE", f"/api/v3/predictions/{first[2][0][4:36]}")
        other = await run("Generate", image=RED, **SCENE)
        assert other[2] != first[2]
        assert isinstance(client.references[0], Reference)
        assert isinstance(client.requests[0], GenerateRequest)
