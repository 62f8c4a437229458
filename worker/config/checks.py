"""What single settings cannot tell: combinations that contradict each other or break a promise."""

from __future__ import annotations

from collections.abc import Iterator

from worker.config import kafka_properties
from worker.config.settings import Settings


def contradictions(settings: Settings) -> Iterator[str]:
    """One line for each; each names the settings and the way out."""
    yield from _guarantee(settings)
    yield from _topics(settings)
    yield from _records(settings)
    yield from _refused_properties(settings)


def _guarantee(settings: Settings) -> Iterator[str]:
    state, worker = settings.state, settings.worker
    exactly_once = worker.guarantee == "exactly_once"
    if exactly_once and not state.changelog:
        yield "state.changelog = false needs worker.guarantee = at_least_once: without a changelog states cannot move"
    if state.standby and not state.changelog:
        yield "state.standby needs state.changelog = true: copies are made from the changelog"
    if exactly_once and 2 * worker.commit_interval_ms > settings.kafka.transaction_timeout_ms:
        yield (
            f"worker.commit_interval_ms = {worker.commit_interval_ms} must be at most half of "
            f"kafka.transaction_timeout_ms ({settings.kafka.transaction_timeout_ms}), or the broker aborts transactions"
        )
    if settings.model.previous and settings.model.on_change != "finish":
        yield "model.previous is only used with model.on_change = finish: set it, or remove the files"


def _topics(settings: Settings) -> Iterator[str]:
    named = {
        "topics.input": settings.topics.input,
        "topics.output": settings.topics.output,
        "topics.dead_letter": settings.topics.dead_letter,
        "topics.changelog": settings.changelog_topic,
    }
    seen: dict[str, str] = {}
    for setting, topic in named.items():
        if topic in seen:
            yield f"{setting} and {seen[topic]} are both {topic!r}: give each its own topic"
        seen[topic] = setting


def _records(settings: Settings) -> Iterator[str]:
    decide = settings.decide
    if decide.threshold and decide.max_error:
        yield "decide.threshold and decide.max_error are both set: set one"
    if decide.threshold and decide.threshold < 0.5:
        yield "decide.threshold must be at least 0.5: the likelier of two answers always is"
    if decide.max_error and decide.max_error > 0.5:
        yield "decide.max_error must be at most 0.5: guessing is right as often"
    if (decide.threshold or decide.max_error) and settings.output.format == "binary":
        yield "decide needs output.format = json: the binary layout has no room for a decision"
    features = settings.input.features
    if features and settings.input.format == "binary":
        yield "input.features names JSON fields: remove it, or set input.format = json"
    controls = {"sequence_id", "step", "end"} & set(features)
    if controls:
        yield f"input.features: {', '.join(sorted(controls))} is a control of the sequence, not a feature"
    if len(set(features)) < len(features):
        yield "input.features names a field twice"


def _refused_properties(settings: Settings) -> Iterator[str]:
    kafka = settings.kafka
    tables = {
        "kafka.properties": kafka.properties,
        "kafka.consumer": kafka.consumer,
        "kafka.producer": kafka.producer,
    }
    for table, properties in tables.items():
        yield from kafka_properties.refusals(
            table,
            properties,
            transaction_timeout_ms=(
                kafka.transaction_timeout_ms if settings.worker.guarantee == "exactly_once" else None
            ),
            group_protocol=kafka.group_protocol,
        )
