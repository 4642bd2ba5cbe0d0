"""The training loop learns, resumes exactly, shares its work, and stops with a clear error."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import synthetic_layouts as synthetic
import torch
from safetensors.torch import load_file, save_file
from shared_files import HELPERS
from small_training import Opened, SmallData, SmallNetwork, recipe, run_training
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vlfau.models import files
from vlfau.models.errors import UserError
from vlfau.models.networks import NetworkChoice
from vlfau.models.training import command as train_command
from vlfau.models.training.checkpoint import Checkpoints
from vlfau.models.training.command import configured, parser
from vlfau.models.training.display import Display
from vlfau.models.training.processes import Processes
from vlfau.models.training.recipe import Recipe
from vlfau.models.training.run import first_weights
from vlfau.models.training.run_folder import RunFolder
from vlfau.models.training.schedule import rate_at
from vlfau.models.training.trainer import Trainer, unit_weights

TWO_PROCESS_TOLERANCE = 1e-4  # of the loss at each line: only the order of summation differs


class Stopped(Exception):
    """Stands for kill -9: no code runs after it."""


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(load_file(folder / "last.safetensors"))


def _same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def _losses(folder: Path) -> list[float]:
    return [row["loss"] for row in RunFolder(folder).rows("train")]


def test_it_learns_what_the_images_show(tmp_path: Path) -> None:
    _, end = run_training(tmp_path, recipe(epochs=6))
    losses = _losses(tmp_path)
    assert losses[-1] < 0.5 * losses[0]
    assert end.best_f1 > 0.9
    assert [row["epoch"] for row in RunFolder(tmp_path).rows("epoch")] == list(range(6))


@pytest.mark.parametrize("stop_at", [1, 5, 6, 9])
def test_a_killed_run_ends_like_an_uninterrupted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_at: int
) -> None:
    how = recipe(epochs=2, mean_decay=0.9, clip=1.0, accumulate=2, checkpoint_every=0.0)
    run_training(tmp_path / "whole", how)
    step = Trainer._step

    def dies(self: Trainer, batch: Any, epochs_done: float) -> None:
        if self.at.step == stop_at:
            raise Stopped
        step(self, batch, epochs_done)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_step", dies)
        with pytest.raises(Stopped):
            run_training(tmp_path / "killed", how)
    run_training(tmp_path / "killed", how)
    assert _same(_weights(tmp_path / "whole"), _weights(tmp_path / "killed"))
    assert _losses(tmp_path / "whole") == _losses(tmp_path / "killed")
    rows = [row["test_f1"] for row in RunFolder(tmp_path / "killed").rows("epoch")]
    assert rows == [row["test_f1"] for row in RunFolder(tmp_path / "whole").rows("epoch")]
    run_training(tmp_path / "other", recipe(**{**vars(how), "seed": 1}))
    assert not _same(_weights(tmp_path / "whole"), _weights(tmp_path / "other"))  # the comparison can fail


def test_a_kill_during_the_test_does_not_train_the_epoch_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_training(tmp_path / "whole", recipe())

    def dies(self: Trainer) -> None:
        raise Stopped

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_test_epoch", dies)
        with pytest.raises(Stopped):
            run_training(tmp_path / "killed", recipe())
    assert RunFolder(tmp_path / "killed").checkpoints.load()[1]["position"]["trained"]
    run_training(tmp_path / "killed", recipe())
    assert _same(_weights(tmp_path / "whole"), _weights(tmp_path / "killed"))
    assert len(RunFolder(tmp_path / "killed").rows("epoch")) == 2


def test_worker_processes_change_nothing(tmp_path: Path) -> None:
    run_training(tmp_path / "here", recipe(epochs=1))
    run_training(tmp_path / "there", recipe(epochs=1, workers=1))
    assert _same(_weights(tmp_path / "here"), _weights(tmp_path / "there"))


def test_parts_of_a_batch_add_up_to_the_batch(tmp_path: Path) -> None:
    data = Opened(SmallData(120, unknown=False))
    for count in (1, 4):
        network = SmallNetwork(dropout=0.0, norm=False)
        torch.manual_seed(0)
        for layer in network.modules():
            reset = getattr(layer, "reset_parameters", None)
            if reset is not None:
                reset()
        run_training(tmp_path / str(count), recipe(epochs=1, accumulate=count), network=network, data=data)
    assert _losses(tmp_path / "1") == pytest.approx(_losses(tmp_path / "4"), rel=1e-4)


def torchrun(*arguments: str) -> None:
    """Two gloo processes on this machine, started as a user starts them."""
    plain = {key: value for key, value in os.environ.items() if key not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*start, *arguments], env=plain | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_half_precision_trains_too_and_is_not_the_same(tmp_path: Path) -> None:
    run_training(tmp_path / "full", recipe(epochs=1, precision="fp32"))
    run_training(tmp_path / "half", recipe(epochs=1, precision="bf16"))
    full, half = _losses(tmp_path / "full"), _losses(tmp_path / "half")
    assert half == pytest.approx(full, rel=0.05)
    assert half != full
    weights = _weights(tmp_path / "half")
    assert all(value.dtype == torch.float32 for value in weights.values() if value.is_floating_point())


def test_a_run_folder_records_its_origin_and_draws_curves(tmp_path: Path) -> None:
    shown: list[tuple[float, str]] = []

    class Seen(Display):
        def show(self, title: str, done: float, text: str) -> None:
            shown.append((done, text))

    torch.manual_seed(0)
    run = RunFolder(tmp_path)
    run.start({"units": ["AU01", "AU12"], "network": {"kind": "small"}})
    with Processes("cpu") as group:
        display = Seen(tmp_path, shown=False)
        Trainer(SmallNetwork(), Opened(), None, recipe(), run, group, display).train()  # type: ignore[arg-type]
        display.close()
    assert shown[-1][0] == 1.0
    assert re.fullmatch(r"loss [\d.]+  test F1 [\d.]+  [\d.]+ images/s  \d+% waiting for data  .* left", shown[-1][1])
    facts = json.loads((tmp_path / "environment.json").read_text(encoding="utf-8"))
    assert {"revision", "python", "machine", "versions", "command", "started"} <= facts.keys()
    assert "torch" in facts["versions"]
    curves = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert {"loss", "loss_au", "rate", "images_s", "wait_share", "test_f1"} <= set(curves.Tags()["scalars"])
    drawn = [round(event.value, 4) for event in curves.Scalars("test_f1")]
    assert drawn == [round(row["test_f1"], 4) for row in run.rows("epoch")]


def test_two_processes_follow_the_curve_of_one(tmp_path: Path) -> None:
    """With full labels the mean of two halves is the mean of the whole; the halves come back in another order."""
    script = tmp_path / "script.py"
    script.write_text(
        f"import sys, torch; sys.path.insert(0, {str(HELPERS)!r}); torch.set_num_threads(1)\n"
        "from pathlib import Path\n"
        "from small_training import *\n"
        "torch.manual_seed(0); network = SmallNetwork(dropout=0.0, norm=False)\n"
        "run_training(Path(sys.argv[1]), recipe(), network=network, data=Opened(SmallData(120, unknown=False)))\n"
    )
    torchrun(str(script), str(tmp_path / "two"))
    torch.manual_seed(0)
    network = SmallNetwork(dropout=0.0, norm=False)
    data = Opened(SmallData(120, unknown=False))
    run_training(tmp_path / "one", recipe(), network=network, data=data)
    one, two = _losses(tmp_path / "one"), _losses(tmp_path / "two")
    assert len(one) == len(two) == 6
    assert two == pytest.approx(one, rel=TWO_PROCESS_TOLERANCE)
    assert one[0] != pytest.approx(one[-1], rel=100 * TWO_PROCESS_TOLERANCE)  # the curve does move


@pytest.mark.slow
def test_the_command_itself_runs_under_torchrun(tmp_path: Path) -> None:
    """Both processes cut crops, train and agree; the AU parts of the loss are exactly those of one process."""
    synthetic.make_raw_disfa(tmp_path / "data")
    toml = tmp_path / "small.toml"
    toml.write_text("[network]\nstem_options = { depths = [1, 1, 1, 1], dims = [8, 8, 16, 16] }\n")
    settings = {"size": "tiny-refined", "epochs": 3, "batch": 8, "learning-rate": 1e-3, "log-every": 1, "workers": 0}
    common = ["--config", str(toml), "--data", str(tmp_path / "data"), "--no-pretrained", "--no-align"]
    common += ["--device", "cpu", *(text for name, value in settings.items() for text in (f"--{name}", str(value)))]
    places = [["--output", str(tmp_path / name), "--cache", str(tmp_path / f"crops-{name}")] for name in ("one", "two")]
    assert train_command.main([*common, *places[0]]) == 0
    torchrun("-m", "vlfau.models.training.command", *common, *places[1])
    one, two = _losses(tmp_path / "one"), _losses(tmp_path / "two")
    assert len(one) == 6
    assert two == pytest.approx(one, rel=TWO_PROCESS_TOLERANCE)
    crops = [sorted(path.name for path in (tmp_path / f"crops-{name}").rglob("*.png")) for name in ("one", "two")]
    assert len(crops[0]) == 24
    assert crops[0] == crops[1]


def test_a_loss_of_nan_stops_the_run_and_leaves_the_checkpoint_intact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = SmallNetwork.losses

    def broken(self: SmallNetwork, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        terms = losses(self, batch)
        broken.calls += 1  # type: ignore[attr-defined]
        return terms if broken.calls <= 8 else {"au": terms["au"] * float("nan")}  # type: ignore[attr-defined]

    broken.calls = 0  # type: ignore[attr-defined]
    monkeypatch.setattr(SmallNetwork, "losses", broken)
    with pytest.raises(UserError, match=r"not a number at step \d+ .*checkpoints/last\.json.*--learning-rate"):
        run_training(tmp_path, recipe())
    tensors, state = RunFolder(tmp_path).checkpoints.load()
    assert state["step"] == 6
    assert all(torch.isfinite(value).all() for value in tensors.values() if value.is_floating_point())


def test_a_full_disk_keeps_the_finished_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no room for a new checkpoint next to the reserve, so the reserve is given up."""
    write = files.write_whole

    def full(path: Path, body: bytes) -> None:
        reserve = path.parent / "reserve.bin"
        if path.suffix == ".safetensors" and "step-" in path.name and reserve.exists() and full.on:  # type: ignore[attr-defined]
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, body)

    full.on = True  # type: ignore[attr-defined]
    monkeypatch.setattr("vlfau.models.training.checkpoint.write_whole", full)
    with pytest.raises(UserError, match=r"disk is full.*was saved in reserved space.*same command"):
        run_training(tmp_path, recipe())
    assert RunFolder(tmp_path).checkpoints.load()[1]["step"] == 6
    full.on = False  # type: ignore[attr-defined]
    run_training(tmp_path, recipe())
    run_training(tmp_path / "whole", recipe())
    assert _same(_weights(tmp_path), _weights(tmp_path / "whole"))


def test_a_limit_on_file_size_leaves_the_last_good_checkpoint(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path)
    store.save({"a": torch.zeros(10)}, {"step": 1})
    code = (
        "import resource, signal, sys, torch\n"
        "from pathlib import Path\n"
        "from vlfau.models.training.checkpoint import Checkpoints\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "Checkpoints(Path(sys.argv[1])).save({'a': torch.ones(100_000)}, {'step': 2})\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert "UserError: The disk is full" in done.stderr
    assert "step-00000001.safetensors" in done.stderr
    tensors, state = store.load()
    assert state["step"] == 1
    assert torch.equal(tensors["a"], torch.zeros(10))
    assert not list(tmp_path.glob("*.partial"))


def test_an_incomplete_checkpoint_is_refused_by_name(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path)
    store.save({"a": torch.zeros(1000)}, {"step": 3})
    path = tmp_path / "step-00000003.safetensors"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError, match=r"step-00000003\.safetensors is missing or damaged"):
        store.load()


def test_a_checkpoint_of_another_version_or_other_units_is_refused(tmp_path: Path) -> None:
    run_training(tmp_path, recipe(epochs=1))
    with pytest.raises(UserError, match="other action units: was AU01 AU12, now AU01 AU26"):
        run_training(tmp_path, recipe(epochs=2), units=("AU01", "AU26"))
    pointer = tmp_path / "checkpoints" / "last.json"
    table = json.loads(pointer.read_text(encoding="utf-8"))
    pointer.write_text(json.dumps(table | {"schema": 99}))
    with pytest.raises(UserError, match=r"last\.json was written by another version \(schema 99"):
        run_training(tmp_path, recipe(epochs=2))


def test_a_checkpoint_of_another_size_is_refused_before_anything_changes(tmp_path: Path) -> None:
    run_training(tmp_path, recipe(epochs=1))
    other = SmallNetwork()
    other.head = torch.nn.Linear(16 * 8 * 8, 5)
    with pytest.raises(UserError, match=r"head\.weight \(2, 1024\) instead of \(5, 1024\)"):
        run_training(tmp_path, recipe(epochs=2), network=other)


def test_steps_and_minutes_end_a_run(tmp_path: Path) -> None:
    assert run_training(tmp_path / "steps", recipe(steps=8))[1].step == 8
    _, end = run_training(tmp_path / "minutes", recipe(minutes=0.01))
    assert 0.6 <= end.elapsed_s < 5
    assert len(RunFolder(tmp_path / "minutes").rows("epoch")) == end.epoch


def test_a_run_begins_with_the_weights_of_another_or_the_mean_of_several(tmp_path: Path) -> None:
    old = [SmallNetwork(), SmallNetwork()]
    runs = tuple(tmp_path / name for name in ("first", "second"))
    for run, network in zip(runs, old):
        run.mkdir()
        save_file(network.state_dict(), run / "last.safetensors")
    first, second = (network.state_dict() for network in old)
    new = SmallNetwork()
    first_weights(new, NetworkChoice(start_from=runs[1:]))  # type: ignore[arg-type]
    assert _same(new.state_dict(), second)
    source = first_weights(new, NetworkChoice(start_from=runs))  # type: ignore[arg-type]
    assert source == f"{len(first)} of {len(first)} tensors from first and second"
    assert not _same(first, second)
    for name, value in new.state_dict().items():
        torch.testing.assert_close(value, ((first[name].double() + second[name]) / 2).to(value.dtype))
    save_file({"other": torch.zeros(3)}, runs[0] / "last.safetensors")
    with pytest.raises(UserError, match=r"No tensor of .*first fits"):
        first_weights(new, NetworkChoice(start_from=runs))  # type: ignore[arg-type]


def test_an_epoch_can_end_early(tmp_path: Path) -> None:
    _, end = run_training(tmp_path, recipe(epochs=3, epoch_images=40))
    assert end.step == 6


def test_growing_data_is_used_from_the_next_epoch(tmp_path: Path) -> None:
    class Growing(Opened):
        def open(self, files: list[str] | None = None) -> SmallData:
            self.train = SmallData(len(self.train) + 20)
            return self.train

    _, end = run_training(tmp_path, recipe(epochs=3), data=Growing())
    assert end.step == 7 + 8 + 9


def test_weights_of_the_loss_follow_the_rates() -> None:
    labels = np.array([[1, 1], [0, 1], [0, -1], [0, 0]], np.int8)  # rates 1/4 and 2/3
    assert unit_weights(labels) == pytest.approx(np.array([4, 1.5]) / 5.5)


def test_the_learning_rate_rises_and_falls() -> None:
    how = {"peak": 1.0, "warmup_steps": 10, "floor": 0.1}
    assert rate_at(0.0, 0, shape="cosine", **how) == pytest.approx(0.1)  # type: ignore[arg-type]
    assert rate_at(0.5, 100, shape="cosine", **how) == pytest.approx(0.55)  # type: ignore[arg-type]
    assert rate_at(1.0, 200, shape="linear", **how) == pytest.approx(0.1)  # type: ignore[arg-type]
    assert rate_at(1.0, 200, shape="constant", **how) == 1.0  # type: ignore[arg-type]


def test_settings_come_from_file_and_flags_and_unknown_ones_get_a_suggestion(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text(
        '[training]\nlearning-rate = 3e-4\nepochs = 3\n[network]\nsize = "tiny"\nstate_conditioned = true\n'
    )
    settings = configured(parser().parse_args(["--config", str(file), "--epochs", "5", "--flip", "0.25"]))
    assert settings["recipe"] == Recipe(learning_rate=3e-4, epochs=5)
    assert settings["network"].size == "tiny"
    assert settings["changes"] == {"state_conditioned": True}
    assert settings["augmentation"].flip == 0.25
    file.write_text("[training]\nlearning_rat = 3e-4\n")
    with pytest.raises(UserError, match="Did you mean 'learning_rate'"):
        configured(parser().parse_args(["--config", str(file)]))
    file.write_text('[network]\nsize = "tiny"\npretraned = false\n')
    with pytest.raises(UserError, match=r"'pretraned'\. Did you mean 'pretrained'"):
        configured(parser().parse_args(["--config", str(file)]))
    file.write_text('[network]\nsize = "tiny"\nspatial_sigmod = true\n')
    with pytest.raises(UserError, match="Did you mean 'spatial_sigmoid'"):
        configured(parser().parse_args(["--config", str(file)]))
    file.write_text("[trainin]\nepochs = 1\n")
    with pytest.raises(UserError, match="Did you mean 'training'"):
        configured(parser().parse_args(["--config", str(file)]))
