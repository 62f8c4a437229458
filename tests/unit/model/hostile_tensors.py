"""Files of tensors made to hurt, as hostile_files.py: what → (bytes, what the refusal says)."""

from __future__ import annotations

from tests.unit.model.hostile_files import TENSOR, Make, safetensors

MATRIX = {"dtype": "F32", "shape": [1, 2], "data_offsets": [0, 8]}
LATER = {**TENSOR, "data_offsets": [8, 16]}

TENSORS: dict[str, tuple[Make, str]] = {
    name: (lambda content=content: content, said)
    for name, content, said in [
        ("a header that is no object", safetensors(b"{]"), "no JSON"),
        ("a tensor twice", safetensors(b'{"w": {}, "w": {}}'), "'w' twice"),
        ("a tensor outside of the file", safetensors({"w": {**TENSOR, "data_offsets": [0, 1 << 40]}}), "outside"),
        ("a tensor that ends first", safetensors({"w": {**TENSOR, "data_offsets": [8, 0]}}, bytes(8)), "outside"),
        ("a tensor of another size", safetensors({"w": {**TENSOR, "shape": [1 << 30]}}, bytes(8)), "other bytes"),
        ("tensors that overlap", safetensors({"w": TENSOR, "fc.weight": MATRIX}, bytes(8)), "overlap"),
        ("a negative shape", safetensors({"w": {**TENSOR, "shape": [-2]}}, bytes(8)), "without"),
        ("a shape of many dimensions", safetensors({"w": {**TENSOR, "shape": [1] * 60}}, bytes(8)), "outside"),
        ("a tensor without a dtype", safetensors({"w": {"shape": [2], "data_offsets": [0, 8]}}, bytes(8)), "without"),
        ("a tensor of integers", safetensors({"fc.weight": {**MATRIX, "dtype": "I32"}}, bytes(8)), "dtype 'I32'"),
        ("a tensor that is a number", safetensors({"w": 7}), "no object"),
        ("a tensor that is not finite", safetensors({"fc.weight": MATRIX}, b"\xff" * 8), "not finite"),
        ("many tensors", safetensors({f"w{n}": TENSOR for n in range(5_000)}, bytes(8)), "tensors"),
        ("a tensor that nobody names", safetensors({"fc.weight": MATRIX, "w": LATER}, bytes(16)), "no module"),
        ("no tensors", safetensors({"__metadata__": {"format": "pt"}}), "does not have"),
        ("a header of 5 MiB", safetensors({"__metadata__": {"x": "x" * (5 << 20)}}), "header of"),
    ]
}
