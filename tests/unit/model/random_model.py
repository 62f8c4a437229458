"""A functional model as configuration and random weights, layer by layer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from tests.unit.model import random_operators
from tests.unit.model.random_operators import piece
from worker.errors import ModelNotStreamable
from worker.model.compile import compile_model
from worker.model.files.reading import ModelFile
from worker.model.program import StepProgram

TIMESTEPS = 11
OPERATIONS = ("Mean", "Max", "Min", "Sum", "GetItem")
ACTIVATIONS = (
    *("linear", "tanh", "sigmoid", "relu", "softsign", "elu", "hard_sigmoid", "gelu", "mish", "silu", "hard_silu"),
    *(
        "celu",
        "log_sigmoid",
        "log_softmax",
        "squareplus",
        "sparse_plus",
        "sparse_sigmoid",
        "tanh_shrink",
        "soft_shrink",
    ),
)
PLAIN = ("Dropout", "SpatialDropout1D", "GaussianDropout", "GaussianNoise", "AlphaDropout", "ActivityRegularization")
MERGES = ("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum")


class RandomModel:
    """Layers are added to `(name, width)` values; `weights` by layer name."""

    def __init__(
        self, seed: int, features: int | None = None, fixed: bool | None = None, random: Random | None = None
    ) -> None:
        """What is not given is random: the number of features, and whether the file fixes that of steps; `random`
        draws the structure."""
        self.random = random or Random(seed)
        self.weights: dict[str, list[np.ndarray]] = {}
        self._numbers = np.random.default_rng(seed)
        self._layers: list[dict[str, Any]] = []
        self._calls: dict[str, int] = {}
        self.features = features or self.random.randint(1, 4)
        self.fixed = self.random.random() < 0.5 if fixed is None else fixed
        shape = [None, TIMESTEPS if self.fixed else None, self.features]
        self._layers.append(
            {"class_name": "InputLayer", "config": {"name": "input", "batch_shape": shape}, "inbound_nodes": []}
        )
        self.input = ("input", 0)
        self._inputs: list[list[Any]] = [["input", 0, 0]]
        self.masked = False
        self.keras_major = 3
        self.is_zip = True
        self.parts: set[str] = set()
        """What is in it besides the classes of its layers."""

    def array(self, *shape: int) -> np.ndarray:
        return self._numbers.normal(0, 0.4, shape).astype(np.float32)

    def positive(self, *shape: int) -> np.ndarray:
        return np.abs(self.array(*shape)) + np.float32(0.2)

    def add(self, class_name: str, inputs: list[Any], weights: list[np.ndarray], *given: Any, **config: Any) -> Any:
        """A layer of its own and its first call."""
        name = f"layer_{len(self._layers)}"
        self.weights[name] = weights
        module = "keras.src.ops.numpy" if class_name in OPERATIONS else "keras.layers"
        config = {"name": name, **config}
        entry = {"class_name": class_name, "module": module, "config": config, "inbound_nodes": []}
        self._layers.append(entry)
        return self.again(name, inputs, *given)

    def again(self, name: str, inputs: list[Any], *given: Any) -> Any:
        """One more call of a layer."""
        (entry,) = [each for each in self._layers if each["config"]["name"] == name]
        tensors = [{"class_name": "__keras_tensor__", "config": {"keras_history": [*each, 0]}} for each in inputs]
        entry["inbound_nodes"].append({"args": [tensors[0] if len(tensors) == 1 else tensors, *given], "kwargs": {}})
        return (name, len(entry["inbound_nodes"]) - 1)

    def operation(self, class_name: str, inputs: list[Any], *given: Any, first: Any = None, **config: Any) -> Any:
        """A function or operator; `first` is a constant in front of its value."""
        value = self.add(class_name, inputs, [], *given, **config)
        self._layers[-1]["module"] = "keras.src.ops.numpy"
        if first is not None:
            self.call_with({}, [first, self.called_with()])
        return value

    def call_with(self, keywords: dict[str, Any], arguments: list[Any] | None = None) -> None:
        """Change the first call of the last layer."""
        call = self._layers[-1]["inbound_nodes"][0]
        call |= {"kwargs": keywords} | ({} if arguments is None else {"args": arguments})

    def called_with(self) -> list[Any]:
        """The values that the last layer is called with first."""
        return self._layers[-1]["inbound_nodes"][0]["args"][0]

    def program(self, output: Any, timesteps: int | None = TIMESTEPS) -> StepProgram:
        """Of one output, or of a list of them."""
        outputs = [[*each, 0] for each in output] if isinstance(output, list) else [*output, 0]
        inner = {"layers": self._layers, "input_layers": self._inputs, "output_layers": outputs}
        configuration = {"class_name": "Functional", "config": inner} | ({"module": "keras"} if self.is_zip else {})
        return compile_model(ModelFile(Path("random.keras"), configuration, self.keras_major, self._weights), timesteps)

    def refusal(self, output: Any, timesteps: int | None = TIMESTEPS) -> str:
        """The one line that says why such a model cannot be stepped, and the way out."""
        with pytest.raises(ModelNotStreamable) as refused:
            self.program(output, timesteps)
        assert "\n" not in str(refused.value)
        assert refused.value.hint
        return str(refused.value)

    def _weights(self, path: str, _class_name: str, _number: int) -> list[np.ndarray]:
        return self.weights.get(path, [])

    def steps_of(self, value: Any) -> int:
        """How many values of a sequence of TIMESTEPS there are."""
        return len(self._new_steps(value))

    def has_every_step(self, value: Any) -> bool:
        """Whether there is a value at each step from the first one on that there is."""
        new = self._new_steps(value)
        return new == list(range(TIMESTEPS + 1 - len(new), TIMESTEPS + 1)) and len(new) > 1

    def _new_steps(self, value: Any) -> list[int]:
        try:
            return self.program(self.add("GlobalMaxPooling1D", [value], [])).new_steps(TIMESTEPS)
        except ModelNotStreamable as refused:
            if "has its first output at step" not in refused.message:
                raise
            return []

    def another_input(self, width: int, is_static: bool) -> Any:
        """Behind the others, or in front of them."""
        self.parts.add("a static input" if is_static else "two sequences")
        return self._input([width]) if is_static else self.sequence_of(width)

    def sequence_of(self, *shape: int) -> Any:
        """Another input, whose steps have this shape."""
        return self._input([TIMESTEPS if self.fixed else None, *shape])

    def _input(self, shape: list[int | None]) -> Any:
        name = f"input_{len(self._inputs)}"
        config = {"name": name, "batch_shape": [None, *shape]}
        self._layers.append({"class_name": "InputLayer", "config": config, "inbound_nodes": []})
        self._inputs.insert(self.random.choice((0, len(self._inputs))), [name, 0, 0])
        return (name, 0)

    def row_of_id(self, width: int, mask_zero: bool | None = None) -> Any:
        """Of another input, which takes ids; 0 is masked at random where it is not said."""
        count = self.random.randint(1, 9)
        zero = self.random.random() < 0.5 if mask_zero is None else mask_zero
        self.parts.add("ids, 0 masked" if zero else "ids")
        self.masked = self.masked or zero
        sizes = {"input_dim": count, "output_dim": width, "mask_zero": zero}
        return self.add("Embedding", [self.sequence_of()], [self.array(count, width)], **sizes)

    # ---- layers

    def softmax(self, value: Any) -> Any:
        """The layer of that name cannot be masked."""
        if self.masked:
            return self.add("Activation", [value], [], activation="softmax")
        return self.add("Softmax", [value], [])

    def masking(self, value: Any) -> Any:
        self.masked = True
        return self.add("Masking", [value], [], mask_value=self.random.choice((0.5, 0.5, -1.0, 0.0)))

    def recurrent(self, value: Any, width: int, units: int, every: bool = True) -> Any:
        if self.random.random() < 0.2:
            return self.cells(value, width, units, every)
        class_name, weights, config = self.recurrence(width, units)
        return self.add(class_name, [value], weights, **self.outputs(every), **config)

    def cells(self, value: Any, width: int, units: int, every: bool) -> Any:
        """`RNN` of one cell, or of several."""
        found = [self.recurrence(width, units)]
        while self.random.random() < 0.4:
            found.append(self.recurrence(units, units))
        cells = [{"class_name": f"{class_name}Cell", "config": config} for class_name, _, config in found]
        weights = [array for _, arrays, _ in found for array in arrays]
        stacked = {"class_name": "StackedRNNCells", "config": {"cells": cells}}
        self.parts.add("stacked cells" if len(cells) > 1 else "a cell")
        return self.add("RNN", [value], weights, cell=stacked if len(cells) > 1 else cells[0], **self.outputs(every))

    def outputs(self, every: bool) -> dict[str, Any]:
        """Of a recurrent layer."""
        if not self.masked or self.random.random() < 0.6:
            return {"return_sequences": every}
        self.parts.add("zeros for masked steps")
        return {"return_sequences": every, "zero_output_for_mask": True}

    def recurrence(self, width: int, units: int) -> tuple[str, list[np.ndarray], dict[str, Any]]:
        class_name = self.random.choice(("LSTM", "GRU", "SimpleRNN"))
        gates = {"LSTM": 4, "GRU": 3, "SimpleRNN": 1}[class_name]
        config: dict[str, Any] = {"units": units, "use_bias": self.random.random() < 0.8}
        weights = [self.array(width, gates * units), self.array(units, gates * units)]
        if class_name == "GRU":
            config["reset_after"] = self.random.random() < 0.5
        if config["use_bias"]:
            twice = config.get("reset_after", False)
            weights.append(self.array(2, gates * units) if twice else self.array(gates * units))
        if self.random.random() < 0.3:
            config["activation"] = self.random.choice(("tanh", "sigmoid", "softsign", "gelu"))
        return class_name, weights, config

    def dense(self, value: Any, width: int, units: int, **config: Any) -> Any:
        config = {"units": units, "activation": self.random.choice(ACTIVATIONS), **config}
        weights = [self.array(width, units), self.array(units)]
        if self.random.random() < 0.2 and "outside" not in config:
            inner = {"class_name": "Dense", "config": config}
            return self.add("TimeDistributed", [value], weights, layer=inner)
        config.pop("outside", None)
        return self.add("Dense", [value], weights, **config)

    def window(self, value: Any, width: int, strided: bool) -> tuple[Any, int]:
        kind = self.random.choice(("Conv1D", "DepthwiseConv1D", "SeparableConv1D", "MaxPooling1D", "AveragePooling1D"))
        size, stride = self.random.randint(1, 3), self.random.randint(1, 2) if strided else 1
        if kind.endswith("Pooling1D"):
            value = self.padded(value, size - 1)
            return self.add(kind, [value], [], pool_size=[size], strides=[stride]), width
        config: dict[str, Any] = {"kernel_size": [size], "strides": [stride], "activation": "tanh"}
        dilation = self.random.randint(1, 2) if stride == 1 else 1
        config["dilation_rate"] = [dilation]
        causal = kind == "Conv1D" and self.random.random() < 0.4
        if not causal:
            value = self.padded(value, (size - 1) * dilation)
        if kind == "Conv1D":
            groups = 3 if width == 3 and self.random.random() < 0.5 else 1
            same = size == 1 and self.random.random() < 0.3
            config |= {"filters": 3, "padding": "causal" if causal else "same" if same else "valid", "groups": groups}
            return self.add(kind, [value], [self.array(size, width // groups, 3), self.array(3)], **config), 3
        config["depth_multiplier"] = multiplier = self.random.randint(1, 2)
        depthwise = self.array(size, width, multiplier)
        if kind == "DepthwiseConv1D":
            return self.add(kind, [value], [depthwise, self.array(width * multiplier)], **config), width * multiplier
        pointwise = self.array(1, width * multiplier, 2)
        return self.add(kind, [value], [depthwise, pointwise, self.array(2)], filters=2, **config), 2

    def padded(self, value: Any, zeros_max: int) -> Any:
        """At times with zeros before it, and a layer that does nothing between them and what follows."""
        zeros = self.random.randint(0, zeros_max)
        if not zeros or self.random.random() < 0.5:
            return value
        self.parts.add("zeros before a window")
        value = self.add("ZeroPadding1D", [value], [], padding=[zeros, 0])
        return self.add("Dropout", [value], [], rate=0.1) if self.random.random() < 0.2 else value

    def fewer_steps(self, value: Any) -> Any:
        """Without its first or its last steps."""
        left, right = self.random.randint(0, 2), self.random.randint(0, 2)
        if self.random.random() < 0.5:
            return self.add("Cropping1D", [value], [], cropping=[left, right])
        self.parts.add("a range of steps")
        return self.add("GetItem", [value], [], [piece(), piece(left or None, -right or None)])

    def by_step(self, value: Any, width: int) -> Any:
        """With numbers of its own for each step."""
        steps = self.steps_of(value)
        self.parts.add("numbers for each step")
        if self.random.random() < 0.4:
            return self.add("PReLU", [value], [self.array(steps, self.random.choice((1, width)))])
        if self.random.random() < 0.4:
            axis, shape = self.random.choice((([1, 2], (steps, width)), ([1], (steps,)), ([-2], (steps,))))
            return self.add("Normalization", [value], [self.array(*shape), self.positive(*shape)], axis=axis)
        weights = [*(self.array(steps) for _ in range(3)), self.positive(steps)]
        return self.add("BatchNormalization", [value], weights, axis=1)

    def attention_pooling(self, value: Any, width: int) -> Any:
        """A score of each step, its softmax over time, the weighted sum or average."""
        self.parts.add("attention pooling")
        dot = self.random.random() < 0.6
        scores = self.dense(value, width, 1 if dot else self.random.choice((1, width)), outside=True)
        weights = self.add("Softmax", [scores], [], axis=1)
        pair = [weights, value] if self.random.random() < 0.5 else [value, weights]
        if dot:
            self.parts.add("attention pooling by Dot")
            return self.add("Dot", pair, [], axes=1)
        weighted = self.add("Multiply", pair, [])
        kind = self.random.choice(("Sum", "Mean", "GlobalAveragePooling1D"))
        return self.add(kind, [weighted], [], **({} if kind.startswith("Global") else {"axis": 1}))

    def causal_attention(self, value: Any, width: int) -> tuple[Any, int]:
        """Of a sequence to itself, or to others made of it."""
        inputs, widths = [value, value], [width, width]
        if self.random.random() < 0.5:
            inputs = [value, self.dense(value, width, 2), self.dense(value, width, width)]
            widths = [width, 2, width]
        kind = self.random.choice(("MultiHeadAttention", "Attention", "AdditiveAttention"))
        if kind == "MultiHeadAttention":
            attended, units = self.heads(inputs, widths)
        else:
            units, scaled = widths[1], self.random.random() < 0.5
            weights = [self.array(width)] if kind == "AdditiveAttention" else [self.array()]
            config: dict[str, Any] = {"use_scale": scaled}
            weights = weights if scaled else []
            if kind == "Attention" and self.random.random() < 0.5:
                config["score_mode"] = "concat"
                weights.append(self.array())
            attended = self.add(kind, inputs, weights, **config)
        self.call_with({"use_causal_mask": True, "return_attention_scores": False})
        return attended, units

    def heads(self, inputs: list[Any], widths: list[int]) -> tuple[Any, int]:
        heads, size, values = (self.random.randint(1, 3) for _ in range(3))
        config: dict[str, Any] = {"num_heads": heads, "key_dim": size, "value_dim": values, "dropout": 0.1}
        config["use_bias"] = bias = self.random.random() < 0.5
        width = widths[0]
        if self.random.random() < 0.5:
            width = 2
            config["output_shape"] = [width]
        shapes = [(widths[0], heads, size), (widths[-1], heads, size), (widths[1], heads, values)]
        weights = [array for shape in shapes for array in [self.array(*shape), self.array(*shape[1:])][: 1 + bias]]
        weights += [self.array(heads, values, width), self.array(width)][: 1 + bias]
        return self.add("MultiHeadAttention", inputs, weights, **config), width

    def elementwise(self, value: Any, width: int) -> Any:
        number = self.random.randrange(15 + len(PLAIN))
        simple: list[Callable[[], Any]] = [
            lambda: self.add("LeakyReLU", [value], [], negative_slope=0.2),
            lambda: self.add("ReLU", [value], [], max_value=self.random.choice((None, 1.5)), negative_slope=0.1),
            lambda: self.add("ELU", [value], [], alpha=0.7),
            lambda: self.add("Activation", [value], [], activation=self.random.choice(ACTIVATIONS)),
            lambda: self.softmax(value),
            lambda: self.add("Rescaling", [value], [], scale=0.7, offset=0.1),
            lambda: self.add("Identity", [value], []),
            lambda: self.add("PReLU", [value], [self.array(1, self.random.choice((1, width)))]),
            lambda: self.add("UnitNormalization", [value], []),
            lambda: self.add("RMSNormalization", [value], [self.array(width)]),
            lambda: self.layer_normalization(value, width),
            lambda: self.add(
                "BatchNormalization", [value], [*(self.array(width) for _ in range(3)), self.positive(width)]
            ),
            lambda: self.normalization(value, width),
            lambda: random_operators.with_constant(self, value, width),
            lambda: random_operators.function(self, value),
        ]
        return (
            simple[number]() if number < len(simple) else self.add(PLAIN[number - len(simple)], [value], [], rate=0.3)
        )

    def layer_normalization(self, value: Any, width: int) -> Any:
        if self.random.random() < 0.3:
            config = {"epsilon": 0.01, "rms_scaling": True}
            return self.add("LayerNormalization", [value], [self.array(width)], **config)
        return self.add("LayerNormalization", [value], [self.array(width), self.array(width)], epsilon=0.01)

    def normalization(self, value: Any, width: int) -> Any:
        of_all = self.random.random() < 0.3
        shape, axis = ((), []) if of_all else ((width,), [-1])
        weights = [self.array(*shape), self.positive(*shape)]
        return self.add("Normalization", [value], weights, axis=axis, invert=self.random.random() < 0.3)

    def summary(self, value: Any, width: int) -> tuple[Any, int]:
        """A sequence to one vector."""
        kind = self.random.choice(
            (
                *("recurrent", "GlobalAveragePooling1D", "GlobalMaxPooling1D", "Mean", "Max", "Min", "Sum"),
                *("GetItem", "GetItem"),
                *(() if self.masked else ["attention"] * 3),
            )
        )
        if kind == "recurrent":
            return self.recurrent(value, width, 3, every=False), 3
        if kind == "attention":
            return self.attention_pooling(value, width), width
        if kind == "GetItem":
            step = self.random.randint(-3, min(self.steps_of(value), 4) - 1)
            self.parts.add("a step from the front" if step >= 0 else "a step from the end")
            if self.random.random() < 0.3:
                return self.add(kind, [value], [], [piece(), step, piece(None, 1)]), 1
            return self.add(kind, [value], [], [piece(), step]), width
        axis = {} if kind.startswith("Global") else {"axis": 1}
        return self.add(kind, [value], [], **axis), width
