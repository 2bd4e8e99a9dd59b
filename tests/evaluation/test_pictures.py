import numpy as np
import pytest
from PIL import Image

from recyclelora.data import CLASSES, COLORS
from recyclelora.evaluation.pictures import Row, draw_rows, save_rows

RNG = np.random.default_rng(0)


def row(title="a", size=(40, 60)):
    ids = np.zeros(size, np.uint8)
    truth = np.full(size, 10, np.uint8)
    truth[:, :20] = 255
    return Row(title, RNG.integers(0, 256, (*size, 3), dtype=np.uint8), ids, truth, "note")


def test_columns_are_input_prediction_and_truth():
    only = row()
    sheet = np.array(draw_rows([only], width=60))
    top = 34 + 28
    cells = [sheet[top : top + 40, 8 + i * 68 : 68 + i * 68] for i in range(3)]
    assert np.array_equal(cells[0], only.image)
    assert (cells[1] == COLORS[0]).all()
    assert (cells[2][:, :20] == 0).all() and (cells[2][:, 20:] == COLORS[10]).all()


def test_legend_lists_occurring_classes():
    below = np.array(draw_rows([row()], width=200))[34 + 28 + 133 :]
    present = {tuple(color) for color in below.reshape(-1, 3).tolist()}
    assert {COLORS[0], COLORS[10], (0, 0, 0)} <= present
    # Without greys, which the smooth edges of letters also have.
    absent = {COLORS[i] for i in range(len(CLASSES)) if i not in (0, 10)}
    assert not {color for color in absent if len(set(color)) > 1} & present


def test_legend_wraps_at_picture_width():
    ids = np.arange(19, dtype=np.uint8).repeat(10)[None].repeat(50, 0)
    many = Row("all", np.zeros((50, 190, 3), np.uint8), ids, ids)
    sheet = np.array(draw_rows([many], width=190))
    swatches = {tuple(color) for color in sheet[34 + 28 + 50 :].reshape(-1, 3).tolist()}
    assert set(COLORS) <= swatches


def test_rows_of_different_shapes_fit_one_picture():
    tall = Row("tall", np.zeros((80, 40, 3), np.uint8), *[np.zeros((160, 80), np.uint8)] * 2)
    assert draw_rows([row(), tall], width=60).height > 40 + 120


def test_save_rows_leaves_no_temporary_file(tmp_path):
    file = save_rows(tmp_path / "deep" / "rows.png", [row("a"), row("b")])
    with Image.open(file) as image:
        image.load()
    assert [entry.name for entry in file.parent.iterdir()] == ["rows.png"]


def test_draw_no_rows_raises():
    with pytest.raises(ValueError, match="at least one row to draw, got none"):
        draw_rows([])
