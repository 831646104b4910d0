"""The pictures hold what they were given."""

from __future__ import annotations

import pytest
import torch

from otcore_ae import Flower, plots
from otcore_ae.history import Curve
from otcore_ae.plots.images import tile

NAMES = ["local", "global"]


def test_tiles_stand_where_they_should() -> None:
    images = torch.rand(5, 1, 3, 4)
    canvas = tile(images, columns=2)
    assert canvas.shape == (3 * 3 + 2, 2 * 4 + 1)
    assert torch.equal(canvas[:3, 5:], images[1, 0])
    assert torch.equal(canvas[8:, :4], images[4, 0])
    assert canvas[3].isnan().all()
    assert canvas[8:, 5:].isnan().all()


@pytest.mark.parametrize("n", [50, 1000])
def test_latent_points_draws_every_point(n: int) -> None:
    prior = Flower()
    clouds = {name: (prior(n), torch.arange(n) % 10) for name in NAMES}
    figure = plots.latent_points(clouds, prior(70))
    for axis, name in zip(figure.axes, NAMES, strict=True):
        assert name in axis.get_title()
        assert sum(len(points.get_offsets()) for points in axis.collections) == n + 70
        assert axis.get_aspect() == 1


def test_image_grids_have_a_panel_per_system() -> None:
    images = {name: torch.rand(20, 1, 8, 8) for name in NAMES}
    assert len(plots.samples(images, columns=5, note="note").axes) == 2
    assert [axis.get_ylabel() for axis in plots.reconstructions(images["local"], images).axes] == [
        "original",
        *NAMES,
    ]


def test_noise_is_drawn_over_images() -> None:
    prior = Flower()
    clouds = {name: ((prior(30), torch.arange(30) % 10), (prior(7), torch.arange(7))) for name in NAMES}
    figure = plots.encoded_and_made(clouds, title="title")
    for axis, name in zip(figure.axes, NAMES, strict=True):
        assert axis.get_title() == name
        dots, rings = axis.collections
        assert torch.equal(torch.from_numpy(rings.get_offsets().filled()), clouds[name][1][0].double())
        assert len(dots.get_offsets()) == 30
        assert rings.get_zorder() > dots.get_zorder()


def test_responses_have_one_scale_of_colours() -> None:
    counts = {name: torch.randint(0, 1000, (3, 1, 4, 4)).float() for name in NAMES}
    *panels, bar = plots.responses(counts, ["one", "two", "three"], title="title").axes
    assert [tick.get_text() for tick in panels[0].get_yticklabels()] == ["one", "two", "three"]
    for panel, images in zip(panels, counts.values(), strict=True):
        (shown,) = panel.images
        assert torch.equal(torch.from_numpy(shown.get_array().filled())[:4], images[0, 0].clamp_min(0.5))
        assert shown.norm.vmax == max(float(each.max()) for each in counts.values())
        assert shown.cmap(shown.norm(0.5)) == (1, 1, 1, 1)
    assert bar.get_ylabel() == "photons in a fibre"


def test_channel_sums_count_every_response() -> None:
    sums = {name: torch.rand(50, 2) * 700 for name in NAMES}
    sums["local"][0] = torch.tensor([0.0, 700.6])
    figure = plots.channel_sums(sums, ["first", "second"], title="title")
    assert [axis.get_title() for axis in figure.axes] == ["first", "second"]
    for axis in figure.axes:
        assert [int(stairs.get_data().values.sum()) for stairs in axis.patches] == [50, 50]
        assert [stairs.get_fill() for stairs in axis.patches] == [True, False]


def test_a_decoded_grid_shows_every_image_where_its_code_is() -> None:
    def decode(codes: torch.Tensor) -> torch.Tensor:
        return (codes[:, 0] + 10 * codes[:, 1])[:, None, None, None].expand(-1, 1, 2, 2)

    figure = plots.decoded_grid(decode, reach=2.0, steps=5)
    (image,) = figure.axes[0].images
    shown = torch.from_numpy(image.get_array().filled())[::3, ::3]
    assert shown.shape == (5, 5)
    assert torch.equal(shown[0], torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0]) + 20)
    assert torch.equal(shown[:, 0], torch.tensor([20.0, 10.0, 0.0, -10.0, -20.0]) - 2)
    left, right, bottom, top = image.get_extent()
    pixel = (right - left) / (5 * 3 - 1)
    assert [left + pixel, right - pixel, bottom + pixel, top - pixel] == pytest.approx([-2.0, 2.0, -2.0, 2.0])


def test_curves_show_values_and_levels() -> None:
    curves = {name: {"train/latent": Curve([1, 2], [0.5, 0.25])} for name in NAMES}
    levels = {"train/latent": [plots.Level(0.1, "floor", "local")]}
    (axis,) = plots.loss_curves(curves, {"train/latent": "latent term"}, levels=levels).axes
    drawn = [list(line.get_ydata()) for line in axis.lines]
    assert drawn == [[0.5, 0.25], [0.5, 0.25], [0.1, 0.1]]
    assert axis.get_yscale() == "log"


def test_png_content() -> None:
    figure = plots.samples({"one": torch.rand(4, 1, 8, 8)}, columns=2)
    assert plots.png(figure).startswith(b"\x89PNG\r\n\x1a\n")
