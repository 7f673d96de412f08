"""Names from before snake_case, which Jazzy keeps with a DeprecationWarning."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np


def renamed_method(old: str, new: str, as_matrix: bool = False) -> Callable[..., Any]:
    """Return a method that warns and calls `new`; its array becomes a numpy.matrix if asked."""

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        _warn(f'{old}()', f'{new}()')
        result = getattr(self, new)(*args, **kwargs)
        return np.matrix(result, dtype=np.float64) if as_matrix else result

    method.__name__ = old
    method.__doc__ = f'Call `{new}`; deprecated.'
    return method


def renamed_attribute(
    old: str, attribute: str, instead: str = '', as_matrix: bool = False
) -> property:
    """Return a read-only property that warns and reads `attribute`."""

    def read(self: Any) -> Any:
        _warn(old, instead)
        value = getattr(self, attribute)
        return np.matrix(value, dtype=np.float64) if as_matrix else value

    return property(
        read, doc=f'Read-only and deprecated{f": use `{instead}`" if instead else ""}.'
    )


def _warn(old: str, instead: str) -> None:
    advice = f'use {instead} instead' if instead else 'it is not meant to be read'
    warnings.warn(
        f'{old} is deprecated since Jazzy and gone in Kilted: {advice}',
        DeprecationWarning,
        stacklevel=3,
    )
