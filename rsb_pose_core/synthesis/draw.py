"""Random draws on one device from one seed."""

import math

import torch
from torch import Tensor


class Draw:
    """Named distributions over one generator: the same seed gives the same values."""

    def __init__(self, seed: int, device: str = 'cpu') -> None:
        self.device = device
        self.generator = torch.Generator(device=device).manual_seed(seed)

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        unit = torch.rand(*shape, device=self.device, generator=self.generator)
        return low + (high - low) * unit

    def log_uniform(self, low: float, high: float, *shape: int) -> Tensor:
        return self.uniform(math.log(low), math.log(high), *shape).exp()

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, device=self.device, generator=self.generator)

    def chance(self, probability: float, *shape: int) -> Tensor:
        """True with the given probability."""
        return self.uniform(0.0, 1.0, *shape) < probability

    def integer(self, high: int, *shape: int) -> Tensor:
        """0 <= value < high."""
        return torch.randint(0, high, shape, device=self.device, generator=self.generator)

    def choose(self, options: Tensor, *shape: int) -> Tensor:
        """Rows of `options`, uniformly."""
        return options[self.integer(len(options), *shape)]
