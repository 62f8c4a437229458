"""The worker's settings: what there is, where it is read from, and what librdkafka is given of it."""

from worker.config.loading import load_settings
from worker.config.printing import effective_toml
from worker.config.settings import PreviousModel, Settings

__all__ = ["PreviousModel", "Settings", "effective_toml", "load_settings"]
