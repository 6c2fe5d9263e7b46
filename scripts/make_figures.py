"""Makes the figures of the ablations from trained runs: `python scripts/make_figures.py --runs runs/ablations`.

clarity.png, clarity.json: pixel semantic clarity by layer, with and without text-to-pixel attention; its table and the
captions of all three go into docs/ablations.md between `<!-- clarity -->` and `<!-- /clarity -->`.
car.png: how similar every pixel is to the word, over all domains, by the shipped model. queries.png: the mask of one
text query beside one random query. The last two are also made for other classes (`--class-name`).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import dgss
from ablation_table import with_between
from dgss.analysis.clarity import Clarity, layer_maps
from dgss.analysis.similarity import query_masks, similarity
from dgss.api.datasets import Data
from dgss.api.load import TrainedModel
from dgss.errors import DataError, DgssError, nearest
from dgss.files import write_text
from dgss.interfaces import Picture
from dgss.labels import IGNORE
from dgss.towers.shipped import MiniSettings
from dgss.training.progress import Progress
from figure_pictures import Mask, Tile, colour_bar, heat, large, layer_lines, outlined, save, sheet

DOCS = Path(__file__).parents[1] / "docs"
WITH, WITHOUT = "with text-to-pixel attention", "without text-to-pixel attention"
CLARITY_RUNS = {WITH: "tqdm-mini-streets", WITHOUT: "tqdm-mini-no-text-attention"}
# neither has the score-map prior, which would draw the text query's mask before its decoder does
QUERY_RUNS = {"text query": "tqdm-mini-no-prior", "random query": "tqdm-mini-random-queries-no-prior"}
SCENES = 24
TEMPLATE = "a photo of a {}"
BEGIN, END = "<!-- clarity -->", "<!-- /clarity -->"


@dataclass(frozen=True)
class Domain:
    """Scenes of one look. images: (N, 3, H, W) float in [0, 1], RGB. labels: (N, H, W) int64, 255 ignored."""

    look: str
    images: Tensor
    labels: Tensor

    def scene(self, number: int) -> tuple[Tensor, Picture, Tensor]:
        """Image (1, 3, H, W), the same as an enlarged picture, and labels (H, W)."""
        image = self.images[number : number + 1]
        pixels = (image[0].permute(1, 2, 0) * 255).round().byte().numpy()
        return image, large(pixels), self.labels[number]

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Images and labels, eight at a time."""
        for first in range(0, len(self.images), 8):
            yield self.images[first : first + 8], self.labels[first : first + 8]


def read_domains(names: Sequence[str], size: tuple[int, int]) -> list[Domain]:
    """The first validation scenes of drawn domains, from the cache, drawn where missing."""
    data, domains = Data({}, size, Progress()), []
    for name in names:
        dataset = data.open(name, "val", SCENES)
        pairs = [dataset.read(index) for index in range(len(dataset))]
        images = torch.from_numpy(np.stack([image for image, _ in pairs])).permute(0, 3, 1, 2).float() / 255
        labels = torch.from_numpy(np.stack([label for _, label in pairs])).long()
        domains.append(Domain(name.removeprefix("streets-"), images.contiguous(), labels))
    return domains


def best_scene(labels: Tensor, class_number: int) -> int:
    """The scene of labels (N, H, W) with the largest share of a class, the first of equal ones."""
    shares = (labels == class_number).double().mean((1, 2))
    if not shares.any():
        raise DataError(f"class {class_number} is in none of {len(labels)} scenes; choose another with --class-name")
    return int(shares.argmax())


def titles(domains: Sequence[Domain]) -> list[str]:
    """Their names in the figures; the first is the source."""
    return [f"{domain.look} (trained on)" if number == 0 else domain.look for number, domain in enumerate(domains)]


# clarity


def seeds_of(runs: Path, recipe: str) -> list[Path]:
    """The finished runs of a recipe, one a seed."""
    found = sorted(path.parent for path in runs.glob(f"{recipe}-seed*/model.safetensors"))
    if not found:
        raise DataError(f"there is no finished run {runs / recipe}-seed0; `make ablations` trains it")
    return found


def clarity_of(run: Path, domains: Sequence[Domain]) -> list[tuple[float, ...]]:
    """By domain, the clarity of x_0 ... x_M."""
    model, rows = dgss.load_model(run, device="cpu"), []
    for domain in domains:
        clarity = Clarity(len(model.labels))
        for images, labels in domain.batches():
            clarity.add(layer_maps(model.method, images), labels)
        rows.append(clarity.values())
    return rows


def clarity_table(curves: Mapping[str, NDArray[np.float64]], looks: Sequence[str]) -> str:
    """The means of (seeds, domains, M + 1) as a Markdown table, ± the sample deviation of several seeds."""
    layers = next(iter(curves.values())).shape[2]
    heads = [f"{words.split()[0]}, m = {m}" for words in curves for m in range(layers)]
    lines = [f"| domain | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    rows = {look: [values[:, number] for values in curves.values()] for number, look in enumerate(looks)}
    rows["mean of targets"] = [values[:, 1:].mean(1) for values in curves.values()]
    for look, parts in rows.items():
        cells = [f"{mean:.3f}{_spread(part, m)}" for part in parts for m, mean in enumerate(part.mean(0))]
        lines.append(f"| {look} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _spread(values: NDArray[np.float64], m: int) -> str:
    return f" ± {values[:, m].std(ddof=1):.3f}" if len(values) > 1 else ""


def clarity_section(runs: Path, domains: Sequence[Domain], images: Path) -> str:
    """Draws clarity.png and answers its part of the page."""
    folders = {words: seeds_of(runs, recipe) for words, recipe in CLARITY_RUNS.items()}
    measured = {words: [clarity_of(run, domains) for run in found] for words, found in folders.items()}
    curves = {words: np.array(values) for words, values in measured.items()}
    looks = [domain.look for domain in domains]
    layer_lines(curves, titles(domains), images / "clarity.png")
    names = " and ".join(f"{len(folders[words])} of `{recipe}`" for words, recipe in CLARITY_RUNS.items())
    several = max(map(len, folders.values())) > 1
    spread = "mean ± sample standard deviation (band) of the runs" if several else "runs"
    record = {
        words: {run.name: rows for run, rows in zip(folders[words], measured[words], strict=True)} for words in folders
    }
    write_text(images / "clarity.json", json.dumps({"domains": looks, "clarity": rounded(record)}) + "\n")
    return f"""![Pixel semantic clarity over the layers of the pixel decoder, nine domains](images/clarity.png)

**Pixel semantic clarity** of layer m: the mean over labelled cells (stride 8) of the cosine between the cell's vector
and the mean vector of its class, minus its mean cosine with the mean vectors of all other classes that occur. Class
means are those of the domain and the layer; m = 0 goes into the pixel decoder, the last comes out of it. {SCENES}
validation scenes a domain; {spread}: {names}.
The formula is ours (`analysis/clarity.py`): the paper's was not readable to us. Every number:
[clarity.json](images/clarity.json).

{clarity_table(curves, looks)}
"""


def rounded(value: object) -> object:
    """Every number in nested lists and tables to four places."""
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, Mapping):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, Sequence) and not isinstance(value, str) else value


# similarity and queries


def similarity_section(domains: Sequence[Domain], name: str, number: int, path: Path) -> str:
    """Draws the similarity of every pixel to a class name, by the towers as shipped."""
    towers = MiniSettings().build()
    towers.image.eval()
    scenes = [domain.scene(best_scene(domain.labels, number)) for domain in domains]
    truths = [(labels == number).numpy() for _, _, labels in scenes]
    maps = [similarity(towers, image, [name], TEMPLATE)[0, 0].numpy() for image, _, _ in scenes]
    low, high = np.floor(10 * np.min(maps)) / 10, np.ceil(10 * np.max(maps)) / 10
    names, rows = titles(domains), []
    for first in range(0, len(domains), 3):
        band = range(first, min(first + 3, len(domains)))
        rows.append([Tile(scenes[i][1], names[i]) for i in band])
        rows.append([Tile(outlined(large(heat(maps[i], low, high)), truths[i])) for i in band])
    words = f"cosine between the pixel and the text “{TEMPLATE.format(name)}”; outlined: {name} in truth"
    save(sheet(rows, colour_bar(rows[0][0].picture.shape[1] * 2, low, high, words)), path)
    return f"""![How similar every pixel is to the word {name}, nine domains](images/{path.name})

**The word "{name}" over nine domains**: cosine between every pixel's vector and the text "{TEMPLATE.format(name)}", by
the mini model as shipped, before any training on the source; one colour scale for all, the class outlined. Its image
tower has seen drawn streets of the looks `rand` and `game`, none of the other eight. The scene is, of each domain's
first {SCENES} for validation, the one with the largest share of the class.
"""


def mask_iou(model: TrainedModel, domain: Domain, number: int) -> float:
    """IoU in percent of a query's mask above one half with the pixels of its class, over all scenes."""
    both, either = 0, 0
    for images, labels in domain.batches():
        truth, found, counted = labels == number, query_masks(model.method, images, number) > 0.5, labels != IGNORE
        both += int((truth & found & counted).sum())
        either += int(((truth | found) & counted).sum())
    return 100 * both / either


def queries_section(runs: Path, domains: Sequence[Domain], name: str, number: int, path: Path) -> str:
    """Draws image, mask of the text query, mask of the random query, a row a domain."""
    text, random = folders = [seeds_of(runs, recipe)[0] for recipe in QUERY_RUNS.values()]
    models = {words: dgss.load_model(run, device="cpu") for words, run in zip(QUERY_RUNS, folders, strict=True)}
    rows = []
    scores = {words: [mask_iou(model, domain, number) for domain in domains] for words, model in models.items()}
    for place, (domain, title) in enumerate(zip(domains, titles(domains), strict=True)):
        image, picture, labels = domain.scene(best_scene(domain.labels, number))
        truth: Mask = (labels == number).numpy()
        row = [Tile(outlined(picture, truth), title, f"outlined: {name}")]
        for words, model in models.items():
            mask = query_masks(model.method, image, number)[0].numpy()
            shown = outlined(large(heat(mask, 0, 1)), truth)
            row.append(Tile(shown, words, f"IoU in {SCENES} scenes {scores[words][place]:.0f} %"))
        rows.append(row)
    words = f"mask of the query for “{name}”, from 0 to 1; IoU of the mask above one half"
    save(sheet(rows, colour_bar(rows[0][0].picture.shape[1] * 2, 0, 1, words, 0.5)), path)
    means = " and ".join(f"{np.mean(values[1:]):.1f} by the {words}" for words, values in scores.items())
    return f"""![Masks of a text query and a random query for {name}, nine domains](images/{path.name})

**One text query beside one random query**: the mask of the query for "{name}" after the last decoder layer, made from
text (`{text.name}`) or learned from random numbers (`{random.name}`). Both models match query k to class k while they
train, so it is the same k in both; neither has the score-map prior, so that the query is all they differ in. Scenes as
above; IoU: of the mask above one half, over the {SCENES} scenes of the domain; on the mean of the targets {means}.
"""


def main() -> None:
    """Makes the figures; for another class than car only its two pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs/ablations"), help="folder of the trained runs")
    parser.add_argument("--docs", type=Path, default=DOCS, help="where pictures (in images/) and page are written")
    parser.add_argument("--class-name", default="car", help="whose similarity and queries are drawn")
    options = parser.parse_args()
    try:
        make(options.runs, options.docs, options.class_name)
    except DgssError as error:
        raise SystemExit(str(error)) from None


def make(runs: Path, docs: Path, name: str) -> None:
    """Draws everything; the page is written last."""
    page, usual = docs / "ablations.md", name == "car"
    if usual:
        with_between(page, BEGIN, END, "")  # refused before any work
    found = [seeds_of(runs, recipe) for recipe in (*CLARITY_RUNS.values(), *QUERY_RUNS.values())]  # before any work
    model = dgss.load_model(found[0][0], device="cpu")
    if name not in model.labels.names:
        raise DataError(f"no class is called {name!r}: {nearest(name, model.labels.names)}")
    recipe, number = model.recipe, model.labels.names.index(name)
    domains, images = read_domains([recipe.source, *recipe.targets], recipe.drawn.size), docs / "images"
    word = name.replace(" ", "-")
    sections = [clarity_section(runs, domains, images)] if usual else []
    sections.append(similarity_section(domains, name, number, images / f"{word}.png"))
    queries = images / ("queries.png" if usual else f"queries-{word}.png")
    sections.append(queries_section(runs, domains, name, number, queries))
    body = "\n".join(sections)
    print(body)
    if usual:
        write_text(page, with_between(page, BEGIN, END, body))
        print(f"written into {page}")


if __name__ == "__main__":
    main()
