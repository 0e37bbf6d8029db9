# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Installs matnet-tf: the package, and the programs of bin/."""

import pathlib
import runpy

import setuptools

ROOT = pathlib.Path(__file__).parent

setuptools.setup(
    name="matnet-tf",
    version=runpy.run_path(str(ROOT / "matnet_tf" / "version.py"))["__version__"],
    description="Matryoshka Networks: hierarchical variational autoencoders on TensorFlow",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=setuptools.find_packages(include=["matnet_tf", "matnet_tf.*"]),
    scripts=sorted(str(p.relative_to(ROOT)) for p in (ROOT / "bin").iterdir() if p.is_file()),
    # Exact: these versions were tested together, and small steps of them have broken the others.
    install_requires=[
        "absl-py==2.5.1",
        "importlib_resources==7.1.0",  # needed by tensorflow-datasets, which does not ask for it
        "keras==3.15.1",
        "matplotlib==3.11.2",
        "numpy==2.4.6",
        "pillow==13.0.0",
        "scikit-learn==1.9.1",
        "scipy==1.17.1",
        "tensorboard==2.21.0",  # tf.summary needs it, and TensorFlow no longer brings it
        "tensorflow==2.21.0",
        "tensorflow-datasets==4.9.10",
        "tensorflow-probability==0.25.0",
        "tf-keras==2.21.0",  # imported by tensorflow-probability
    ],
    extras_require={
        "benchmarks": ["scikit-image==0.26.0"],
        # Messages for warm-up requests and the gRPC client; the REST client.
        "serving": ["requests==2.34.2", "tensorflow-serving-api==2.21.0"],
        "test": [
            "dill==0.4.1",
            "hypothesis==6.170.17",
            "pytest==9.2.0",
            "pytest-xdist==3.8.0",
            "requests==2.34.2",
            "ruff==0.17.6",
            "tensorflow-serving-api==2.21.0",
        ],
    },
)
