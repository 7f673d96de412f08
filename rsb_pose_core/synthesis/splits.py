"""Which bodies, garments, textures, lights and motions each split may show."""

import zlib
from collections.abc import Iterable

SPLITS = ('train', 'val', 'test')
TEST_SHARE, VAL_SHARE = 0.2, 0.1


def names_of(split: str, names: Iterable[str]) -> list[str]:
    """The names of a split: a fixed share of them, the same whatever order they come in.

    One in five (at least one) is for the test split, one in ten (at least one) for validation, the
    rest for training. Two names or fewer are shared by all splits.
    """
    order = sorted(names, key=lambda name: (zlib.crc32(name.encode()), name))
    if len(order) <= len(SPLITS) - 1:
        return sorted(order)
    test = max(1, round(TEST_SHARE * len(order)))
    val = max(1, round(VAL_SHARE * len(order)))
    parts = {'test': order[:test], 'val': order[test : test + val], 'train': order[test + val :]}
    return sorted(parts[split])
