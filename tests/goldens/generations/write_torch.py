"""Writes the golden files of PyTorch stacks, with PyTorch itself: run it in an environment of its own.

`python write_torch.py [FOLDER]` writes torch_lstm, torch_gru and torch_rnn as `.safetensors`, the JSON that names their
layers, and an `.npz` of inputs and of what PyTorch predicted.
"""

import json
import os
import sys

import numpy as np
import torch
from safetensors.numpy import save_file
from torch import nn

FEATURES, TIMESTEPS, SEQUENCES = 3, 5, 6
SIGMOID = {"module": "Sigmoid"}


class Flattened(nn.Module):
    """Two stacked LSTM layers, a third one, and a Linear over all their steps."""

    described = {  # noqa: RUF012
        "timesteps": TIMESTEPS,
        "layers": [
            {"module": "LSTM", "name": "lstm"},
            {"module": "LeakyReLU"},
            {"module": "LSTM", "name": "second"},
            {"module": "Dropout"},
            {"module": "Flatten"},
            {"module": "Linear", "name": "head"},
            SIGMOID,
        ],
    }

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(FEATURES, 4, num_layers=2, batch_first=True)
        self.second = nn.LSTM(4, 3, batch_first=True, bias=False)
        self.head = nn.Linear(3 * TIMESTEPS, 1)

    def forward(self, x):
        y = nn.functional.leaky_relu(self.lstm(x)[0])
        return torch.sigmoid(self.head(self.second(y)[0].flatten(1)))


class LastStep(nn.Module):
    """Linear, two stacked GRU layers, their last output, and two Linear."""

    described = {  # noqa: RUF012
        "layers": [
            {"module": "Linear", "name": "embed"},
            {"module": "ELU"},
            {"module": "GRU", "name": "gru"},
            {"module": "Last"},
            {"module": "Linear", "name": "head.0"},
            {"module": "ReLU"},
            {"module": "Linear", "name": "head.2"},
            {"module": "Softmax"},
        ],
    }

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(FEATURES, 4)
        self.gru = nn.GRU(4, 4, num_layers=2, batch_first=True)
        self.head = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3, bias=False))

    def forward(self, x):
        y = self.gru(nn.functional.elu(self.embed(x)))[0][:, -1]
        return torch.softmax(self.head(y), 1)


class Simple(nn.Module):
    """nn.RNN of both nonlinearities."""

    described = {  # noqa: RUF012
        "layers": [
            {"module": "RNN", "name": "first", "nonlinearity": "relu"},
            {"module": "RNN", "name": "second"},
            {"module": "Last"},
            {"module": "Linear", "name": "head"},
            SIGMOID,
        ],
    }

    def __init__(self):
        super().__init__()
        self.first = nn.RNN(FEATURES, 4, nonlinearity="relu", batch_first=True)
        self.second = nn.RNN(4, 3, batch_first=True)
        self.head = nn.Linear(3, 1)

    def forward(self, x):
        return torch.sigmoid(self.head(self.second(self.first(x)[0])[0][:, -1]))


def main():
    folder = sys.argv[1] if len(sys.argv) > 1 else os.path.dirname(os.path.abspath(__file__))
    generator = np.random.RandomState(11)
    for name, model in (("torch_lstm", Flattened()), ("torch_gru", LastStep()), ("torch_rnn", Simple())):
        stem = os.path.join(folder, name)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(torch.from_numpy(generator.normal(0, 0.6, tuple(parameter.shape)).astype(np.float32)))
            inputs = generator.standard_normal((SEQUENCES, TIMESTEPS, FEATURES)).astype(np.float32)
            outputs = model(torch.from_numpy(inputs)).numpy()
        save_file({key: value.numpy() for key, value in model.state_dict().items()}, stem + ".safetensors")
        with open(stem + ".json", "w") as file:
            json.dump(model.described, file, indent=1)
        np.savez_compressed(stem + ".npz", inputs=inputs, outputs=outputs)


if __name__ == "__main__":
    main()
