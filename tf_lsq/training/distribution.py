"""Keeps the workers of a distributed training in agreement.

`MultiWorkerMirroredStrategy` keeps trainable variables equal by summing gradients.
Values that a worker assigns outside a training step stay local to it.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf


def has_several_workers(strategy: tf.distribute.Strategy) -> bool:
    """Returns whether a strategy has processes that see different data."""
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def assign_chiefs_values(
    strategy: tf.distribute.Strategy, variables: Sequence[tf.Variable]
) -> None:
    """Gives scalar variables the values they have on the first worker.

    Every worker must call this; each waits for the others. If one process holds all
    replicas, it does nothing.

    Args:
        strategy: The strategy under which the variables were created.
        variables: Float32, shape `[]`.
    """
    if not has_several_workers(strategy):
        return

    @tf.function
    def chiefs(values: tf.Tensor) -> tf.Tensor:
        replica = tf.distribute.get_replica_context()
        is_chief = tf.equal(replica.replica_id_in_sync_group, 0)
        own = tf.where(is_chief, values, tf.zeros_like(values))
        return replica.all_reduce(tf.distribute.ReduceOp.SUM, own)

    values = tf.stack([tf.convert_to_tensor(variable) for variable in variables])
    result = strategy.run(chiefs, (values,))
    [values, *_] = strategy.experimental_local_results(result)
    for variable, value in zip(variables, tf.unstack(values), strict=True):
        variable.assign(value)
