"""Runtimes, as data: which kernels run an operator of a file, and how they round.

LiteRT has two sets of kernels on every processor: XNNPACK's, which it uses wherever it
can, and TFLite's own ("builtin"). Both were compared with the real runtimes, tensor by
tensor: x86-64 on the processor itself, arm64 on emulated cores (Cortex-A53, Cortex-A76,
Neoverse N2), which all compute the same, and WebAssembly in Chromium.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import platform
from pathlib import Path
from typing import Literal

import numpy as np

from .rounding import MATRIX_KINDS, half_up_channels

# What rounds a fixed-point product with a ratio:
#   once   the exact product, half up
#   twice  the product, half up, then its shift, half up or away from zero
Rounding = Literal["once", "twice"]
KERNELS = ("xnnpack", "builtin")
_RUY_AVX = 0x10 | 0x20 | 0x40  # Flags of `RUY_PATHS`: AVX, AVX2 with FMA, AVX-512.


@dataclasses.dataclass(frozen=True)
class Runtime:
    """What runs a file.

    Attributes:
        name: As given to `integer_twin`.
        xnnpack: Whether XNNPACK runs the operators that it has kernels for.
        matrix: How TFLite's own CONV_2D and FULLY_CONNECTED round.
        vectors_round_twice: Whether they round twice nevertheless if a batch of one
            example is the product of a matrix and a vector.
        exact_product: Whether XNNPACK's MUL rounds the exact product, half up; else it
            rounds one of float32, half to even.
        fused_mean: Whether XNNPACK's MEAN and SUM multiply and add in one operation,
            which rounds once; else they round the product to float32 first.
        softmax: How SOFTMAX computes: in "floats", with a table of 16-bit "integers",
            or with "fixed" points.
        own_math: Whether it takes TANH and ELU from this machine's C library, as LiteRT
            does; else they are the nearest float32 numbers. Libraries differ in the
            last bit, which decides next to ties.
        fixed_sum: Whether TFLite's own SUM rounds a fixed-point product twice; else it
            rounds a number in floating point.
        vectors: Whether TFLite's own kernels compute channels in vectors, whose shifts
            round half up; else all shifts round half away from zero.
        image_mean: Whether a MEAN over height and width has a separate kernel.
        exact_int16_matrix: Whether FULLY_CONNECTED in int16 rounds the exact product;
            else, as all convolutions in int16, one with a ratio of 16 bits.
        int16_sum_vector: How many codes ADD in int16 computes at once, if both inputs
            have one shape: then it aligns codes in one product, which rounds once; else
            it shifts them first.
        double_products: Whether MUL takes the ratio of scales in float64; else float32.
    """

    name: str
    xnnpack: bool = True
    matrix: Rounding = "once"
    vectors_round_twice: bool = False
    exact_product: bool = False
    fused_mean: bool = False
    softmax: Literal["floats", "integers", "fixed"] = "floats"
    own_math: bool = False
    fixed_sum: bool = False
    vectors: bool = True
    image_mean: bool = True
    exact_int16_matrix: bool = True
    int16_sum_vector: int = 16
    double_products: bool = False

    def rounds_twice(self, kind: str, kernel: tuple[int, ...], positions: int) -> bool:
        """Returns whether TFLite's own kernel of an operator rounds twice.

        LiteRT has a separate kernel on arm64 for the product of a matrix and a vector,
        which takes 4 channels at once, and at least 8 numbers.

        Args:
            kind: Kind of its kernel: of the operator, or "grouped_conv", which is one
                loop on every processor.
            kernel: Shape of the kernel, channels last.
            positions: At how many positions of an example it computes all channels.

        Reference: tflite/kernels/cpu_backend_gemm_custom_gemv.h
        """
        if kind not in MATRIX_KINDS or self.matrix == "twice":
            return True
        depth, channels = math.prod(kernel[:-1]), kernel[-1]
        is_vector = positions == 1 and channels >= 4 and depth >= 8
        return self.vectors_round_twice and is_vector

    def with_kernels(self, kernels: str) -> Runtime:
        """Returns this runtime with one of its sets of kernels.

        Args:
            kernels: One of `KERNELS`.

        Raises:
            ValueError: If there is no such set.
        """
        if kernels not in KERNELS:
            raise ValueError(
                f"`kernels` must be one of {list(KERNELS)}. Received: {kernels!r}."
            )
        return dataclasses.replace(self, xnnpack=self.xnnpack and kernels == "xnnpack")

    def half_up(self, kind: str, channels: int) -> np.ndarray:
        """Returns per channel whether ties of a shift round up, else away from zero.

        Args:
            kind: Kind of its kernel: of the operator, or "grouped_conv".
            channels: How many channels it has.
        """
        return self.vectors & half_up_channels(kind, channels)


ARM64 = Runtime(
    "arm64",
    vectors_round_twice=True,
    exact_product=True,
    fused_mean=True,
    softmax="integers",
)
# Its matrix kernels round once where the processor has no AVX.
X86_64 = Runtime("x86-64", matrix="twice", own_math=True)
TFLM = Runtime(
    "tflm",
    xnnpack=False,
    matrix="twice",
    softmax="fixed",
    fixed_sum=True,
    vectors=False,
    image_mean=False,
    exact_int16_matrix=False,
    int16_sum_vector=0,
    double_products=True,
)
# LiteRT.js: its build for relaxed SIMD and that for other browsers compute the same.
# Their C library decides the table of ELU next to ties, where a code can be off by one.
WASM = Runtime("wasm")
RUNTIMES = {runtime.name: runtime for runtime in (ARM64, X86_64, WASM, TFLM)}


def find_runtime(name: str) -> Runtime:
    """Returns a runtime by its name.

    Raises:
        ValueError: If the name is unknown.
    """
    if name not in RUNTIMES:
        raise ValueError(
            f"`runtime` must be one of {list(RUNTIMES)}. Received: {name!r}."
        )
    return RUNTIMES[name]


@functools.cache
def this_machine() -> Runtime:
    """Returns LiteRT on this machine.

    Its library for matrices, ruy, takes its kernels for AVX, AVX2 or AVX-512 where the
    processor has them, unless the environment variable `RUY_PATHS` leaves them out.

    Reference: ruy/path.h of https://github.com/google/ruy
    """
    if platform.machine().lower() in ("aarch64", "arm64"):
        return dataclasses.replace(ARM64, own_math=True)
    allowed = int(os.environ.get("RUY_PATHS") or "ff", 16)
    if allowed & _RUY_AVX and _has_avx():
        return X86_64
    return dataclasses.replace(X86_64, matrix="once")


def _has_avx() -> bool:
    """Returns whether the processor has AVX; those without are of before 2011."""
    path = Path("/proc/cpuinfo")
    return not path.exists() or "avx" in path.read_text().split()
