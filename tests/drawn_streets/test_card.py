"""The card: its statistics are correct, and its table equals the JSON record."""

import json

import numpy as np
import pytest
from PIL import Image

from drawn_streets import card
from recyclelora.data.classes import CLASSES
from recyclelora.reproduce import readme


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(card, "HEIGHT", 64)
    monkeypatch.setattr(card, "WIDTH", 128)


def counts_of(label):
    """Return the result of ``count_classes`` for this label map."""
    maps = np.zeros((19, card.MAP[1], card.MAP[0]))
    for i in range(19):
        maps[i] = (label == i)[:: label.shape[0] // card.MAP[1], :: label.shape[1] // card.MAP[0]]
    return np.bincount(label.ravel(), minlength=256), maps


def test_summarise_known_labels_returns_their_shares():
    sky_and_road = np.full((64, 128), 255, np.uint8)
    sky_and_road[:16], sky_and_road[48:] = 10, 0
    road = np.zeros((64, 128), np.uint8)
    record, maps = card.summarise([counts_of(sky_and_road), counts_of(road)])
    road, sky = record["classes"]["road"], record["classes"]["sky"]
    assert record["ignored_share"] == 0.25
    assert road["pixel_share"] == pytest.approx(1.25 / 1.5)
    assert sky["pixel_share"] == pytest.approx(0.25 / 1.5)
    assert (road["streets_with"], sky["streets_with"]) == (1.0, 0.5)
    assert sky["median_share_where_present"] == 0.25
    assert sky["mean_height"] == pytest.approx(0.125)
    assert maps[0].mean() == 0.625


def test_card_table_of_a_record_shows_its_numbers(small, tmp_path, monkeypatch):
    record, _ = card.summarise([card.count_classes(0, index) for index in range(3)])
    record |= {
        "generator_version": 7,
        "settings": {"count": 3, "seed": 0, "height": 64, "width": 128},
        "seconds_a_street": {"day": 0.2, "night": 0.25},
        "environment": {"machine": "an abacus", "commit": "abc"},
    }
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "streets.json").write_text(json.dumps(record))
    table = readme.streets_table(tmp_path / "results")
    rows = {line.split("|")[1].strip(): line for line in table.splitlines() if line[:1] == "|"}
    for name in CLASSES:
        assert f"| {100 * record['classes'][name]['pixel_share']:.2f} " in rows[name]
    assert "day 5.0, night 4.0" in table and "an abacus" in table and "version 7" in table


def test_draw_picture_has_a_row_per_domain(small):
    sheet = card.draw_picture(np.zeros((19, card.MAP[1], card.MAP[0])), 0)
    assert sheet.size == (4 * 384, 11 * 192 + 2 * (4 * 384 // 20))
    assert np.asarray(sheet)[: 4 * 192].std() > 10


def test_write_picture_fits_into_the_size_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(card, "MAX_BYTES", 40_000)
    noise = np.random.default_rng(0).integers(0, 256, (192, 384, 3), np.uint8)
    card._write_picture(tmp_path / "card.jpg", Image.fromarray(noise))
    assert (tmp_path / "card.jpg").stat().st_size <= 40_000
