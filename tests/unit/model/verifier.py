"""The contract of stepping: it is the whole sequence, whatever else is in the batch and however it is cut.

Every prefix against the float64 evaluation, which does not depend on what follows; rows at different steps, rows of
garbage, state through bytes, and any split into batches.
"""

from __future__ import annotations

import numpy as np

from worker.model.contract import largest_difference
from worker.model.program import StepProgram
from worker.ports import Stepper

TOLERANCE = 1e-6
"""Of probabilities, and of numbers of the size of one; of larger ones their share."""


class Verifier:
    """`samples` (N, T, F). `splits`: in how many random ways they are put into batches; `prefixes`: of how many lengths
    at most, evenly spaced, the whole is evaluated."""

    def __init__(
        self, program: StepProgram, engine: Stepper, samples: np.ndarray, *, splits: int = 3, prefixes: int = 1 << 30
    ) -> None:
        self.program, self.engine, self.samples = program, engine, samples
        self.streams, self.steps, _ = samples.shape
        self.splits = splits
        with np.errstate(all="ignore"):
            self.whole = program.whole(samples)
        self.begun = program.exact_from - 1
        lengths = range(self.begun + 1, self.steps + 1)
        self.lengths = lengths[:: -(-len(lengths) // prefixes)]

    def verify(self) -> None:
        assert self.whole.shape == (self.streams, self.steps, self.program.outputs)
        self.a_prefix_does_not_depend_on_what_follows()
        self.rows_of_garbage_do_not_reach_others()
        self.any_split_and_order_of_streams_gives_the_same()
        self.rows_that_are_not_in_the_batch_stay_as_they_are()

    def verify_other_batches(self) -> None:
        """Of one row, of one step of all streams, and of all steps."""
        one_by_one = self.stepped([[(stream, step)] for step in range(self.steps) for stream in range(self.streams)])
        self.same(one_by_one, self.whole)
        self.same(self.stepped(self.by_step()), self.whole)
        self.same(self.stepped([[each for batch in self.by_step() for each in batch]]), self.whole)

    def by_step(self) -> list[list[tuple[int, int]]]:
        return [[(stream, step) for stream in range(self.streams)] for step in range(self.steps)]

    def stepped(self, batches: list[list[tuple[int, int]]], garbage: tuple[float, ...] = ()) -> np.ndarray:
        """Logits (N, T, K) of batches of (stream, step), the state through bytes between them.

        States begin as NaN: that of a first step is ignored. In each batch is a further stream of each of `garbage`.
        """
        states = np.full((self.streams + len(garbage), self.program.state_size), np.nan, np.float32)
        logits = np.full(self.whole.shape, np.nan, np.float32)
        for number, batch in enumerate(batches):
            slots = [stream for stream, _ in batch]
            rows = [self.samples[stream, step] for stream, step in batch]
            steps = [step + 1 for _, step in batch]
            for at, each in enumerate(garbage, self.streams):
                slots, steps = [at, *slots], [min(number, self.steps - 1) + 1, *steps]
                rows = [np.full(self.program.features, each, np.float32), *rows]
            states = np.frombuffer(states.tobytes(), np.float32).reshape(states.shape).copy()
            answers = self.engine.step_batch(np.array(slots), np.array(rows), states, np.array(steps, np.int32))
            assert answers.shape == (len(slots), self.program.outputs)
            assert answers.dtype == states.dtype == np.float32
            for (stream, step), answer in zip(batch, answers[-len(batch) :], strict=True):
                logits[stream, step] = answer
        return logits

    def same(self, found: np.ndarray, wanted: np.ndarray) -> None:
        assert largest_difference(self.outputs(found), self.outputs(wanted)) <= TOLERANCE

    def outputs(self, logits: np.ndarray) -> np.ndarray:
        """From the first step on at which there is something to be exact."""
        begun = logits[:, self.begun :].reshape(-1, self.program.outputs)
        return self.program.outputs_of(begun).reshape(self.streams, -1, self.program.outputs)

    def a_prefix_does_not_depend_on_what_follows(self) -> None:
        for length in self.lengths:
            with np.errstate(all="ignore"):
                prefix = self.program.whole(self.samples[:, :length])
            assert largest_difference(prefix[:, self.begun :], self.whole[:, self.begun : length]) <= 1e-12

    def any_split_and_order_of_streams_gives_the_same(self) -> None:
        """Streams at different steps share batches, and some have several samples in one."""
        for seed in range(self.splits):
            random = np.random.default_rng(seed)
            order = random.permutation(np.repeat(np.arange(self.streams), self.steps)).tolist()
            seen = dict.fromkeys(order, 0)
            records = []
            for stream in order:
                records.append((stream, seen[stream]))
                seen[stream] += 1
            cuts = np.sort(random.choice(len(records), 6, replace=False)).tolist()
            pairs = zip([0, *cuts], [*cuts, len(records)], strict=True)
            self.same(self.stepped([records[start:end] for start, end in pairs if start < end]), self.whole)

    def rows_of_garbage_do_not_reach_others(self) -> None:
        self.same(self.stepped(self.by_step(), (np.nan, np.inf, 3e38)), self.whole)

    def rows_that_are_not_in_the_batch_stay_as_they_are(self) -> None:
        states = np.full((3, self.program.state_size), 7, np.float32)
        first = np.ones(1, np.int32)
        self.engine.step_batch(np.array([1]), self.samples[:1, 0], states, first)
        assert (states[[0, 2]] == 7).all()
