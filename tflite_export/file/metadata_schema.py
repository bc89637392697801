"""The tables of TFLite's standard metadata, as data.

Reference: metadata_schema.fbs, version 1.5.0, of
https://github.com/google-ai-edge/mediapipe (mediapipe/tasks/metadata). There is no
package with its generated code that imports without the whole of MediaPipe.
"""

from __future__ import annotations

IDENTIFIER = b"M001"
ROOT = "ModelMetadata"
OLDEST_PARSER = "1.0.0"

# Numbers and text: how flatbuffers stores them.
SCALARS = {"int": "<i", "uint": "<I", "float": "<f"}

# In the order of their numbers.
ENUMS: dict[str, tuple[str, ...]] = {
    "AssociatedFileType": (
        "UNKNOWN",
        "DESCRIPTIONS",
        "TENSOR_AXIS_LABELS",
        "TENSOR_VALUE_LABELS",
        "TENSOR_AXIS_SCORE_CALIBRATION",
        "VOCABULARY",
        "SCANN_INDEX_FILE",
    ),
    "BoundingBoxType": ("UNKNOWN", "BOUNDARIES", "UPPER_LEFT", "CENTER"),
    "ColorSpaceType": ("UNKNOWN", "RGB", "GRAYSCALE"),
    "CoordinateType": ("RATIO", "PIXEL"),
    "ScoreTransformationType": ("IDENTITY", "LOG", "INVERSE_LOGISTIC"),
}

# In the order of their numbers, which begin at 1.
UNIONS: dict[str, tuple[str, ...]] = {
    "ContentProperties": (
        "FeatureProperties",
        "ImageProperties",
        "BoundingBoxProperties",
        "AudioProperties",
    ),
    "ProcessUnitOptions": (
        "NormalizationOptions",
        "ScoreCalibrationOptions",
        "ScoreThresholdingOptions",
        "BertTokenizerOptions",
        "SentencePieceTokenizerOptions",
        "RegexTokenizerOptions",
    ),
}

# Table -> its fields in order, with their types; "[...]" is a vector.
TABLES: dict[str, dict[str, str]] = {
    "AssociatedFile": {
        "name": "string",
        "description": "string",
        "type": "AssociatedFileType",
        "locale": "string",
        "version": "string",
    },
    "AudioProperties": {"sample_rate": "uint", "channels": "uint"},
    "BertTokenizerOptions": {"vocab_file": "[AssociatedFile]"},
    "BoundingBoxProperties": {
        "index": "[uint]",
        "type": "BoundingBoxType",
        "coordinate_type": "CoordinateType",
    },
    "Content": {"content_properties": "ContentProperties", "range": "ValueRange"},
    "CustomMetadata": {"name": "string", "data": "[ubyte]"},
    "FeatureProperties": {},
    "ImageProperties": {"color_space": "ColorSpaceType", "default_size": "ImageSize"},
    "ImageSize": {"width": "uint", "height": "uint"},
    "ModelMetadata": {
        "name": "string",
        "description": "string",
        "version": "string",
        "subgraph_metadata": "[SubGraphMetadata]",
        "author": "string",
        "license": "string",
        "associated_files": "[AssociatedFile]",
        "min_parser_version": "string",
    },
    "NormalizationOptions": {"mean": "[float]", "std": "[float]"},
    "ProcessUnit": {"options": "ProcessUnitOptions"},
    "RegexTokenizerOptions": {
        "delim_regex_pattern": "string",
        "vocab_file": "[AssociatedFile]",
    },
    "ScoreCalibrationOptions": {
        "score_transformation": "ScoreTransformationType",
        "default_score": "float",
    },
    "ScoreThresholdingOptions": {"global_score_threshold": "float"},
    "SentencePieceTokenizerOptions": {
        "sentencePiece_model": "[AssociatedFile]",
        "vocab_file": "[AssociatedFile]",
    },
    "Stats": {"max": "[float]", "min": "[float]"},
    "SubGraphMetadata": {
        "name": "string",
        "description": "string",
        "input_tensor_metadata": "[TensorMetadata]",
        "output_tensor_metadata": "[TensorMetadata]",
        "associated_files": "[AssociatedFile]",
        "input_process_units": "[ProcessUnit]",
        "output_process_units": "[ProcessUnit]",
        "input_tensor_groups": "[TensorGroup]",
        "output_tensor_groups": "[TensorGroup]",
        "custom_metadata": "[CustomMetadata]",
    },
    "TensorGroup": {"name": "string", "tensor_names": "[string]"},
    "TensorMetadata": {
        "name": "string",
        "description": "string",
        "dimension_names": "[string]",
        "content": "Content",
        "process_units": "[ProcessUnit]",
        "stats": "Stats",
        "associated_files": "[AssociatedFile]",
    },
    "ValueRange": {"min": "int", "max": "int"},
}

# The versions of the schema that added what is newer than `OLDEST_PARSER`: fields of
# tables, and values of enums and unions.
SINCE: dict[tuple[str, str], str] = {
    ("AssociatedFileType", "VOCABULARY"): "1.0.1",
    ("ProcessUnitOptions", "BertTokenizerOptions"): "1.1.0",
    ("ProcessUnitOptions", "SentencePieceTokenizerOptions"): "1.1.0",
    ("SubGraphMetadata", "input_process_units"): "1.1.0",
    ("SubGraphMetadata", "output_process_units"): "1.1.0",
    ("SubGraphMetadata", "input_tensor_groups"): "1.2.0",
    ("SubGraphMetadata", "output_tensor_groups"): "1.2.0",
    ("ProcessUnitOptions", "RegexTokenizerOptions"): "1.2.1",
    ("ContentProperties", "AudioProperties"): "1.3.0",
    ("AssociatedFileType", "SCANN_INDEX_FILE"): "1.4.0",
    ("AssociatedFile", "version"): "1.4.1",
    ("SubGraphMetadata", "custom_metadata"): "1.5.0",
}
