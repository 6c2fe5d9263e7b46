"""The whole of tqdm at its published sizes, as a multiple of its own image tower's forward pass in the same process.

    python benchmarks/whole_model.py [--threads 1] [--repeats 3] [--model tqdm-clip-b-gta5]

Random weights, one image of 512x512, float32. The last lines are forward as in a prediction / tower, step (forward,
losses, backward) / tower, and the peak of memory of a step with AdamW's.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from common import medians, parser
from torch import Tensor, nn

from dgss.interfaces import Batch, Method, SampleGenerator
from dgss.levels import whole
from dgss.recipes.schema import Recipe
from dgss.training.devices import memory_kept, peak_memory
from dgss.training.optimizer import build_optimizer

SIDE = 512


def batch(classes: int) -> Batch:
    """One image of blocks of 64 pixels, with their classes."""
    draw = torch.Generator().manual_seed(0)
    labels = torch.randint(classes, (1, SIDE // 64, SIDE // 64), generator=draw)
    labels = labels.repeat_interleave(64, 1).repeat_interleave(64, 2)
    images = torch.rand(1, 3, SIDE, SIDE, generator=draw)
    return Batch(images, labels, torch.ones_like(labels, dtype=torch.bool), torch.zeros(1, dtype=torch.long))


def step(method: Method, given: Batch, optimizer: torch.optim.Optimizer | None = None) -> None:
    """Forward, losses and backward, and the optimizer's step where there is one."""
    losses = method.losses(method(given.images, given.valid), given, SampleGenerator(0, given.numbers))
    torch.autograd.backward(torch.stack(list(losses.values())).sum())
    if optimizer is not None:
        optimizer.step()
        optimizer.zero_grad()


def levels(tower: nn.Module, given: Batch) -> list[Tensor]:
    """The tower's forward pass, all four levels made, too."""
    return [whole(level) for level in tower(given.images, given.valid).levels]


def main() -> None:
    """Times, then memory."""
    known = parser(__doc__, repeats=3)
    known.add_argument("--model", default="tqdm-eva02-l-gta5")
    options = known.parse_args()
    torch.set_num_threads(options.threads)
    recipe = Recipe.load(options.model, ["tower.weights=none"])
    method, given = recipe.build(), batch(len(recipe.labels))
    tower = method.get_submodule("tower")

    def still(run: Callable[[], object]) -> Callable[[], object]:
        return torch.no_grad()(run)

    with memory_kept():  # as in training
        found = medians(
            {
                "tower": still(lambda: levels(tower.eval(), given)),
                "forward": still(lambda: method.eval()(given.images, given.valid)),
                "step": lambda: step(method.train(), given),
            },
            options.repeats,
        )
        print(", ".join(f"{name} {seconds:.2f} s" for name, seconds in found.items()))
        optimizer = build_optimizer(method.parameter_groups(), recipe.training.optimizer)
        for _ in range(2):
            step(method, given, optimizer)
    print(f"forward / tower {found['forward'] / found['tower']:.2f}")
    print(f"step / tower {found['step'] / found['tower']:.2f}")
    print(f"memory {peak_memory():.1f} GB")


if __name__ == "__main__":
    main()
