"""Steps that are not finite never change the state."""

import pytest
import torch
from torch import nn

from recyclelora.engine.bad_batches import BadBatches
from recyclelora.engine.ema import WeightAverage
from recyclelora.engine.trainer import Trainer


class Toy(nn.Module):
    """A model whose loss is finite, NaN, or has an infinite gradient, depending on the sample."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(2, 1)
        self.dropout = nn.Dropout(0.5)

    def forward(self, samples):
        out = self.layer(self.dropout(torch.stack([s["image"] for s in samples]))).square().mean()
        kind = samples[0]["kind"]
        if kind == "nan":
            out = out * float("nan")
        elif kind == "gradient":
            out = (out * 0).sqrt() + 1.0
        return {"loss_a": out, "loss_b": 2 * out}


def batches(kinds, start=0):
    for number, kind in list(enumerate(kinds))[start:]:
        image = torch.full((2,), number + 1.0)
        yield [{"image": image, "kind": kind, "file_name": f"{number}.png"}]


def trainer(tmp_path, kinds, allowed=0, start=0):
    model = Toy()
    return Trainer(
        model=model,
        loader=list(batches(kinds, start)),
        optimizer=torch.optim.AdamW(model.parameters(), lr=0.1),
        schedule=lambda optimizer, iteration: None,
        bad_batches=BadBatches(tmp_path, allowed=allowed),
        average=WeightAverage(model, decay=0.9),
    )


def bits(run):
    state = run.state_dict() | {"model": run.model.state_dict()}
    del state["history"], state["skipped"]
    return {k: repr(v) for k, v in torch.utils._pytree.tree_flatten_with_path(state)[0]}


@pytest.mark.parametrize(("kind", "problem"), [("nan", "loss is nan"), ("gradient", "norm of")])
def test_bad_batch_raises_and_keeps_state(tmp_path, kind, problem):
    run, good = (trainer(tmp_path, ["good", "good", kind, "good"]) for _ in range(2))
    good.train(0, 2)
    sentence = rf"{problem}.* at iteration 2: .*iteration 2 \(2.png\) is saved in .*skip_bad_batch"
    with pytest.raises(FloatingPointError, match=sentence):
        run.train(0, 4)
    assert run.iter == 2
    assert bits(run) == bits(good)
    saved = torch.load(tmp_path / "bad_batch_0000002.pth", weights_only=True)
    assert saved["iteration"] == 2 and problem in saved["problem"]
    assert torch.equal(saved["samples"][0]["image"], torch.full((2,), 3.0))


def test_allowed_bad_batches_skipped_across_resume(tmp_path):
    kinds = ["nan", "good", "gradient", "good", "good", "nan"]
    run = trainer(tmp_path, kinds, allowed=2)
    with pytest.raises(FloatingPointError, match="skip_bad_batches=3"):
        run.train(0, 6)
    assert run.bad_batches.skipped == [0, 2]
    pairs = run.storage.history("total_loss").values()
    assert [iteration for _, iteration in pairs] == [1, 3, 4]

    first = trainer(tmp_path, kinds, allowed=2)
    first.train(0, 3)
    second = trainer(tmp_path, kinds, allowed=2, start=3)
    second.model.load_state_dict(first.model.state_dict())
    second.load_state_dict(first.state_dict())
    with pytest.raises(FloatingPointError, match="skip_bad_batches=3"):
        second.train(3, 6)
    assert bits(second) == bits(run)
    assert second.state_dict()["history"] == run.state_dict()["history"] | {
        "data_time": second.state_dict()["history"]["data_time"]
    }


def test_step_ignores_global_generator_state(tmp_path):
    plain, disturbed = (trainer(tmp_path, ["good"] * 4) for _ in range(2))
    plain.train(0, 4)
    disturbed.train(0, 2)
    torch.rand(7)
    disturbed.loader = list(batches(["good"] * 4, 2))
    disturbed.train(2, 4)
    assert bits(plain) == bits(disturbed)
