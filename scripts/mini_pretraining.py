"""Pre-training of the mini model's image tower: the plan, the batches, the losses, the resumable run."""

from __future__ import annotations

import hashlib
import math
import time
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate

from dgss.files import atomic_path
from dgss.labels import IGNORE
from dgss.towers.mini import MiniImageTower
from mini_scenes import Scenes, crop, jitter

Batch = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Plan:
    """Everything a run depends on."""

    rand: int
    game: int
    steps: int
    seed: int
    batch: int = 8
    height: int = 96
    width: int = 192
    lr: float = 1.5e-3
    encoder_lr: float = 6e-4
    weight_decay: float = 0.02
    class_power: float = 0.35
    averaging: float = 0.999
    text: float = 1.0  # weight of the loss against the sentences; 0: the control that never saw text
    auxiliary: float = 1.0  # weight of the loss of the free linear classifier
    unit_norm: bool = False  # whether pixels have length 1 in the loss, too


class Student(nn.Module):
    """The tower under training with what only training needs: the learned scale and a free linear classifier.

    The classifier on the same cells is an auxiliary loss, which no use of the tower reads.
    """

    def __init__(self, tower: MiniImageTower, unit_norm: bool = False) -> None:
        super().__init__()
        self.tower, self.unit_norm = tower, unit_norm
        self.log_scale = nn.Parameter(torch.tensor(math.log(14.0)))
        self.classifier = nn.Conv2d(96, 19, 1)

    def forward(self, images: Tensor, sentences: Tensor) -> tuple[Tensor, Tensor]:
        """images: (B, 3, H, W); sentences: (B, 19, E). Text and free logits, (B, 19, H/4, W/4) each.

        The pixels are not normalised unless asked. In use only cosines are read, and since the length of a pixel's
        vector is the same for all classes, that changes no arg-max: it frees training to say how sure it is by that
        length. The projection is multiplied into the sentences first, so that no map of 384 channels is made.
        """
        cells = self.tower.neck(self.tower.levels(images))
        weight, bias = self.tower.projection.weight.flatten(1), self.tower.projection.bias
        assert bias is not None
        text = torch.einsum("bkc,bchw->bkhw", sentences @ weight, cells) + (sentences @ bias)[..., None, None]
        if self.unit_norm:  # |W x + b|^2 = x' W'W x + 2 b'W x + b'b
            squares = torch.einsum("dc,bchw->bdhw", weight.T @ weight, cells).mul(cells).sum(1)
            squares = squares + 2.0 * torch.einsum("c,bchw->bhw", bias @ weight, cells) + bias @ bias
            text = text / squares.clamp(min=1e-6).sqrt()[:, None]
        return self.log_scale.exp() * text, self.classifier(cells)


def draw_batch(scenes: Scenes, sentences: list[Tensor], plan: Plan, step: int) -> Batch:
    """Batch `step`, a pure function of (seed, step).

    images: (B, 3, H, W); labels: (B, H/2, W/2) int64; sentences: (B, 19, E), one random sentence per class and image.
    """
    random = np.random.default_rng([plan.seed, step])
    images, labels, chosen = [], [], []
    for number in random.integers(0, len(scenes), plan.batch):
        size = (plan.height, plan.width)
        image, label = crop(scenes.images[number], scenes.labels[number], size, (0.75, 1.6), random)
        images.append(torch.from_numpy(jitter(image, random)).permute(2, 0, 1))
        labels.append(torch.from_numpy(label[::2, ::2].astype(np.int64)))
        chosen.append(torch.stack([choices[random.integers(len(choices))] for choices in sentences]))
    return torch.stack(images).contiguous(), torch.stack(labels), torch.stack(chosen)


def class_weights(scenes: Scenes, power: float) -> Tensor:
    """(1 / frequency)^power, mean 1 over the classes: (19,)."""
    counts = np.bincount(scenes.labels.ravel(), minlength=256)[:19].clip(1)
    weights = (counts.sum() / counts) ** power
    return torch.tensor(weights / weights.mean(), dtype=torch.float32)


def make_optimizer(student: Student, plan: Plan) -> torch.optim.AdamW:
    """AdamW; ImageNet's part learns more slowly, norms and biases do not decay."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in student.named_parameters():
        from_imagenet = name.startswith(("tower.conv_stem", "tower.bn1", "tower.blocks"))
        groups.setdefault((from_imagenet, parameter.ndim > 1), []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "lr": plan.encoder_lr if slow else plan.lr,
                "weight_decay": plan.weight_decay if decays else 0.0,
            }
            for (slow, decays), parameters in groups.items()
        ],
        fused=True,
    )


def rate(step: int, steps: int) -> float:
    """50 steps up, then a cosine down to 0."""
    return min(1.0, (step + 1) / 50) * 0.5 * (1.0 + math.cos(math.pi * step / steps))


def fingerprint(module: nn.Module) -> str:
    """Hash of all weights and buffers, in their order."""
    digest = hashlib.sha256()
    for value in module.state_dict().values():
        digest.update(value.contiguous().numpy().tobytes())
    return digest.hexdigest()


class Run:
    """A pre-training with its checkpoint: student, running mean of its weights, optimizer, step.

    It goes on from what lies at `path`, which the caller names by all that a training depends on.
    """

    def __init__(self, student: Student, plan: Plan, path: Path) -> None:
        self.student, self.plan, self.path = student.to(memory_format=torch.channels_last), plan, path
        self.optimizer = make_optimizer(student, plan)
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        self.mean = deepcopy(student).eval().requires_grad_(False)
        self.step, self.seconds = 0, 0.0
        if self.path.is_file():
            self._load()

    def train(self, scenes: Scenes, sentences: list[Tensor]) -> float:
        """All remaining steps, saved every minute. Returns the CPU-seconds of the whole run."""
        weights = class_weights(scenes, self.plan.class_power)
        self.student.train()
        begin, cpu, saved = time.monotonic(), time.process_time(), time.monotonic()
        first, spent = self.step, self.seconds
        while self.step < self.plan.steps:
            loss = self._one_step(*draw_batch(scenes, sentences, self.plan, self.step), weights)
            self.step += 1
            self.seconds = spent + time.process_time() - cpu
            if self.step % 50 == 0 or self.step == self.plan.steps:
                left = (time.monotonic() - begin) / (self.step - first) * (self.plan.steps - self.step)
                print(f"step {self.step}/{self.plan.steps}  loss {loss:.3f}  {left / 60:.1f} min left", flush=True)
            if time.monotonic() - saved > 60 or self.step == self.plan.steps:
                self._save()
                saved = time.monotonic()
        return self.seconds

    def _one_step(self, images: Tensor, labels: Tensor, sentences: Tensor, weights: Tensor) -> float:
        for group, peak in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = peak * rate(self.step, self.plan.steps)
        loss = images.new_zeros(())
        parts = zip((self.plan.text, self.plan.auxiliary), self.student(images, sentences), strict=True)
        for share, logits in parts:
            if share:
                enlarged = interpolate(logits, labels.shape[-2:], mode="bilinear", align_corners=False)
                loss = loss + share * cross_entropy(enlarged, labels, weights, ignore_index=IGNORE)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.student.parameters(), 5.0)
        self.optimizer.step()
        kept = min(self.plan.averaging, (self.step + 1) / (self.step + 10))
        for mean, value in zip(self.mean.state_dict().values(), self.student.state_dict().values(), strict=True):
            mean.copy_(value if not mean.is_floating_point() else mean.lerp(value, 1.0 - kept))
        return float(loss.detach())

    def _save(self) -> None:
        state = {
            "plan": asdict(self.plan),  # for whoever wonders what a checkpoint is of
            "student": self.student.state_dict(),
            "mean": self.mean.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
        }
        with atomic_path(self.path) as temporary:
            torch.save(state, temporary)

    def _load(self) -> None:
        state = torch.load(self.path, weights_only=True)
        self.student.load_state_dict(state["student"])
        self.mean.load_state_dict(state["mean"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds = int(state["step"]), float(state["seconds"])
