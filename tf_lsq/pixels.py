"""`Pixels`: how the values that a model takes encode the bytes of an image.

An app has bytes, 0 to 255. If the grid of a file's input is that of the bytes, an app
copies them: the code of a byte is the byte (uint8), or the byte minus 128 (int8).
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

LARGEST_BYTE = 255
ORDERS = ("rgb", "bgr")
Numbers = float | tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Pixels:
    """How the values of an image input encode bytes: ``(byte - mean) / std``.

    Attributes:
        mean: One number, or one per channel in the order in which the model takes them.
        std: The same, positive.
        order: "rgb": the model takes channels in the order of the app's bytes. "bgr":
            it was trained on blue, green, red (OpenCV's order), and the app has red,
            green, blue: the file reverses the channels.

    Raises:
        ValueError: If an attribute is none of these; the error names them all.

    Example:
        >>> Pixels(mean=127.5, std=127.5).encode(np.array([0, 255], np.uint8))
        array([-1.,  1.], dtype=float32)
        >>> str(Pixels())
        'byte / 255'
    """

    mean: Numbers = 0.0
    std: Numbers = 255.0
    order: str = "rgb"

    def __post_init__(self) -> None:
        """Checks the attributes, and turns them into plain numbers."""
        problems: list[str] = []
        for name in ("mean", "std"):
            given = getattr(self, name)
            numbers = _numbers(given)
            if numbers is None:
                problems.append(f"{name}={given!r}")
                continue
            object.__setattr__(self, name, numbers)
            if name == "std" and min(np.atleast_1d(numbers)) <= 0.0:
                problems.append(f"std={given!r}, which must be positive")
        if self.order not in ORDERS:
            problems.append(f"order={self.order!r}")
        if not problems and len({len(n) for n in self._per_channel()}) > 1:
            problems.append(f"mean={self.mean}, std={self.std} of different lengths")
        if problems:
            raise ValueError(
                "`Pixels` must have a `mean` and a positive `std`, each one number or "
                f"one per channel, and an `order` of {list(ORDERS)}. Received: "
                f"{'; '.join(problems)}."
            )

    @property
    def num_channels(self) -> int | None:
        """How many channels there are numbers for, None if one is for all of them."""
        return next((len(numbers) for numbers in self._per_channel()), None)

    @property
    def single(self) -> tuple[float, float] | None:
        """Mean and std if they are the same for all channels, else None."""
        pair = [set(np.atleast_1d(numbers)) for numbers in (self.mean, self.std)]
        if any(len(numbers) > 1 for numbers in pair):
            return None
        mean, std = (float(numbers.pop()) for numbers in pair)
        return mean, std

    def decode(self, x: Any) -> Any:
        """Returns the bytes that values encode, neither rounded nor limited.

        Args:
            x: float32, an array or a tensor, `[..., channels]`.

        Returns:
            Shape and type of `x`, with channels in the app's order.
        """
        mean, std = (np.asarray(n, np.float32) for n in (self.mean, self.std))
        return self._reordered(x * std + mean)

    def bytes_of(self, x: np.ndarray) -> np.ndarray:
        """Returns what an app has for values: the nearest bytes, ties to even.

        Args:
            x: Values, `[..., channels]`.

        Returns:
            uint8, shape of `x`, with channels in the app's order.
        """
        decoded = np.rint(self.decode(np.asarray(x).astype(np.float32)))
        return np.clip(decoded, 0, LARGEST_BYTE).astype(np.uint8)

    def encode(self, pixels: np.ndarray) -> np.ndarray:
        """Returns the values that a model takes for the bytes of an app.

        Args:
            pixels: Bytes, `[..., channels]`, in the app's order.

        Returns:
            float32, shape of `pixels`.
        """
        mean, std = (np.asarray(n, np.float64) for n in (self.mean, self.std))
        values = (self._reordered(np.asarray(pixels)).astype(np.float64) - mean) / std
        return values.astype(np.float32)

    def to_dict(self) -> dict[str, Any]:
        """Returns the attributes as plain data."""
        mean, std = (
            list(n) if isinstance(n, tuple) else n for n in (self.mean, self.std)
        )
        return {"mean": mean, "std": std, "order": self.order}

    def __str__(self) -> str:
        """Returns the formula, with numbers to 6 digits."""
        mean, std = map(_text, (self.mean, self.std))
        text = "byte" if mean == "0" else f"(byte - {mean})"
        text = text if std == "1" else f"{text} / {std}"
        return text if self.order == "rgb" else f"{text}, channels reversed"

    def _per_channel(self) -> list[tuple[float, ...]]:
        """Returns those of mean and std that have one number per channel."""
        return [n for n in (self.mean, self.std) if isinstance(n, tuple)]

    def _reordered(self, values: Any) -> Any:
        """Returns values with their channels in the other order, if they differ."""
        return values[..., ::-1] if self.order == "bgr" else values


@dataclasses.dataclass(frozen=True)
class PixelGrid:
    """The grid of a file's input whose codes are bytes.

    A code stands for ``(byte - zero) / divisor``. That is not always the value that the
    model takes: if 0 is on no byte, or channels differ, bytes stand for themselves, and
    the normalization follows as an operator.

    Attributes:
        pixels: How the values that the model takes encode bytes.
        zero: The byte that stands for 0.
        divisor: How many bytes stand for 1.
    """

    pixels: Pixels
    zero: int = 0
    divisor: float = 1.0

    @property
    def step(self) -> float:
        """Value of one code, exactly representable in float32."""
        return float(np.float32(1.0 / self.divisor))

    def represented(self, decoded: Any) -> Any:
        """Returns what bytes stand for.

        Args:
            decoded: Bytes, float32, an array or a tensor; they need not be whole.
        """
        return (decoded - np.float32(self.zero)) * np.float32(self.step)

    def to_bytes(self, values: np.ndarray) -> np.ndarray:
        """Returns the bytes that stand for values, float64, not rounded or limited.

        Args:
            values: What `represented` returned.
        """
        return np.asarray(values, np.float64) / self.step + self.zero

    def of_itself(self) -> PixelGrid:
        """Returns the grid of a tensor that already has these values."""
        return dataclasses.replace(self, pixels=Pixels(self.zero, self.divisor))

    def to_dict(self) -> dict[str, Any]:
        """Returns the attributes as plain data."""
        own = {"zero": self.zero, "divisor": self.divisor}
        return {"pixels": self.pixels.to_dict(), **own}

    @classmethod
    def from_dict(cls, config: dict[str, Any]) -> PixelGrid:
        """Returns the grid that `to_dict` described."""
        return cls(Pixels(**config["pixels"]), config["zero"], config["divisor"])


def _numbers(given: Any) -> Numbers | None:
    """Returns a number, or a tuple of them; None if it is neither."""
    try:
        numbers = np.asarray(given)
        if numbers.dtype.kind not in "iuf" or numbers.ndim > 1 or not numbers.size:
            return None
    except ValueError:  # Of rows of several lengths.
        return None
    plain: list[float] = np.atleast_1d(numbers).astype(np.float64).tolist()
    if not all(map(math.isfinite, plain)):
        return None
    return tuple(plain) if numbers.ndim else plain[0]


def _text(numbers: Numbers) -> str:
    """Returns one number, or a list of them, to 6 digits."""
    if isinstance(numbers, tuple):
        return f"[{', '.join(f'{number:.6g}' for number in numbers)}]"
    return f"{numbers:.6g}"
