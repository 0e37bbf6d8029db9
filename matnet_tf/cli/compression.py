# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The programs `compress` and `decompress`."""

from __future__ import annotations

from matnet_tf import config
from matnet_tf.cli import sentences
from matnet_tf.cli.command import DATA_DIR, JSON, RUN, program, report
from matnet_tf.cli.startup import importing
from matnet_tf.flags import Flag

__all__ = ["compress", "decompress"]


@program(
    *RUN,
    Flag("images", "PNG files, or folders; with commas; empty is a split", (), tuple[str, ...]),
    Flag("output", "file to write; empty only with --estimate", ""),
    Flag("estimate", "print the rate on 128 images, and write nothing", False, bool),
    DATA_DIR,
    JSON,
    tree=config.CompressConfig,
)
def compress(
    settings: config.CompressConfig,
    workdir: str,
    images: tuple[str, ...],
    output: str,
    estimate: bool,
    data_dir: str,
    json: bool,
) -> None:
    """Compresses images without loss with a trained model: the bound, paid in bytes.

    The images are picture files of the model's size and kind, or a split of the run's data set as
    the model sees it (binarized, if the run does). `matnet decompress` gives them back bit for bit.
    It needs the same work directory, and a machine that computes the same to the last bit; another
    is refused.
    """
    if bool(output) == estimate:
        raise ValueError("exactly one of --output and --estimate says what to do")
    with importing():
        from matnet_tf.compression import compress as compression

    if estimate:
        record = compression.estimate(workdir, settings, images, data_dir)
        report(record, json, sentences.of_estimate)
        return
    record = compression.compress(workdir, settings, output, images, data_dir)
    report(record, json, sentences.of_compression)


@program(
    *RUN,
    Flag("file", "file of matnet compress"),
    Flag("output", "folder for the PNG files; files that exist are not replaced"),
    Flag(
        "known",
        "for a conditional model: folder of pictures of the same names, whose known pixels count; "
        "empty is the split that the file was made from",
        "",
    ),
    DATA_DIR,
    JSON,
)
def decompress(workdir: str, file: str, output: str, known: str, data_dir: str, json: bool) -> int:
    """Decompresses a file of `matnet compress` to PNG files.

    A file of a conditional model has the hidden pixels only; those that are known are given again.

    Exit status: 0 when all images are written; 1 if blocks are damaged, which stderr and the record
    name; 2 after an error, and then nothing is written.
    """
    with importing():
        from matnet_tf.compression import decompress as decompression

    record = decompression.decompress(workdir, file, output, known, data_dir)
    report(record, json, sentences.of_decompression)
    return 1 if record["damaged"] else 0
