"""Every setting with its default, unit and meaning. Names are a contract: files and environments in use hold them."""

from __future__ import annotations

import json
import logging
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from worker.config import kafka_properties
from worker.logs import LIBRDKAFKA

ENVIRONMENT_PREFIX = "LSTM_WORKER__"
ENVIRONMENT_DELIMITER = "__"

MIB = 1 << 20

_SERVER = re.compile(r"(\w+://)?(\[[0-9a-fA-F:.]+\]|[^\s:,\[\]]+)(:\d{1,5})?")


def _not_boolean(value: Any) -> Any:
    # Python's booleans are integers: `port = true` would mean port 1.
    if isinstance(value, bool):
        raise ValueError("must be a number, not true or false")
    return value


def _scalar(value: Any) -> Any:
    # Before the union, whose own message would be one line for each of its members.
    if not isinstance(value, (str, bool, int, float)):
        raise ValueError("must be a text, a number, true or false")
    return value


def _names(value: Any) -> Any:
    """Environment and flags give a list as JSON or as names with commas between."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        try:
            return json.loads(value)
        except ValueError as error:
            raise ValueError(f"must be a list, JSON or names with commas between ({error})") from error
    return [name.strip() for name in value.split(",") if name.strip()]


def _previous(value: Any) -> Any:
    """A list of paths and tables, or one table; a path alone is the table that names it."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        value = f"[{value}]"
    value = _names(value)
    if not isinstance(value, list) or not all(isinstance(each, str | dict) for each in value):
        raise ValueError("must be a list of files, each a path or a table with path")
    return [{"path": each} if isinstance(each, str) else each for each in value]


def _topic(value: str) -> str:
    if not re.fullmatch(r"[a-zA-Z0-9._-]{1,249}", value) or value in (".", ".."):
        raise ValueError("must be a topic name: 1 to 249 of a-z A-Z 0-9 . _ -")
    return value


def _servers(value: str) -> str:
    if not all(_SERVER.fullmatch(server.strip()) for server in value.split(",")):
        raise ValueError("must be host:port, several with commas between")
    return value


TopicName = Annotated[str, AfterValidator(_topic)]
Integer = Annotated[int, BeforeValidator(_not_boolean)]
Share = Annotated[float, BeforeValidator(_not_boolean), Field(ge=0, le=1, allow_inf_nan=False)]
Names = Annotated[list[str], NoDecode, BeforeValidator(_names)]
PropertyValue = Annotated[str | bool | int | float, BeforeValidator(_scalar)]
Properties = Annotated[dict[str, PropertyValue], BeforeValidator(kafka_properties.flattened)]


class Section(BaseModel):
    """A table of the configuration file."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class KafkaSettings(Section):
    """The cluster, and this member of the consumer group."""

    bootstrap_servers: Annotated[str, AfterValidator(_servers)] = Field(
        default="localhost:9092", description="Brokers to begin with: host:port, several with commas between."
    )
    group_id: str = Field(
        default="lstm-worker",
        min_length=1,
        max_length=200,
        description="Consumer group; also names changelog and transactions.",
    )
    group_instance_id: str = Field(
        default="", max_length=249, description="Static membership, e.g. the pod's name; empty: a dynamic member."
    )
    group_protocol: Literal["classic", "consumer"] = Field(
        default="classic", description="classic (cooperative-sticky), or consumer (KIP-848; brokers 4.3 or newer)."
    )
    session_timeout_ms: Integer = Field(
        default=45_000,
        ge=1_000,
        le=3_600_000,
        description="A member silent for so long is dead. Not sent with consumer.",
    )
    transaction_timeout_ms: Integer = Field(
        default=15_000,
        ge=1_000,
        le=2_147_483_647,
        description="The broker aborts a transaction that is open for longer.",
    )
    properties: Properties = Field(
        default_factory=dict, repr=False, description="Any librdkafka property, for every client: SASL, TLS, …"
    )
    consumer: Properties = Field(default_factory=dict, repr=False, description="librdkafka properties of consumers.")
    producer: Properties = Field(default_factory=dict, repr=False, description="librdkafka properties of producers.")


class TopicSettings(Section):
    """Names of the topics."""

    input: TopicName = Field(default="samples", description="Samples are read from here.")
    output: TopicName = Field(default="probabilities", description="Predictions are written here.")
    dead_letter: TopicName = Field(
        default="samples-dead-letter", description="Records that cannot be used are written here."
    )
    changelog: str = Field(default="", description="The states' changelog; empty: <group_id>-state-changelog.")


class PreviousModel(Section):
    """An entry of `model.previous`: an older file and how it was served. Every open sequence keeps to it."""

    path: str = Field(min_length=1)
    length: Integer | None = Field(default=None, ge=0, le=2**31 - 1)
    """`sequence.length` then; by default the file's own number of steps, else that of the settings."""
    mode: Literal["step", "buffer"] | None = None
    """By default step, or buffer where the file cannot be stepped."""
    calibration: str = ""
    architecture: str = ""
    """By default beside the file, as those of `model.path`."""


Previous = Annotated[list[PreviousModel], NoDecode, BeforeValidator(_previous)]


class ModelSettings(Section):
    """The trained model."""

    path: str = Field(default="model.keras", min_length=1, description="A .keras, .h5 or weights file.")
    previous: Previous = Field(
        default=[], description="Older model files, whose open sequences on_change = finish ends; docs/models.md."
    )
    architecture: str = Field(
        default="", description="JSON of the architecture, for files of weights; by default beside the file."
    )
    calibration: str = Field(
        default="", description="Calibration file; empty: the one beside the model, where there is one."
    )
    engine: Literal["auto", "numpy", "kernel", "tensorflow"] = Field(
        default="auto", description="auto, kernel (numba; small models), numpy (large ones), tensorflow (GPU)."
    )
    mode: Literal["step", "buffer"] = Field(default="step", description="buffer accepts models that cannot be stepped.")
    on_change: Literal["refuse", "reset", "finish"] = Field(
        default="refuse", description="What to do with stored states of another model."
    )


class InputSettings(Section):
    """How samples are read."""

    format: Literal["json", "binary"] = Field(default="json", description="json, or binary: little-endian float32.")
    features: Names = Field(
        default=[], description="JSON fields that hold the features, in order; empty: the array `features`."
    )
    max_bytes: Integer = Field(default=1_000_000, ge=1, description="A longer value is a dead letter; bytes.")
    start: Literal["earliest", "latest"] = Field(
        default="earliest", description="Where a group without commits begins."
    )
    max_future_ms: Integer = Field(
        default=3_600_000, ge=0, description="A sample further ahead of the worker's clock is a dead letter."
    )


class OutputSettings(Section):
    """What is published."""

    format: Literal["json", "binary"] = Field(default="json", description="Layout of the output records.")
    emit: Literal["all", "final", "changes"] = Field(default="all", description="Which outputs are published.")
    change_threshold: Share = Field(
        default=0.05, description="emit = changes: publish when a probability moved by so much."
    )
    change_hysteresis: Share = Field(default=0.02, description="emit = changes: so much more for a move back.")
    copy_headers: Names = Field(
        default=[], description="Headers of the sample to copy to its output, e.g. traceparent."
    )
    partitioner: Literal["input", "murmur2_random"] = Field(
        default="input", description="input: the sample's partition number; murmur2_random: by key, as Java clients do."
    )


class SequenceSettings(Section):
    """Where a sequence ends."""

    length: Integer = Field(default=0, ge=0, le=2**31 - 1, description="Samples a sequence; 0: the model's.")
    idle_timeout_ms: Integer = Field(
        default=0, ge=0, description="Ends a sequence after so long without a sample; 0: off."
    )
    on_gap: Literal["taint", "reset", "reject"] = Field(
        default="taint", description="What to do when `step` leaves a gap."
    )


class StateSettings(Section):
    """Where states live."""

    directory: str = Field(default="state", min_length=1, description="Local stores; one directory per worker.")
    cache_bytes: Integer = Field(
        default=512 * MIB, ge=MIB, description="Live states in memory; the rest is read from disk."
    )
    changelog: bool = Field(default=True, description="false: states live on this disk only (at_least_once).")
    standby: Integer = Field(default=0, ge=0, le=1, description="1: also keep copies of states that other members own.")


class DecideSettings(Section):
    """The early decision: `decision` in the first output of a sequence that is sure enough."""

    threshold: Share = Field(default=0.0, description="Decide from this probability of the likelier answer on; 0: off.")
    max_error: Share = Field(
        default=0.0,
        description="Instead: step T takes back at most this share of early ones; needs a calibration.",
    )


class WorkerSettings(Section):
    """Guarantee and rhythm of the loop."""

    guarantee: Literal["exactly_once", "at_least_once"] = Field(
        default="exactly_once", description="at_least_once needs no transactions; outputs may repeat after a fault."
    )
    commit_interval_ms: Integer = Field(default=100, ge=1, le=60_000, description="Longest time between two commits.")
    batch_records: Integer = Field(default=4_096, ge=1, le=1_000_000, description="Most records processed at once.")
    bad_records_max_share: Share = Field(
        default=0.5, description="The worker stops when a larger share is unusable; 1: never."
    )
    bad_records_window: Integer = Field(default=1_000, ge=100, description="Records over which that share is taken.")
    shutdown_timeout_ms: Integer = Field(
        default=25_000, ge=1_000, description="Longest time from SIGTERM to the exit; Kubernetes waits 30 s by default."
    )


class HttpSettings(Section):
    """Metrics, health and the live page."""

    bind: str = Field(default="127.0.0.1", min_length=1, description="Address to listen at; 0.0.0.0 in containers.")
    port: Integer = Field(default=9464, ge=0, le=65_535, description="Port; 0: off.")
    ready_while_restoring: bool = Field(default=False, description="true: /readyz does not wait for restores.")


class LogSettings(Section):
    """Logs on standard error, one event a line."""

    format: Literal["auto", "text", "json"] = Field(default="auto", description="auto: text on a terminal, else JSON.")
    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Events below are left out."
    )


class Settings(BaseSettings):
    """All settings, immutable. `load_settings` reads them; constructed directly it has defaults and what is given."""

    model_config = SettingsConfigDict(
        extra="forbid",
        frozen=True,
        env_prefix=ENVIRONMENT_PREFIX,
        env_nested_delimiter=ENVIRONMENT_DELIMITER,
        hide_input_in_errors=True,
    )

    kafka: KafkaSettings = KafkaSettings()
    topics: TopicSettings = TopicSettings()
    model: ModelSettings = ModelSettings()
    decide: DecideSettings = DecideSettings()
    input: InputSettings = InputSettings()
    output: OutputSettings = OutputSettings()
    sequence: SequenceSettings = SequenceSettings()
    state: StateSettings = StateSettings()
    worker: WorkerSettings = WorkerSettings()
    http: HttpSettings = HttpSettings()
    log: LogSettings = LogSettings()

    _references: dict[str, str] = PrivateAttr(default_factory=dict)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Files and environment are merged by `load_settings`, which knows where each value came from."""
        return (init_settings,)

    @property
    def references(self) -> dict[str, str]:
        """Texts that named a secret, by dotted path, as they were written."""
        return self._references

    @property
    def changelog_topic(self) -> str:
        """The configured name, else the group's own."""
        return self.topics.changelog or f"{self.kafka.group_id}-state-changelog"

    def transactional_id(self, member_id: str) -> str:
        """One worker's identity to the transaction coordinator; `member_id` serves where no instance id is set."""
        return f"{self.kafka.group_id}-{self.kafka.group_instance_id or member_id}"

    def admin_properties(self) -> dict[str, object]:
        """librdkafka properties of clients that ask and look; their log is off, what fails is an error."""
        return {"log_level": 0, **self._client_properties()}

    def consumer_properties(self) -> dict[str, object]:
        """librdkafka properties of the group's member; its log goes to the logger LIBRDKAFKA."""
        properties = {
            **self._client_properties(),
            **self.kafka.consumer,
            "logger": logging.getLogger(LIBRDKAFKA),
            "group.id": self.kafka.group_id,
            "group.protocol": self.kafka.group_protocol,
        }
        if self.kafka.group_protocol == "classic":
            # With the consumer protocol both are the broker's, and librdkafka refuses them.
            properties["partition.assignment.strategy"] = "cooperative-sticky"
            properties["session.timeout.ms"] = self.kafka.session_timeout_ms
        if self.kafka.group_instance_id:
            properties["group.instance.id"] = self.kafka.group_instance_id
        return properties

    def producer_properties(self, transactional_id: str = "") -> dict[str, object]:
        """librdkafka properties of a producer; transactional where an id is given. Its log goes to LIBRDKAFKA, too."""
        properties = {**self._client_properties(), **self.kafka.producer, "logger": logging.getLogger(LIBRDKAFKA)}
        if self.output.partitioner == "murmur2_random":
            properties["partitioner"] = "murmur2_random"
        if transactional_id:
            properties["transactional.id"] = transactional_id
            properties["transaction.timeout.ms"] = self.kafka.transaction_timeout_ms
        return properties

    def _client_properties(self) -> dict[str, object]:
        return {
            "client.id": self.kafka.group_instance_id or "lstm-worker",
            **self.kafka.properties,
            "bootstrap.servers": self.kafka.bootstrap_servers,
        }
