"""Sampling, against transformers' own logits processors where they exist."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from job_wrappers.serving.requests.params import SamplingParams  # noqa: E402
from job_wrappers.serving.sampling.noise import uniform  # noqa: E402
from job_wrappers.serving.sampling.sampler import SampleRow, sample  # noqa: E402
from job_wrappers.serving.sampling.shaping import floors, penalise  # noqa: E402

pytestmark = pytest.mark.torch


def row(params: SamplingParams, *, seed: int = 1, choice: int = 0, generated: tuple[int, ...] = ()) -> SampleRow:
    return SampleRow(params, seed, choice, (1, 2, 3), generated)


def logits(rows: int = 1, vocabulary: int = 50, seed: int = 0) -> Any:
    return torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(seed)) * 3


def test_greedy_takes_the_most_probable_token_of_each_row() -> None:
    many = logits(4)
    tokens = sample(many, [row(SamplingParams(temperature=0.0))] * 4)
    assert [t.token_id for t in tokens] == many.argmax(dim=-1).tolist()


@pytest.mark.parametrize("top_k", [1, 5, 299, 400, 5000, 0])
@pytest.mark.parametrize("top_p", [0.05, 0.3, 0.9, 0.999, 1.0])
@pytest.mark.parametrize("min_p", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("sharpness", [0.1, 3.0])
def test_cut_offs_keep_the_tokens_that_transformers_keeps(
    top_k: int, top_p: float, min_p: float, sharpness: float
) -> None:
    """Flat logits need more than the few tokens that are put in order first."""
    process = pytest.importorskip("transformers.generation.logits_process")
    ours = logits(vocabulary=5000).double() * sharpness
    theirs = ours.clone()
    if top_k:
        theirs = process.TopKLogitsWarper(top_k)(None, theirs)
    if top_p < 1.0:
        theirs = process.TopPLogitsWarper(top_p)(None, theirs)
    if min_p:
        theirs = process.MinPLogitsWarper(min_p)(None, theirs)
    floor = floors(ours, [SamplingParams(top_k=top_k, top_p=top_p, min_p=min_p)])
    assert torch.equal(ours < floor, torch.isinf(theirs))


def test_each_row_is_cut_by_its_own_rule() -> None:
    rules = [
        SamplingParams(),
        SamplingParams(top_k=3),
        SamplingParams(top_p=0.2),
        SamplingParams(min_p=0.5),
        SamplingParams(top_k=40, top_p=0.7, min_p=0.01),
    ]
    together = floors(logits(5), rules)
    alone = [floors(logits(5)[i : i + 1], [rule])[0] for i, rule in enumerate(rules)]
    torch.testing.assert_close(together, torch.stack(alone))


def test_the_repetition_penalty_is_that_of_transformers() -> None:
    process = pytest.importorskip("transformers.generation.logits_process")
    theirs = process.RepetitionPenaltyLogitsProcessor(1.3)(torch.tensor([[1, 2, 3, 7]]), logits(2)[1:])
    ours = logits(2)
    penalise(ours, [SamplingParams(), SamplingParams(repetition_penalty=1.3)], [[9], [1, 2, 3]], [[], [7, 7]])
    torch.testing.assert_close(ours, torch.cat([logits(2)[:1], theirs]))


def test_presence_and_frequency_count_the_answer_alone() -> None:
    flat = torch.zeros(2, 10)
    params = [SamplingParams(presence_penalty=0.5, frequency_penalty=0.25), SamplingParams(presence_penalty=-1.0)]
    penalise(flat, params, [[1, 2], [1]], [[5, 5, 6], []])
    assert flat.tolist() == [[0, 0, 0, 0, 0, -1.0, -0.75, 0, 0, 0], [0.0] * 10]


def test_a_penalty_changes_what_greedy_takes() -> None:
    flat = torch.tensor([[1.0, 0.9, 0.0]] * 2)
    rows = [SampleRow(SamplingParams(temperature=0.0, presence_penalty=0.5), 1, 0, (1,), (0,)),
            SampleRow(SamplingParams(temperature=0.0), 1, 0, (1,), (0,))]  # fmt: skip
    assert [token.token_id for token in sample(flat, rows)] == [1, 0]


def test_logits_stay_as_they_were() -> None:
    given, rows = logits(2), [row(SamplingParams(repetition_penalty=2.0, top_k=2, logprobs=2))] * 2
    sample(given, rows)
    assert torch.equal(given, logits(2))


@pytest.mark.parametrize("temperature", [1e-30, 1e-6])
def test_next_to_no_temperature_is_greedy(temperature: float) -> None:
    many = logits(20)
    tokens = sample(many, [row(SamplingParams(temperature=temperature), seed=i) for i in range(20)])
    assert [t.token_id for t in tokens] == many.argmax(dim=-1).tolist()


def test_tokens_that_are_cut_off_are_never_drawn() -> None:
    many = logits(1).expand(500, -1)
    best = set(logits()[0].topk(3).indices.tolist())
    drawn = {t.token_id for t in sample(many, [row(SamplingParams(top_k=3), seed=i) for i in range(500)])}
    assert drawn == best


def test_a_choice_draws_as_the_request_of_the_next_seed() -> None:
    """So says the API's text on `seed`."""
    assert uniform(7, 1, 3) == uniform(8, 0, 3)
    draws = [uniform(seed, 0, position) for seed in range(-5, 45) for position in range(20)]
    assert len(set(draws)) == 1000
    assert sum(draws) / 1000 == pytest.approx(0.5, abs=0.03)
    assert all(0.0 <= draw < 1.0 for draw in draws)


def test_a_seed_gives_the_same_token_whatever_runs_beside_it() -> None:
    params = SamplingParams(temperature=1.0, seed=7)
    alone = sample(logits(), [row(params, seed=7, generated=(4,))])[0].token_id
    crowd = torch.cat([logits(5, seed=9), logits()])
    others = [row(SamplingParams(), seed=i) for i in range(5)]
    assert sample(crowd, [*others, row(params, seed=7, generated=(4,))])[5].token_id == alone


def test_choices_and_positions_draw_differently() -> None:
    flat = torch.zeros(1, 1000)
    params = SamplingParams()
    drawn = {sample(flat, [row(params, choice=c, generated=(0,) * n)])[0].token_id for c in range(4) for n in range(4)}
    assert len(drawn) > 12


def test_tokens_come_as_often_as_their_probability_says() -> None:
    shares = torch.tensor([[0.5, 0.3, 0.2]]).log()
    counts = Counter(sample(shares, [row(SamplingParams(), seed=i)])[0].token_id for i in range(4000))
    assert [counts[i] / 4000 for i in range(3)] == pytest.approx([0.5, 0.3, 0.2], abs=0.03)


def test_logprobs_are_those_of_the_model_and_the_best_come_first() -> None:
    found = sample(logits(), [row(SamplingParams(temperature=0.0, logprobs=3))])[0]
    wanted = logits()[0].log_softmax(dim=-1)
    assert found.logprob is not None
    assert found.logprob.logprob == pytest.approx(float(wanted.max()), abs=1e-6)
    assert [value for _, value in found.logprob.top] == pytest.approx(wanted.topk(3).values.tolist(), abs=1e-6)


def test_no_top_logprobs_still_say_the_chosen_one() -> None:
    found = sample(logits(), [row(SamplingParams(temperature=0.0, logprobs=0))])[0]
    assert found.logprob is not None
    assert found.logprob.top == ()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("params", [SamplingParams(temperature=0.0), SamplingParams(top_p=0.9, top_k=7, logprobs=2)])
def test_logits_that_are_no_numbers_end_that_row_alone(bad: float, params: SamplingParams) -> None:
    many, sound = logits(3), logits(3)
    many[1, 4] = bad
    tokens, wanted = (sample(each, [row(params)] * 3) for each in (many, sound))
    assert [t.failed for t in tokens] == [False, True, False]
    assert [tokens[0], tokens[2]] == [wanted[0], wanted[2]]


def test_a_token_that_can_not_come_is_no_failure() -> None:
    masked = torch.tensor([[float("-inf"), 0.0], [float("-inf"), float("-inf")]])
    assert [t.failed for t in sample(masked, [row(SamplingParams())] * 2)] == [False, True]


def test_rows_of_all_kinds_go_together_as_they_go_alone() -> None:
    kinds = [
        SamplingParams(temperature=0.0),
        SamplingParams(temperature=0.7, top_k=10),
        SamplingParams(temperature=0.0, logprobs=4),
        SamplingParams(repetition_penalty=1.2, logprobs=0),
        SamplingParams(min_p=0.2, frequency_penalty=0.3, top_p=0.8, logprobs=2),
    ]
    rows = [row(params, seed=i, generated=(4, 4, 9)) for i, params in enumerate(kinds)]
    together = sample(logits(5), rows)
    for i, each in enumerate(rows):
        alone = sample(logits(5)[i : i + 1], [each])[0]
        assert alone.token_id == together[i].token_id
        mine, other = alone.logprob, together[i].logprob
        assert (mine is None) == (other is None) == (kinds[i].logprobs is None)
        if mine is not None and other is not None:
            assert mine.logprob == pytest.approx(other.logprob)
            assert [token for token, _ in mine.top] == [token for token, _ in other.top]
            assert len(mine.top) == kinds[i].logprobs
