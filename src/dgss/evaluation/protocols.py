"""Protocols: at which size a domain is looked at and which pixels are scored. Every number carries its protocol."""

from __future__ import annotations

from dataclasses import dataclass, field

from dgss.errors import DataError, nearest


@dataclass(frozen=True)
class View:
    """How one domain is scored.

    split: which part. size: (H, W) that images (bilinear) and labels (nearest) are resized to, None as they are.
    stride: every n-th row and column of labels and predictions counts. usual: the (H, W) of the images where they are
    taken as they are; scores of others carry their size in the protocol's name.
    """

    split: str = "val"
    size: tuple[int, int] | None = None
    stride: int = 1
    usual: tuple[int, int] | None = None

    @property
    def words(self) -> str:
        """The rule as a reader must know it, without the name of the domain."""
        seen = f"resized to {self.size[1]}x{self.size[0]}" if self.size else "at their own size"
        nth = {1: "pixel", 2: "second row and column"}.get(self.stride, f"{self.stride}th row and column")
        return f"images of the {self.split} split {seen}, every {nth} counted"


@dataclass(frozen=True)
class Protocol:
    """A named rule. views: by domain; a name ending in `*` stands for all that begin so."""

    name: str
    views: dict[str, View] = field(hash=False)

    def view(self, domain: str) -> View:
        """The rule for a domain. Raises `DataError` where the protocol has none."""
        for pattern, view in self.views.items():
            if domain == pattern or (pattern.endswith("*") and domain.startswith(pattern[:-1])):
                return view
        raise DataError(f"protocol {self.name!r} has no rule for {domain!r}: {nearest(domain, self.views)}")

    def scored_as(self, domain: str, size: tuple[int, int] | None) -> str:
        """The name that scores of images of this size (None mixed) carry: another than the usual one is added."""
        usual = self.view(domain).usual
        if usual is None or size == usual:
            return self.name
        return f"{self.name}-{size[1]}x{size[0]}" if size else f"{self.name}-mixed"


PROTOCOLS: dict[str, Protocol] = {
    "drawn": Protocol(
        name="drawn",
        views={
            "streets-*": View(split="val", stride=2, usual=(128, 256)),
            "camvid": View(split="test", size=(144, 192)),
        },
    ),
}
"""Every protocol by its name."""


def protocol(name: str) -> Protocol:
    """A protocol by its name. Raises `DataError` on another."""
    if name not in PROTOCOLS:
        raise DataError(f"no protocol is called {name!r}: {nearest(name, PROTOCOLS)}")
    return PROTOCOLS[name]
