# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Keras's habits: every kind of data, weights of images, callbacks, and what is refused."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from test_inputs import dataset, refused
from test_matnet import SMALL, equal, small_images

from matnet_tf.config import ModelConfig, Scale
from matnet_tf.model.conditional import ConditionalMatNet
from matnet_tf.model.matnet import MatNet

CONDITIONAL = ModelConfig(
    (4, 3, 1), (Scale(1, 3, 2, 1),), top_latents=2, top_units=2, conditional_stages=1
)


def made(config=SMALL, **arguments):
    model = (ConditionalMatNet if config.conditional_stages else MatNet)(config)
    model.compile(optimizer="adam", **arguments)
    return model


class Batches(keras.utils.PyDataset):
    """A user's own data set."""

    def __init__(self, x, size=2):
        super().__init__()
        self.x, self.size = x, size

    def __len__(self):
        return len(self.x) // self.size

    def __getitem__(self, index):
        return (self.x[index * self.size : (index + 1) * self.size],)


# Data in every form.


@pytest.mark.slow
def test_py_datasets_and_generators_train_as_arrays_do(eagerly):
    x, expected = small_images(), made()
    expected.fit(x, batch_size=2, shuffle=False, verbose=0)

    def generator():
        yield from (x[:2], x[2:])

    for data, steps in ((Batches(x), None), (generator(), 2)):
        model = made()
        model.fit(data, steps_per_epoch=steps, verbose=0)
        equal(model.get_weights(), expected.get_weights())
        assert int(model.step.numpy()) == 2
    assert model.evaluate(Batches(x), verbose=0, return_dict=True) == pytest.approx(
        model.evaluate(x, batch_size=2, verbose=0, return_dict=True)
    )


def test_bad_images_are_refused_on_every_way_in(eagerly):
    model, x = made(), small_images()
    grey, bytes_ = x + 0.5, (255 * x).astype(np.uint8)
    calls = [
        model.elbo,
        model.fit,
        model.evaluate,
        model.predict,
        model.train_on_batch,
        model.test_on_batch,
        model.predict_on_batch,
        lambda bad: model.fit(Batches(bad), verbose=0),
        lambda bad: model.fit(iter([bad]), verbose=0),
        lambda bad: model.fit(x, validation_data=bad, verbose=0),
    ]
    for call in calls:
        refused("images must be 0 or 1, as likelihood bernoulli requires", call, grey)
        refused("images must be float32, 0 or 1", call, bytes_)
    refused("must be 0 or 1", model.fit, dataset(grey), verbose=0)
    assert not int(model.step.numpy())
    for data, name in ((dataset(x), "Dataset"), (Batches(x), "Batches"), ({"image": x}, "dict")):
        refused(
            f"expected an array of images; got a \\w*{name}: take its batches", model.elbo, data
        )
        refused(f"got a \\w*{name}", model.infer, data)
    refused("expected an array of images; got a object", model.elbo, object())


@pytest.mark.slow
def test_models_can_be_used_inside_a_users_graph(messages):
    x = small_images()
    model, conditional = MatNet(SMALL), ConditionalMatNet(CONDITIONAL)
    mask = np.zeros((4, 4, 3, 1), np.float32)
    graph = tf.function(lambda x: model.elbo(x).elbo)
    np.testing.assert_allclose(graph(x), model.elbo(x).elbo, rtol=1e-5)
    graph = tf.function(lambda x, mask: conditional.elbo(x, mask).elbo)
    np.testing.assert_allclose(graph(x, mask), conditional.elbo(x, mask).elbo, rtol=1e-5)
    imputed = tf.function(lambda x, mask: conditional.impute(x, mask).mean)(x, mask)
    np.testing.assert_allclose(imputed, conditional.impute(x, mask).mean, rtol=1e-5)
    decoded = tf.function(lambda x: model.decode(model.infer(x).z))(x)
    np.testing.assert_allclose(decoded, model.decode(model.infer(x).z), rtol=1e-5)
    with pytest.raises(tf.errors.InvalidArgumentError, match="images must be 0 or 1"):
        tf.function(lambda x: model.elbo(x).elbo)(tf.constant(x + 0.5))
    assert not messages  # AutoGraph warns of what it cannot convert.


@pytest.mark.slow
def test_data_without_an_end_need_a_number_of_steps():
    model = made(run_eagerly=True)
    endless = dataset(small_images()).repeat()
    refused("the data set has no end: .* steps_per_epoch in fit", model.fit, endless)
    refused("no end", model.evaluate, endless)
    refused("no end", model.predict, endless)
    refused("no end", model.fit, small_images(), validation_data=endless)
    model.fit(endless, steps_per_epoch=3, verbose=0)
    assert int(model.step.numpy()) == 3


# What is not used is refused.


def test_targets_class_weights_losses_and_metrics_are_refused(eagerly):
    model, x, y = made(), small_images(), np.arange(4)
    for call in (model.fit, model.evaluate, model.train_on_batch, model.test_on_batch):
        refused("a MatNet learns from images alone: leave out y", call, x, y)
    for call in (model.fit, model.train_on_batch):
        refused("knows no classes: use sample_weight", call, x, class_weight={0: 1.0})
    for name, value in (("loss", "mse"), ("metrics", ["mae"]), ("weighted_metrics", ["mae"])):
        refused(f"compile takes no {name}: the loss is the negative ELBO", made, **{name: value})
    model.compile(optimizer="adam", loss=None, metrics=None)


# Weights of images.


@pytest.mark.slow
@pytest.mark.parametrize("config", [SMALL, CONDITIONAL], ids=["whole", "conditional"])
def test_weights_weigh_the_bounds_of_images(config, eagerly):
    x, weights = small_images(), np.array([1.0, 0.0, 0.5, 2.5], np.float32)
    mask = np.zeros((4, 4, 3, 1), np.float32)
    inputs = {"image": x, "mask": mask} if config.conditional_stages else x
    parts = (x, mask) if config.conditional_stages else (x,)
    model, unit = made(config), made(config)
    elbo = model.elbo(*parts, seed=model.step_seed()).elbo.numpy()
    triple = (x, mask, weights) if config.conditional_stages else (x, np.zeros(4), weights)
    found = model.evaluate(dataset(triple, 4), verbose=0, return_dict=True)
    assert found["elbo"] == pytest.approx((weights * elbo).sum() / weights.sum(), rel=1e-5)
    model.fit(inputs, sample_weight=weights, batch_size=4, shuffle=False, verbose=0)
    assert model.history.history["loss"][0] == pytest.approx(-found["elbo"], rel=1e-5)
    parted = made(config, micro_batches=2)
    parted.fit(inputs, sample_weight=weights, batch_size=4, shuffle=False, verbose=0)
    assert np.isfinite(parted.history.history["loss"][0])
    unit.train_on_batch(inputs, sample_weight=weights)
    equal(unit.get_weights(), model.get_weights())
    # A batch of weight 0 gives no gradient.
    still = made(config, l2_penalty=0.0)
    still.train_on_batch(inputs, sample_weight=np.zeros(4))
    for new, old in zip(still.trainable_variables, made(config).trainable_variables, strict=True):
        np.testing.assert_array_equal(new.numpy(), old.numpy())


# Logs and callbacks.


@pytest.mark.slow
def test_callbacks_with_their_defaults_act_as_for_any_keras_model(tmp_path, eagerly):
    x, model = small_images(), made()
    path = tmp_path / "best.keras"
    best = keras.callbacks.ModelCheckpoint(path, save_best_only=True)
    plateau = keras.callbacks.ReduceLROnPlateau(patience=1, factor=0.5, min_delta=1e9)
    early = keras.callbacks.EarlyStopping(patience=3, min_delta=1e9)
    higher = keras.callbacks.EarlyStopping("val_elbo", patience=10)
    history = model.fit(
        x,
        batch_size=4,
        epochs=10,
        validation_data=x,
        callbacks=[best, plateau, early, higher],
        verbose=0,
    ).history
    assert len(history["loss"]) == 4  # The first epoch and three without the improvement.
    np.testing.assert_allclose(history["loss"], -np.array(history["elbo"]))
    np.testing.assert_allclose(history["val_loss"], -np.array(history["val_elbo"]))
    assert path.exists() and float(model.optimizer.learning_rate) < 0.001
    assert higher.best == pytest.approx(max(history["val_elbo"]))
    assert best.best == pytest.approx(min(history["val_loss"]))


@pytest.mark.slow
@pytest.mark.parametrize("config", [SMALL, CONDITIONAL], ids=["whole", "conditional"])
def test_steps_per_execution_need_not_divide_the_batches(config, two_devices):
    x, mask = small_images(10), np.zeros((10, 4, 3, 1), np.float32)
    data = {"image": x, "mask": mask} if config.conditional_stages else x
    with two_devices.scope():
        shared = made(config, steps_per_execution=2)
    for model in (made(config, steps_per_execution=2), shared):
        history = model.fit(dataset(data), epochs=2, verbose=0, validation_data=dataset(data))
        assert int(model.step.numpy()) == 10
        assert len(history.history["loss"]) == len(history.history["val_loss"]) == 2
        assert np.isfinite(model.evaluate(dataset(data), verbose=0, return_dict=True)["elbo"])


def test_fit_gives_no_warning_of_its_own(recwarn, eagerly):
    made().fit(dataset(small_images()), verbose=0)
    assert not [str(w.message) for w in recwarn if "shuffle" in str(w.message)]


def test_a_summary_lists_the_modules_with_their_shapes_and_counts():
    model, lines = MatNet(SMALL), []
    model.summary(expand_nested=True, line_length=80, print_fn=lines.append)
    text = "\n".join(lines)
    for name in ("hierarchy", "guide", "bottom_up", "top_down", "01_fc", "likelihood"):
        assert name in text
    (module, *_), (start, *_) = model.hierarchy.top_down.modules, model.hierarchy.guide.modules
    for layer in (module, start):
        line = next(line for line in text.splitlines() if type(layer).__name__ in line)
        assert f"{layer.count_params():,}" in line and "(None, 3)" in line
    assert not hasattr(model.hierarchy, "layers")


def test_keras_tools_are_told_the_shapes():
    x, mask = small_images(), np.zeros((4, 4, 3, 1), np.float32)
    masked = {"image": x, "mask": mask}
    images, shapes = (None, 4, 3, 1), {"image": (None, 4, 3, 1), "mask": (None, 4, 3, 1)}
    for model, data, expected in (
        (MatNet(SMALL), x, images),
        (ConditionalMatNet(CONDITIONAL), masked, shapes),
    ):
        assert (model.input_shape, model.output_shape) == (expected, images)
        # `keras.utils.plot_model` draws these.
        assert keras.tree.map_structure(lambda t: t.shape, model.input) == expected
        assert model.output.shape == images
        np.testing.assert_allclose(keras.Model(model.input, model.output)(data), model(data))


# Keras's settings, and its registry.

SETTINGS = """
import keras, numpy as np
keras.config.set_image_data_format("channels_first")
keras.config.set_floatx("float64")
import matnet_tf as matnet
config = matnet.ModelConfig((4, 6, 2), (matnet.Scale((2, 3), 4, 2, 2),), 2, 4, 3)
model = matnet.MatNet(config)
model.compile(optimizer="adam")
x = np.random.default_rng(0).integers(0, 2, (4, 4, 6, 2)).astype(np.float32)
model.fit(x, batch_size=2, verbose=0)
assert {v.dtype for v in model.trainable_variables} == {"float32"}
assert model.predict(x, verbose=0).shape == (4, 4, 6, 2)
assert keras.config.floatx() == "float64"
assert keras.config.image_data_format() == "channels_first"
"""


@pytest.mark.slow
def test_keras_settings_do_not_change_a_model():
    subprocess.run([sys.executable, "-c", SETTINGS], check=True, timeout=200)


LOADING = """
import sys
{imports}
model = {load}(sys.argv[1])
print(type(model).__name__)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("imports", "load"),
    [
        ("import matnet_tf, keras", "keras.models.load_model"),
        ("import keras, matnet_tf", "keras.models.load_model"),
        ("import matnet_tf; matnet_tf.data; import keras", "keras.models.load_model"),
        ("import matnet_tf", "matnet_tf.load"),
    ],
    ids=["ours first", "keras first", "data first", "load"],
)
def test_saved_models_load_in_a_new_process(imports, load, tmp_path):
    MatNet(SMALL).save(path := tmp_path / "model.keras")
    program = LOADING.format(imports=imports, load=load)
    found = subprocess.run(
        [sys.executable, "-c", program, path], check=True, capture_output=True, timeout=200
    )
    assert found.stdout.split() == [b"MatNet"]


def test_another_backend_is_refused_in_one_line():
    program = "import os; os.environ['KERAS_BACKEND'] = 'jax'; import matnet_tf; matnet_tf.MatNet"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=100)
    assert found.returncode and b"backend tensorflow; got KERAS_BACKEND=jax" in found.stderr
