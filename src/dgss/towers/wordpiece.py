"""Splits text into the word pieces of uncased BERT models.

Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding" (2019), Sec. 3 names
the vocabulary; the rules are those of the released program: clean, lower-case, strip accents, split at punctuation,
then the longest known piece from the left, with `##` in front of every piece inside a word.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence

PAD, UNKNOWN, START, END = "[PAD]", "[UNK]", "[CLS]", "[SEP]"

# a longer run of letters is no word: the released program answers [UNK] without searching
_LONGEST_WORD = 100
_CHINESE = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)


class WordPieces:
    """A vocabulary, in the order of its ids, and the splitting by it."""

    def __init__(self, vocabulary: Sequence[str]) -> None:
        self.vocabulary = tuple(vocabulary)
        self._ids = {piece: number for number, piece in enumerate(self.vocabulary)}
        self.pad, self.unknown, self.start, self.end = (self._ids[name] for name in (PAD, UNKNOWN, START, END))

    def __len__(self) -> int:
        return len(self.vocabulary)

    def split(self, text: str) -> list[str]:
        """The pieces of a text, e.g. `["tar", "##mac"]`; a word that no pieces make up is `[UNK]`."""
        return [piece for word in words(text) for piece in self._pieces(word)]

    def ids(self, text: str) -> list[int]:
        """The ids of a text with the start and the end token around it."""
        return [self.start, *(self._ids[piece] for piece in self.split(text)), self.end]

    def _pieces(self, word: str) -> list[str]:
        if len(word) > _LONGEST_WORD:
            return [UNKNOWN]
        pieces: list[str] = []
        begin = 0
        while begin < len(word):
            prefix = "##" if begin else ""
            ends = range(len(word), begin, -1)
            end = next((end for end in ends if prefix + word[begin:end] in self._ids), None)
            if end is None:
                return [UNKNOWN]
            pieces.append(prefix + word[begin:end])
            begin = end
        return pieces


def words(text: str) -> Iterator[str]:
    """The words of a text, lower-case and without accents; every punctuation mark is a word of its own."""
    cleaned = "".join(_clean(character) for character in text)
    plain = unicodedata.normalize("NFD", cleaned.lower())
    for chunk in "".join(c for c in plain if unicodedata.category(c) != "Mn").split():
        word = ""
        for character in chunk:
            if not _is_punctuation(character):
                word += character
                continue
            if word:
                yield word
            yield character
            word = ""
        if word:
            yield word


def _clean(character: str) -> str:
    """White space becomes a blank, control characters vanish, Chinese characters stand alone."""
    code = ord(character)
    if character in "\t\n\r" or unicodedata.category(character) == "Zs":
        return " "
    if code in (0, 0xFFFD) or unicodedata.category(character).startswith("C"):
        return ""
    return f" {character} " if any(first <= code <= last for first, last in _CHINESE) else character


def _is_punctuation(character: str) -> bool:
    """Every mark of ASCII counts, `$` and `^` too, which Unicode calls symbols."""
    code = ord(character)
    ascii_mark = 33 <= code <= 47 or 58 <= code <= 64 or 91 <= code <= 96 or 123 <= code <= 126
    return ascii_mark or unicodedata.category(character).startswith("P")
