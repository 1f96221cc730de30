"""`ecodetect train`: from files to a bundle that `scan` takes, and one sentence for wrong input."""

from __future__ import annotations

import errno
import math
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import learned
import numpy as np
import pytest
from command_line import Run
from PIL import Image

torch = pytest.importorskip("torch")

from ecodetect import whole_file  # noqa: E402
from ecodetect.annotations.annotated_raster import AnnotatedRaster  # noqa: E402
from ecodetect.annotations.dataset import Statistics  # noqa: E402
from ecodetect.bundle import file as bundle  # noqa: E402
from ecodetect.detectors import heatmap  # noqa: E402
from ecodetect.formats import files as formats  # noqa: E402
from ecodetect.grid import Grid  # noqa: E402
from ecodetect.metrics import Interval, Rates  # noqa: E402
from ecodetect.models import choosing as models  # noqa: E402
from ecodetect.training import beginning, checkpoint, loop, planning, report  # noqa: E402
from ecodetect.training.adapting import adapted  # noqa: E402
from ecodetect.training.loop import Epoch, Fitted  # noqa: E402
from ecodetect.training.selection import Counted  # noqa: E402

TINY = {"kind": "unet", "width": 4, "depth": 2, "up": 1}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings of seconds: what is learned is little."""
    monkeypatch.setattr(loop, "LOOKED_AT", 4)
    monkeypatch.setattr(loop, "LIGHT_FROM", 4)
    monkeypatch.setattr(planning, "LEAST_STEPS", 9)
    monkeypatch.setattr(planning, "MOST_STEPS", 9)
    monkeypatch.setattr(planning, "STEP_PX", 1)
    monkeypatch.setitem(heatmap.DEFAULTS, "network", TINY)  # type: ignore[arg-type]
    monkeypatch.setattr(beginning, "nearest", lambda sources: None)


@pytest.mark.usefixtures("small")
def test_a_bundle_is_written_that_scan_and_evaluate_take(
    ecodetect: Run, corners: Path, tmp_path: Path
) -> None:
    image, truth = corners / "cells.png", corners / "cells.csv"
    out = tmp_path / "cells.safetensors"
    done = ecodetect("train", image, truth, "-o", out, "--epochs", 3, "--device", "cpu")
    assert done.code == 0, done.err
    assert "written to" in done.out
    assert "on validation (n = " in done.out
    card = bundle.read_card(out)
    assert card.unit == "px"
    assert card.classes == ("object",)
    assert set(card.thresholds) == {"f1", "count"}
    assert card.metrics[0]["n"] > 5
    # How far counts are off, and the interval of that, in card, report and `info`.
    assert card.metrics[0]["count_low"] <= card.metrics[0]["count_off"] <= card.metrics[0]["count_high"]
    assert card.metrics[0]["places"] >= 20
    assert "Counts there with the option threshold=count are off by " in done.out
    assert "unbiased count off by " in ecodetect("info", out).out
    assert card.trained_on[0]["objects"] > 50
    assert card.command == "ecodetect train cells.png cells.csv --epochs 3 --device cpu"
    assert str(tmp_path) not in card.to_json()
    with Image.open(tmp_path / "cells.curves.png") as curves:
        assert curves.width > 500
    assert not (tmp_path / "cells.safetensors.training").exists()
    found = ecodetect("scan", image, "-m", out, "-o", tmp_path / "found.csv")
    assert found.code == 0, found.err
    assert ecodetect("evaluate", tmp_path / "found.csv", truth, "--within", "8px").code == 0
    # The same seed gives the same bytes; an existing model isn't replaced unasked.
    other = tmp_path / "again" / "cells.safetensors"
    other.parent.mkdir()
    again = ecodetect(
        "train", image, truth, "-o", other, "--epochs", 3, "--device", "cpu", "--workers", 1, "-q"
    )
    assert again.code == 0
    assert again.err == ""
    assert other.read_bytes() == out.read_bytes()
    refused = ecodetect("train", image, truth, "-o", out)
    assert refused.code == 2
    assert "--overwrite" in refused.err


@pytest.mark.usefixtures("small")
def test_a_bundle_is_adapted_to_other_bands(ecodetect: Run, corners: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "cells.safetensors", tmp_path / "shrubs.safetensors"
    ecodetect("train", corners / "cells.png", corners / "cells.csv", "-o", first, "--epochs", 1)
    dryland = (corners / "dryland.tif", corners / "dryland_shrubs.geojson")
    done = ecodetect("train", *dryland, "-m", first, "-o", second, "--epochs", 1)
    assert done.code == 0, done.err
    assert "'cells' has learned grey; here it gets red, green, blue, nir" in done.err
    assert "Classes were object and are now shrub" in done.err
    card = bundle.read_card(second)
    assert card.bands == ("red", "green", "blue", "nir")
    assert card.unit == "m"
    assert card.diameter_range is not None
    assert 2 < card.diameter_range[0] < card.diameter_range[1] < 9
    refused = ecodetect(
        "train", *dryland, "-m", first, "--backbone", "resnet18", "-o", tmp_path / "x.safetensors"
    )
    assert refused.code == 2
    assert "--backbone" in refused.err


def test_training_begins_with_the_nearest_of_our_models(monkeypatch: pytest.MonkeyPatch) -> None:
    rgb = ("red", "green", "blue")
    cards = {
        "trees": learned.card(unit="m", gsd=0.6),
        "trees-rgb": learned.card(unit="m", gsd=0.6, bands=rgb),
        "shrubs": learned.card(unit="m", gsd=0.2, bands=rgb),
        "nuclei": learned.card(bands=rgb),
    }
    monkeypatch.setattr(models, "known", lambda: cards)

    def source(gsd: float | None, bands: tuple[str, ...] = rgb) -> AnnotatedRaster:
        grid = Grid(8, 8) if gsd is None else Grid(8, 8).with_gsd(gsd)
        return cast(AnnotatedRaster, SimpleNamespace(grid=grid, bands=bands))

    assert beginning.nearest([source(0.12)]) == "shrubs"
    assert beginning.nearest([source(0.5)]) == "trees-rgb"
    assert beginning.nearest([source(0.1, (*rgb, "nir"))]) == "trees"
    assert beginning.nearest([source(None), source(None, ("grey",))]) == "nuclei"
    assert beginning.nearest([source(0.6, ("thermal",))]) is None


def test_bands_go_by_their_names() -> None:
    from ecodetect.bundle.card import Card
    from ecodetect.bundle.file import Bundle

    def card(*bands: str) -> Card:
        return Card(
            name="m", detector="heatmap", bands=bands, unit="px", largest=9, classes=("a",),
            options={"network": TINY},
        )  # fmt: skip

    torch.manual_seed(0)
    start = heatmap.network(card("red", "green", "blue"))
    given = Bundle(
        card("red", "green", "blue"), {name: each.numpy() for name, each in start.state_dict().items()}
    )
    network = heatmap.network(card("nir", "red"))
    assert list(adapted(network, given, card("nir", "red"))) == []
    name = "levels.0.0.0.weight"
    old, new = start.state_dict()[name], network.state_dict()[name]
    factor = math.sqrt(3 / 2)
    torch.testing.assert_close(new[:, 1], old[:, 0] * factor)
    torch.testing.assert_close(new[:, 0], old.mean(dim=1) * factor)
    other = "levels.1.0.0.weight"
    torch.testing.assert_close(network.state_dict()[other], start.state_dict()[other])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["-o", "model.pt"], "must end in .safetensors"),
        (["-o", "nowhere/model.safetensors"], "there is no folder"),
        (["-m", "threshold"], "nothing to learn"),
        (["-m", "heatmpa"], "did you mean heatmap"),
        (["-m", "there/is/none.safetensors"], "There is no model"),
        (["--class-column", "species"], "no column 'species'"),
        (["--split", "site"], "no column 'site'"),
        (["--weights", "imagenet"], "--backbone"),
        (["--freeze", "9"], "has 4 stages"),
        (["--freeze", "-1"], "--freeze must be at least 0"),
        (["--freeze", "most"], "--freeze takes a number of stages, or all"),
        (["--epochs", "0"], "--epochs must be at least 1"),
        (["--radius", "3"], "--radius must be a length with a unit"),
        (["--device", "tpu"], "'tpu' is not one of"),
        (["--within", "3m"], "The distance is 3m, but the raster has no CRS"),
    ],
)
def test_wrong_input_is_one_sentence(
    ecodetect: Run, corners: Path, tmp_path: Path, arguments: list[str], says: str
) -> None:
    here = [str(tmp_path / "model.safetensors")] if "-o" not in arguments else []
    if here:
        arguments = [*arguments, "-o", *here]
    done = ecodetect("train", corners / "cells.png", corners / "cells.csv", "-q", *arguments)
    assert done.code == 2
    assert says in done.err
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("small")
def test_all_ground_can_be_trained_on_and_the_card_says_so(
    ecodetect: Run, corners: Path, tmp_path: Path
) -> None:
    pair, out = (corners / "cells.png", corners / "cells.csv"), tmp_path / "all.safetensors"
    done = ecodetect("train", *pair, "-o", out, "--split", "none", "--epochs", 2, "--device", "cpu")
    assert done.code == 0, done.err
    assert "nothing was left for validation" in done.out + done.err
    card = bundle.read(out).card
    assert card.trained_on[0]["objects"] == len(formats.read(pair[1]))
    assert card.metrics[0]["n"] == 0
    assert card.metrics[0]["f1"] is None
    told = ecodetect("info", out)
    assert "nothing to validate with" in told.out
    checked = ecodetect("check", *pair, "--split", "none")
    assert "0 for validation" in checked.out


def test_one_annotation_is_too_few(ecodetect: Run, corners: Path, tmp_path: Path) -> None:
    one = tmp_path / "one.csv"
    one.write_text("x,y\n100.5,80.5\n", encoding="utf-8")
    done = ecodetect("train", corners / "cells.png", one, "-o", tmp_path / "m.safetensors", "-q")
    assert done.code == 2
    assert "one annotation" in done.err


def test_a_pickle_in_disguise_is_refused(ecodetect: Run, corners: Path, tmp_path: Path) -> None:
    pickle = tmp_path / "model.safetensors"
    pickle.write_bytes(b"\x80\x04\x95" + b"cos\nsystem\n" * 20)
    pair = (corners / "cells.png", corners / "cells.csv")
    done = ecodetect("train", *pair, "-m", pickle, "-o", tmp_path / "n.safetensors", "-q")
    assert done.code == 2
    assert "not a .safetensors file" in done.err


@pytest.mark.usefixtures("small")
def test_an_interrupted_training_is_gone_on_with(
    ecodetect: Run, corners: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = (corners / "cells.png", corners / "cells.csv")
    whole, killed = tmp_path / "a" / "m.safetensors", tmp_path / "b" / "m.safetensors"
    for each in (whole, killed):
        each.parent.mkdir()
    flags = ("--epochs", "3", "--device", "cpu", "-q")
    assert ecodetect("train", *pair, "-o", whole, *flags).code == 0

    from ecodetect_cli.train import ProgressLine

    def stopped(after: int) -> str:
        def stop(self: ProgressLine, progress: loop.Progress) -> None:
            if progress.step == after:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(ProgressLine, "show", stop)
            done = ecodetect("train", *pair, "-o", killed, *flags)
        assert done.code == 130
        assert not killed.exists()
        return done.err

    assert "starts over" in stopped(after=1)
    assert list(killed.parent.iterdir()) == []  # so that the same command does
    assert f"kept in {killed}.training: resume it to continue (--resume)." in stopped(after=2)
    refused = ecodetect("train", *pair, "-o", killed, *flags)
    assert refused.code == 2
    assert "--resume" in refused.err
    assert ecodetect("train", *pair, "-o", killed, *flags, "--resume").code == 0
    assert killed.read_bytes() == whole.read_bytes()


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("name", ["best.safetensors", "last.safetensors", "m.safetensors"])
def test_a_full_disk_is_one_sentence_and_the_training_goes_on_later(
    ecodetect: Run, corners: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    pair = (corners / "cells.png", corners / "cells.csv")
    out = tmp_path / "m.safetensors"
    flags = ("-o", out, "--epochs", "2", "--device", "cpu", "-q")

    def full(target: Path, content: bytes, *, replace: bool = True) -> None:
        if target.name == name:
            raise OSError(errno.ENOSPC, "No space left on device")
        whole_file.write_whole(target, content, replace=replace)

    with monkeypatch.context() as patch:
        for module in (bundle, checkpoint):
            patch.setattr(module, "write_whole", full)
        done = ecodetect("train", *pair, *flags)
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert f"{name} can't be written: No space left on device." in done.err
    assert not out.exists()
    resume = ["--resume"] if (tmp_path / "m.safetensors.training").exists() else []
    assert ecodetect("train", *pair, *flags, *resume).code == 0
    assert bundle.read_card(out).metrics[0]["n"] > 5


@pytest.mark.usefixtures("small")
def test_a_training_killed_as_it_clears_up_is_ended_by_resume_and_spares_what_is_not_its_own(
    ecodetect: Run, corners: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = (corners / "cells.png", corners / "cells.csv")
    out = tmp_path / "m.safetensors"
    flags = ("-o", out, "--epochs", "2", "--device", "cpu", "-q")

    class Killed(BaseException):
        pass

    def killed(folder: Path) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "remove", killed)
        with pytest.raises(Killed):
            ecodetect("train", *pair, *flags)
    right = out.read_bytes()
    theirs = tmp_path / "m.safetensors.training" / "notes.txt"
    theirs.write_text("theirs")
    assert ecodetect("train", *pair, *flags, "--resume").code == 0
    assert out.read_bytes() == right
    assert [entry.name for entry in theirs.parent.iterdir()] == ["notes.txt"]
    refused = ecodetect("train", *pair, *flags, "--resume")
    assert (refused.code, "or replace it (--overwrite)." in refused.err) == (2, True)


@pytest.mark.usefixtures("small")
def test_a_training_killed_between_its_last_two_files_is_over(
    ecodetect: Run, corners: Path, tmp_path: Path
) -> None:
    pair = (corners / "cells.png", corners / "cells.csv")
    out, folder = tmp_path / "m.safetensors", tmp_path / "m.safetensors.training"
    flags = ("-o", out, "--epochs", "2", "--device", "cpu", "-q")
    assert ecodetect("train", *pair, *flags).code == 0
    right = out.read_bytes()
    folder.mkdir()
    (folder / checkpoint.LAST).write_bytes(b"what leads to the bundle that is there")
    refused = ecodetect("train", *pair, *flags, "--resume")
    assert (refused.code, "or replace it (--overwrite)." in refused.err) == (2, True)
    assert out.read_bytes() == right
    assert not folder.exists()


# -- what is derived from the data -------------------------------------------------------------------------


def statistics(objects: int, known_px: float, size: float | None = 24.0) -> Statistics:
    sizes = None if size is None else (size / 2, size, size * 2, size * 3)
    return Statistics(
        images=1, objects=objects, per_class={"a": objects}, ignored=0, sized=objects if size else 0,
        size_px=sizes, spacing_px=(10.0, 12.0, 30.0), known_px=known_px,
    )  # fmt: skip


@pytest.mark.parametrize("size", [None, 4.0, 24.0, 90.0])
def test_plans_for_few_and_many(size: float | None) -> None:
    from ecodetect.bundle.card import Card

    card = Card(name="m", detector="heatmap", bands=("grey",), unit="px", largest=50, classes=("a",))
    few = planning.plan_for(statistics(40, 1e6, size), card, False, False)
    many = planning.plan_for(statistics(40_000, 1e9, size), card, False, False)
    assert few.steps < 330
    assert many.steps > 10_000
    for plan in (few, many):
        assert plan.size_px % 32 == 0
        assert 160 <= plan.size_px <= 320
        assert 1e5 < plan.batch * plan.size_px**2 < 5e5
        assert plan.steps == planning.EPOCHS * plan.every
        assert plan.within_px >= 2
    assert planning.plan_for(statistics(40, 1e6, size), card, False, False, epochs=2).steps == 2 * few.every
    assert planning.plan_for(statistics(40, 1e6, size), card, True, False).rate < few.rate


# -- what is said at the end -------------------------------------------------------------------------------


def fitted_of(seen: float, unseen: float, n: int = 200) -> Fitted:
    def rates(f1: float, n: int) -> Rates:
        true = round(f1 * n)
        return Rates(true, n - true, n - true)

    history = tuple(Epoch(10 * i, 1 / (i + 1), unseen, unseen, 1e-3) for i in range(8))
    counted = Counted(0.02, Interval(-0.07, 0.12, 0.95, 25)) if n else None
    return Fitted(None, rates(unseen, n), rates(seen, 300), unseen, counted, history, False, 0.0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fitted", "says"),
    [
        (fitted_of(0.3, 0.3), "it underfits"),
        (fitted_of(0.95, 0.6), "it overfits"),
        (fitted_of(0.85, 0.83), "both agree"),
        (fitted_of(0.85, 0.83, 20), "n = 20 is small"),
        (fitted_of(0.85, 0.0, 0), "its quality elsewhere is unknown"),
    ],
)
def test_the_closing_line_says_what_figures_mean(fitted: Fitted, says: str) -> None:
    line = report.verdict(fitted, "blocks of 20 m")
    assert says in line
    assert ("off by +2% (95 %: -7% to +12%, n = 25 places)" in line) == bool(fitted.counted)
    assert "\n" not in line


def test_curves_are_drawn_also_without_figures(tmp_path: Path) -> None:
    for history in (fitted_of(0.9, 0.8).history, (), (Epoch(1, math.nan, math.nan, math.nan, 0.1),)):
        path = tmp_path / "curves.png"
        report.draw_curves(history, path, title="ümlaut")
        with Image.open(path) as picture:
            assert np.asarray(picture).std() > 1
    shutil.rmtree(tmp_path)


@pytest.mark.usefixtures("small")
def test_a_class_that_only_validation_has_is_told(ecodetect: Run, corners: Path, tmp_path: Path) -> None:
    """Where the user has said how to split it is an error, where chance did it is a remark."""
    for number, label in enumerate(("cell", "rare")):
        shutil.copy(corners / "cells.png", tmp_path / f"p{number}.png")
        rows = (corners / "cells.csv").read_text().splitlines()
        marked = [f"{rows[0]},label", *(f"{row},cell" for row in rows[1:-1]), f"{rows[-1]},{label}"]
        (tmp_path / f"p{number}.csv").write_text("\n".join(marked) + "\n")
    out = tmp_path / "it.safetensors"
    pairs = [tmp_path / f"p{number}.{kind}" for number in range(2) for kind in ("png", "csv")]
    done = ecodetect("train", *pairs, "-o", out, "--split", "*p1*", "--device", "cpu")
    assert done.code == 2
    assert "a class that training has none of: 'rare' (1); split otherwise than by *p1*" in done.err
    assert not out.exists()


def test_which_classes_only_validation_has() -> None:
    def counted(**per_class: int) -> Statistics:
        return Statistics(
            images=1, objects=sum(per_class.values()), per_class=per_class, ignored=0, sized=0, size_px=None,
            spacing_px=None, known_px=0.0,
        )  # fmt: skip

    assert beginning.classes_unseen(counted(a=3, b=0, c=0), counted(a=1, b=2, c=0)).endswith(
        "none of: 'b' (2)"
    )
    assert beginning.classes_unseen(counted(a=3, b=1), counted(a=0, b=2)) == ""


def test_a_folder_that_is_read_only_is_said_before_the_training(
    ecodetect: Run, corners: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)  # root may write everywhere
    image, truth = corners / "cells.png", corners / "cells.csv"
    done = ecodetect("train", image, truth, "-o", tmp_path / "model.safetensors")
    assert done.code == 2
    assert "its folder is read-only" in done.err
