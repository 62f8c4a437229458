"""Layers on an input whose steps are grids, of a random model."""

from __future__ import annotations

from math import prod
from typing import Any

from tests.unit.model.random_model import RandomModel


class RandomGrid:
    """`value`, whose steps have the shape `shape`; each layer that is added becomes the value."""

    def __init__(self, model: RandomModel, rank: int | None = None) -> None:
        self._model, self._random = model, model.random
        self._rank = rank or (1 if model.random.random() < 0.4 else 2)
        self.shape = [self._random.randint(2, 4) for _ in range(self._rank)] + [self._random.randint(1, 2)]
        self.value = model.sequence_of(*self.shape)

    def conv_lstm(self, every: bool, padding: str = "") -> Any:
        random = self._random
        size = [random.randint(1, min(each, 3)) for each in self.shape[:-1]]
        padding = padding or random.choice(("valid", "same", "SAME"))
        strides, dilation = [1] * self._rank, [1] * self._rank
        if random.random() < 0.4:
            strides = [random.randint(1, 2) for _ in size]
        elif padding != "valid" and random.random() < 0.5:
            dilation = [random.randint(1, 2) for _ in size]
        config: dict[str, Any] = {"filters": 2, "kernel_size": size, "strides": strides, "padding": padding}
        config |= {"dilation_rate": dilation, "return_sequences": every, "use_bias": random.random() < 0.7}
        if random.random() < 0.3:
            config |= {"activation": "softsign", "recurrent_activation": "hard_sigmoid"}
        weights = [self._model.array(*size, self.shape[-1], 8), self._model.array(*size, 2, 8), self._model.array(8)]
        weights = weights if config["use_bias"] else weights[:2]
        self.value = self._model.add(f"ConvLSTM{self._rank}D", [self.value], weights, **config)
        if padding == "valid":
            self.shape = [n - k + 1 for n, k in zip(self.shape, size, strict=False)] + [2]
        self.shape = [-(-n // s) for n, s in zip(self.shape, strides, strict=False)] + [2]
        return self.value

    def at_each_position(self) -> None:
        """A layer on the last dimension."""
        model, channels = self._model, self.shape[-1]
        array, positive = model.array, model.positive
        kind = self._random.randrange(5)
        if kind == 0:
            self.value = model.add("LeakyReLU", [self.value], [], negative_slope=0.2)
        elif kind == 1:
            self.value = model.add("Activation", [self.value], [], activation="softmax")
        elif kind == 2:
            weights = [array(channels), array(channels), array(channels), positive(channels)]
            self.value = model.add("BatchNormalization", [self.value], weights)
        elif kind == 3:
            self.value = model.add("LayerNormalization", [self.value], [array(channels), array(channels)], epsilon=0.1)
        else:
            self.value = model.dense(self.value, channels, 3)
            self.shape[-1] = 3

    def row(self) -> tuple[Any, int]:
        """Of the only grid that is left."""
        if self._random.random() < 0.4:
            return self._model.add(f"GlobalAveragePooling{self._rank}D", [self.value], []), self.shape[-1]
        self._model.parts.add("a grid flattened")
        kind = self._random.choice(("Flatten", "Reshape"))
        return self._model.add(kind, [self.value], [], target_shape=[-1]), prod(self.shape)

    def row_of_each_step(self) -> tuple[Any, int]:
        pooled = self._random.random() < 0.5
        class_name = f"GlobalAveragePooling{self._rank}D" if pooled else "Flatten"
        inner = {"class_name": class_name, "config": {"name": "inner"}}
        row = self._model.add("TimeDistributed", [self.value], [], layer=inner)
        if pooled:
            return row, self.shape[-1]
        self._model.parts.add("grids flattened step by step")
        return row, prod(self.shape)
