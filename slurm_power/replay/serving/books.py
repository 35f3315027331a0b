"""What is noted of each request, and the fleet's joules over time."""

from __future__ import annotations

from array import array

import numpy as np

from slurm_power.replay.serving.trace import Numbers, Requests


class Books:
    """Columns by the request's number. A request that was never answered keeps a first token at -1."""

    def __init__(self, requests: Requests, *, tbt_s: float) -> None:
        count = requests.count
        self.tbt_s = tbt_s
        self.first_token_s = array("d", [-1.0]) * count
        self.finished_s = array("d", [-1.0]) * count
        self.prompt_left: list[int] = requests.prompt_tokens.tolist()
        self.context_of: list[int] = requests.prompt_tokens.tolist()
        self._prompts: list[int] = requests.prompt_tokens.tolist()
        self.answer_left: list[int] = (requests.output_tokens - 1).tolist()
        """Tokens after the one that the prompt's own iteration gives."""

        self.slow_gaps = [0] * count
        """Times between two tokens of this request that were longer than allowed."""

        self.foreseen_tokens = [0] * count
        self.gap_counts = [0] * 4000
        """Times between two tokens, in steps of half a millisecond."""

        self.finished = self.preemptions = self.retried = self.lost = 0

    def restart(self, request: int) -> None:
        """Its instance is lost before it had a token."""
        self.prompt_left[request] = self.context_of[request] = self._prompts[request]
        self.retried += 1

    def finish(self, request: int, now_s: float, slow_iterations: int) -> None:
        self.finished_s[request] = now_s
        self.slow_gaps[request] += slow_iterations
        self.finished += 1


class Meter:
    """Joules in slots of a minute; what lies in two slots is shared by time."""

    def __init__(self, span_s: float, slot_s: float = 60.0) -> None:
        self.slot_s = slot_s
        self.joules = [0.0] * (int(span_s / slot_s) + 2)

    def add(self, from_s: float, to_s: float, joules: float) -> None:
        slot_s = self.slot_s
        first, last = int(from_s / slot_s), int(to_s / slot_s)
        if last >= len(self.joules):
            self.joules.extend([0.0] * (last + 60 - len(self.joules)))
        if first == last:
            self.joules[first] += joules
            return
        watts = joules / (to_s - from_s)
        for slot in range(first, last + 1):
            begin, end = max(from_s, slot * self.slot_s), min(to_s, (slot + 1) * self.slot_s)
            self.joules[slot] += watts * (end - begin)

    def watts(self, span_s: float) -> Numbers:
        """Means of the slots that lie in the span."""
        whole = max(1, int(span_s / self.slot_s))
        return np.array(self.joules[:whole]) / self.slot_s
