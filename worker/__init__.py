"""A Kafka stream-processing worker that serves trained Keras recurrent models one sample at a time."""

import os

__version__ = "0.1.0"

# Before NumPy is imported: a step's matrices are small, and several threads on them cost more than they bring.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
