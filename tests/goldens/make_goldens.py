"""Writes the golden files: small models saved by Keras, with inputs and what Keras itself predicts for them.

`python -m tests.goldens.make_goldens` writes them again, next to this file, and needs TensorFlow; tests read the files.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.goldens.writing import outputs, quiet_keras, save, set_random_weights

FOLDER = Path(__file__).parent
FEATURES, TIMESTEPS, SEQUENCES = 3, 6, 4
UNITS = 4
ALSO_HDF5 = ("lstm_flatten", "lstm_hard_sigmoid", "gru_reset_after", "gru_reset_before_any_length", "simple_rnn")


def architectures(keras):
    """Name → layers after the input; a name that ends with `_any_length` fixes no number of steps."""
    lay = keras.layers
    last = {"units": UNITS, "return_sequences": False}
    every = {"units": UNITS, "return_sequences": True}
    return {
        "lstm_flatten": [
            lay.LSTM(**every),
            lay.LeakyReLU(),
            lay.Dropout(0.2),
            lay.LSTM(3, return_sequences=True),
            lay.Dropout(0.2),
            lay.LeakyReLU(),
            lay.Flatten(),
            lay.Dense(1, activation="sigmoid"),
        ],
        "lstm_last_any_length": [lay.LSTM(**last), lay.Dense(1, activation="sigmoid")],
        "lstm_without_bias": [lay.LSTM(**last, use_bias=False), lay.Dense(1, use_bias=False)],
        "lstm_hard_sigmoid": [
            lay.LSTM(**last, activation="softsign", recurrent_activation="hard_sigmoid"),
            lay.Dense(2, activation="softplus"),
        ],
        "lstm_dropout": [
            lay.LSTM(**last, dropout=0.3, recurrent_dropout=0.2, unit_forget_bias=False),
            lay.Dense(1, activation="sigmoid"),
        ],
        "gru_reset_after": [lay.GRU(**every), lay.GRU(**last), lay.Dense(3, activation="softmax")],
        "gru_reset_before_any_length": [
            lay.GRU(**last, reset_after=False),
            lay.Dense(1),
            lay.Activation("sigmoid"),
        ],
        "gru_without_bias": [lay.GRU(**last, use_bias=False), lay.Dense(1, activation="sigmoid")],
        "gru_flatten_softmax": [lay.GRU(**every), lay.Flatten(), lay.Dense(3), lay.Softmax()],
        "simple_rnn": [
            lay.SimpleRNN(**every, activation="relu"),
            lay.SimpleRNN(**last),
            lay.Dense(1, activation="sigmoid"),
        ],
        "three_deep_relu6": [
            lay.LSTM(**every),
            lay.GRU(**every, activation="elu"),
            lay.SimpleRNN(**every, use_bias=False, activation="selu"),
            lay.Flatten(),
            lay.Dense(4, activation="relu6"),
            lay.Dense(1, activation="sigmoid"),
        ],
        "flatten_hidden": [
            lay.Rescaling(0.5, offset=-0.1),
            lay.LSTM(**every),
            lay.Flatten(),
            lay.Activation("tanh"),
            lay.Dense(5, activation="relu"),
            lay.Dropout(0.5),
            lay.Dense(1, activation="sigmoid"),
        ],
        "dense_before_and_after": [
            lay.Dense(4, activation="swish"),
            lay.ReLU(max_value=2.0, negative_slope=0.1, threshold=0.2),
            lay.LSTM(**last),
            lay.Dense(4, activation="exponential"),
            lay.ELU(0.7),
            lay.Dense(3, activation="softmax"),
        ],
        "noise_and_identity_any_length": [
            lay.GaussianNoise(0.1),
            lay.SpatialDropout1D(0.1),
            lay.GaussianDropout(0.1),
            lay.Identity(),
            lay.GRU(**last, activation="leaky_relu"),
            lay.AlphaDropout(0.1),
            lay.ActivityRegularization(l2=0.1),
            lay.LeakyReLU(negative_slope=0.05),
            lay.Dense(2),
        ],
        "no_recurrence": [
            lay.Dense(3, activation="silu"),
            lay.Softmax(),
            lay.Flatten(),
            lay.Dense(2, activation="softmax"),
        ],
    }


def main() -> None:
    """One `.keras` and one `.npz` of inputs and outputs for each architecture, some also as `.h5`."""
    keras = quiet_keras()
    generator = np.random.default_rng(20)
    for name, layers in architectures(keras).items():
        keras.utils.set_random_seed(len(name))
        steps = None if name.endswith("_any_length") else TIMESTEPS
        model = keras.Sequential([keras.layers.Input((steps, FEATURES)), *layers], name=name)
        set_random_weights(model, generator)
        inputs = generator.standard_normal((SEQUENCES, TIMESTEPS, FEATURES)).astype(np.float32)
        save(FOLDER, model, ALSO_HDF5, inputs=inputs, outputs=outputs(model, inputs)[0])


if __name__ == "__main__":
    main()
