# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Describes the package and its one command, `matnet`."""

import pathlib
import runpy

import setuptools

ROOT = pathlib.Path(__file__).parent
COMPRESSION = ["constriction>=0.5,<0.6"]
EXPLORE = ["gradio>=6.31,<7"]
SERVING = [  # Messages of warm-up requests and the gRPC client; the REST client.
    "requests>=2.32.4,<3",
    "tensorflow-serving-api>=2.21,<2.22",
]

setuptools.setup(
    name="matnet-tf",
    version=runpy.run_path(str(ROOT / "matnet_tf" / "version.py"))["__version__"],
    description="Matryoshka Networks: hierarchical variational autoencoders on TensorFlow",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=setuptools.find_packages(include=["matnet_tf", "matnet_tf.*"]),
    package_data={"matnet_tf.presets": ["*.flags", "*/*"], "matnet_tf.explore": ["*.js", "*.css"]},
    entry_points={"console_scripts": ["matnet=matnet_tf.__main__:main"]},
    # Programs and documents were run at the lower ends as well as with constraints.txt, the set
    # that the tests use. TensorFlow, Keras and what is built on them were run in one version only.
    install_requires=[
        "absl-py>=2.3,<3",
        "filelock>=3.20.3,<5",  # Older ones write through symbolic links.
        "h5py>=3.14,<4",  # Keras needs it, too.
        "importlib_resources>=6.5",  # tensorflow-datasets needs it but does not ask for it.
        "keras>=3.15,<3.16",
        "matplotlib>=3.10,<4",
        "numpy>=2.4,<3",
        "pillow>=12,<14",
        "scikit-learn>=1.8,<2",
        "scipy>=1.17,<2",
        "tensorboard>=2.21,<2.22",  # tf.summary needs it, and TensorFlow no longer brings it.
        "tensorflow>=2.21,<2.22",
        "tensorflow-datasets>=4.9.10,<4.10",
        "tensorflow-probability>=0.25,<0.26",
        "tf-keras>=2.21,<2.22",  # tensorflow-probability imports it.
        "tqdm>=4.67,<5",
    ],
    extras_require={
        "benchmarks": ["scikit-image>=0.26,<0.27"],
        "compression": COMPRESSION,
        "explore": EXPLORE,
        "gpu": ["tensorflow[and-cuda]>=2.21,<2.22"],
        "notebooks": ["ipykernel>=7.4,<8", "nbclient>=0.11,<0.12"],  # Tests of them.
        "page": [*EXPLORE, "playwright>=1.55,<2"],  # Tests of it.
        "serving": SERVING,
        "test": [
            *COMPRESSION,
            *SERVING,
            "dill>=0.4.1,<0.5",
            "hypothesis>=6.170,<7",
            "pytest>=9.2,<10",
            "pytest-xdist>=3.8,<4",
            "ruff==0.17.6",  # Another version formats differently.
        ],
    },
)
