"""What buys accuracy: stem, targets, number of renders, augmentation? Short training runs, scored alike.

    python bench/ablation.py --data SHARDS [--minutes 10] [--shared FOLDER] [--only NAME ...] [--output DIR]

Every variant trains the states of size compact (no sentences) for the same time on one thread, is exported, and is
scored by `accuracy.py` on subjects that no variant saw and, with --shared, by `real_faces.py`. Stems and numbers of
renders start from random weights on plain crops; the three kinds of augmentation continue from the first variant,
because strong augmentation from the first step stalls learning. Finished variants are stored in --output: run again to
continue, or to print the table. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from measuring.facts import about, heading, table
from measuring.judging import FIGURES, HELD_OUT, command, judge, three_digits

from vlfau.models.bundle import open_bundle
from vlfau.models.data.augmentation import RENDERS
from vlfau.models.errors import UserError

Table = dict[str, Any]  # in a configuration file

NETWORK: Table = {
    "size": "compact",
    "local_captions": False,
    "global_caption": False,
    "pretrained": False,
}
TRAINING: Table = {
    "batch": 32,
    "learning_rate": 1.5e-3,
    "floor": 0.05,
    "warmup_steps": 50,
    "weight_decay": 0.02,
    "clip": 2.0,
    "mean_decay": 0.99,
    "threads": 1,
    "workers": 1,
    "epoch_images": 10_000,
    "test_images": 800,
}
PLAIN: Table = dict.fromkeys(vars(RENDERS), 0.0) | {"flip": 0.5, "shift": 0.01, "points": 0.02}
LIGHT: Table = PLAIN | {
    "cutout": 0.05,
    "shift": 0.015,
    "points": 0.03,
    "turn_deg": 1.5,
    "zoom": 0.02,
    "light": 0.3,
    "colour": 0.2,
    "grey": 0.1,
    "low_resolution": 0.1,
    "blur": 0.05,
    "noise": 0.05,
    "jpeg": 0.05,
}
SWIN: Table = {
    "stem": "swin_tiny_patch4_window7_224",
    "stem_options": {"img_size": 112, "embed_dim": 32, "depths": [2, 2, 2, 2], "num_heads": [1, 2, 4, 8]},
}
HYBRID: Table = {"stem": "mobilevit_xxs", "stem_options": {}}


@dataclass(frozen=True)
class Variant:
    name: str
    what: str
    network: Table = field(default_factory=dict)  # what differs from NETWORK
    renders: int | None = None  # at most this many; None means all
    crops: Table = field(default_factory=lambda: PLAIN)
    after: str = ""  # starts from this variant's weights


FIRST = "conv"
VARIANTS = (
    Variant(FIRST, "narrow ResNet-18, all renders, plain crops"),
    Variant("swin", "small Swin", network=SWIN),
    Variant("hybrid", "MobileViT: convolutions and attention", network=HYBRID),
    Variant("no-judge", "without the point classifier", network={"judge_points": 0}),
    Variant("no-points", "without point classifier and point targets", network={"landmarks": 0.0, "judge_points": 0}),
    Variant("renders-5k", "5,000 renders", renders=5000),
    Variant("renders-20k", "20,000 renders", renders=20_000),
    Variant("then-plain", "trained further: plain crops", after=FIRST),
    Variant("then-light", "trained further: light augmentation", crops=LIGHT, after=FIRST),
    Variant("then-strong", "trained further: the default for renders", crops=vars(RENDERS), after=FIRST),
)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="shards of vlfau-synthesize")
    parser.add_argument("--minutes", type=float, default=10.0, help="of training per variant (default: 10)")
    parser.add_argument("--shared", type=Path, help="folder with real/score.py and its clips")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=[v.name for v in VARIANTS])
    parser.add_argument("--output", type=Path, default=Path("runs/ablation"))
    options = parser.parse_args(arguments)
    rows = []
    try:
        for variant in VARIANTS:
            if not options.only or variant.name in options.only:
                rows.append(scored(variant, options.data, options.minutes, options.shared, options.output))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    facts = about("torch", "timm")
    print(heading(facts))
    print(f"{options.minutes:g} minutes of training each; finished variants are reused, so their dates may differ\n")
    shown = [(r["name"], r["what"], f"{r['images']:,}", *(three_digits(r[key]) for key in FIGURES)) for r in rows]
    print(table([("variant", "description", "images seen", *FIGURES.values()), *shown]))
    print(json.dumps({"bench": "ablation", "minutes": options.minutes, **facts, "rows": rows}))
    return 0


def scored(variant: Variant, data: Path, minutes: float, shared: Path | None, output: Path) -> dict[str, Any]:
    """Trains, exports and scores a variant, or reads its scores if it is finished."""
    from vlfau.models.training.run_folder import RunFolder

    folder = output / variant.name
    done = folder / "judged.json"
    if done.is_file():
        row: dict[str, Any] = json.loads(done.read_text(encoding="utf-8"))
        return row
    folder.mkdir(parents=True, exist_ok=True)
    train(variant, data, minutes, output)
    images = RunFolder(folder / "run").rows("epoch")[-1]["images"]
    row = {"name": variant.name, "what": variant.what, "images": images}
    row |= judge(folder / "run", folder / "bundle", data, shared)
    done.write_text(json.dumps(row) + "\n")
    print(
        f"{variant.name}: " + ", ".join(f"{name} {three_digits(row[key])}" for key, name in FIGURES.items()), flush=True
    )
    return row


def train(variant: Variant, data: Path, minutes: float, output: Path) -> None:
    folder = output / variant.name
    renders = data if variant.renders is None else part_of(data, variant.renders, folder / "renders")
    tables = {
        "network": NETWORK | variant.network,
        "data": {"data": str(renders.resolve()), "hold_out": HELD_OUT, "units": open_bundle("embedded").manifest.units},
        "training": TRAINING | {"minutes": minutes},
        "augmentation": variant.crops,
    }
    config = folder / "training.toml"
    config.write_text("".join(f"[{name}]\n" + toml(table) + "\n" for name, table in tables.items()))
    after = ["--start-from", output / variant.after / "run"] if variant.after else []
    command("vlfau.models.training.command", "--config", config, "--output", folder / "run", *after)


def toml(settings: Table) -> str:
    return "".join(f"{key} = {inline(value)}\n" for key, value in settings.items())


def inline(value: Any) -> str:
    """JSON writes numbers, strings, booleans and lists as TOML does; only objects differ."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {inline(part)}" for key, part in value.items()) + " }"
    return json.dumps(value)


def part_of(data: Path, count: int, folder: Path) -> Path:
    """A folder of links to the first shards that together hold `count` images."""
    from vlfau.models.data.shards import read_shards

    renders = read_shards(data)
    folder.mkdir(exist_ok=True)
    for path, end in zip(renders.files, renders.starts[1:]):
        link = folder / path.name
        if not link.exists():
            link.symlink_to(path.resolve())
        if end >= count:
            break
    return folder


if __name__ == "__main__":
    sys.exit(main())
