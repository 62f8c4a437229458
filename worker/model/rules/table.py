"""Which rule serves which class of layer, and why the others cannot be served."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from worker.model.program import Node
from worker.model.rules import (
    causal_attention,
    conv_lstm,
    convolution,
    dense,
    elementwise,
    embedding,
    given,
    merge,
    normalization,
    picked,
    pooling,
    positions,
    recurrent,
    stepwise,
)
from worker.model.rules.context import Layer

IGNORED = ("Dropout", "Identity")
"""After the head they change nothing."""
FLATTENING = ("Flatten", "Reshape")
NOTHING_AT_INFERENCE = (
    "Dropout",
    "SpatialDropout1D",
    "GaussianDropout",
    "GaussianNoise",
    "AlphaDropout",
    "ActivityRegularization",
    "Identity",
)
ELEMENTWISE: dict[str, Callable[[Layer], Node]] = {
    "Activation": elementwise.activation_layer,
    "Softmax": elementwise.softmax_layer,
    "LeakyReLU": elementwise.leaky_relu,
    "ReLU": elementwise.relu,
    "ELU": elementwise.elu,
    "Rescaling": elementwise.rescaling,
    **dict.fromkeys(NOTHING_AT_INFERENCE, elementwise.identity),
    "BatchNormalization": normalization.batch_normalization,
    "LayerNormalization": normalization.layer_normalization,
    "RMSNormalization": normalization.rms_normalization,
    "UnitNormalization": normalization.unit_normalization,
    "Normalization": normalization.normalization,
    "PReLU": stepwise.prelu,
}
MERGES: dict[str, Callable[[Layer], Node]] = {
    "Add": merge.add,
    "Subtract": merge.subtract,
    "Multiply": merge.multiply,
    "Average": merge.average,
    "Maximum": merge.maximum,
    "Minimum": merge.minimum,
    "Divide": merge.divide,
    "Power": merge.power,
    "Concatenate": merge.concatenate,
}
WINDOWS: dict[str, Callable[[Layer], Node]] = {
    "Conv1D": convolution.conv1d,
    "DepthwiseConv1D": convolution.depthwise_conv1d,
    "SeparableConv1D": convolution.separable_conv1d,
    "MaxPooling1D": convolution.max_pooling,
    "AveragePooling1D": convolution.average_pooling,
}
ATTENTION_RULES: dict[str, Callable[[Layer], Node]] = {
    "MultiHeadAttention": causal_attention.multi_head_attention,
    "Attention": causal_attention.attention,
    "AdditiveAttention": causal_attention.additive_attention,
}
RULES: dict[str, Callable[[Layer], Node]] = {
    "LSTM": recurrent.lstm,
    "GRU": recurrent.gru,
    "SimpleRNN": recurrent.simple_rnn,
    "ConvLSTM1D": conv_lstm.conv_lstm_1d,
    "ConvLSTM2D": conv_lstm.conv_lstm_2d,
    "Dense": dense.dense,
    **ELEMENTWISE,
    **MERGES,
    "Masking": stepwise.masking,
    "InputLayer": given.input_layer,
    "Embedding": embedding.embedding,
    "RepeatVector": given.repeat_vector,
    **WINDOWS,
    **ATTENTION_RULES,
    "Cropping1D": convolution.cropping,
    "GetItem": picked.picked,
    "GlobalAveragePooling1D": pooling.global_average,
    "GlobalAveragePooling2D": positions.average_of_positions,
    "GlobalMaxPooling1D": pooling.global_max,
    "Mean": pooling.mean_over_time,
    "Max": pooling.max_over_time,
    "Min": pooling.min_over_time,
    "Sum": pooling.sum_over_time,
}
SEVERAL_INPUTS = (*MERGES, *ATTENTION_RULES)
ATTENTION = (*ATTENTION_RULES, "GroupQueryAttention", "GroupedQueryAttention")
"""Layers that are called with a query, a value and whether they look ahead."""
ROW_WISE = ("Dense", *ELEMENTWISE)
"""What `TimeDistributed` may distribute."""
POSITION_WISE = tuple(name for name in ROW_WISE if name != "PReLU")
"""What works on the last dimension of a step that is a grid."""
OF_A_GRID = ("Flatten", "GlobalAveragePooling1D", "GlobalAveragePooling2D")
"""What makes one row of features of a step that is a grid; `TimeDistributed` may distribute it there."""
SHAPED = (*POSITION_WISE, *OF_A_GRID, "Reshape", "ConvLSTM1D", "ConvLSTM2D", "Embedding")
"""What takes steps that are not one row of features; see value.py."""
PASSES_MASK = tuple(name for name in ROW_WISE if name != "RMSNormalization")
"""Of one value; those of several do as well (`supports_masking` of Keras' layers)."""
DROPS_MASK_IN_KERAS_2 = ("Identity", "Normalization", "Rescaling")
OPERATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    name: ("Activation", {"activation": activation})
    for name, activation in {
        "Relu": "relu",
        "Sigmoid": "sigmoid",
        "Tanh": "tanh",
        "Silu": "silu",
        "Selu": "selu",
        "Softplus": "softplus",
        "Softsign": "softsign",
        "Exp": "exponential",
        "HardSigmoid": "hard_sigmoid",
        "Relu6": "relu6",
        "HardSilu": "hard_silu",
        "HardTanh": "hard_tanh",
        "LogSigmoid": "log_sigmoid",
        "SparsePlus": "sparse_plus",
        "SparseSigmoid": "sparse_sigmoid",
        "TanhShrink": "tanh_shrink",
        "Mish": "mish",
    }.items()
} | {
    "Elu": ("ELU", {}),
    "Negative": ("Rescaling", {"scale": -1.0}),
    "TrueDivide": ("Divide", {}),
}
"""Operators of Keras 3 in a functional model that are layers under another name."""
REASONS = {
    "Bidirectional": "the backward half needs the last step first",
    # Under the name in `.keras` files, and under that of its class in `.h5` files.
    **dict.fromkeys(("GroupQueryAttention", "GroupedQueryAttention"), "groups of queries are not supported"),
    "GroupNormalization": "it normalises over time, so every step depends on later ones",
    "Lambda": "it holds code, and nothing in a file is executed",
    "Permute": "it exchanges time and features",
    "UpSampling1D": "it gives more steps than it gets",
    "Conv1DTranspose": "it gives more steps than it gets",
    "Dot": "it puts together other things than the weights and values of an attention pooling",
}
ONLY_KERAS = (
    *("Conv2D", "Conv3D", "DepthwiseConv2D", "SeparableConv2D", "Conv2DTranspose", "Conv3DTranspose", "ConvLSTM3D"),
    *("MaxPooling2D", "MaxPooling3D", "AveragePooling2D", "AveragePooling3D", "GlobalMaxPooling2D"),
    *("GlobalAveragePooling3D", "GlobalMaxPooling3D", "AdaptiveAveragePooling1D", "AdaptiveMaxPooling1D"),
    *("ZeroPadding2D", "ZeroPadding3D", "Cropping2D", "Cropping3D", "UpSampling2D", "UpSampling3D"),
    *("SpatialDropout2D", "SpatialDropout3D", "EinsumDense", "SpectralNormalization", "CategoryEncoding"),
    *("Discretization", "Flip", "MelSpectrogram", "STFTSpectrogram"),
)
"""Layers of Keras that no rule serves, and of which there is nothing to be said but that."""
