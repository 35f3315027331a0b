"""The precision table: its printed form is frozen, and a typo never picks a dtype."""

from __future__ import annotations

import pytest

from training.errors import ConfigError
from training.precision import BF16, DIAGRAM, FP8, FP32, TABLES, Kind, PrecisionPolicy, describe, policy

PRINTED = """\
MoE, mixture of experts
  input          bf16
  router         bf16 x bf16, accumulate fp32 -> bf16
  hidden         bf16
  dispatch       fp8 on the wire -> bf16
  expert         fp8 x fp8, accumulate fp32 -> bf16
  combine        bf16 on the wire -> bf16
  output         bf16

MLA, multi-head latent attention
  input          bf16
  hidden         bf16
  norm           fp32 -> bf16
  kv_compress    bf16 x bf16, accumulate fp32 -> bf16
  q_proj         fp8 x fp8, accumulate fp32 -> bf16
  kv_proj        fp8 x fp8, accumulate fp32 -> bf16
  query          fp8 stored -> bf16
  key            fp8 stored -> bf16
  value          fp8 stored -> bf16
  core           bf16, accumulate fp32 -> bf16
  o_proj         fp8 x fp8, accumulate fp32 -> bf16
  output         bf16

MTP, multi-token prediction
  embedding      bf16
  norm           fp32 -> bf16
  projection     bf16 x bf16, accumulate fp32 -> bf16
  block          bf16
  hidden         bf16
"""


def test_the_three_diagrams_print_as_the_brief_draws_them():
    assert describe().startswith(PRINTED)


def test_what_the_diagrams_leave_open_is_printed_too():
    around = describe().removeprefix(PRINTED)
    assert around.strip().splitlines()[0] == "Around them"
    for name in ("embedding", "ffn.linear", "head", "loss", "optimizer.master"):
        assert f"  {name}" in around
    assert len(describe().splitlines()) == len(DIAGRAM) + len(("MoE", "MLA", "MTP", "Around them")) + 3  # empty lines


def test_every_product_and_norm_accumulates_in_fp32():
    assert {op.accumulate for table in TABLES.values() for op in table.values()} == {FP32}


def test_the_bf16_table_differs_only_where_fp8_was():
    for name, op in DIAGRAM.items():
        other = TABLES["bf16"][name]
        assert (other == op) is (FP8 not in (op.compute, op.output, op.wire))


def test_the_fp32_table_rounds_nowhere():
    for op in TABLES["fp32"].values():
        assert {op.compute, op.output, op.accumulate} | ({op.wire} if op.wire else set()) == {FP32}


def test_master_weights_and_gradients_are_fp32_and_moments_bf16():
    assert DIAGRAM["optimizer.master"].output is FP32
    assert DIAGRAM["optimizer.gradient"].output is FP32
    assert DIAGRAM["optimizer.moments"].output is BF16


def test_only_wires_have_a_wire_precision():
    assert {name for name, op in DIAGRAM.items() if op.wire} == {"moe.dispatch", "moe.combine"}
    assert {op.kind for op in DIAGRAM.values() if op.wire} == {Kind.WIRE}


def test_parameters_are_kept_in_the_precision_of_the_embeddings_output():
    assert [policy(name).parameter for name in ("fp8", "bf16", "fp32")] == [BF16, BF16, FP32]


def test_an_unknown_operation_is_refused():
    with pytest.raises(ConfigError, match=r"^operation = mla\.q_porj: not in the precision table$"):
        policy("fp8").op("mla.q_porj")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "fp16"}, r"^precision\.policy = fp16: must be one of fp8, bf16, fp32$"),
        (
            {"name": "fp8", "backend": "cublas"},
            r"^precision\.backend = cublas: must be one of auto, emulate, scaled_mm, triton$",
        ),
        ({"name": "fp8", "weight_gradient": "fp32"}, r"^precision\.weight_gradient = fp32: must be fp8 or bf16$"),
    ],
)
def test_an_unknown_choice_is_refused_with_what_is_known(arguments, message):
    with pytest.raises(ConfigError, match=message):
        policy(**arguments)


def test_a_policy_built_by_hand_is_checked_as_well():
    with pytest.raises(ConfigError, match=r"precision\.weight_gradient"):
        PrecisionPolicy(name="fp8", table=DIAGRAM, weight_gradient=FP32)


def test_the_observer_is_no_part_of_a_policys_identity():
    one = policy("fp8")
    other = PrecisionPolicy(name="fp8", table=DIAGRAM, observer=lambda op, role, tensor: None)
    assert one == other
    assert "observer" not in repr(one)
