"""The package: its inputs, words and example workflows agree with the schema and the nodes."""

from __future__ import annotations

import asyncio
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from castmate.comfyui import nodes as nodes_folder
from castmate.comfyui import place
from castmate.errors import InvalidRequest
from castmate_mcp.rest import describe
from comfyui import comfy_entrypoint

PACKAGE = Path(__file__).parents[2] / "comfyui"
WORKFLOWS = sorted((PACKAGE / "example_workflows").glob("*.json"))


def schemas() -> dict[str, Any]:
    async def defined() -> dict[str, Any]:
        extension = await comfy_entrypoint()
        found = [node.define_schema() for node in await extension.get_node_list()]
        return {schema.node_id: schema for schema in found}

    return asyncio.run(defined())


def test_the_inputs_that_it_brings_are_those_of_the_schema() -> None:
    hint = "run: python -m castmate_mcp.rest.describe > comfyui/inputs.json"
    assert (PACKAGE / "inputs.json").read_text() == describe.text(), hint


def test_every_parameter_is_a_widget_with_the_range_of_the_schema() -> None:
    properties = json.loads(describe.text())["properties"]
    widgets = {one.id: one for one in schemas()["CastmateGenerate"].inputs}
    programs = {"image", "enable_sync_mode", "enable_base64_output"}
    assert widgets.keys() >= properties.keys() - programs - {"size"} | {"width", "height"}
    for name, spec in properties.items():
        if "minimum" in spec and "default" in spec and name not in ("seed", "size"):
            # What may be left out has one value more, which says so.
            least = spec["minimum"] - (spec["default"] is None)
            assert (widgets[name].min, widgets[name].max) == (least, spec["maximum"])
            assert widgets[name].default == (least if spec["default"] is None else spec["default"])
    assert (widgets["width"].min, widgets["width"].max) == (512, 1536)
    assert (widgets["seed"].min, widgets["seed"].control_after_generate) == (0, True)
    assert widgets["cache"].options == properties["cache"]["enum"]
    assert not widgets["prompt"].optional
    assert all(one.optional for name, one in widgets.items() if name != "prompt")


def test_a_parameter_that_a_server_adds_is_a_widget_at_once() -> None:
    from comfyui.nodes.parameters import parameters, widgets

    properties: dict[str, Any] = {
        "prompt": {"type": "string", "maxLength": 4096},
        "enable_glow": {"type": "boolean", "default": True},
    }
    made: dict[str, Any] = {one.id: one for one in widgets(properties)}
    assert made["enable_glow"].default is True
    values = {"prompt": "a", "enable_glow": False, "gone": 1}
    assert parameters(properties, values) == {"prompt": "a", "enable_glow": False}


def test_what_a_model_decides_can_be_left_to_it_whether_or_not_a_server_tells_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from comfyui.client.description import current
    from comfyui.nodes.parameters import parameters, widgets

    limits = {"type": "integer", "minimum": 1, "maximum": 50}
    unknown = {"glow_steps": {"anyOf": [limits, {"type": "null"}], "default": None}}
    known = {"glow_steps": limits | {"default": 28}}
    monkeypatch.setattr(current, "bundled", unknown)
    for properties, default in ((unknown, 0), (known, 28)):
        (steps,) = widgets(properties)
        assert (steps.min, steps.max, steps.default) == (0, 50, default)
        assert "0 leaves it to the server" in steps.tooltip
        assert parameters(properties, {"glow_steps": 0}) == {}
        assert parameters(properties, {"glow_steps": 1}) == {"glow_steps": 1}


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_node_input_and_output_has_its_words(language: str) -> None:
    words = json.loads((PACKAGE / "locales" / language / "nodeDefs.json").read_text())
    for name, schema in schemas().items():
        text = words[name]
        assert text["display_name"]
        assert text["description"]
        parameters = json.loads(describe.text())["properties"].keys()  # the server tells of those
        assert text["inputs"].keys() <= (inputs := {one.id for one in schema.inputs}), name
        assert text["inputs"].keys() >= inputs - parameters, name
        assert all(one["name"] for one in text["inputs"].values())
        assert text["outputs"].keys() == {str(number) for number in range(len(schema.outputs))}
        assert all(one["name"] for one in text["outputs"].values())


@pytest.mark.parametrize("path", WORKFLOWS, ids=[path.stem for path in WORKFLOWS])
def test_an_example_workflow_names_nodes_and_widgets_that_exist(path: Path) -> None:
    known = schemas()
    ours = [node for node in json.loads(path.read_text())["nodes"] if "Castmate" in node["type"]]
    assert ours
    for node in ours:
        schema = known[node["type"]]
        named = [one["widget"]["name"] for one in node["inputs"] if "widget" in one]
        assert set(named) <= {one.id for one in schema.inputs}


def test_no_workflow_holds_a_key() -> None:
    ids = {one.id for schema in schemas().values() for one in schema.inputs}
    assert not {name for name in ids if "key" in name or "token" in name}


def test_the_registry_gets_what_it_asks_for() -> None:
    values = tomllib.loads((PACKAGE / "pyproject.toml").read_text())
    project, comfy = values["project"], values["tool"]["comfy"]
    ours = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
    assert "ComfyUI" not in project["name"]
    assert ours["name"] == project["name"] == comfy["PublisherId"]
    assert project["dependencies"] == []
    assert (PACKAGE / project["license"]["file"]).read_text() == (
        PACKAGE.parent / "LICENSE"
    ).read_text()
    assert (PACKAGE / comfy["Icon"].rpartition("/")[2]).stat().st_size < 60_000


def test_it_is_copied_or_linked_into_a_comfyui_and_replaced(tmp_path: Path) -> None:
    (tmp_path / "custom_nodes").mkdir()
    copied = place(nodes_folder(), tmp_path)
    assert (copied / "nodes/generate.py").is_file()
    assert not list(copied.rglob("__pycache__"))
    (copied / "stale.py").touch()
    assert place(nodes_folder(), tmp_path) == copied
    assert not (copied / "stale.py").exists()
    linked = place(nodes_folder(), tmp_path, link=True)
    assert linked.resolve() == PACKAGE
    place(nodes_folder(), tmp_path)
    assert (PACKAGE / "inputs.json").is_file()
    assert [path.name for path in (tmp_path / "custom_nodes").iterdir()] == ["castmate"]


def test_it_overwrites_nothing_else(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="has no folder custom_nodes"):
        place(nodes_folder(), tmp_path)
    other = tmp_path / "custom_nodes/castmate"
    other.mkdir(parents=True)
    (other / "mine.py").touch()
    with pytest.raises(InvalidRequest, match="exists and is not Castmate's"):
        place(nodes_folder(), tmp_path)
    assert (other / "mine.py").exists()
