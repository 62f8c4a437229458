"""Writes the golden files of one generation of Keras, with that generation itself: run it in an environment of its own.

`python write_generation.py LABEL [FOLDER]` writes LABEL_lstm, LABEL_gru, … in each form that the installed Keras can
write, and beside them one `.npz` of inputs and of what that Keras predicted. README.md has the environments. Runs on
Python 3.6 and later and needs nothing of this repository.
"""

import os
import sys

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
FEATURES, TIMESTEPS, SEQUENCES = 3, 5, 6


def keras_of(label):
    """The module `keras` and its version; `tensorflow.keras` or `tf_keras` where the label says so."""
    if label.startswith("tf_keras"):
        import tf_keras as keras
    elif label.startswith("tf"):
        import tensorflow
        from tensorflow import keras

        return keras, version_of(tensorflow)
    else:
        import keras
    return keras, version_of(keras)


def version_of(module):
    return tuple(int(part) for part in module.__version__.split(".")[:2])


def architectures(layers, major):
    """Name → layers of a Sequential; the first one gets the input shape. Three layers of a class show its numbering."""
    lstm, gru, dense = layers.LSTM, layers.GRU, layers.Dense
    shape = {} if major >= 3 else {"input_shape": (TIMESTEPS, FEATURES)}
    slope = "negative_slope" if major >= 3 else "alpha"
    return {
        "lstm": [
            lstm(4, return_sequences=True, recurrent_activation="hard_sigmoid", **shape),
            layers.LeakyReLU(**{slope: 0.1}),
            layers.Dropout(0.2),
            lstm(3, return_sequences=True, recurrent_activation="sigmoid"),
            lstm(2, return_sequences=True, use_bias=False, recurrent_activation="sigmoid"),
            layers.Flatten(),
            dense(1, activation="sigmoid"),
        ],
        "gru": [
            gru(4, return_sequences=True, reset_after=True, recurrent_activation="sigmoid", **shape),
            layers.LeakyReLU(),
            gru(3, return_sequences=True, reset_after=False, recurrent_activation="hard_sigmoid"),
            layers.SimpleRNN(3),
            dense(3, activation="softmax"),
        ],
        "defaults": [
            lstm(3, return_sequences=True, **shape),
            gru(3),
            dense(2, activation="hard_sigmoid"),
        ],
    }


def functional(keras):
    """A nested Sequential, a nested functional model that is called twice, a branch and a merge."""
    lay, shape = keras.layers, (TIMESTEPS, FEATURES)
    steps = keras.models.Sequential(
        [lay.LSTM(4, return_sequences=True, input_shape=shape), lay.Dense(3, activation="tanh")], name="steps"
    )
    given = lay.Input(shape)
    shared = keras.models.Model(given, lay.GRU(3, return_sequences=True)(given), name="shared")
    inputs = lay.Input(shape)
    first = shared(steps(inputs))
    both = lay.Concatenate()([first, shared(inputs), lay.SimpleRNN(2, return_sequences=True)(inputs)])
    return keras.models.Model(inputs, lay.Dense(1, activation="sigmoid")(lay.LSTM(3)(both)), name="functional")


def masked(keras):
    """Two masks merged; a layer that lets no mask through. `Masking(1.0)` and `Masking(0.0)` leave out steps."""
    lay = keras.layers
    inputs = lay.Input((TIMESTEPS, FEATURES))
    zeros, ones = lay.Masking(0.0)(inputs), lay.Masking(1.0)(inputs)
    parts = [
        lay.GRU(2)(lay.Add()([zeros, ones])),
        lay.GRU(2)(lay.Concatenate()([zeros, ones])),
        lay.SimpleRNN(2)(lay.Add()([zeros, inputs])),
        lay.SimpleRNN(2)(lay.Rescaling(0.5)(ones)),
    ]
    return keras.models.Model(inputs, lay.Dense(1, activation="sigmoid")(lay.Concatenate()(parts)), name="masked")


def activation_layers(keras):
    """Layers as activations, some named as functions are that they are not."""
    lay = keras.layers
    inputs = lay.Input((TIMESTEPS, FEATURES))
    parts = [
        lay.SimpleRNN(2, activation=lay.ELU(alpha=0.2, name="elu"))(inputs),
        lay.SimpleRNN(2, activation=lay.LeakyReLU(alpha=0.01, name="leaky_relu"))(inputs),
        lay.GRU(2, activation=lay.ReLU(max_value=0.3, name="relu"), recurrent_activation=lay.LeakyReLU())(inputs),
        lay.LSTM(2, activation="mish", recurrent_activation=lay.Softmax())(inputs),
        lay.LSTM(2, activation="gelu", recurrent_activation=lay.Softmax(axis=1))(inputs),
    ]
    return keras.models.Model(inputs, lay.Concatenate()(parts), name="activations")


def with_random_weights(model, generator):
    """Fresh ones have zero biases, which forgive a bias in the wrong place."""
    model.set_weights([generator.normal(0, 0.6, weight.shape).astype(np.float32) for weight in model.get_weights()])
    return model


def built(keras, version, name, layers, generator):
    """A Sequential with random weights."""
    if version >= (3, 0):
        layers = [keras.layers.Input((TIMESTEPS, FEATURES)), *layers]
    return with_random_weights(keras.models.Sequential(layers, name=name), generator)


def save_all(model, version, stem):
    """Each form that this generation knows."""
    model.save(stem + ".h5")
    if version >= (2, 13):
        model.save(stem + ".keras")
    elif version == (2, 12):
        model.save(stem + ".keras", save_format="keras_v3")
        model.save(stem + "_hdf5_inside.keras", save_format="h5")
    if stem.endswith("_gru"):
        weights = stem + "_alone"
        model.save_weights(weights + (".weights.h5" if version >= (2, 12) else ".h5"))
        with open(weights + ".json", "w") as file:
            file.write(model.to_json())


def save_cudnn(keras, version, stem, generator):
    """CuDNN layers, which only a GPU runs; Keras itself converts their weights into plain layers, which predict."""
    import tensorflow as tf

    # Without this, TensorFlow looks for a device for every operation, also for those that never run.
    options = tf.GraphOptions(place_pruned_graph=True)
    keras.backend.set_session(tf.Session(config=tf.ConfigProto(graph_options=options)))
    lay = keras.layers
    shape = {"input_shape": (TIMESTEPS, FEATURES)}
    fast = [lay.CuDNNLSTM(4, return_sequences=True, **shape), lay.CuDNNGRU(3), lay.Dense(1, activation="sigmoid")]
    built(keras, version, "cudnn", fast, generator).save(stem + ".h5")
    keras.backend.clear_session()
    plain = [
        lay.LSTM(4, return_sequences=True, recurrent_activation="sigmoid", **shape),
        lay.GRU(3, reset_after=True, recurrent_activation="sigmoid"),
        lay.Dense(1, activation="sigmoid"),
    ]
    twin = keras.models.Sequential(plain)
    twin.load_weights(stem + ".h5")
    predict(twin, stem, generator)


def predict(model, stem, generator, left_out=0.0):
    """Of random sequences, in which a share of the steps is zeros and as large a one is ones."""
    inputs = generator.standard_normal((SEQUENCES, TIMESTEPS, FEATURES)).astype(np.float32)
    if left_out:
        share = generator.random_sample((SEQUENCES, TIMESTEPS))
        inputs[share < left_out], inputs[share > 1 - left_out] = 0, 1
    np.savez_compressed(stem + ".npz", inputs=inputs, outputs=np.asarray(model.predict(inputs), np.float32))


def main():
    label = sys.argv[1]
    folder = sys.argv[2] if len(sys.argv) > 2 else os.path.dirname(os.path.abspath(__file__))
    keras, version = keras_of(label)
    generator = np.random.RandomState(7)
    for name, layers in architectures(keras.layers, version[0]).items():
        stem = os.path.join(folder, label + "_" + name)
        model = built(keras, version, name, layers, generator)
        save_all(model, version, stem)
        predict(model, stem, generator)
    if label.startswith("tf215"):
        stem = os.path.join(folder, label + "_functional")
        model = with_random_weights(functional(keras), generator)
        save_all(model, version, stem)
        predict(model, stem, generator)
    if label.startswith("tf_keras"):
        stem = os.path.join(folder, label + "_masked")
        model = with_random_weights(masked(keras), generator)
        save_all(model, version, stem)
        predict(model, stem, generator, left_out=0.3)
        stem = os.path.join(folder, label + "_activations")
        model = with_random_weights(activation_layers(keras), np.random.RandomState(8))
        save_all(model, version, stem)
        predict(model, stem, np.random.RandomState(9))
    if version == (2, 2):
        save_cudnn(keras, version, os.path.join(folder, label + "_cudnn"), generator)


if __name__ == "__main__":
    main()
