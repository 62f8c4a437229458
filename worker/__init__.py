"""A Kafka stream-processing worker that serves trained Keras recurrent models one sample at a time."""

__version__ = "0.1.0"
