"""AdamW and SGD: the textbook's numbers in FP32, moments rounded as the table says."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from training.errors import ConfigError  # noqa: E402
from training.optim import OptimizerSettings, build_optimizer  # noqa: E402
from training.precision import policy  # noqa: E402

pytestmark = pytest.mark.torch


def _gradients(steps: int, elements: int = 1000):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(elements, generator=generator) for _ in range(steps)]


def _run(settings: OptimizerSettings, policy_name: str, gradients, *, weight_decay: float = 0.1):
    master = torch.linspace(-1.0, 1.0, gradients[0].numel()).requires_grad_()
    groups = [{"params": [master], "weight_decay": weight_decay}]
    optimizer = build_optimizer(groups, settings, policy(policy_name))
    for gradient in gradients:
        master.grad = gradient.clone()
        optimizer.step()
    return master.detach(), optimizer.state[master]


def test_adamw_in_fp32_is_torchs_own():
    settings = OptimizerSettings(learning_rate=0.01, beta1=0.9, beta2=0.999)
    gradients = _gradients(10)
    ours, _ = _run(settings, "fp32", gradients)
    theirs = torch.linspace(-1.0, 1.0, 1000).requires_grad_()
    reference = torch.optim.AdamW([theirs], lr=0.01, betas=(0.9, 0.999), weight_decay=0.1)
    for gradient in gradients:
        theirs.grad = gradient.clone()
        reference.step()
    torch.testing.assert_close(ours, theirs.detach(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("policy_name", ["bf16", "fp8"])
def test_moments_are_bf16_beside_an_fp32_master_copy(policy_name):
    master, state = _run(OptimizerSettings(learning_rate=0.01), policy_name, _gradients(3))
    assert master.dtype is torch.float32
    assert state["exp_avg"].dtype is state["exp_avg_sq"].dtype is torch.bfloat16
    assert state["step"] == 3


def test_the_first_bf16_step_is_the_fp32_step():
    """Moments are rounded for the next step, not for this one."""
    settings = OptimizerSettings(learning_rate=0.01)
    low, _ = _run(settings, "bf16", _gradients(1))
    full, _ = _run(settings, "fp32", _gradients(1))
    assert torch.equal(low, full)


def test_a_value_does_not_depend_on_its_place_in_the_partition():
    """Stages hold parameters at other places of the flat partition, where a vector loop may end."""
    settings = OptimizerSettings(learning_rate=0.01)
    gradients = _gradients(3)
    whole, _ = _run(settings, "bf16", gradients)
    start = torch.linspace(-1.0, 1.0, 1000)[7:].clone().requires_grad_()
    optimizer = build_optimizer([{"params": [start], "weight_decay": 0.1}], settings, policy("bf16"))
    for gradient in gradients:
        start.grad = gradient[7:].clone()
        optimizer.step()
    assert torch.equal(whole[7:], start.detach())


def test_sgd_is_a_plain_step_after_the_decay():
    master, state = _run(OptimizerSettings(kind="sgd", learning_rate=0.5), "bf16", _gradients(1))
    expected = torch.linspace(-1.0, 1.0, 1000) * (1 - 0.5 * 0.1) - 0.5 * _gradients(1)[0]
    torch.testing.assert_close(master, expected, rtol=1e-6, atol=1e-7)
    assert set(state) == {"step"}


def test_without_a_gradient_nothing_moves():
    master = torch.ones(4).requires_grad_()
    optimizer = build_optimizer(
        [{"params": [master], "weight_decay": 0.1}], OptimizerSettings(learning_rate=0.1), policy("bf16")
    )
    optimizer.step()
    assert torch.equal(master.detach(), torch.ones(4))
    assert not optimizer.state[master]


def test_bf16_moments_that_could_never_shrink_are_refused():
    settings = OptimizerSettings(learning_rate=0.1, beta2=0.999)
    with pytest.raises(ConfigError, match=r"optimizer.beta2 = 0.999: BF16 moments cannot decay so slowly"):
        build_optimizer([{"params": [torch.ones(1)]}], settings, policy("fp8"))


def test_just_below_that_bound_a_bf16_moment_does_shrink():
    settings = OptimizerSettings(learning_rate=0.0, beta2=1.0 - 2.0**-8)
    first, zero = torch.ones(8) * 3.0, torch.zeros(8)
    _, once = _run(settings, "bf16", [first])
    _, later = _run(settings, "bf16", [first, *[zero] * 50])
    assert (later["exp_avg_sq"] < once["exp_avg_sq"]).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "lion"}, "optimizer.kind = lion: must be one of adamw, sgd"),
        ({"learning_rate": -1.0}, "optimizer.learning_rate = -1.0: must not be negative"),
        ({"weight_decay": -0.1}, "optimizer.weight_decay = -0.1: must not be negative"),
        ({"beta1": 1.0}, r"optimizer.beta1 = 1.0: must be in \[0, 1\)"),
        ({"epsilon": 0.0}, "optimizer.epsilon = 0.0: must be positive"),
    ],
)
def test_a_bad_setting_is_named(change, message):
    with pytest.raises(ConfigError, match=message):
        OptimizerSettings(**({"learning_rate": 0.1} | change))
