"""One awake model: its scheduler, its ranks, and the texts of the requests that run on it.

`step` is one iteration, and the table of contents of the engine.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from collections.abc import Sequence as Items
from dataclasses import dataclass, field

from torch import Tensor

from job_wrappers.serving.engine.config import EnginePorts, StepRecord
from job_wrappers.serving.engine.energy import EnergyShares
from job_wrappers.serving.engine.figures import Figures
from job_wrappers.serving.kv.sizing import CacheSize
from job_wrappers.serving.ranks.team import Team
from job_wrappers.serving.requests.output import ChoiceOutput, FinishReason, RequestUsage
from job_wrappers.serving.requests.request import Request
from job_wrappers.serving.sampling.sampler import SampledToken, SampleRow, sample
from job_wrappers.serving.scheduling.build_step import build_step
from job_wrappers.serving.scheduling.scheduler import Scheduler
from job_wrappers.serving.scheduling.sequence import Sequence
from job_wrappers.serving.scheduling.step_plan import StepPlan
from job_wrappers.serving.text.output_processor import ChoiceText, Piece
from job_wrappers.serving.text.tokenizer import ModelText

Listener = Callable[[ChoiceOutput], None]


@dataclass(slots=True)
class _Live:
    """A request that has not ended."""

    request: Request
    listener: Listener
    seed: int
    open_choices: int
    choices: dict[int, ChoiceText] = field(default_factory=dict)
    completion_tokens: int = 0
    cached_tokens: int = 0
    preemptions: int = 0
    queued_s: float = 0.0
    first_token_at_s: float | None = None
    last_token_at_s: float = 0.0


class ModelEngine:
    def __init__(
        self,
        name: str,
        *,
        team: Team,
        scheduler: Scheduler,
        size: CacheSize,
        text: ModelText | None,
        eos: frozenset[int],
        shares: EnergyShares,
        figures: Figures,
        ports: EnginePorts,
        check_invariants: bool = False,
    ) -> None:
        self.name, self.scheduler, self.size, self.text = name, scheduler, size, text
        self._team, self._eos, self._shares, self._figures, self._ports = team, eos, shares, figures, ports
        self._checks = check_invariants
        self._live: dict[str, _Live] = {}

    @property
    def has_work(self) -> bool:
        return self.scheduler.has_work

    def submit(self, request: Request, listener: Listener) -> None:
        """Raise RequestRefused kinds."""
        self.scheduler.add(request)
        seed = request.params.seed if request.params.seed is not None else secrets.randbits(62)
        self._live[request.request_id] = _Live(request, listener, seed, request.params.n)

    def cancel(self, request_id: str, reason: FinishReason = FinishReason.CANCELLED, error: str | None = None) -> None:
        """A request that is not known here has ended already."""
        self._end_request(request_id, self.scheduler.cancel(request_id, reason), reason, error)

    def fail_all(self, error: str) -> None:
        """Every request is told. The scheduler is not asked: it may be what broke."""
        for live in list(self._live.values()):
            output = ChoiceOutput(
                request_id=live.request.request_id,
                choice=0,
                finish_reason=FinishReason.ERROR,
                usage=self._usage(live),
                error=error,
            )
            live.listener(output)
            self._forget(live, FinishReason.ERROR)

    def live_requests(self) -> list[tuple[Request, float | None]]:
        """Those that have not ended, with when their last token came (None: none yet)."""
        return [(live.request, live.last_token_at_s or None) for live in list(self._live.values())]

    def step(self) -> bool:
        """One iteration. False: there was nothing to do."""
        self._end_late()
        plan = self.scheduler.plan()
        if plan is None:
            return False
        began_s = self._ports.now_s()
        self._shares.begin()
        logits = self._team.run(self.name, build_step(plan, block_tokens=self.scheduler.block_tokens))
        tokens = self._sample(plan, logits)
        self.scheduler.advance(plan, {sequence: token.token_id for sequence, token in tokens.items()})
        self._account(plan, began_s)
        for sequence, token in tokens.items():
            self._hand_out(sequence, token)
        if self._checks:
            self.scheduler.check_invariants()
        return True

    def _end_late(self) -> None:
        late: dict[str, list[Sequence]] = {}
        for sequence in self.scheduler.expire():
            late.setdefault(sequence.request.request_id, []).append(sequence)
        for request_id, sequences in late.items():
            self._end_request(request_id, sequences, FinishReason.DEADLINE, None)

    def _end_request(
        self, request_id: str, sequences: Items[Sequence], reason: FinishReason, error: str | None
    ) -> None:
        """Choices that were never begun have no sequence: the last one that has one ends the request."""
        live = self._live.get(request_id)
        if live is None:
            return
        live.open_choices = len(sequences)
        for sequence in sequences:
            self._end_choice(live, sequence, Piece("", reason), error=error)
        self._forget(live, reason)

    def _sample(self, plan: StepPlan, logits: Tensor | None) -> Mapping[Sequence, SampledToken]:
        if logits is None or not plan.samplers:
            return {}
        rows = [i for i, entry in enumerate(e for e in plan.scheduled if e.samples) for _ in entry.samplers]
        wanted = logits if len(rows) == len(logits) else logits[rows]
        return dict(zip(plan.samplers, sample(wanted, [self._row(s) for s in plan.samplers]), strict=True))

    def _row(self, sequence: Sequence) -> SampleRow:
        request = sequence.request
        seed = self._live[request.request_id].seed
        return SampleRow(request.params, seed, sequence.choice, request.prompt_token_ids, sequence.generated)

    def _hand_out(self, sequence: Sequence, token: SampledToken) -> None:
        live = self._live[sequence.request.request_id]
        live.completion_tokens += 1
        self._time_token(live, sequence)
        if token.failed:
            self.scheduler.finish(sequence, FinishReason.ERROR)
            self._end_choice(live, sequence, Piece("", FinishReason.ERROR), error="the model's logits are not numbers")
            return
        piece = self._text_of(live, sequence).add(token.token_id, full_length=sequence.full_length)
        if piece.finish_reason is not None:
            self.scheduler.finish(sequence, piece.finish_reason)
            self._end_choice(live, sequence, piece, token)
        else:
            live.listener(self._output(live, sequence, piece, token))

    def _text_of(self, live: _Live, sequence: Sequence) -> ChoiceText:
        if sequence.choice not in live.choices:
            decode = None if self.text is None else self.text.decode
            prompt = live.request.prompt_token_ids
            live.choices[sequence.choice] = ChoiceText(live.request.params, decode=decode, eos=self._eos, prompt=prompt)
        return live.choices[sequence.choice]

    def _time_token(self, live: _Live, sequence: Sequence) -> None:
        now_s, priority = self._ports.now_s(), live.request.priority
        if live.first_token_at_s is None:
            live.first_token_at_s = now_s
            live.queued_s = (sequence.first_scheduled_at_s or now_s) - live.request.arrived_at_s
            live.cached_tokens = sequence.cached_tokens
            self._figures.first_token[priority].add(now_s - live.request.arrived_at_s)
        elif sequence.choice == 0:
            self._figures.between_tokens[priority].add(now_s - live.last_token_at_s)
        live.last_token_at_s = now_s

    def _end_choice(
        self,
        live: _Live,
        sequence: Sequence,
        piece: Piece,
        token: SampledToken | None = None,
        *,
        error: str | None = None,
    ) -> None:
        live.open_choices -= 1
        live.preemptions += sequence.preemptions
        usage = self._usage(live) if live.open_choices == 0 else None
        live.listener(self._output(live, sequence, piece, token, usage=usage, error=error))
        if usage is not None:
            self._forget(live, piece.finish_reason or FinishReason.STOP)

    def _forget(self, live: _Live, reason: FinishReason) -> None:
        if self._live.pop(live.request.request_id, None) is not None:
            self._figures.on_finish(reason)
            self._figures.whole[live.request.priority].add(self._ports.now_s() - live.request.arrived_at_s)

    def _usage(self, live: _Live) -> RequestUsage:
        request, now_s = live.request, self._ports.now_s()
        first = live.first_token_at_s
        return RequestUsage(
            prompt_tokens=len(request.prompt_token_ids),
            cached_tokens=live.cached_tokens,
            completion_tokens=live.completion_tokens,
            energy_joules=self._shares.take(request.request_id),
            queued_s=live.queued_s if first is not None else now_s - request.arrived_at_s,
            time_to_first_token_s=None if first is None else first - request.arrived_at_s,
            total_s=now_s - request.arrived_at_s,
            preemptions=live.preemptions,
        )

    @staticmethod
    def _output(
        live: _Live,
        sequence: Sequence,
        piece: Piece,
        token: SampledToken | None = None,
        *,
        usage: RequestUsage | None = None,
        error: str | None = None,
    ) -> ChoiceOutput:
        return ChoiceOutput(
            request_id=live.request.request_id,
            choice=sequence.choice,
            token_ids=() if token is None else (token.token_id,),
            text=piece.text,
            logprobs=() if token is None or token.logprob is None else (token.logprob,),
            finish_reason=piece.finish_reason,
            usage=usage,
            error=error,
        )

    def _account(self, plan: StepPlan, began_s: float) -> None:
        by_request: dict[str, int] = {}
        prefill = 0
        for entry in plan.scheduled:
            request_id = entry.sequence.request.request_id
            by_request[request_id] = by_request.get(request_id, 0) + entry.new_tokens
            prefill += entry.new_tokens if entry.new_tokens > 1 else 0
        self._shares.add(by_request)
        self._figures.on_tokens(prompt=prefill, generated=len(plan.samplers), joules=self._shares.total_joules)
        if self._ports.on_step is not None:
            now_s = self._ports.now_s()
            self._ports.on_step(
                StepRecord(
                    model=self.name,
                    ended_at_s=now_s,
                    step_s=now_s - began_s,
                    prefill_tokens=prefill,
                    decode_tokens=plan.new_tokens - prefill,
                    sequences=len(plan.scheduled),
                    max_num_seqs=self.scheduler.limits.max_num_seqs,
                )
            )
