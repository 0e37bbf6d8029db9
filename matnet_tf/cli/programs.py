# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The command `matnet`: its programs, their flags, and their exit statuses.

A program is a function below; its docstring is the text of `--help`. It imports TensorFlow only
when it runs, so a wrong flag is refused in a fraction of a second.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from matnet_tf import config, flags
from matnet_tf.cli import sentences
from matnet_tf.cli.startup import importing
from matnet_tf.config.suggestion import SIZES
from matnet_tf.files import config_path
from matnet_tf.flags import Flag
from matnet_tf.version import __version__

__all__ = ["PROGRAMS", "Program", "main"]

_STARTED = time.monotonic()  # --train.max_seconds includes the import of TensorFlow.
_USAGE_ERROR = 2
_INTERRUPTED = 130  # 128 + SIGINT, the shells' convention.

_WORKDIR = Flag("workdir", "work directory of the run: its config, checkpoints and results")
_RUN = dataclasses.replace(_WORKDIR, check=config_path)  # A work directory that exists already.
_WEIGHTS = next(f for f in flags.flags_of(config.EvaluateConfig) if f.name == "weights")
_DATA_DIR = next(f for f in flags.flags_of(config.DataConfig, "data.") if f.name == "data.dir")
_JSON = Flag("json", "print the record in JSON, in place of a sentence", False, bool)
_DEBUG = Flag("debug", "show the traceback of an error", False, bool)


@dataclasses.dataclass(frozen=True)
class Program:
    """One program of the command `matnet`.

    Attributes:
      main: Called as `main(tree_value, **extra_values)`, or without the first if there is no tree.
        Returns an exit status, or None for 0.
      tree: Dataclass of `matnet_tf.config` whose fields are flags, or None.
      extra: Flags that are not fields of `tree`.
      base: See `flags.parse`.
      first: Names of the flags that `--help` lists; empty for all.
    """

    main: Callable[..., int | None]
    tree: type | None
    extra: tuple[Flag, ...]
    base: Callable[[dict[str, Any]], Any] | None = None
    first: tuple[str, ...] = ()

    @property
    def flags(self) -> list[Flag]:
        """All flags of the program."""
        return [*self.extra, *(flags.flags_of(self.tree) if self.tree else ())]


PROGRAMS: dict[str, Program] = {}


def _program(*extra: Flag, tree: type | None = None, **more: Any) -> Callable:
    """Decorates the main function of a program; `more` are other fields of `Program`."""

    def register(function):
        PROGRAMS[function.__name__] = Program(function, tree, (*extra, _DEBUG), **more)
        return function

    return register


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command `matnet`.

    Args:
      arguments: Command line without the name of the command; `sys.argv` by default.

    Returns:
      The exit status: that of the program; 2, or the error's own `exit_status`, after an error that
      is reported in one line; 130 after an interrupt.
    """
    first, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if first in PROGRAMS:
        return _run(first, rest)
    if first in ("--help", "-help", "-h"):
        print(_overview())
        return 0
    if first == "--version":
        print(f"matnet-tf {__version__}")
        return 0
    near = difflib.get_close_matches(first, PROGRAMS, n=1)
    hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(PROGRAMS)}"
    print(f"matnet: error: unknown program {first!r}; {hint}", file=sys.stderr)
    return _USAGE_ERROR


def _run(name: str, arguments: Sequence[str]) -> int:
    """Parses the flags of a program, calls it, and reports its errors in one line."""
    program, debug = PROGRAMS[name], False
    try:
        if {"--help", "-help", "-h", "--help_all"} & set(arguments):
            first = () if "--help_all" in arguments else program.first
            about = program.main.__doc__
            print(flags.help_text(f"matnet {name}", program.tree, program.extra, about, first))
            return 0
        values, keywords = flags.parse(program.tree, program.extra, arguments, program.base)
        debug = keywords.pop("debug")
        return program.main(*values, **keywords) or 0
    except Exception as error:
        if (line := flags.one_line(error)) is None:
            raise
        if debug:
            traceback.print_exc()
        line = flags.as_typed(line, program.tree)
        print(f"matnet {name}: error: {line}", file=sys.stderr)
        return getattr(error, "exit_status", _USAGE_ERROR)
    except KeyboardInterrupt:
        print(f"matnet {name}: interrupted", file=sys.stderr)
        return _INTERRUPTED


def _report(record: dict[str, Any], as_json: bool, sentence: Callable, *arguments: Any) -> None:
    """Prints a program's result: in JSON for other programs, or in words for people."""
    print(json.dumps(record) if as_json else sentence(record, *arguments))


def _overview() -> str:
    """Returns the text of `matnet --help`."""
    lines = ["Matryoshka Networks: deep hierarchical latent-variable models of images.", ""]
    lines += ["Usage: matnet PROGRAM [--FLAG=VALUE ...]", "", "Programs:"]
    for name, program in PROGRAMS.items():
        lines.append(f"  {name:<12}{inspect.getdoc(program.main).splitlines()[0]}")
    return "\n".join([*lines, "", "`matnet PROGRAM --help` lists the flags of a program."])


@_program(
    Flag("data.name", "data set to prepare"),
    _DATA_DIR,
    Flag("source", "folder with the source files; empty lets TFDS download them", ""),
    Flag("overwrite", "replace a data set that exists", False, bool),
    Flag("size", "HEIGHTxWIDTH to which an image folder is resized; empty keeps the size", ""),
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
    pair = _size(size) if size else None
    if crop < 0:
        raise ValueError(f"--crop must be at least 0; got {crop}")
    with importing():
        from matnet_tf.data import prepare as preparation

    print(preparation.prepare(settings, source, overwrite, pair, crop))


def _size(text: str) -> tuple[int, int]:
    """Parses a height and width such as 64x48."""
    height, _, width = text.partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise ValueError(f"--size must read HEIGHTxWIDTH, such as 64x64; got {text!r}")
    return int(height), int(width)


def _experiment(given: dict[str, Any]) -> config.Experiment | None:
    """What the flags of `train` change: the run to resume, or a model that suits the data."""
    if os.path.isfile(os.path.join(given["workdir"], "config.json")):
        from matnet_tf.runs.workdir import read_experiment

        return read_experiment(given["workdir"])
    if designed := {"model.image_shape", "model.scales"} & set(given):
        if "model.size" in given:
            raise ValueError(f"--model.size goes without --{min(designed)}, which it would choose")
        return None
    data = {name[5:]: value for name, value in given.items() if name.startswith("data.")}
    with importing():
        from matnet_tf.data.suggestion import suggest_for

    size = given.get("model.size", "medium")
    model, settings, kind = suggest_for(config.DataConfig(**data), size)
    height, width, channels = model.image_shape
    scales = ",".join(map(str, model.scales))
    print(
        f"train: {settings.name} has {kind} images of {height}x{width}x{channels}: a {size} model, "
        f"--model.scales={scales} --model.likelihood={model.likelihood}",
        flush=True,
    )
    return config.Experiment(model=model, data=settings)


@_program(
    _WORKDIR,
    Flag(
        "model.size",
        "size of the model that suits the data, where --model.scales and --model.image_shape are "
        "not given",
        "medium",
        choices=tuple(SIZES),
    ),
    _JSON,
    tree=config.Experiment,
    base=_experiment,
    first=(
        *("workdir", "model.size", "model.scales", "data.name", "data.dir"),
        *("data.validation_images", "train.steps", "train.max_seconds", "train.batch_size"),
        *("train.learning_rate", "seed"),
    ),
)
def train(experiment: config.Experiment, workdir: str, model_size: str, json: bool) -> int:
    """Trains a model in a work directory; --workdir alone resumes an interrupted run.

    Without --preset or a network (--model.scales), the model is made to suit the data. A finished
    run goes on with a larger --train.steps. Exit status: 0 when the run is complete, 2 after an
    error, 75 if SIGTERM ended it early.
    """
    del model_size  # `_experiment` has used it.
    with importing():
        from matnet_tf.training import train as training

    record = training.train(experiment, workdir, _STARTED)
    _report(record, json, sentences.of_training, workdir)
    return os.EX_TEMPFAIL if record.get("interrupted") else os.EX_OK


@_program(
    _RUN,
    _DATA_DIR,
    Flag("devices", "devices of this machine; 0 is all GPUs, or one CPU", 0, int),
    Flag("coded", "code the images without loss, too, and record the rate", False, bool),
    _JSON,
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
            from matnet_tf.evaluation import coded as coding

            coding.check_coded(workdir)
    record = evaluation.evaluate(workdir, settings, data_dir, devices)
    if coded:
        record = coding.add_coded_rate(workdir, record, settings, data_dir)
    _report(record, json, sentences.of_evaluation, workdir)


@_program(
    _RUN,
    Flag("output", "CSV file to write; empty is WORKDIR/scores/NAME_SPLIT.csv", ""),
    Flag("inliers", "CSV file of images that are not outliers, written with the same model", ""),
    *flags.changes_of(config.DataConfig, "data."),
    _JSON,
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
    _report(record, json, sentences.of_scores)


@_program(
    _RUN,
    _WEIGHTS,
    Flag("seed", "seed of the samples and of the choice of images", 0, int),
    Flag("compare", "more work directories for bits.png, with commas", (), tuple[str, ...]),
)
def figures(workdir: str, weights: str, seed: int, compare: tuple[str, ...]) -> None:
    """Draws the figures of a trained model and prints their paths.

    The figures are samples, reconstructions that keep the top levels, the KL of every level, the
    share of bits per level (with --compare, of several runs side by side), and training curves.
    """
    with importing():
        from matnet_tf.plots import figures as drawing

    print(*drawing.write_figures(workdir, weights, seed, compare), sep="\n")


@_program(_RUN, _DATA_DIR, _JSON, tree=config.ClusterConfig)
def cluster(settings: config.ClusterConfig, workdir: str, data_dir: str, json: bool) -> None:
    """Shows which classes a model with a mixture prior has found without labels.

    Assigns images to the mixture's components and measures purity and normalized mutual information
    against the labels, beside those of k-means on pixels and on the top latents. For a model
    without a mixture it measures only k-means, with --components clusters. Writes clusters.csv and
    clusters.json to the work directory and, for a mixture, figures/classes.png and
    figures/components.png. Prints their paths.
    """
    with importing():
        from matnet_tf.evaluation import clusters

    record = clusters.cluster(workdir, settings, data_dir)
    _report(record, json, sentences.of_clusters)


@_program(
    _RUN,
    Flag("images", "PNG and JPEG files, or folders of them; with commas", type=tuple[str, ...]),
    Flag("output", "folder to write to; empty is WORKDIR/imputations", ""),
    _JSON,
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
    _report(record, json, sentences.of_imputations)
    return 1 if record["skipped"] else 0


@_program(_RUN, _WEIGHTS)
def export(workdir: str, weights: str) -> None:
    """Exports a trained model as a SavedModel and prints its path."""
    with importing():
        from matnet_tf.serving import export as exporting

    print(exporting.export(workdir, weights=weights))
