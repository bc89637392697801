"""The metadata of a file, and the versions of its operators."""

from __future__ import annotations

import hashlib

import tf_lsq
from tf_lsq._compat import keras
from tflite_export.file import (
    flatbuffer,
    metadata,
)

layers = keras.layers


def test_operators_have_the_oldest_possible_versions(exported):
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(bytearray(exported[1].read_bytes()), 0)
    names = {v: k for k, v in vars(schema.BuiltinOperator).items() if k[0] != "_"}
    found = {names[code.builtinCode]: code.version for code in model.operatorCodes}
    assert found == {
        "CONV_2D": 3,
        "MUL": 2,
        "ADD": 2,
        "MEAN": 2,
        "FULLY_CONNECTED": 4,
        "SOFTMAX": 2,
    }


def test_metadata_records_how_codes_were_computed(exported):
    student, path, _ = exported
    graph = flatbuffer.from_bytes(path.read_bytes())
    found = metadata.read(graph)
    assert found["versions"]["tf_lsq"] == tf_lsq.__version__
    assert (found["target"], found["storage"]) == ("phone", "int8")
    codes = graph.tensors["re_lu_1/weight"].data
    assert found["tensors"]["re_lu_1/weight"] == {
        "kind": "kernel",
        "layer": "conv2d_1",
        "bits": 3,
        "signed": True,
        "step": float(tf_lsq.steps(student)["conv2d_1"].item()),
        "container": "int8",
        "multiplier": 30,
        "widening": 1,
        "sha256": hashlib.sha256(codes.tobytes()).hexdigest(),
    }
    assert found["tensors"]["re_lu_1"] == {
        "kind": "activation",
        "layer": "re_lu_1",
        "bits": 3,
        "signed": False,
        "step": float(tf_lsq.steps(student)["re_lu_1"]),
    }
