"""Moving averages of the weights."""

import pytest
import torch
from torch import nn

from recyclelora.engine.ema import WeightAverage, weight_average


def model() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    net[0].bias.requires_grad_(False)
    return net


def test_update_matches_definition_with_warmup():
    net, seen = model(), []
    average = WeightAverage(net, decay=0.5)
    expected = net[1].weight.detach().double()
    for iteration in range(8):
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.normal_()
        average.update(iteration)
        decay = min(0.5, (1 + iteration) / (10 + iteration))
        seen.append(decay)
        expected = decay * expected + (1 - decay) * net[1].weight.detach().double()
    assert seen[0] == 0.1 and seen[-1] == 0.47058823529411764
    torch.testing.assert_close(average.averages["1.weight"].double(), expected)
    assert set(average.averages) == {"0.weight", "1.weight", "1.bias"}


def test_update_before_start_copies_weights():
    net = model()
    average = WeightAverage(net, decay=0.75, start=2)
    for iteration in range(4):
        with torch.no_grad():
            net[1].bias.fill_(float(iteration))
        average.update(iteration)
        # The first two steps copy the weights. Later, the average has a weight of three quarters.
        expected = [0.0, 1.0, 0.75 * 1 + 0.25 * 2, 0.75 * 1.25 + 0.25 * 3][iteration]
        assert average.averages["1.bias"].tolist() == [expected] * 2


def test_weight_average_from_config_values():
    assert weight_average(model(), None) is None
    assert weight_average(model(), 0.9).start is None
    asked = weight_average(model(), {"decay": 0.9998, "start": 12_000})
    assert (asked.decay, asked.start) == (0.9998, 12_000)
    for wrong in ({"start": 3}, {"decay": 0.9, "steps": 1}, {"decay": "x"}, {}):
        with pytest.raises(ValueError, match=r"train\.ema"):
            weight_average(model(), wrong)
    with pytest.raises(ValueError, match=r"train\.ema\.start must be a whole number"):
        WeightAverage(model(), decay=0.9, start=-1)


def test_applied_restores_weights_after_error():
    net = model()
    average = WeightAverage(net, decay=0.9)
    with torch.no_grad():
        net[0].weight.add_(1.0)
    average.update(0)
    own = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(RuntimeError, match="in the middle"), average.applied():
        assert torch.equal(net[0].weight, average.averages["0.weight"])
        assert torch.equal(net[0].bias, own["0.bias"])
        raise RuntimeError("in the middle")
    torch.testing.assert_close(dict(net.state_dict()), own, rtol=0, atol=0)


def test_state_dict_round_trip_continues_exactly():
    net, other = model(), model()
    first = WeightAverage(net, decay=0.9)
    with torch.no_grad():
        net[1].bias.add_(1.0)
    first.update(0)
    second = WeightAverage(other, decay=0.9)
    other.load_state_dict(net.state_dict())
    second.load_state_dict({k: v.clone() for k, v in first.state_dict().items()})
    for average in (first, second):
        average.update(1)
    torch.testing.assert_close(first.averages, second.averages, rtol=0, atol=0)


def test_invalid_decay_or_state_raises():
    for decay in (0.0, 1.0, -1, 999):
        with pytest.raises(ValueError, match="between 0 and 1"):
            WeightAverage(model(), decay=decay)
    with pytest.raises(ValueError, match=r"not those that this model trains: missing: 0.weight,"):
        WeightAverage(model(), decay=0.9).load_state_dict({"1.weight": torch.zeros(2, 4)})
