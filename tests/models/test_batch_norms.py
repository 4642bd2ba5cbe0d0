"""Batch-norm statistics of averaged weights are recomputed on plain faces."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import synthetic_layouts as synthetic
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from small_training import SmallData, SmallNetwork, recipe, run_training
from torch import Tensor

from vlfau.models.training import command as train_command
from vlfau.models.training.batch_norms import renew_statistics


def activations(network: SmallNetwork, data: SmallData) -> Tensor:
    """(channels, places of all pictures) that enter the batch norm."""
    crops = torch.from_numpy(np.stack([data.crop(index) for index in range(len(data))]))
    with torch.no_grad():
        values: Tensor = network.stem[0](crops.permute(0, 3, 1, 2).float() / 255 - 0.5)
    return values.transpose(0, 1).flatten(1)


def mean_of(network: SmallNetwork) -> Tensor:
    """(channels,) what the batch norm holds for the mean."""
    mean: Tensor = network.state_dict()["stem.1.running_mean"]
    return mean


def weights(folder: Path, name: str = "last") -> SmallNetwork:
    network = SmallNetwork()
    network.load_state_dict(load_file(folder / f"{name}.safetensors"))
    return network.eval()


@pytest.mark.parametrize("mean_decay", [0.0, 0.95])
def test_a_running_mean_is_saved_with_statistics_that_fit_it(tmp_path: Path, mean_decay: float) -> None:
    network, _ = run_training(tmp_path, recipe(epochs=1, mean_decay=mean_decay, learning_rate=3e-2))
    stored, trained = weights(tmp_path), network.state_dict()
    inputs = activations(stored, SmallData(120))
    fits = torch.allclose(mean_of(stored), inputs.mean(1), atol=1e-4)
    assert fits == (mean_decay > 0)  # the statistics of a plain run still depend on its first steps
    same = all(torch.equal(value, trained[name]) for name, value in stored.state_dict().items())
    assert same == (mean_decay == 0)  # and the network in training has its own weights again


def test_images_without_a_face_do_not_count() -> None:
    class Halves(SmallData):
        def face(self, index: int) -> int:
            return index % 2

    network, data = SmallNetwork(), Halves(40)
    network.eval()
    renew_statistics(network, lambda: data, batch=8, workers=0)  # type: ignore[arg-type, return-value]
    inputs = activations(network, data).reshape(8, 40, -1)
    torch.testing.assert_close(mean_of(network), inputs[:, 1::2].mean((1, 2)), rtol=1e-3, atol=1e-4)
    assert not torch.allclose(mean_of(network), inputs.mean((1, 2)), rtol=1e-3, atol=1e-4)
    assert not network.training


def test_a_network_without_batch_norms_reads_no_image() -> None:
    class Nothing(SmallData):
        def crop(self, index: int, epoch: int = 0) -> NDArray[np.uint8]:
            raise AssertionError("read an image")

    renew_statistics(SmallNetwork(norm=False), lambda: Nothing(40), batch=8, workers=0)  # type: ignore[arg-type, return-value]


def test_sentences_on_the_mean_of_two_runs_use_new_statistics(tmp_path: Path) -> None:
    synthetic.make_shards(tmp_path / "data")
    common = ["--data", str(tmp_path / "data"), "--hold-out", "0.3", "--size", "compact", *synthetic.MOMENT]
    runs = [tmp_path / name for name in ("first", "second")]
    for number, run in enumerate(runs):
        assert train_command.main([*common, "--output", str(run), "--steps", "2", "--seed", str(number)]) == 0
    sentences = ["--start-from", *map(str, runs), "--hold-encoder", "--steps", "1"]
    assert train_command.main([*common, "--output", str(tmp_path / "both"), *sentences]) == 0
    first, second, both = (load_file(run / "last.safetensors") for run in (*runs, tmp_path / "both"))
    name = next(name for name in both if name.startswith("stem") and name.endswith("running_mean"))
    convolution = name.replace("bn1.running_mean", "conv1.weight")
    torch.testing.assert_close(both[convolution], (first[convolution] + second[convolution]) / 2)
    assert not torch.allclose(both[name], (first[name] + second[name]) / 2, rtol=1e-2)
