"""`suggest_bits`: suggests bits for every layer within a budget of file bytes."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tqdm.auto import tqdm

import tf_lsq
from tf_lsq import lsq
from tf_lsq._compat import keras
from tf_lsq.data import as_data, batches, check_num_examples
from tf_lsq.graph import analyze, float_model
from tf_lsq.policy import Override

from ..freezing import Storage
from ..targets import resolve_target
from .budget import MeasuredFile, Table, Walk, best_file
from .compiled import COMPILER, choose_storage
from .knapsack import pareto_front
from .mixed_bits import FileSize, MixedBits
from .sensitivity import DIVERGENCES, Trial, is_softmax, measure_sensitivities
from .suggestion import BitSuggestion, LayerBits, TradeOff


def suggest_bits(
    model: Any,
    data: Any,
    *,
    budget_bytes: int,
    candidates: Sequence[int] = (2, 3, 4, 8),
    activation_bits: int | None = None,
    per_channel: bool = False,
    asymmetric_activations: bool = False,
    inputs: tf_lsq.Pixels | Mapping[str, tf_lsq.Pixels | None] | None = None,
    overrides: Mapping[str, Override] | None = None,
    target: str = "phone",
    storage: str | None = None,
    num_examples: int = 256,
    divergence: str | None = None,
    verbose: bool = True,
) -> BitSuggestion:
    """Chooses the bits of every layer so that the file stays within a budget.

    The sensitivity of a layer is how much further the outputs move from those of the
    float model if its kernel (and input) has fewer bits and everything else has 8. The
    search finds the bits with the smallest sum of sensitivities for the bytes that
    kernels may take. It then exports the actual file; if that is too large or leaves
    headroom, the search continues from there. The bytes outside the kernels also
    depend on these bits, and only exported files are compared, so there may be a
    slightly better or smaller file. Bits that take as many bytes as a larger number of
    bits, such as 3 in INT4, are measured but not suggested, unless the same bits for
    all kernels give the best file that fits.

    For an Ethos-U, all bytes are those of files that Vela compiled, which the device
    stores: it compresses weights, and those of fewer bits more. The bytes of a kernel
    are those by which the compiled file shrinks if its codes are all 0.

    Nothing is trained. A trained file can be some bytes larger or smaller, where a
    bias or the sign of a gamma requires another container.

    Args:
        model: A trained float model or a path, as for `tf_lsq.quantize_model`.
        data: An ndarray, `(x, y)`, or batches of either, see `tf_lsq.data`.
        budget_bytes: Largest size of the `.tflite` file with int8 inputs and outputs;
            for an Ethos-U, of the compiled file.
        candidates: Bits that a kernel may have, each 2 to 8.
        activation_bits: Bits of the inputs of layers with kernels; None: those of the
            kernel. They take no bytes. The first and the last layer get inputs of 8
            bits, as in the paper.
        per_channel: As for `quantize_model`.
        asymmetric_activations: As for `quantize_model`.
        inputs: As for `quantize_model`.
        overrides: Layers to leave out of the search, with their bits or "float", as
            for `quantize_model`.
        target: What the file will run on.
        storage: As for `export_model`. With "int8" all bits take the same bytes, unless
            a compiler compresses them. None: "packed" if the target has packed kernels,
            else "int8".
        num_examples: How many of the first examples to use.
        divergence: Measure of sensitivities, a mean over the examples and a sum over
            the outputs. "kl": Kullback-Leibler divergence from the float model's
            outputs, which are logits where there is no softmax; nats. "mse": squared
            error, as a share of the variance of the float model's outputs. None: "kl"
            if all outputs are those of a softmax, or `data` has a class number for
            every row of the only output.
        verbose: Whether to show progress.

    Returns:
        The bits as `overrides` for `quantize_model`, with the same `per_channel`,
        `asymmetric_activations`, `inputs` and `target`, and their cost; it prints as a
        table, and `plot` draws the trade-off.

    Raises:
        TypeError: If `model` is not a Keras model, or `data` is not data.
        ValueError: If an option is out of range; if `model` cannot be quantized or the
            target refuses the file or the storage; or if bits do not change the bytes
            of any kernel.
        RuntimeError: If the target's bytes are those of compiled files, and Vela is not
            installed or refuses one.
        BudgetError: If the smallest file found is larger than the budget; a ValueError.

    Example:
        >>> import numpy as np, tf_keras as keras
        >>> x = np.random.default_rng(0).normal(size=(32, 64)).astype("float32")
        >>> dense = keras.layers.Dense
        >>> model = keras.Sequential(
        ...     [dense(64, input_shape=(64,), name="a"), dense(64, name="b")])
        >>> suggestion = suggest_bits(model, x, budget_bytes=8_000, verbose=False)
        >>> suggestion.file_bytes <= 8_000, list(suggestion.overrides)
        (True, ['a', 'b'])

    References:
        Sums of layers' divergences, and their Pareto front: Cai et al., "ZeroQ", CVPR
        2020, Section 3.2, https://arxiv.org/abs/2001.00281
    """
    budget_bytes = _checked_budget(budget_bytes)
    candidates = _checked(candidates, activation_bits, divergence)
    check_num_examples(num_examples)
    storage, compiled = choose_storage(resolve_target(None, target), storage)
    stored, model = Storage(storage), float_model(model)
    data = as_data(data, len(getattr(model, "inputs", [])))
    mixed = MixedBits(
        model,
        data,
        num_examples,
        activation_bits=activation_bits,
        fixed=overrides or {},
        storage=stored,
        compiled=compiled,
        per_channel=per_channel,
        asymmetric_activations=asymmetric_activations,
        inputs=inputs,
        target=target,
    )
    sizes = {
        bits: mixed.size(dict.fromkeys(mixed.layers, bits))
        for bits in tqdm(candidates, "Exporting", disable=not verbose, leave=False)
    }
    costs = _kernel_bytes(mixed.layers, sizes)
    _check_tradable(costs, storage, target)
    if divergence is None:
        divergence = _divergence(model, data, num_examples)
    losses = _sensitivities(mixed, costs, divergence, verbose=verbose)
    options = {layer: _worth_choosing(own) for layer, own in costs.items()}
    front = pareto_front(
        [list(own.values()) for own in options.values()],
        [[losses[layer][bits] for bits in own] for layer, own in options.items()],
    )
    measured = [
        MeasuredFile(dict.fromkeys(costs, bits), size) for bits, size in sizes.items()
    ]
    walk = Walk(mixed, front, options, measured, budget_bytes)
    measured += tqdm(walk.files(), "Exporting", disable=not verbose, leave=False)
    bits, size = best_file(measured, losses, budget_bytes)
    rest = size.file_bytes - sum(own[bits[layer]] for layer, own in costs.items())
    return BitSuggestion(
        overrides=mixed.overrides(bits),
        file_bytes=size.file_bytes,
        budget_bytes=budget_bytes,
        target=target,
        storage=storage,
        compiler="" if compiled is None else COMPILER,
        divergence=divergence,
        layers=[
            LayerBits(layer, num, mixed.activation_bits(layer, num), own, losses[layer])
            for (layer, own), num in zip(costs.items(), bits.values(), strict=True)
        ],
        curve=[
            TradeOff(int(cost) + rest, float(loss))
            for cost, loss in zip(front.costs, front.losses, strict=True)
        ],
        uniform={
            num: TradeOff(size.file_bytes, sum(own[num] for own in losses.values()))
            for num, size in sizes.items()
        },
    )


def _checked_budget(budget_bytes: Any) -> int:
    """Checks and returns the budget, which may be a NumPy integer."""
    try:
        if isinstance(budget_bytes, bool | np.bool_):
            raise TypeError
        budget = operator.index(budget_bytes)
    except TypeError:
        raise TypeError(
            f"`budget_bytes` must be an integer. Received: {budget_bytes!r}."
        ) from None
    if budget < 1:
        raise ValueError(f"`budget_bytes` must be positive. Received: {budget}.")
    return budget


def _checked(
    candidates: Sequence[int], activation_bits: int | None, divergence: str | None
) -> list[int]:
    """Checks the options, and returns the candidates in order."""
    checked = sorted({lsq.check_num_bits(bits, "candidates") for bits in candidates})
    if len(checked) < 2:
        raise ValueError(
            "`candidates` must contain at least two numbers of bits. Received: "
            f"{checked}."
        )
    if activation_bits is not None:
        lsq.check_num_bits(activation_bits, "activation_bits")
    if divergence not in (None, *DIVERGENCES):
        raise ValueError(
            f"`divergence` must be one of {list(DIVERGENCES)} or None. "
            f"Received: {divergence!r}."
        )
    return checked


def _kernel_bytes(layers: Sequence[str], sizes: Mapping[int, FileSize]) -> Table:
    """Returns the bytes of the layers that have the bits they were given."""
    return {
        layer: {bits: size.layer_bytes[layer] for bits, size in sizes.items()}
        for layer in layers
        if all(size.layer_bits.get(layer) == bits for bits, size in sizes.items())
    }


def _check_tradable(costs: Table, storage: str, target: str) -> None:
    """Refuses a search in which bits do not change bytes."""
    if not costs:
        raise ValueError(
            "`overrides` must leave at least one layer with a kernel to the search. "
            "Received overrides for all of them."
        )
    if all(len(set(own.values())) == 1 for own in costs.values()):
        raise ValueError(
            "The bits of a kernel must change its bytes; otherwise no choice of bits "
            f"can meet a budget. Received storage={storage!r} and target={target!r}, "
            f"for which all of {[*next(iter(costs.values()))]} bits take the same "
            "bytes in every layer. Pass storage='packed' with a target that has packed "
            "kernels, such as 'phone', and candidates below and above 4."
        )


def _divergence(model: keras.Model, data: Any, num_examples: int) -> str:
    """Returns the default measure for the outputs of a model."""
    outputs = analyze(model).outputs
    if all(is_softmax(node) for node in outputs):
        return "kl"
    labels, (*rows, classes) = next(batches(data, num_examples))[1], outputs[0].shape
    if len(outputs) > 1 or classes == 1 or not hasattr(labels, "dtype"):
        return "mse"
    labels = np.asarray(labels)
    numbers = np.issubdtype(labels.dtype, np.integer)
    each = labels.size == len(labels) * math.prod(size or 1 for size in rows[1:])
    return "kl" if numbers and each and labels.max() < classes else "mse"


def _sensitivities(
    mixed: MixedBits, costs: Table, divergence: str, *, verbose: bool
) -> Table:
    """Returns the sensitivities of the layers and bits of a table."""
    trials = {
        (layer, bits): Trial(layer, bits, mixed.activation_bits(layer, bits))
        for layer, own in costs.items()
        for bits in own
    }
    most = lsq.MAX_NUM_BITS
    measured = measure_sensitivities(
        mixed.model,
        mixed.whole(),
        mixed.layer_names,
        [t for t in trials.values() if {t.weight_bits, t.activation_bits} != {most}],
        mixed.examples,
        divergence,
        verbose=verbose,
    )
    return {
        layer: {bits: measured.get(trials[layer, bits], 0.0) for bits in own}
        for layer, own in costs.items()
    }


def _worth_choosing(own: Mapping[int, int]) -> dict[int, int]:
    """Returns the bits of a kernel that take fewer bytes than all larger ones.

    More bits in the same bytes can always represent the values of fewer bits.

    Args:
        own: Bits, ascending -> bytes.
    """
    return {
        bits: num_bytes
        for bits, num_bytes in own.items()
        if all(num_bytes < own[other] for other in own if other > bits)
    }
