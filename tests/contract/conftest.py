"""The embedded broker and its clients, as the adapters' unit tests have them."""

from tests.unit.adapters.conftest import admin, broker, client, join, producer, topic

__all__ = ["admin", "broker", "client", "join", "producer", "topic"]
