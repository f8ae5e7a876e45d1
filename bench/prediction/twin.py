"""The pool of bench/prediction/measure.py in virtual time: the emulated engine's batches behind one queue.

With the arrivals and lengths of the real run it gives the response times without the machine's overhead: the sampling
error is the same on both sides. With very many requests it is the reference of the formulas.
"""

from __future__ import annotations

import math
from collections import deque

import numpy as np
from numpy.typing import NDArray

from tierserve.queueing import BatchProfile
from tierserve.simulate.types import Workload
from tierserve_serving.engines.batch import Batch, Job

Floats = NDArray[np.float64]


class Twin:
    """Replicas in virtual time; a request goes to the least loaded, or waits at the gateway until a slot is free."""

    def __init__(self, asked: Workload, profile: BatchProfile, replicas: int, slots: int, held_s: float = 0.0) -> None:
        """A pool; `held_s` is how long a request holds its slot beyond its work (the path there and back)."""
        self.asked, self.slots, self.held_s = asked, slots, held_s
        self.batches = [Batch(profile) for _ in range(replicas)]
        self.due = [math.inf] * replicas
        self.queue: deque[int] = deque()
        self.who: dict[Job, int] = {}
        self.ends = np.zeros(len(asked))

    def run(self) -> Floats:
        """Return the seconds from arrival to last token of each request."""
        for one, t in enumerate(self.asked.times_s.tolist()):
            self._until(t)
            emptiest = min(range(len(self.batches)), key=lambda r: len(self.batches[r].jobs))
            if len(self.batches[emptiest].jobs) < self.slots:
                self._join(emptiest, one, t)
            else:
                self.queue.append(one)
        self._until(math.inf)
        return self.ends - self.asked.times_s

    def _until(self, t: float) -> None:
        while (moment := min(self.due)) <= t and moment < math.inf:
            replica = self.due.index(moment)
            for ended in self.batches[replica].advance(moment):
                self.ends[self.who.pop(ended.job)] = ended.at
                if self.queue:
                    self._join(replica, self.queue.popleft(), ended.at)
            self.due[replica] = self.batches[replica].next_event()

    def _join(self, replica: int, one: int, t: float) -> None:
        job = Job(int(self.asked.input_tokens[one]), int(self.asked.output_tokens[one]))
        self.who[job] = one
        self.batches[replica].join(job, t)
        job.prefill_own += self.held_s
        self.due[replica] = self.batches[replica].next_event()
