# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The programs of the command `matnet`, their flags, and their exit statuses.

A program is a function below; its docstring is the text of `--help`. It imports TensorFlow only
when it runs, so a wrong flag is refused in a fraction of a second.
"""

from __future__ import annotations

import os
import time
from typing import Any

from matnet_tf import config, flags
from matnet_tf.cli import sentences
from matnet_tf.cli.arguments import given_experiment, image_size
from matnet_tf.cli.command import DATA_DIR, JSON, RUN, program, report
from matnet_tf.cli.startup import importing
from matnet_tf.config.suggestion import SIZES
from matnet_tf.flags import Flag
from matnet_tf.presets import ALIASES, names, read_record, trained, trained_names

__all__ = [
    "cluster",
    "devices",
    "evaluate",
    "explore",
    "export",
    "figures",
    "impute",
    "prepare",
    "presets",
    "publish",
    "sample",
    "score",
    "train",
]

_STARTED = time.monotonic()  # --train.max_seconds includes the import of TensorFlow.

_WORKDIR = Flag("workdir", RUN[0].help)  # One that may not exist yet.
_WEIGHTS = next(f for f in flags.flags_of(config.EvaluateConfig) if f.name == "weights")


@program(
    Flag("data.name", "data set to prepare"),
    DATA_DIR,
    Flag("source", "folder with the source files; empty lets TFDS download them", ""),
    Flag("overwrite", "replace a data set that exists", False, bool),
    Flag(
        "size",
        "HEIGHTxWIDTH to which the images of a folder are resized; empty keeps their size if they "
        "have one of at most 256 pixels a side, and is 64x64 otherwise",
        "",
    ),
    Flag("crop", "side of the tiles into which an image folder is cut; 0 does not cut", 0, int),
)
def prepare(
    data_name: str, data_dir: str, source: str, overwrite: bool, size: str, crop: int
) -> None:
    """Prepares a data set for training, from local files or by TFDS's own download.

    With --source, no network is needed. The folder must contain:
      mnist, fashion_mnist  {train,t10k}-{images-idx3,labels-idx1}-ubyte[.gz]
      binarized_mnist       binarized_mnist_{train,valid,test}.amat
      omniglot28            chardata.mat
      cifar10               data_batch_{1..5}.bin and test_batch.bin, the binary version
      image_folder          {train,test}/[CLASS/]*, or images, of which 10% are for tests
                            (PNG, JPEG, WebP, BMP)
    Without --source, TFDS downloads the data set; it has all of the above except omniglot28 and
    image_folder, and many more.
    """
    settings = config.DataConfig(name=data_name, dir=data_dir)
    pair = image_size(size) if size else None
    if crop < 0:
        raise ValueError(f"--crop must be at least 0; got {crop}")
    with importing():
        from matnet_tf.data import prepare as preparation

    print(preparation.prepare(settings, source, overwrite, pair, crop))


@program(
    _WORKDIR,
    Flag(
        "model.size",
        "size of the model that suits the data, where --model.scales and --model.image_shape are "
        "not given",
        "medium",
        choices=tuple(SIZES),
    ),
    JSON,
    tree=config.Experiment,
    base=given_experiment,
    first=(
        *("workdir", "model.size", "model.scales", "data.name", "data.dir"),
        *("data.validation_images", "train.steps", "train.max_seconds", "train.batch_size"),
        *("train.learning_rate", "seed", "init"),
    ),
)
def train(experiment: config.Experiment, workdir: str, model_size: str, json: bool) -> int:
    """Trains a model in a work directory; --workdir alone resumes an interrupted run.

    Without --preset or a network (--model.scales), the model is made to suit the data. A finished
    run goes on with a larger --train.steps. Exit status: 0 when the run is complete, 2 after an
    error, 75 if SIGTERM or SIGHUP ended it early.
    """
    del model_size  # `given_experiment` has used it.
    if experiment.init.startswith("preset:"):
        trained(experiment.init.removeprefix("preset:"))
    with importing():
        from matnet_tf.training import train as training

    record = training.train(experiment, workdir, _STARTED)
    report(record, json, sentences.of_training, workdir)
    return os.EX_TEMPFAIL if record.get("interrupted") else os.EX_OK


@program()
def devices() -> None:
    """Lists the devices that TensorFlow finds and that the programs use.

    Where the machine has a GPU of NVIDIA's that TensorFlow does not use, a line on stderr has the
    reason.
    """
    with importing():
        from matnet_tf.runs.devices import described

    print("\n".join(described()))


@program(
    *RUN,
    DATA_DIR,
    Flag("devices", "devices of this machine; 0 is all GPUs, or one CPU", 0, int),
    Flag("coded", "code the images without loss, too, and record the rate", False, bool),
    JSON,
    tree=config.EvaluateConfig,
)
def evaluate(
    settings: config.EvaluateConfig,
    workdir: str,
    data_dir: str,
    devices: int,
    coded: bool,
    json: bool,
) -> None:
    """Measures the importance-weighted bound of a trained model, in nats per image.

    Appends a record to evaluation.json in the work directory. The same command resumes an
    interrupted evaluation. Several processes, on one machine or on several that share the work
    directory, divide the images among them.
    """
    with importing():
        from matnet_tf.evaluation import evaluate as evaluation

        if coded:
            from matnet_tf.compression import coded as coding

            coding.check_coded(workdir)
    record = evaluation.evaluate(workdir, settings, data_dir, devices)
    if coded:
        record = coding.add_coded_rate(workdir, record, settings, data_dir)
    report(record, json, sentences.of_evaluation, workdir)


@program(
    *RUN,
    Flag("output", "CSV file to write; empty is WORKDIR/scores/NAME_SPLIT.csv", ""),
    Flag("inliers", "CSV file of images that are not outliers, written with the same model", ""),
    *flags.changes_of(config.DataConfig, "data."),
    JSON,
    tree=config.ScoreConfig,
)
def score(
    settings: config.ScoreConfig, workdir: str, output: str, inliers: str, json: bool, **data: Any
) -> None:
    """Scores every image of a data set with a trained model, to detect outliers.

    Writes a CSV file with one row per image: log p(x), the bounds L>k in which the k lowest levels
    come from the prior, and their log-likelihood ratios. A JSON file beside it records the
    settings. The data set is the run's own by default; --data.name selects another one with images
    of the same shape, and the run's settings hold for data flags that are not given. Images of
    another data set are preprocessed as the run's were (binarized, or dequantized), and its splits
    are train and test. With --inliers, also prints the AUROC of each score.
    """
    with importing():
        from matnet_tf.evaluation import scores

    changes = {name.removeprefix("data_"): value for name, value in data.items()}
    record = scores.score(workdir, settings, changes, output, inliers)
    report(record, json, sentences.of_scores)


@program(
    *RUN,
    _WEIGHTS,
    Flag("seed", "seed of the samples and of the choice of images", 0, int),
    Flag("compare", "more work directories for bits.png, with commas", (), tuple[str, ...]),
    DATA_DIR,
)
def figures(workdir: str, weights: str, seed: int, compare: tuple[str, ...], data_dir: str) -> None:
    """Draws the figures of a trained model and prints their paths.

    The figures are samples, reconstructions that keep the top levels, the KL of every level, the
    share of bits per level (with --compare, of several runs side by side), and training curves. A
    preset has no record of its training, so no figures of it.
    """
    with importing():
        from matnet_tf.plots import figures as drawing

    print(*drawing.write_figures(workdir, weights, seed, compare, data_dir), sep="\n")


@program(
    *RUN,
    Flag("num", "number of images", 64, int),
    Flag("output", "PNG file to write; empty is WORKDIR/figures/draws.png", ""),
    Flag(
        "temperature", "factor on the scales of all priors; below 1, images vary less", 1.0, float
    ),
    Flag("seed", "seed of the images", 0, int),
    _WEIGHTS,
)
def sample(
    workdir: str, num: int, output: str, temperature: float, seed: int, weights: str
) -> None:
    """Draws images from a trained model into one picture and prints its path."""
    with importing():
        from matnet_tf.plots import figures as drawing

    print(drawing.write_samples(workdir, num, output, temperature, seed, weights))


@program(*RUN, DATA_DIR, JSON, tree=config.ClusterConfig)
def cluster(settings: config.ClusterConfig, workdir: str, data_dir: str, json: bool) -> None:
    """Shows which classes a model with a mixture prior has found without labels.

    Assigns images to the mixture's components and measures purity and normalized mutual information
    against the labels, beside those of k-means on pixels and on the top latents. For a model
    without a mixture it measures only k-means, with --components clusters or as many as there are
    classes. Writes clusters.csv and clusters.json to the work directory and, for a mixture,
    figures/classes.png and figures/components.png. Prints their paths.
    """
    with importing():
        from matnet_tf.evaluation import clusters

    record = clusters.cluster(workdir, settings, data_dir)
    report(record, json, sentences.of_clusters)


@program(
    *RUN,
    Flag("images", "PNG and JPEG files, or folders of them; with commas", type=tuple[str, ...]),
    Flag("output", "folder to write to; empty is WORKDIR/imputations", ""),
    JSON,
    tree=config.ImputeConfig,
)
def impute(
    settings: config.ImputeConfig, workdir: str, images: tuple[str, ...], output: str, json: bool
) -> int:
    """Fills in missing pixels of image files with a trained conditional model.

    Writes NAME_1.png to NAME_K.png for every image (K completions, which keep the known pixels as
    they are) and NAME_mean.png (their mean), contact_sheet.png, and the record imputations.json.
    Exactly one of --masks, --missing_colour, --transparent and --rectangles says which pixels are
    missing. Images larger than the model's are filled window by window, each given the pixels known
    or filled so far.

    Exit status: 0 when all images are done; 1 if some were skipped, which stderr and the record
    name with the reason; 2 after an error, or if no image was left.
    """
    with importing():
        from matnet_tf.imputation import impute as imputation

    record = imputation.impute_files(workdir, images, settings, output)
    report(record, json, sentences.of_imputations)
    return 1 if record["skipped"] else 0


@program(
    *RUN,
    _WEIGHTS,
    Flag(
        "max_image_samples",
        "most images times samples of a request; 0 is 10000, or as many images as fill 64 MiB",
        *(0, int),
    ),
)
def export(workdir: str, weights: str, max_image_samples: int) -> None:
    """Exports a trained model as a SavedModel and prints its path."""
    if not 0 <= max_image_samples < 2**31:
        raise ValueError(f"--max_image_samples must lie in [0, 2^31); got {max_image_samples}")
    with importing():
        from matnet_tf.serving import export as exporting

    print(exporting.export(workdir, weights, max_image_samples))


@program(
    *RUN,
    Flag("output", "folder to write to; its name is that of the model"),
    Flag("command", "the command that trained the model, for the record"),
    Flag("hardware", "what it was trained on, for the record"),
    DATA_DIR,
    tree=config.EvaluateConfig,
)
def publish(
    settings: config.EvaluateConfig,
    workdir: str,
    output: str,
    command: str,
    hardware: str,
    data_dir: str,
) -> None:
    """Copies a trained model to a folder of its own, with its bound on a whole split.

    The folder has config.json, model.weights.h5 (float16 if that moves the bound by less than 0.01
    nats), record.json, images.npz and card.md. It stands for a work directory wherever one is read.
    The same command resumes an interrupted one.
    """
    with importing():
        from matnet_tf.serving import publish as publishing

    record = publishing.publish(workdir, output, settings, command, hardware, data_dir)
    print(sentences.of_preset(os.path.basename(os.path.abspath(output)), record))


@program(JSON)
def presets(json: bool) -> None:
    """Lists the presets that have a trained model, with their bounds.

    The flag --preset of other programs takes their names. The other presets are recipes: flags of
    `matnet train --preset=NAME`.
    """
    records = {name: read_record(trained(name)) for name in trained_names()}
    report(records, json, sentences.of_presets, sorted(set(names()) - set(records)), ALIASES)


@program(*RUN, DATA_DIR, tree=config.ExploreConfig)
def explore(settings: config.ExploreConfig, workdir: str, data_dir: str) -> None:
    """Opens a page on this machine to play with a trained model.

    On the page, draw or upload an image, or choose a test image, and see what the top levels of
    latents keep of it, what lies between two images, samples at other temperatures, and how likely
    an image is among test images. A conditional model fills in what is painted over. It needs the
    extra `explore` (Gradio), listens on 127.0.0.1 alone and uses no network. Ctrl-C ends it.
    """
    with importing():
        from matnet_tf.explore import serve

    serve.serve(workdir, settings, data_dir)
