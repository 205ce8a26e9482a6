"""Text encoders as programs of our kernels: tables on the host, calls by their references and interpreted, modules."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pocketxl.engine.errors import IntegrityError, RequestError
from pocketxl.engine.folder.files import WORDS_FILE
from pocketxl.engine.folder.openings import pair_inputs
from pocketxl.engine.inversion.read import TOKEN_EMBEDDINGS
from pocketxl.engine.program.sizes import Sizes
from pocketxl.engine.program.slots import RANKS, opened
from pocketxl.engine.runners.adapted import Adapted, graph_for
from pocketxl.engine.runners.cuda_words import WordTable
from pocketxl.export.components import Component
from pocketxl.export.graph.layers import find_layers
from pocketxl.export.quantize.formats import FLOAT16, W8, W8A8_TOKEN, Format
from pocketxl.export.target import quiet
from pocketxl.export.targets.cuda.component import Lowering
from pocketxl.export.targets.cuda.write import write_words

from ....fixtures.cuda_reference import run_calls
from ....tolerances import HALF_RELATIVE
from .interpreted import lowering_of, packer_of, program_of, runner_of
from .lowering import call, miniature, module_of, stored
from .test_program import apart
from .test_slots import held_for, merged, pairs_for

TOKENS, BATCH = 77, 2
AT = Sizes(batch=BATCH, height=1, width=1, tokens=TOKENS)
ENCODERS = ["text_encoder", "text_encoder_2"]
# Of states, relative. Halves: roundings. 8 bits: the recipes' own limits for text encoders; measured 0.012 and 0.021.
ALLOWED = {FLOAT16: HALF_RELATIVE, W8: 0.03, W8A8_TOKEN: 0.04}


def texts(component: Component, seed: int = 0) -> np.ndarray:
    """Ids of two texts that end in different places, behind which the end is repeated."""
    words, _ = component.weights.tensor("text_model.embeddings.token_embedding.weight").shape
    ids = np.random.default_rng(seed).integers(0, words - 2, (BATCH, TOKENS))
    ids[:, 0] = words - 2
    for text, end in zip(ids, (9, 76), strict=True):
        text[end:] = words - 1
    return ids


def table_of(component: Component, lowering: Lowering, folder: Path) -> WordTable:
    assert lowering.words is not None
    path = folder / WORDS_FILE
    write_words(path, lowering.words, packer_of(component), quiet)
    return WordTable(path, program_of(lowering))


def by_references(
    lowering: Lowering, weights: Mapping[str, Tensor], table: WordTable, given: Mapping[str, np.ndarray], at: Sizes = AT
) -> dict[str, Tensor]:
    values = {name: torch.from_numpy(np.asarray(value)) for name, value in table.embedded(given).items()}
    found = run_calls(lowering.calls, {**weights, **values}, at)
    outputs = {edge.tensor: found[edge.values[0].name].float().numpy() for edge in lowering.outputs}
    shaped: dict[str, Any] = {name: value.reshape(BATCH, TOKENS, -1) for name, value in outputs.items()}
    return {name: torch.from_numpy(np.asarray(value)) for name, value in table.picked(shaped, given).items()}


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("format", ALLOWED, ids=str)
def test_it_is_what_its_module_gives(name: str, format: Format, tmp_path: Path) -> None:
    component = miniature().components[name]
    lowering, _ = lowering_of(component, format)
    ids = texts(component)
    table = table_of(component, lowering, tmp_path)
    found = by_references(lowering, stored(component, lowering), table, {"input_ids": ids})
    truth = call(module_of(component), component.spec, {"input_ids": torch.from_numpy(ids)})
    assert found.keys() == truth.keys()
    for output, value in truth.items():
        assert found[output].shape == value.shape
        assert apart(found[output], value) < ALLOWED[format], output


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("format", ALLOWED, ids=str)
def test_every_layer_takes_pairs(name: str, format: Format, tmp_path: Path) -> None:
    """As exactly as it is without them; the ways down are halves or 8 bits as the layers are."""
    component = miniature().components[name]
    lowering, master = lowering_of(component, format)
    shapes = {layer.name: tuple(int(side) for side in layer.weight.shape or ()) for layer in find_layers(master.graph)}
    linears = {name: shape for name, shape in shapes.items() if "embedding" not in name}
    assert {layer for slot in lowering.slots for layer in slot.layers} == linears.keys()
    pairs = pairs_for(linears, size=0.3)
    held = {n: torch.from_numpy(a) for n, a in held_for(lowering.slots, pairs, linears).items()}
    calls = opened(program_of(lowering), lowering.slots, pairs).calls
    ids, table = texts(component), table_of(component, lowering, tmp_path)
    found = by_references(
        replace(lowering, calls=calls),
        stored(component, lowering) | held,
        table,
        {"input_ids": ids},
        replace(AT, rank=RANKS[0]),
    )
    given = {"input_ids": torch.from_numpy(ids)}
    truth, plain = (call(m, component.spec, given) for m in (merged(component, pairs), module_of(component)))
    for output, value in truth.items():
        assert apart(plain[output], value) > 0.1, "pairs do something"
        assert apart(found[output], value) < ALLOWED[format], output


def test_ids_are_refused_where_they_cannot_be_looked_up(tmp_path: Path) -> None:
    component = miniature().components["text_encoder"]
    runner = runner_of(component, FLOAT16, tmp_path)
    ids = texts(component)
    with pytest.raises(RequestError, match="input_ids cannot be held"):
        runner.hold({"input_ids": ids})
    ids[1, 5] = -1
    with pytest.raises(RequestError, match="input_ids has -1, 0 to"):
        runner({"input_ids": ids})
    words = tmp_path / "text_encoder" / WORDS_FILE
    runner.release()
    words.write_bytes(words.read_bytes()[:-2] + b"\x00\x00\x00")
    with pytest.raises(IntegrityError, match=WORDS_FILE):
        runner({"input_ids": texts(component)})


@pytest.mark.slow
@pytest.mark.parametrize("format", [W8A8_TOKEN], ids=str)  # in halves: test_picture
def test_on_an_interpreted_gpu(format: Format, tmp_path: Path) -> None:
    """Ids in, states out; with vectors in place of words; with a LoRA; and the same again without."""
    component = miniature().components["text_encoder_2"]
    runner = runner_of(component, format, tmp_path, pairs=True)
    ids = texts(component)
    module = module_of(component)
    truth = call(module, component.spec, {"input_ids": torch.from_numpy(ids)})
    first = runner({"input_ids": ids})
    for output, value in truth.items():
        assert first[output].dtype == np.float32
        assert apart(torch.from_numpy(np.asarray(first[output])), value) < ALLOWED[format], output

    graph = graph_for(runner, (), (TOKEN_EMBEDDINGS,))
    assert graph is not None
    table = component.weights.tensor("text_model.embeddings.token_embedding.weight").float().numpy()
    vectors = table[ids[0, [5, 3]]].astype(np.float32)
    given = ids.copy()
    given[0, [3, 5]] = -2, -1
    opened = runner.opened(graph)
    swapped = opened({"input_ids": given, TOKEN_EMBEDDINGS: vectors})
    for output in truth:
        np.testing.assert_array_equal(swapped[output], first[output], "vectors of ordinary words are those words")

    assert runner.openings is not None
    shapes = runner.openings.shapes(graph.groups)
    pairs = pairs_for(shapes, size=0.3)
    inputs = {
        tensor.name: array
        for layer, both in pairs.items()
        for tensor, array in zip(pair_inputs(layer, shapes[layer]), both, strict=True)
    }
    adapted = Adapted(open=opened, additions=opened.hold(inputs))
    changed, expected = (
        adapted({"input_ids": ids}),
        call(merged(component, pairs), component.spec, {"input_ids": torch.from_numpy(ids)}),
    )
    for output, value in expected.items():
        assert apart(torch.from_numpy(np.asarray(changed[output])), value) < ALLOWED[format], output
        np.testing.assert_array_equal(runner({"input_ids": ids})[output], first[output])
    runner.device.close()
