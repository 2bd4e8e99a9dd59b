"""The layer compared with recorded outputs of the published implementation."""

import pytest
import torch
from torch import nn

from recyclelora import DualLoRALinear


@pytest.mark.parametrize(
    "case",
    ["tall_48x32", "wide_32x48", "rank_deficient_48x32_rank20", "ties_duplicate_columns_48x32"],
)
def test_layer_matches_published_recording(golden, case):
    reference = golden("recyclelora_linear.pt")[case]
    weight, initial = reference["weight_pretrained"], reference["init"]
    linear = nn.Linear(weight.shape[1], weight.shape[0])
    linear.weight.data, linear.bias.data = weight.clone(), reference["bias"].clone()
    layer = DualLoRALinear.from_linear(linear, r_main=9, r_sub=3, alpha=1.0)
    assert layer.scaling == pytest.approx(reference["scaling"])
    expected_grad = reference["requires_grad_after_construction"]
    expected_grad["residual"] = expected_grad.pop("weight")
    assert {n: p.requires_grad for n, p in layer.named_parameters()} == expected_grad

    B = torch.cat([layer.lora_B_sub, layer.lora_B_main], dim=1).detach()
    torch.testing.assert_close(B.T @ B, torch.eye(12), atol=2e-6, rtol=0)
    torch.testing.assert_close(layer.effective_weight(), weight, atol=1e-6, rtol=0)
    assert torch.equal(layer.lora_A_sub, initial["lora_A_sub"])
    full_rank = reference["rrqr"]["numerical_rank_float64"] == 32
    signs = {}
    for kind in ("main", "sub"):
        B, expected = getattr(layer, f"lora_B_{kind}").detach(), initial[f"lora_B_{kind}"]
        signs[kind] = (B * expected).sum(0).sign()
        if kind == "sub" or full_rank:
            torch.testing.assert_close(B, expected * signs[kind], atol=2e-6, rtol=0)
    if not full_rank:  # the directions of main are rounding noise, orthogonal to range(W)
        assert (layer.lora_B_main.T @ weight).abs().max() < 1e-5
        assert (layer.lora_A_main.sum(1) == 1).all() and len(set(layer.columns.tolist())) == 12
    else:
        assert torch.equal(layer.lora_A_main, initial["lora_A_main"])
        compare_passes(layer, reference, "at_init", signs)
    # Use the signs of the reference from here on.
    with torch.no_grad():
        layer.residual.copy_(reference["perturbed"]["weight"])
        for name in ("lora_A_main", "lora_B_main", "lora_A_sub", "lora_B_sub"):
            getattr(layer, name).copy_(reference["perturbed"][name])
    compare_passes(layer, reference, "perturbed", {"main": torch.ones(9), "sub": torch.ones(3)})


def compare_passes(layer, reference, state, signs):
    """Forward pass, gradients, merged weight and output equal those of the published layer."""
    expected = reference[state]
    x = reference["x"].clone().requires_grad_()
    layer.zero_grad()
    out = layer(x)
    (out * reference["G"]).sum().backward()
    torch.testing.assert_close(out, expected["out_train"], atol=1e-5, rtol=0)
    close = {"atol": 1e-5, "rtol": 0}
    torch.testing.assert_close(x.grad, expected["grad_x"], **close)
    torch.testing.assert_close(layer.bias.grad, expected["grad_bias"], **close)
    for kind, sign in signs.items():
        A, B = getattr(layer, f"lora_A_{kind}"), getattr(layer, f"lora_B_{kind}")
        # If B has the other sign, the gradient of A has it too, and that of B does not change.
        torch.testing.assert_close(A.grad, expected[f"grad_lora_A_{kind}"] * sign[:, None], **close)
        torch.testing.assert_close(B.grad, expected[f"grad_lora_B_{kind}"], **close)
    layer.merge()
    torch.testing.assert_close(layer.merged_weight, expected["weight_merged"], atol=1e-6, rtol=0)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), expected["out_eval"], **close)
    layer.unmerge()
