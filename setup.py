"""Packaging of tf_lsq and tflite_export."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(
    r'^__version__ = "(.+)"$', (ROOT / "tf_lsq/__init__.py").read_text(), re.MULTILINE
)[1]
EXAMPLES = [
    "tensorflow-datasets>=4.9.10",
    "importlib_resources>=6",  # tensorflow-datasets imports it and does not require it.
    "scikit-learn>=1.5",
    "rich>=13",
]

# Networks of others, see `examples/network_survey.py`.
SURVEY = [
    "keras-cv-attention-models>=1.4.3,<2",
    "keras-hub>=0.32,<1",
]

# Its only versions are pre-releases.
TFLM = ["tflite-micro>=0.dev20250101"]
# Compiles for the NPUs of microcontrollers.
ETHOS_U = ["ethos-u-vela>=5.2,<6"]

setup(
    name="tf-lsq",
    version=VERSION,
    description=(
        "Learned Step Size Quantization for Keras, exported to full-integer TFLite "
        "files that equal the training graph"
    ),
    long_description=(ROOT / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(
        include=["tf_lsq", "tf_lsq.*", "tflite_export", "tflite_export.*"]
    ),
    package_data={
        "tf_lsq": ["py.typed"],
        "tflite_export": ["py.typed"],
        "tflite_export.demo": ["templates/*"],
        "tflite_export.reports": ["templates/*.j2"],
    },
    entry_points={"console_scripts": ["tf-lsq = tflite_export.command:main"]},
    python_requires=">=3.11",
    install_requires=[
        "tensorflow>=2.21,<2.22",
        "tf_keras>=2.21,<2.22",
        "tensorflow-model-optimization>=0.8.1,<0.9",
        "ai-edge-litert>=2.3,<3",
        "flatbuffers>=24",
        "jinja2>=3.1",
        "lazy-loader>=0.4",
        "matplotlib>=3.9",
        "numpy>=1.26",
        "segno>=1.6",
        "tqdm>=4.66",
        "typer>=0.15",
    ],
    extras_require={
        "examples": [*EXAMPLES, *ETHOS_U, *TFLM],
        "survey": SURVEY,
        "ethos-u": ETHOS_U,
        "tflm": TFLM,
        "dev": [
            *EXAMPLES,
            *ETHOS_U,
            *TFLM,
            "hypothesis>=6.100",
            "jax>=0.4.30",
            "pytest>=8",
            "pytest-xdist>=3.6",
            "tree-sitter>=0.25",
            "tree-sitter-cpp>=0.23",
            "tree-sitter-kotlin>=1.1",
            "tree-sitter-swift>=0.7",
            "ruff==0.17.6",
            "pyright==1.1.414",
        ],
    },
)
