"""`RNN` of one of Keras' own cells, or of several stacked: the layers of the same names, one after the other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from worker.model.files.weights import WAY_OUT
from worker.model.rules.context import Layer

LAYERS = {"LSTMCell": "LSTM", "GRUCell": "GRU", "SimpleRNNCell": "SimpleRNN"}
FLAGS = ("go_backwards", "return_state", "zero_output_for_mask", "time_major")


def layers_of_cells(layer: Layer) -> list[Layer]:
    """Raises ModelNotStreamable for any other cell: what it does is code that the file does not hold."""
    cells = _cells(layer, layer.config.get("cell"))
    if not cells:
        raise layer.refused("it has no cell", WAY_OUT)
    outer = {key: layer.config[key] for key in FLAGS if key in layer.config}
    weights, width, found = list(layer.weights), layer.width, []
    for number, (class_name, config) in enumerate(cells, 1):
        arrays = 3 if config.get("use_bias", True) else 2
        last = number == len(cells)
        inner = replace(
            layer,
            name=layer.name if len(cells) == 1 else f"{layer.name}/{number}",
            class_name=class_name,
            config={**config, **outer, "return_sequences": layer.flag("return_sequences") if last else True},
            weights=weights[:arrays],
            width=width,
        )
        weights, width = weights[arrays:], inner.units()
        found.append(inner)
    if weights:
        raise layer.refused("the file has more weights than its cells", WAY_OUT)
    return found


def _cells(layer: Layer, cell: Any) -> list[tuple[str, dict[str, Any]]]:
    config = cell.get("config") if isinstance(cell, dict) else None
    class_name = cell.get("class_name") if isinstance(cell, dict) else None
    if class_name == "StackedRNNCells" and isinstance(config, dict) and isinstance(config.get("cells"), list):
        return [each for inner in config["cells"] for each in _cells(layer, inner)]
    if class_name not in LAYERS or not isinstance(config, dict):
        raise layer.refused("its cell is not one of Keras' own", f"use {', '.join(LAYERS)}")
    return [(LAYERS[class_name], config)]
