"""Which steps a layer leaves out: masks as Keras hands them from layer to layer.

Every mask is that of one or several `Masking` layers, or of `Embedding` layers with `mask_zero`, so it is named by the
numbers of their values; where `Masking` is said here and elsewhere, both are meant. Keras 3
counts a step of a merged value where any of its parts counts, and every step where one part has no mask; Keras 2 where
all of the masked parts count (`compute_mask` of both, in layers/merging/base_merge.py and concatenate.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from worker.model.graph import Origin
from worker.model.rules.context import Layer
from worker.model.rules.table import DROPS_MASK_IN_KERAS_2, MERGES, PASSES_MASK
from worker.model.value import Value


def masks_of(layer: Layer, inputs: Sequence[Value]) -> frozenset[int]:
    """The `Masking` values whose mask reaches a layer; none where it takes every step."""
    masks = [each.masks for each in inputs]
    if layer.keras_major >= 3 and not all(masks):
        return frozenset()
    return frozenset[int]().union(*masks)


def passes_mask(layer: Layer, kind: str, heeds: bool) -> bool:
    """Whether a layer hands its mask on; all others take masked steps as they come, which Keras warns of."""
    if kind != "sequence":
        return False
    if layer.is_distributed or layer.class_name in MERGES or heeds:
        return True
    dropped = layer.keras_major < 3 and layer.class_name in DROPS_MASK_IN_KERAS_2
    return layer.class_name in PASSES_MASK and not dropped


def check_mask(layer: Layer, masks: frozenset[int], origins: Mapping[int, Origin]) -> None:
    """Raises ModelNotStreamable where the layer is called with a mask that no `Masking` layer before it gave, and for a
    softmax layer, which takes the mask of steps for one of features, so that Keras refuses it, too."""
    if layer.class_name == "Softmax" and masks:
        raise layer.refused("a softmax layer cannot be masked", "use Activation('softmax')")
    if layer.given_mask is not None and layer.given_mask != {origins[each] for each in masks}:
        raise layer.refused("it is called with a mask of its own", "let the mask come from a Masking layer before it")
