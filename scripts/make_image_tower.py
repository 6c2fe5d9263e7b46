"""Makes the image side of the mini vision-language model: ImageNet's EfficientNet-Lite0, taught to speak of streets.

    pip install -e ".[imagenet]"
    python scripts/make_image_tower.py --again --ship

Draws `rand` and `game` scenes with seeds that no split of the drawn domains uses, pre-trains against the sentences of
the text student (run `make_text_student.py` first) and prints scores, by text and by the free classifier. Stopped, it
goes on from its last checkpoint: in `--work` each plan has its own, and scenes are drawn once for all.

`--again` runs all plans of the card one after the other. `--steps N` is a trial of one new plan from ImageNet's weights
(`--set unit_norm=true` changes another value of it); with `--go-on` it trains the shipped tower further. Only with
`--ship` are `image.safetensors`, its hash and the card in the package written. `make mini-model` makes both sides.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy, interpolate, normalize

from dgss.evaluation.confusion import Confusion
from dgss.files import cache_folder
from dgss.interfaces import TextTower
from dgss.labels import IGNORE, label_space
from dgss.streets.draw import LOOKS
from dgss.streets.write import SPLITS, VERSION, write_split
from dgss.towers.mini import MiniImageTower
from dgss.towers.shipped import (
    IMAGENET_PACKAGE,
    IMAGENET_SHA256,
    MiniSettings,
    imagenet_file,
    load_imagenet,
)
from dgss.towers.words import street_words
from mini_card import read_card, record, short_hash
from mini_pretraining import Plan, Run, Student, fingerprint
from mini_scenes import Scenes, read_camvid, read_scenes

SEEN = ("rand", "game")
"""The looks that are trained on; no other is."""
FIRST_SEED = 20000
HELD_OUT_SEEDS = range(90000, 90016)
"""Of the scenes of each look that fit the temperature; none is trained on or scored."""
SIZE = (128, 256)


@torch.no_grad()
def encode(text: TextTower, sentences: list[str]) -> Tensor:
    """Sentences to unit vectors (N, E)."""
    ids = text.tokens(sentences)
    return text.encode(text.embed(ids), ids)


Predict = Callable[[Tensor], Tensor]
"""Images (1, 3, H, W) to scores (1, 19, h, w)."""


def by_text(tower: MiniImageTower, queries: Tensor) -> Predict:
    """Cosines of the pixels with the class queries (19, E)."""

    def predict(images: Tensor) -> Tensor:
        dense = tower(images).dense
        assert dense is not None
        return torch.einsum("kc,bchw->bkhw", queries, normalize(dense, dim=1))

    return predict


def by_classifier(student: Student) -> Predict:
    """Scores of the free linear classifier."""
    return lambda images: student.classifier(student.tower.neck(student.tower.levels(images)))


@torch.no_grad()
def answers(predict: Predict, scenes: Scenes) -> Tensor:
    """Scores at half resolution: (N, 19, H/2, W/2)."""
    found = []
    for image in scenes.images:
        scores = predict(torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255.0)
        half = (image.shape[0] // 2, image.shape[1] // 2)
        found.append(interpolate(scores, half, mode="bilinear", align_corners=False))
    return torch.cat(found)


def miou(labels: NDArray[Any], predictions: NDArray[Any], classes: int) -> float:
    """Mean IoU in % over the classes that occur in labels or predictions."""
    confusion = Confusion(classes)
    confusion.add(labels, predictions)
    return round(100 * confusion.miou(), 1)


def fit_temperature(predict: Predict, scenes: Scenes) -> float:
    """The s that makes softmax(s * cosine) likeliest on held-out scenes."""
    cosines = answers(predict, scenes)
    labels = torch.from_numpy(scenes.labels[:, ::2, ::2].astype(np.int64))
    losses = {s: float(cross_entropy(s * cosines, labels, ignore_index=IGNORE)) for s in range(4, 61)}
    return float(min(losses, key=losses.__getitem__))


def score(predict: Predict, root: Path, camvid: Path | None, workers: int) -> dict[str, dict[str, Any]]:
    """mIoU by domain, 24 validation scenes each, labels and predictions at half resolution; CamVid's test frames.

    `miou`: of all; `first_four`: of the first four scenes together; `by_image`: mean and deviation over the scenes,
    each scored alone.
    """
    scores: dict[str, dict[str, Any]] = {"miou": {}, "first_four": {}, "by_image": {}}
    for look in LOOKS:
        scenes = read_scenes(write_split(root, look, "val", 24, SIZE, workers), "val", SPLITS["val"], 24)
        found, labels = answers(predict, scenes).argmax(1).numpy(), scenes.labels[:, ::2, ::2]
        alone = [miou(label, answer, 19) for label, answer in zip(labels, found, strict=True)]
        scores["miou"][look] = miou(labels, found, 19)
        scores["first_four"][look] = miou(labels[:4], found[:4], 19)
        scores["by_image"][look] = f"{np.mean(alone):.1f} ± {np.std(alone, ddof=1):.1f}"
    targets = [value for look, value in scores["miou"].items() if look not in SEEN]
    scores["miou"]["mean_of_targets"] = round(float(np.mean(targets)), 1)
    if camvid:
        scenes = read_camvid(camvid, (144, 192))
        enlarged = interpolate(answers(predict, scenes), (144, 192), mode="bilinear", align_corners=False)
        fold = label_space("cityscapes19").fold(label_space("camvid11"))
        labels = np.where(scenes.labels < 11, scenes.labels, IGNORE)
        scores["miou"]["camvid"] = miou(labels, fold[enlarged.argmax(1).numpy()], 11)
    return scores


def training_sentences(text: TextTower) -> list[Tensor]:
    """For each class its training sentences as unit vectors (n, E)."""
    words = street_words()
    return [
        encode(text, [template.format(phrase) for phrase in words.training[name] for template in words.templates])
        for name in words.classes
    ]


def draw(look: str, first: int, count: int, root: Path, workers: int) -> Scenes:
    """The scenes first, ..., first + count - 1 of a look, drawn where they are missing."""

    def progress(done: int, total: int) -> None:
        if done % 100 == 0 or done == total:
            print(f"{look}: {done}/{total} scenes drawn", flush=True)

    return read_scenes(write_split(root, look, "train", count, SIZE, workers, progress, first), "train", first, count)


def join(parts: list[Scenes]) -> Scenes:
    """Several sets of scenes as one."""
    return Scenes(np.concatenate([p.images for p in parts]), np.concatenate([p.labels for p in parts]))


def setting(text: str) -> tuple[str, float | bool]:
    """`KEY=VALUE` of the command line as a value of the plan."""
    key, _, value = text.partition("=")
    kinds = {name: type(default) for name, default in Plan.__dict__.items() if name in Plan.__dataclass_fields__}
    if key not in kinds:
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(f'{name}=...' for name in kinds)}")
    try:
        return key, {"true": True, "false": False}[value] if kinds[key] is bool else kinds[key](value)
    except (KeyError, ValueError):
        raise argparse.ArgumentTypeError(f"{value!r} is no {kinds[key].__name__} for {key}") from None


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--go-on", action="store_true", help="start from the shipped tower in place of ImageNet's")
    start.add_argument("--again", action="store_true", help="run the plans of the card, all of them, from ImageNet's")
    parser.add_argument("--ship", action="store_true", help="write the tower and its card into the package")
    parser.add_argument("--rand", type=int, default=4800, help="scenes of the look rand")
    parser.add_argument("--game", type=int, default=1600, help="scenes of the look game")
    parser.add_argument("--steps", type=int, help="of a new plan")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], type=setting, metavar="KEY=VALUE", help="of the plan")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1, help="processes that draw scenes, 0 = none")
    parser.add_argument("--camvid", type=Path, help="folder of CamVid frames, only to score on")
    parser.add_argument("--work", type=Path, default=cache_folder() / "image-tower", help="scenes and checkpoints")
    given = parser.parse_args(words)
    if given.ship and dict(given.set).get("text") == 0:
        parser.error("--ship writes a tower that is read by text, so not with --set text=0")
    if given.again and (given.set or given.steps):
        parser.error("--again runs the plans of the card as they are, so not with --set or --steps")
    if not given.again and not given.steps:
        parser.error("give a new plan its --steps, or run the plans of the card --again")
    return given


def main() -> None:
    """Draw, train, score, ship."""
    args = arguments()
    torch.set_num_threads(args.threads)
    towers = MiniSettings(weights="pretrained" if args.go_on else "none", frozen_norm=False).build(seed=0)
    tower, text = towers.image, towers.text
    assert isinstance(tower, MiniImageTower)
    assert text is not None
    if not args.go_on:
        load_imagenet(tower, imagenet_file())
    sentences = training_sentences(text)
    words = street_words()
    queries = encode(text, [words.frozen_template.format(name) for name in words.classes])
    earlier = read_card()["image"]["trainings"] if args.go_on or args.again else []
    plans = [Plan(**each["plan"]) for each in earlier]
    done = [{**each, "plan": asdict(plan)} for each, plan in zip(earlier, plans, strict=True)] if args.go_on else []
    for plan in plans if args.again else [Plan(args.rand, args.game, args.steps, args.seed, **dict(args.set))]:
        run = pretrain(tower, sentences, plan, args)
        tower = run.mean.tower
        round_to_half(tower)
        done = [*done, {"plan": asdict(run.plan), "cpu_seconds": round(run.seconds)}]
    scores = tell(run, done, queries, args)
    if args.ship:
        ship(run, done, queries, scores["text"], args)


def pretrain(tower: MiniImageTower, sentences: list[Tensor], plan: Plan, args: argparse.Namespace) -> Run:
    """One training by a plan, or what is left of it."""
    counts = {look: count for look, count in zip(SEEN, (plan.rand, plan.game), strict=True) if count}
    scenes = join([draw(look, FIRST_SEED, count, args.work / "scenes", args.workers) for look, count in counts.items()])
    torch.manual_seed(plan.seed)  # of the classifier; the tower has its weights
    student = Student(deepcopy(tower).requires_grad_(), plan.unit_norm)  # a running mean, as it may be, does not train
    others = {"start": fingerprint(student), "text": read_card()["sha256"]["text.safetensors"], "streets": VERSION}
    run = Run(student, plan, args.work / f"{short_hash({**asdict(plan), **others})}.pt")
    run.train(scenes, sentences)
    return run


def round_to_half(tower: MiniImageTower) -> None:
    """The weights as they are shipped and read again: what goes on from the shipped file starts from the same."""
    tower.load_state_dict({k: v.half().float() if v.is_floating_point() else v for k, v in tower.state_dict().items()})


def tell(run: Run, done: list[Any], queries: Tensor, args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Prints what the plan gave; answers the scores by "text" and by the free "classifier", where each was trained."""
    ways = {"text": by_text(run.mean.tower, queries)} if run.plan.text else {}
    ways |= {"classifier": by_classifier(run.mean)} if run.plan.auxiliary else {}
    seconds = sum(each["cpu_seconds"] for each in done)
    scores = {}
    for name, predict in ways.items():
        scores[name] = score(predict, args.work / "scoring", args.camvid, args.workers)
        print(json.dumps({"read_by": name, "cpu_seconds": seconds, **scores[name]["miou"]}), flush=True)
    return scores


def ship(
    run: Run, done: list[Any], queries: Tensor, scores: dict[str, dict[str, Any]], args: argparse.Namespace
) -> None:
    """Writes the averaged tower (half precision) and its card; scores: by text."""
    tower = run.mean.tower
    held_out = [draw(look, HELD_OUT_SEEDS.start, len(HELD_OUT_SEEDS), args.work / "held-out", 0) for look in SEEN]
    temperature = fit_temperature(by_text(tower, queries), join(held_out))
    most = {look: max(each["plan"][look] for each in done) for look in SEEN}
    facts = {
        "made": "EfficientNet-Lite0 from ImageNet, top-down path and projection from random numbers, pre-trained on "
        "drawn scenes, by each plan in turn; the running mean of the weights is shipped, in half precision",
        "licence": f"Apache-2.0; the encoder derives from {IMAGENET_PACKAGE} 0.1.0 (Apache-2.0), changed by training",
        "starting_file_sha256": IMAGENET_SHA256,
        "seeds_trained_on": {look: [FIRST_SEED, FIRST_SEED + count - 1] for look, count in most.items() if count},
        "seeds_of_the_temperature": {look: [HELD_OUT_SEEDS.start, HELD_OUT_SEEDS.stop - 1] for look in SEEN},
        "version_of_the_streets": VERSION,
        "trainings": done,
        "parameters": sum(p.numel() for p in tower.parameters()),
        "temperature": temperature,
        "zero_shot_miou": scores["miou"],
        "zero_shot_miou_of_the_first_four_scenes": scores["first_four"],
        "zero_shot_miou_scene_by_scene": scores["by_image"],
        "how_scored": "24 validation scenes of 256x128 a look, half resolution, 'a photo of a {class}', nearest "
        "cosine; CamVid: its test frames at 192x144, 19 classes folded to 11, only scored, never trained on",
    }
    state = {k: v.half() if v.is_floating_point() else v for k, v in tower.state_dict().items()}
    record("image", facts, state, {})


if __name__ == "__main__":
    main()
