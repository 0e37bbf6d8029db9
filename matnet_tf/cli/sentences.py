# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""What programs say at their end, in sentences for people, from the records that they return."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = [
    "of_clusters",
    "of_compression",
    "of_decompression",
    "of_estimate",
    "of_evaluation",
    "of_imputations",
    "of_preset",
    "of_presets",
    "of_scores",
    "of_training",
]


def of_training(record: Mapping[str, Any], workdir: str) -> str:
    """What a run has come to."""
    ended = "stopped by a signal at" if record.get("interrupted") else "trained to"
    text = f"{ended} step {record['step']:,} in {_time(record['seconds'])}"
    if record.get("elbo") is not None:
        text += f"; ELBO of training images in the last interval: {record['elbo']:.2f} nats"
    if record["skipped"]:
        text += f"; skipped steps: {record['skipped']:,}, returns to a checkpoint: "
        text += str(record["rollbacks"])
    return f"{text}. Everything is in {workdir}"


def of_evaluation(record: Mapping[str, Any], workdir: str) -> str:
    """The bound, and what it was measured on."""
    left = "log p(hidden pixels | known ones)" if "mask" in record else "log p(x)"
    method = record["binarization"]["method"]
    kind = "" if method == "none" else f", {method} binarization"
    if record["dequantization"]["method"] != "none":
        kind = ", dequantized"
    # One image has no standard error.
    error = "" if record["nll_se"] is None else f" +- {record['nll_se']:.2f}"
    rate = record.get("coded_bits_per_dim")
    coded = "" if rate is None else f"; coded without loss at {rate:.4f} bits/dim"
    return (
        f"{left} >= {-record['nll']:.2f}{error} nats per image, or "
        f"{record['bits_per_dim']:.3f} bits for each of {record['dims']:.0f} values: K="
        f"{record['num_samples']}, {_images(record)}{kind}, {record['weights']} weights of step "
        f"{record['checkpoint_step']:,}{coded}. Recorded in "
        f"{os.path.join(workdir, 'evaluation.json')}"
    )


def of_scores(record: Mapping[str, Any]) -> str:
    """Where the scores are, and how well they tell outliers apart if that was asked."""
    lines = [f"AUROC {name:<14}{area:.4f}" for name, area in record.get("auroc", {}).items()]
    lines.append(
        f"scored {_images(record)}, K={record['num_samples']}, with {record['weights']} weights of "
        f"step {record['checkpoint_step']:,}: {record['scores']}"
    )
    return "\n".join(lines)


def of_clusters(record: Mapping[str, Any]) -> str:
    """How many clusters are used, and how well they agree with the labels."""
    lines = [*record["files"]]
    for name in ("mixture", "kmeans_pixels", "kmeans_top_latents"):
        found = record.get(name)
        if not found:
            continue
        agreement = ""
        if "purity" in found:
            agreement = f", purity {found['purity']:.3f}, NMI {found['nmi']:.3f}"
        title = name.replace("kmeans_", "k-means on ").replace("_", " ")
        lines.append(f"{title}: {found['used_clusters']} of {record['clusters']} used{agreement}")
    return "\n".join([*lines, f"clustered {_images(record)}"])


def of_imputations(record: Mapping[str, Any]) -> str:
    """How many pictures were filled in, and where they are."""
    done, skipped = len(record["images"]), len(record["skipped"])
    return f"filled in {done} of {done + skipped} pictures; see {record['contact_sheet']}"


def of_preset(name: str, record: Mapping[str, Any]) -> str:
    """What a trained model reaches, and how large it is."""
    found, weights = record["evaluation"], record["weights"]
    error = "" if found["nll_se"] is None else f" +- {found['nll_se']:.2f}"
    return (
        f"{name}: {found['nll']:.2f}{error} nats per image, {found['bits_per_dim']:.3f} bits/dim; "
        f"K={found['num_samples']}, {_images(found)}; {weights['parameters']:,} weights, "
        f"{weights['bytes'] / 1e6:.1f} MB"
    )


def of_presets(
    records: Mapping[str, Any], recipes: Sequence[str], aliases: Mapping[str, str]
) -> str:
    """The presets with a trained model, one a line, their short names, and the other presets."""
    lines = [of_preset(name, record) for name, record in records.items()]
    lines += [f"{alias}: short for {name}" for alias, name in aliases.items()]
    return "\n".join([*lines, f"without a trained model: {', '.join(recipes)}"])


def of_compression(record: Mapping[str, Any]) -> str:
    """The size of the file, what it began with, and the speed."""
    verified = record["verified_images_per_second"]
    check = f", verified at {verified:.0f}" if verified else ", not verified"
    return (
        f"{record['images']:,} images in {record['bytes']:,} bytes, {record['bits_per_dim']:.4f} "
        f"bits/dim{_beside(record)}. {record['first_images']:,} first images take "
        f"{record['first_bytes']:,} of the bytes, the header {record['header_bytes']:,}. Coded at "
        f"{record['images_per_second']:.0f} images/s{check}. See {record['output']}"
    )


def of_estimate(record: Mapping[str, Any]) -> str:
    """The rate on some images, and what all would take."""
    return (
        f"about {record['bits_per_dim']:.4f} bits/dim on {record['sampled']} of "
        f"{record['images']:,} images{_beside(record)}: {record['bytes']:,} bytes for all, without "
        f"header and first images"
    )


def of_decompression(record: Mapping[str, Any]) -> str:
    """How many images came back."""
    return (
        f"wrote {record['images']:,} of {record['of']:,} images to {record['output']} at "
        f"{record['images_per_second']:.0f} images/s"
    )


def _beside(record: Mapping[str, Any]) -> str:
    found = [f"{name.upper()} {rate:.3f}" for name, rate in record["others"].items()]
    return f" ({', '.join(found)})" if found else ""


def _images(record: Mapping[str, Any]) -> str:
    images, split = record["images"], f"{record['split']} images of {record['data']}"
    if images["count"] == images["of"]:
        return f"all {images['of']:,} {split}"
    return f"{images['count']:,} of {images['of']:,} {split}"


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"
