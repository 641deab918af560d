"""Styles by name: branches that equal a fused LoRA, chosen by requests, free where unused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from export.errors import ExportError
from export.families.instantcharacter.network import InstantCharacter
from export.families.instantcharacter.step_caching import bundle_graphs
from export.graphs import Makers
from export.lora.branches import NO_SLOTS
from export.lora.fuse import FusedNetwork, Lora
from export.lora.styles import Style, prepare
from tests.export.lora.layouts import LAYOUTS, Layout, Weights, diffusers_names, dotted

PLACES = ("style_factors", "style_modulation_factors")


@pytest.fixture
def styled(network: InstantCharacter) -> Iterator[InstantCharacter]:
    """The network, which forgets its styles afterwards."""
    yield network
    network.style_slots = NO_SLOTS


def weak(layout: Layout, network: InstantCharacter, folder: Path) -> Path:
    """A file of a layout, weak enough to leave a picture."""
    folder.mkdir(exist_ok=True)
    state = network.state_dict()
    return layout.save(
        {name: 0.1 * tensor for name, tensor in layout.tensors(state).items()}, folder
    )


def without_encoders(name: str) -> Layout:
    layout = LAYOUTS[name]
    return Layout(layout.parts[:1], layout.down, layout.up, layout.alpha_keys, layout.metadata)


def outputs(makers: Makers, given: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
    """What the modulation and the steps of a network give on their example inputs."""
    found = {}
    for name in ("modulation", "transformer"):
        graph = makers[name]()
        inputs = {**graph.inputs, **{k: v for k, v in (given or {}).items() if k in graph.inputs}}
        with torch.no_grad():
            found[name] = graph.module(**inputs)
    return found


def makers(network: InstantCharacter) -> Makers:
    return bundle_graphs(network, step_caching=False)


@pytest.mark.parametrize(
    "name", ["diffusers, alpha in keys", "kohya", "PEFT under BFL's names", "XLabs", "ComfyUI"]
)
def test_a_style_draws_what_its_fused_lora_draws(
    styled: InstantCharacter, tmp_path: Path, name: str
) -> None:
    path = weak(without_encoders(name), styled, tmp_path)
    fusing = FusedNetwork(styled)
    plain = outputs(makers(styled))
    fusing.apply([Lora(path, 0.7)])
    fused = outputs(makers(styled))
    fusing.remove()
    styles = prepare(styled, [Style("ink", Lora(path, 0.7))])
    assert styles is not None
    found = outputs(makers(styled), dict(styles.factors["ink"]))
    for graph, expected in fused.items():
        torch.testing.assert_close(found[graph], expected, rtol=1e-4, atol=1e-5, msg=graph)
    assert (fused["transformer"] - plain["transformer"]).abs().max() > 1e-3


def test_factors_of_nothing_change_nothing(styled: InstantCharacter, tmp_path: Path) -> None:
    plain = outputs(makers(styled))
    path = weak(without_encoders("kohya"), styled, tmp_path)
    prepare(styled, [Style("ink", Lora(path))])
    rows = {name: slots[-1].end for name, slots in styled.style_slots.items()}
    for rank in (0, 8):
        zeros = {name: torch.zeros(count, rank) for name, count in rows.items()}
        for graph, found in outputs(makers(styled), zeros).items():
            assert torch.equal(found, plain[graph]), (graph, rank)


def test_only_layers_that_a_style_changes_get_a_branch(
    styled: InstantCharacter, tmp_path: Path
) -> None:
    def names(state: Weights) -> dict[str, Tensor]:
        last = "single_transformer_blocks.1.attn.to_q"
        return {last: diffusers_names(state)[last]}

    path = weak(Layout(((names, dotted("transformer")),)), styled, tmp_path)
    styles = prepare(styled, [Style("ink", Lora(path))])
    assert styles is not None
    assert list(styled.style_slots) == ["style_factors"]
    assert styles.factors["ink"]["style_factors"].shape == (2 * 160, 8)
    graphs = bundle_graphs(styled, step_caching=True)
    takes = [name for name, make in graphs.items() if set(PLACES) & set(make().inputs)]
    assert takes == ["transformer_tail"]


def test_styles_that_change_different_layers_share_the_inputs(
    styled: InstantCharacter, tmp_path: Path
) -> None:
    one = weak(without_encoders("XLabs"), styled, tmp_path / "one")
    other = weak(without_encoders("kohya"), styled, tmp_path / "other")
    styles = prepare(styled, [Style("one", Lora(one)), Style("other", Lora(other))])
    assert styles is not None
    for name, slots in styled.style_slots.items():
        shapes = {found[name].shape for found in styles.factors.values()}
        assert shapes == {(slots[-1].end, 8)}
    assert not styles.factors["one"]["style_modulation_factors"].any(), "XLabs trains attention"
    fusing = FusedNetwork(styled)
    fusing.apply([Lora(one)])
    places, styled.style_slots = styled.style_slots, NO_SLOTS
    expected = outputs(makers(styled))
    fusing.remove()
    styled.style_slots = places
    found = outputs(makers(styled), dict(styles.factors["one"]))
    torch.testing.assert_close(found["transformer"], expected["transformer"], rtol=1e-4, atol=1e-5)


def test_a_style_cannot_change_what_runs_before_it_is_known(
    styled: InstantCharacter, tmp_path: Path
) -> None:
    path = LAYOUTS["ComfyUI"].save(LAYOUTS["ComfyUI"].tensors(styled.state_dict()), tmp_path)
    says = r"(?s)--style ink.*text encoders.*text_encoder\..*--lora \S+:1\. .*remove the tensors"
    with pytest.raises(ExportError, match=says):
        prepare(styled, [Style("ink", Lora(path))])
    assert styled.style_slots == NO_SLOTS


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("ink", "NAME=FILE"),
        ("Night Ink=a.safetensors", "small letters, digits and hyphens"),
        ("=a.safetensors", "small letters"),
        (f"{'a' * 65}=a.safetensors", "up to 64"),
        ("ink=a.safetensors:strong", "'strong' is no number"),
    ],
)
def test_a_style_is_a_name_and_a_file(text: str, problem: str) -> None:
    with pytest.raises(ExportError, match=problem):
        Style.parse(text)


def test_a_style_has_a_scale() -> None:
    assert Style.parse("night-ink=a.safetensors:0.5") == Style(
        "night-ink", Lora(Path("a.safetensors"), 0.5)
    )


def test_small_factors_survive_fp16(styled: InstantCharacter, tmp_path: Path) -> None:
    layout = without_encoders("diffusers, alpha in keys")
    tensors = {
        name: tensor * (1e-6 if ".lora_B" in name else 1)
        for name, tensor in layout.tensors(styled.state_dict()).items()
    }
    styles = prepare(styled, [Style("ink", Lora(layout.save(tensors, tmp_path)))])
    assert styles is not None
    for found in styles.factors["ink"].values():
        torch.testing.assert_close(found.half().float(), found, rtol=1e-3, atol=1e-6)
