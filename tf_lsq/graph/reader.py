"""Reads the Keras graph of a model into a list of operators, not yet fused.

Nested models, and custom layers registered with `register_layer`, are read as if their
layers were part of the outer model.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from .._compat import (
    OpLambda,
    SlicingOpLambda,
    added_call,
    calls_for_terms,
    keras,
    nodes_of,
)
from .activations import activation_name, is_elementwise_lambda
from .expansions import EXPANSIONS
from .functions.recorded import (
    BatchMoved,
    Unsupported,
    bind_arguments,
    is_trained,
    trained_argument,
)
from .integers import (
    COMPUTES_COMPLEX,
    COMPUTES_INTEGERS,
    computes_integers,
    reads_only_shapes,
)
from .keras3.layer import Keras3Layer
from .layer_table import OF_ARGUMENTS, rule_of, unwrapped
from .lowering import Call, variant
from .nodes import (
    AddedTerm,
    ForeignCall,
    Graph,
    Layer,
    Node,
    class_name,
    tensors_of,
)
from .python_functions import name_functions, read_function, read_lambda

_MASKED = (
    "it computes with the Keras mask of its input, which a file does not have; leave "
    "out `mask_zero=True` and `Masking`, or multiply by an input that holds the mask"
)
_HIDDEN_LOGITS = (
    "Keras computes it from the logits in front of the {kind}, which a quantized model "
    "does not keep; pass these logits, with `from_logits=True`"
)
# Functions that return the tensor that they are given.
_SAME_TENSOR = {"cast", "convert_to_tensor"}
# Class of a wrapper of TF-MOT -> what to do about it.
_REMEDIES_OF_TFMOT = {
    "QuantizeAnnotate": (
        "it is annotated for TF-MOT; call `quantize_apply(model, "
        "tf_lsq.LSQQuantizeScheme())` instead of `quantize_model`"
    ),
    "PruneLowMagnitude": (
        "it is wrapped for pruning; call `tfmot.sparsity.keras.strip_pruning(model)` "
        "first"
    ),
    "ClusterWeights": (
        "it is wrapped for clustering; call "
        "`tfmot.clustering.keras.strip_clustering(model)` first"
    ),
}
_NO_BATCH = "it reads a tensor whose first axis is not the batch"


def read_model(model: keras.Model) -> Graph:
    """Returns the operators of a functional or sequential model, not yet fused."""
    reader = _Reader(model)
    reader.read(model, "", {})
    inputs, outputs = (
        [reader.producers[id(tensor)] for tensor in tensors]
        for tensors in (model.inputs, model.outputs)
    )
    return Graph(
        model.name, reader.nodes, inputs, outputs, reader.problems, reader.terms
    )


class _Reader:
    """Walks a model and its nested models."""

    def __init__(self, model: keras.Model) -> None:
        self.nodes: list[Node] = []
        self.problems: list[tuple[Node, str]] = []
        self.terms: list[AddedTerm] = []
        self.producers: dict[int, Any] = {}
        # Operators whose output does not have the batch as its first axis.
        self._without_batch: set[Node] = set()
        self._uses: dict[int, int] = {}
        self._copies: dict[Any, Any] = {}
        # Trainable variable, by id -> it, and the first call of a layer that has it or
        # a function that it is an argument of.
        self._variables: dict[int, tuple[tf.Variable, Call]] = {}
        self._layer_names: dict[int, str] = {}
        # Layers that do parts of a call's work, by id.
        self._part_names: dict[int, str] = {}
        self._names = {layer.name for layer in model.layers}
        self._weights = {id(v) for layer in model.layers for v in layer.weights}
        # Calls that only added losses and metrics depend on, and whether the call that
        # is being read is one of them, or inside one.
        self._beside: set[int] = set()
        self._is_beside = False

    def read(self, model: keras.Model, path: str, kwargs: dict[str, Any]) -> None:
        """Adds the operators of one model.

        Args:
            model: The model, or a nested one.
            path: Names of the models around its layers, "" for the outermost.
            kwargs: What was passed in the call of a nested model.
        """
        self._beside |= calls_for_terms(model)
        for keras_node in nodes_of(model):
            if path and isinstance(keras_node.layer, keras.layers.InputLayer):
                continue
            self._read_call(keras_node, path, kwargs)

    def _read_call(self, keras_node: Any, path: str, outer: dict[str, Any]) -> None:
        """Adds the operators of one call of a layer."""
        layer = keras_node.layer
        added = added_call(layer)
        if added is not None:
            [tensor] = keras_node.keras_inputs
            source = self.producers[id(tensor)]
            self.terms.append(AddedTerm(*added, source, tensor.dtype))
            return
        outside = self._is_beside
        self._is_beside = outside or id(keras_node) in self._beside
        use = self._uses[id(layer)] = self._uses.get(id(layer), -1) + 1
        kwargs = _call_kwargs(keras_node, outer)
        inner = self._inner_model(keras_node)
        if inner is not None:
            nodes = self._read_inner(keras_node, inner, f"{path}{layer.name}/", kwargs)
        else:
            nodes = self._lower(keras_node, use, path, kwargs)
        outputs = tensors_of(keras_node.outputs)
        for tensor, node in zip(outputs, nodes, strict=True):
            self.producers[id(tensor)] = node
        self._is_beside = outside

    def _inner_model(self, keras_node: Any) -> keras.Model | None:
        """Returns the model that a layer is, or that it decomposes into."""
        layer = keras_node.layer
        if isinstance(layer, keras.Model):
            return layer if getattr(layer, "_is_graph_network", False) else None
        if self._is_beside:
            return None
        if isinstance(layer, keras.layers.Lambda):
            return None if is_elementwise_lambda(layer) else read_lambda(keras_node)
        expand = EXPANSIONS.get(type(layer))
        if expand is None:
            return None
        key = (id(layer), "expansion")
        if key not in self._copies:
            inner = expand(layer)
            name_functions(inner)
            self._copies[key] = (layer, inner)
        return self._copies[key][1]

    def _read_inner(
        self, keras_node: Any, inner: keras.Model, path: str, kwargs: dict[str, Any]
    ) -> list[Any]:
        """Adds the operators of a nested model; returns its outputs."""
        sources = keras_node.keras_inputs
        for tensor, source in zip(inner.inputs, sources, strict=True):
            self.producers[id(tensor)] = self.producers[id(source)]
        self.read(inner, path, kwargs)
        return [self.producers[id(tensor)] for tensor in inner.outputs]

    def _lower(
        self, keras_node: Any, use: int, path: str, kwargs: dict[str, Any]
    ) -> list[Node]:
        """Adds the operators of a layer; returns one per output."""
        call = self._call(keras_node, use, path, kwargs)
        if self._is_beside:
            return self._lower_beside(call, keras_node)
        activation = _python_activation(call.layer)
        if activation is not None:
            inner = read_function(activation, tensors_of(keras_node.outputs))
            if inner is not None:
                return self._read_activated(call, inner, path)
        hidden = _MASKED if _reads_mask(keras_node) else self._logits(keras_node)
        tied = self._tied(call)
        problem = hidden or tied or _problem(call)
        operators: Any = []
        moves = _exchanges_batch(call.layer)
        moved = any(source in self._without_batch for source in call.sources)
        if problem is None and not all(s.shape or s.is_integer for s in call.sources):
            problem = "it reads a tensor without axes"
        if problem is None and any(s.dtype.is_complex for s in call.sources):
            problem = COMPUTES_COMPLEX
        if problem is None and reads_only_shapes(call):
            problem = COMPUTES_INTEGERS
        if problem is None:
            try:
                operators = rule_of(call.layer).lower(call)  # type: ignore[union-attr]
            except Unsupported as reason:
                problem = str(reason)
                moves = isinstance(reason, BatchMoved)
        if operators and moved:
            problem, operators = _NO_BATCH, []
        if operators and computes_integers(call):
            problem, operators = COMPUTES_INTEGERS, []
        if not operators:
            call.nodes.clear()
            stays = _can_stay_float(call) and hidden is None and tied is None
            operators = self._foreign(call, keras_node, stays=stays)
        if problem is not None:
            problem = _with_trained_argument(problem, call)
            named = f"`{call.origin}` ({class_name(keras_node.layer)})"
            self.problems += [(one, f"{named}: {problem}") for one in operators]
        if moved != moves:
            self._without_batch.update(operators)
        self._name_parts(call)
        self.nodes += call.nodes
        return operators if isinstance(operators, list) else [operators]

    def _lower_beside(self, call: Call, keras_node: Any) -> list[Node]:
        """Adds a layer that only added losses and metrics depend on, as it is."""
        hidden = _MASKED if _reads_mask(keras_node) else self._logits(keras_node)
        problem = hidden or self._tied(call) or self._changing(call)
        if problem is None and isinstance(call.layer, keras.Model):
            problem = _remedy(call.layer)
        operators = self._foreign(call, keras_node, stays=problem is None)
        for operator in operators:
            operator.input_types = tuple(t.dtype for t in keras_node.keras_inputs)
        if problem is not None:
            named = f"`{call.origin}` ({class_name(keras_node.layer)})"
            self.problems += [(one, f"{named}: {problem}") for one in operators]
        self.nodes += call.nodes
        return operators

    def _changing(self, call: Call) -> str | None:
        """Returns why a function cannot read a variable of this model, or None."""
        for value in tf.nest.flatten(call.arguments):
            if isinstance(value, tf.Variable) and id(value) in self._weights:
                return (
                    f"it reads {value.name!r}, and would not read that of the "
                    "quantized model; call `add_loss` or `add_metric` of that model"
                )
        return None

    def _logits(self, keras_node: Any) -> str | None:
        """Returns why a cross-entropy cannot read probabilities, or None.

        Keras hides the logits of an activation's layer on its output. Its
        cross-entropies read them, even where the activation is not the one that they
        belong to.
        """
        other = _other_activation(keras_node.layer)
        if other is None:
            return None
        for tensor in keras_node.keras_inputs:
            layer, node_index, _ = tensor._keras_history
            while getattr(layer, "symbol", "") in _SAME_TENSOR:
                tensor = layer.inbound_nodes[node_index].keras_inputs[0]
                layer, node_index, _ = tensor._keras_history
            hides = not isinstance(layer, OpLambda)
            if hides and self.producers[id(tensor)].kind == other:
                return _HIDDEN_LOGITS.format(kind=other)
        return None

    def _tied(self, call: Call) -> str | None:
        """Returns why a call cannot have a copy of its trainable variable, or None."""
        arguments = filter(is_trained, tf.nest.flatten(call.arguments))
        for value in [*call.layer.trainable_weights, *arguments]:
            _, first = self._variables.setdefault(id(value), (value, call))
            if first.layer is not call.layer:
                return (
                    f"the trainable variable {value.name!r} is already a weight of "
                    f"`{first.origin}`, and would be trained twice"
                )
        return None

    def _read_activated(self, call: Call, inner: keras.Model, path: str) -> list[Node]:
        """Adds a layer without its activation, then what that computes."""
        layer = call.layer
        [linear] = call.sources[:1]
        if not isinstance(layer, keras.layers.Activation):
            call.layer = call.model_layer = call.replacement(
                "linear", lambda: variant(layer, activation="linear")
            )
            linear = rule_of(call.layer).lower(call)  # type: ignore[union-attr]
            self.nodes += call.nodes
        self.producers[id(inner.inputs[0])] = linear
        self.read(inner, f"{path}{layer.name}/", {})
        return [self.producers[id(tensor)] for tensor in inner.outputs]

    def _foreign(self, call: Call, keras_node: Any, *, stays: bool) -> list[Node]:
        """Adds the outputs of a layer without an operator here.

        Args:
            call: The call of the layer.
            keras_node: The same, as Keras keeps it.
            stays: Whether the layer can stay in float.
        """
        foreign = ForeignCall.of(keras_node)
        kind = "foreign" if stays else "identity"
        operators = []
        for number, tensor in enumerate(tensors_of(keras_node.outputs)):
            node = call.add(kind)
            if number:
                name = f"{call.name}_output_{number}"
                node.name = self._unique(name, name)
            node.shape, node.dtype = _shape(tensor), tensor.dtype
            node.foreign, node.output = foreign, number
            operators.append(node)
        return operators

    def _call(
        self, keras_node: Any, use: int, path: str, kwargs: dict[str, Any]
    ) -> Call:
        """Returns the `Call` that the lowering of a layer receives."""
        layer = unwrapped(keras_node.layer)
        sources = [self.producers[id(tensor)] for tensor in keras_node.keras_inputs]
        arguments: dict[str, Any] = {}
        function = _function_of(layer)
        if function is not None:
            args, named = tf.nest.map_structure(
                lambda value: self.producers.get(id(value), value),
                (keras_node.call_args, keras_node.call_kwargs),
            )
            arguments = bind_arguments(function, args, named)
            kwargs = {}
        name = self._name(layer, use, path)
        names = {name, self._layer_names[id(layer)]}

        def unique(wanted: str) -> str:
            own = self._unique(wanted, wanted)
            names.add(own)
            return own

        [output, *_] = tensors_of(keras_node.outputs)
        return Call(
            layer=layer,
            model_layer=keras_node.layer,
            name=name,
            layer_name=self._layer_names[id(layer)],
            origin=f"{path}{layer.name}",
            sources=sources,
            shape=_shape(output),
            dtype=output.dtype,
            arguments=arguments,
            call_kwargs=kwargs,
            copies=self._copies,
            unique=unique,
            names=names,
        )

    def _name(self, layer: Layer, use: int, path: str) -> str:
        """Returns a name for one use of a layer that no other operator has."""
        if id(layer) not in self._layer_names:
            name = layer.name
            if path:
                name = self._unique(name, f"{path}{name}".replace("/", "_"))
            self._layer_names[id(layer)] = name
            return name
        name = f"{self._layer_names[id(layer)]}_use{use + 1}"
        return self._unique(name, name)

    def _name_parts(self, call: Call) -> None:
        """Gives names that no other operator has to those of a call."""
        given = {name: name for name in call.names}

        def own(wanted: str) -> str:
            if wanted not in given:
                given[wanted] = self._unique(wanted, wanted)
            return given[wanted]

        for node in call.nodes:
            if id(node.layer) not in self._part_names:
                self._part_names[id(node.layer)] = own(node.layer_name)
            node.layer_name, node.name = (
                self._part_names[id(node.layer)],
                own(node.name),
            )

    def _unique(self, name: str, other: str) -> str:
        """Returns `name` if it is free, else `other`, with a number if needed."""
        candidates = (f"{other}_{number}" for number in itertools.count(2))
        unique = next(
            candidate
            for candidate in itertools.chain([name, other], candidates)
            if candidate not in self._names
        )
        self._names.add(unique)
        return unique


def _function_of(layer: Layer) -> Callable[..., Any] | None:
    """Returns the function whose arguments a lowering reads; most read the tensors."""
    if isinstance(layer, OpLambda | SlicingOpLambda):
        return layer.function
    return layer.call if isinstance(layer, OF_ARGUMENTS) else None


def _shape(tensor: Any) -> tuple[int | None, ...]:
    """Returns the shape of a Keras tensor, () where its rank is unknown."""
    return () if tensor.shape.rank is None else tuple(tensor.shape)


def _call_kwargs(keras_node: Any, outer: dict[str, Any]) -> dict[str, Any]:
    """Returns what was passed in a call; a model passes `training` on."""
    kwargs = {k: v for k, v in keras_node.call_kwargs.items() if v is not None}
    takes_training = getattr(keras_node.layer, "_expects_training_arg", False)
    return {**outer, **kwargs} if takes_training else kwargs


def _can_stay_float(call: Call) -> bool:
    """Returns whether a layer can stay in float as a whole."""
    if isinstance(call.layer, keras.Model):
        return False
    return not any(map(is_trained, tf.nest.flatten(call.arguments)))


def _reads_mask(keras_node: Any) -> bool:
    """Returns whether a layer computes with the mask of one of its inputs."""
    reads = getattr(keras_node.layer, "_expects_mask_arg", False)
    # It reads the masks from its inputs.
    reads = reads or class_name(keras_node.layer) == "MultiHeadAttention"
    return reads and any(
        getattr(tensor, "_keras_mask", None) is not None
        for tensor in keras_node.keras_inputs
    )


def _other_activation(layer: Layer) -> str | None:
    """Returns the activation that a cross-entropy does not belong to.

    Returns:
        "sigmoid" or "softmax"; None if the layer is no cross-entropy of Keras.
    """
    if isinstance(layer, Keras3Layer):
        name = layer.keras3_class_name.lower()
    else:
        name = getattr(layer, "symbol", "").replace("_", "")
    if not name.endswith("crossentropy"):
        return None
    return "softmax" if "binary" in name else "sigmoid"


def _python_activation(layer: Layer) -> Callable[..., Any] | None:
    """Returns the activation of a layer if it is a function without a row here."""
    activation = getattr(layer, "activation", None)
    if rule_of(layer) is None or not callable(activation):
        return None
    return activation if activation_name(activation) is None else None


def _problem(call: Call) -> str | None:
    """Returns why a call cannot be quantized, or None."""
    layer = call.layer
    rule = rule_of(layer)
    if rule is None:
        return _remedy(layer)
    regularises = getattr(layer, "activity_regularizer", None) is not None
    if regularises and not isinstance(layer, keras.layers.ActivityRegularization):
        return (
            "a quantized layer cannot have an `activity_regularizer`; put "
            "`keras.layers.ActivityRegularization` after the layer"
        )
    return rule.check(layer)


def _exchanges_batch(layer: Layer) -> bool:
    """Returns whether a function moves values between the batch and other axes."""
    symbol = getattr(layer, "symbol", "")
    return "space_to_batch" in symbol or "batch_to_space" in symbol


def _with_trained_argument(problem: str, call: Call) -> str:
    """Returns a problem, and why the call cannot stay in float, if it cannot."""
    trained = filter(is_trained, tf.nest.flatten(call.arguments))
    reason = next(map(trained_argument, trained), problem)
    return problem if reason == problem else f"{problem}, and {reason}"


def _remedy(layer: Layer) -> str:
    """Returns what to do about a layer that is not supported."""
    if isinstance(layer, keras.Model):
        return (
            "a nested subclassed model has no graph to read; write it as "
            "`keras.Model(inputs, outputs)`"
        )
    of_tfmot = _REMEDIES_OF_TFMOT.get(type(layer).__name__)
    if of_tfmot and type(layer).__module__.startswith("tensorflow_model_optimization"):
        return of_tfmot
    of_keras3 = isinstance(layer, Keras3Layer)
    known = type(layer.operation if of_keras3 else layer).__module__
    if known.startswith(("tf_keras.", "keras.")):
        return "this library has no exact integer form of this layer"
    return (
        "this library does not know this layer; register how it decomposes into "
        "supported layers with `tf_lsq.register_layer`"
    )
