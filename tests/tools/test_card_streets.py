"""The streets' card: its shares are counted right, and its table says what the JSON says."""

import importlib
import json

import numpy as np
import pytest

from recyclelora.data.classes import CLASSES


@pytest.fixture
def card(tool_module):
    return tool_module("card_streets")


def found(card, label):
    """What ``count_classes`` would find in this label map."""
    maps = np.zeros((19, card.MAP[1], card.MAP[0]))
    for i in range(19):
        maps[i] = (label == i)[:: label.shape[0] // card.MAP[1], :: label.shape[1] // card.MAP[0]]
    return np.bincount(label.ravel(), minlength=256), maps


def test_shares_of_known_labels(card):
    sky_and_road = np.full((64, 128), 255, np.uint8)
    sky_and_road[:16], sky_and_road[48:] = 10, 0
    road = np.zeros((64, 128), np.uint8)
    record, maps = card.summary([found(card, sky_and_road), found(card, road)])
    road, sky = record["classes"]["road"], record["classes"]["sky"]
    assert record["ignored_share"] == 0.25
    assert road["pixel_share"] == pytest.approx(1.25 / 1.5)
    assert sky["pixel_share"] == pytest.approx(0.25 / 1.5)
    assert (road["streets_with"], sky["streets_with"]) == (1.0, 0.5)
    assert sky["median_share_where_present"] == 0.25
    assert sky["mean_height"] == pytest.approx(0.125)
    assert maps[0].mean() == 0.625


def test_the_table_says_what_was_counted(card, tool_module, tmp_path, monkeypatch):
    monkeypatch.setattr(card, "HEIGHT", 64)
    monkeypatch.setattr(card, "WIDTH", 128)
    record, _ = card.summary([card.count_classes(0, index) for index in range(3)])
    record |= {
        "generator_version": 7,
        "settings": {"count": 3, "seed": 0, "height": 64, "width": 128},
        "seconds_a_street": {"day": 0.2, "night": 0.25},
        "environment": {"machine": "an abacus", "commit": "abc"},
    }
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "streets.json").write_text(json.dumps(record))
    tool = importlib.import_module("recyclelora.reproduce.readme")
    monkeypatch.setattr(tool, "ROOT", tmp_path)
    table = tool.streets_table()
    rows = {line.split("|")[1].strip(): line for line in table.splitlines() if line[:1] == "|"}
    for name in CLASSES:
        assert f"| {100 * record['classes'][name]['pixel_share']:.2f} " in rows[name]
    assert "day 5.0, night 4.0" in table and "an abacus" in table and "version 7" in table
