"""Where the data of a recipe lie: folders of the user's, or the cache for streets that are drawn on demand.

The user's folders are only read: nothing is drawn, changed or removed outside the cache.

Light at the top: listing the domains loads neither torch nor pydantic.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from dgss.data.domains import DOMAINS, Domain, domain
from dgss.errors import DataError
from dgss.files import cache_folder, path_errors
from dgss.labels import LabelSpace, label_space

if TYPE_CHECKING:
    from dgss.data.dataset import Dataset
    from dgss.evaluation.protocols import Protocol
    from dgss.training.progress import Progress

Roots = Mapping[str, Path]
"""Folders by domain; `default` is for those that are not named."""

DEFAULT = "default"


def list_domains() -> list[Domain]:
    """Every data set this package reads or draws."""
    return list(DOMAINS.values())


def as_path(value: str | Path, argument: str) -> Path:
    """What a user gives as the path `argument`, without `~`. Raises `DataError` where it is none."""
    if not isinstance(value, str | os.PathLike) or not str(value):
        found = "an empty word" if value == "" else f"of type {type(value).__name__}"
        raise DataError(f"{argument} is {found}; it should be a path")
    with path_errors(Path(value)):
        return Path(value).expanduser()


def as_roots(data: str | Path | Mapping[str, str | Path] | None) -> dict[str, Path]:
    """What a user gives as `data`, with absolute paths. Raises `DataError` for unknown domains and missing folders."""
    given = {DEFAULT: data} if data is not None and not isinstance(data, Mapping) else dict(data or {})
    roots = {name: as_path(folder, "data").absolute() for name, folder in given.items()}
    for name, folder in roots.items():
        if name != DEFAULT:
            domain(name)
        with path_errors(folder):
            if not folder.is_dir():
                what = "data" if name == DEFAULT else name
                raise DataError(f"there is no folder {folder} to read {what} from; name another with --data")
    return roots


@dataclass(frozen=True)
class Data:
    """Opens data sets. roots: the user's folders. size: (H, W) of streets that are drawn."""

    roots: Roots
    size: tuple[int, int]
    progress: Progress = field(repr=False)

    def check_trained(self, name: str) -> None:
        """Raises `DataError`, before time is spent, where a domain to train on cannot be found. Streets that the user
        has no folder of are drawn on demand and never missing."""
        self._check(name, "train")

    def check_scored(self, name: str, classes: LabelSpace, rule: Protocol) -> None:
        """The same for a domain to score on; also raises where the model's `classes` do not fold into its own."""
        classes.fold(label_space(domain(name).labels))
        self._check(name, rule.view(name).split)

    def open(
        self, name: str, split: str, count: int | None = None, workers: int | None = None, memory: int | None = None
    ) -> Dataset:
        """A split of a domain: of streets the first `count` pairs, drawn where missing (of those in a folder of the
        user's as many as there are), of other domains all. memory: bytes of decoded pictures to keep, None as usual.
        """
        from dgss.data.dataset import MEMORY, Dataset

        entry, root, kept = domain(name), self._root(name), MEMORY if memory is None else memory
        if entry.drawn is None:
            return Dataset(entry, self._given(name, root), split, memory=kept)
        if root is not None:
            self._check(name, split)
            dataset = Dataset(entry, root, split, memory=kept)
            dataset.pairs = dataset.pairs[:count]
            return dataset
        assert count is not None
        from dgss.streets.write import write_split

        with self.progress.bar(f"drawing {name}, {split},") as advance:
            folder = write_split(
                cache_folder() / "streets" / f"{self.size[1]}x{self.size[0]}",
                entry.drawn,
                split,
                count,
                self.size,
                workers,
                lambda done, total: advance(done, total, ""),
            )
        return Dataset(entry, folder, split, count, kept)

    def _check(self, name: str, split: str) -> None:
        """Raises `DataError` where a split that is not drawn on demand is missing."""
        entry, root = domain(name), self._root(name)
        if entry.drawn is None:
            entry.pairs(self._given(name, root), split)
        elif root is not None:
            try:
                entry.pairs(root, split)
            except DataError as error:
                raise DataError(f"{error}; leave --data out for {name} and it is drawn") from error

    def _root(self, name: str) -> Path | None:
        """The user's folder of a domain. In the one folder for all domains streets are read only if they are there."""
        if name in self.roots or domain(name).drawn is None:
            return self.roots.get(name) or self.roots.get(DEFAULT)
        common = self.roots.get(DEFAULT)
        return common if common is not None and (common / name).is_dir() else None

    def _given(self, name: str, root: Path | None) -> Path:
        if root is None:
            raise DataError(
                f"{name} needs a folder: --data DIR or --data {name}=DIR; it comes from {domain(name).source}"
            )
        return root
