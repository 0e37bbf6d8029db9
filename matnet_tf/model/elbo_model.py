# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""A Keras model that maximizes the ELBO of a hierarchy it owns.

The loss is a value: a step computes the bound, weighs its KL and takes the gradient of the mean
over the global batch. A step whose gradient is not finite, or too large, changes nothing and is
counted. Steps on data may alternate with updates of the guide alone, on images drawn from the
model (Eq. 13).
"""

from __future__ import annotations

import contextlib
import functools
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from matnet_tf.config import ElboLoss
from matnet_tf.config.serialization import from_dict, to_dict
from matnet_tf.distributions import stateless_random
from matnet_tf.model.bounds import Bound
from matnet_tf.model.descent import Trace
from matnet_tf.model.fit_data import (
    check_unused,
    checked_data,
    compiled_loss,
    monitor_directions,
)
from matnet_tf.model.gradients import GradientNorms, step_or_skip
from matnet_tf.model.hierarchy import Hierarchy
from matnet_tf.model.importance_loss import importance_loss
from matnet_tf.model.input_checks import (
    EMPTY,
    ImageInputs,
    MaskedImageInputs,
    data_errors,
)
from matnet_tf.model.losses import LossWeights, loss_per_image
from matnet_tf.model.metrics import BatchCount, BoundMetric, NonFiniteImages, SkippedSteps
from matnet_tf.model.regularizer import regularizer_loss
from matnet_tf.model.step_functions import make_predict_steps, make_steps, make_train_steps
from matnet_tf.model.summary import listed_parts
from matnet_tf.tracing import FunctionCache

__all__ = ["ElboModel"]

# Separates the noise of the guide's own updates from that of the data.
_REGULARIZER_STREAM = 0x5EED


class ElboModel(keras.Model):
    """A Keras model that maximizes the ELBO of a `Hierarchy`; see `MatNet` and `ConditionalMatNet`.

    The model is built when constructed. A subclass constructs the hierarchy and the input form, and
    adds what users call. There are no other hooks.

    Args:
      hierarchy: The layer with the networks and the likelihood.
      input_form: How batches carry images, and masks if the model is conditional.
      seed: Integer seed of the initial weights and of the noise in training.
      **kwargs: Arguments of `keras.Model`.

    Raises:
      ValueError: If Keras's dtype policy is mixed_float16, in which small gradients vanish.
    """

    def __init__(
        self,
        hierarchy: Hierarchy,
        input_form: ImageInputs | MaskedImageInputs,
        seed: int = 0,
        **kwargs: Any,
    ):
        # One name for all models, so that variables have the same paths in every process.
        super().__init__(**{"name": "matnet", **kwargs})
        if self.compute_dtype == "float16":
            raise ValueError("models compute in float32 or mixed_bfloat16; got mixed_float16")
        self.config = hierarchy.config
        self.seed = seed
        self.hierarchy = hierarchy
        self.input_form = input_form
        self.functions = FunctionCache()
        self.elbo_loss = ElboLoss()
        self._training_stage = 0
        self.build((None, *self.config.image_shape))

    def build(self, input_shape):
        if self.built:
            return
        self.hierarchy.build(input_shape)
        self.step = self._counter("step")
        self.skipped = self._counter("skipped")
        self.skipped_in_a_row = self._counter("skipped_in_a_row")
        # Schedules assign these, see `LossWeights`.
        self.kl_weight = self._scalar("kl_weight", 1.0)
        self.free_bits_weight = self._scalar("free_bits_weight", 1.0)
        self.kl_balance = self._scalar("kl_balance", 1.0)
        self.gradient_norms = GradientNorms(name="gradient_norms")
        self.bound_metric = BoundMetric(self.config.level_names)
        self.batch_count = BatchCount()
        self.built = True
        self.hierarchy.initialize(self.seed)

    def _counter(self, name):
        return self.add_weight(
            shape=(), dtype="int64", initializer="zeros", trainable=False, name=name
        )

    def _scalar(self, name, value):
        initializer = keras.initializers.Constant(value)
        return self.add_weight(shape=(), initializer=initializer, trainable=False, name=name)

    def call(self, inputs):
        """Reconstructions `[B, H, W, C]` from one draw of every latent."""
        seed = stateless_random.seed_tensor(self.seed)
        return self.hierarchy(self.input_form.unpack(inputs), seed)

    # Keras's methods.

    @property
    def input_shape(self):
        """The shape of images, with None for the batch; with masks, a dictionary."""
        return self.input_form.pack(*((None, *s) for s in self.input_form.shapes.values()))

    @property
    def output_shape(self):
        """The shape of reconstructions, with None for the batch."""
        return (None, *self.config.image_shape)

    @property
    def input(self):
        """Symbolic images, with masks in a dictionary, as `keras.Model` takes them."""
        return self._symbols[0]

    @property
    def output(self):
        """Symbolic reconstructions of `input`."""
        return self._symbols[1]

    @functools.cached_property
    def _symbols(self):
        shapes = self.input_form.shapes.items()
        inputs = (keras.Input(shape, dtype="float32", name=name) for name, shape in shapes)
        inputs = self.input_form.pack(*inputs)
        return inputs, self(inputs)

    @property
    def metrics(self):
        return [self.bound_metric]

    def compile(
        self, optimizer: Any = "adam", elbo_loss: ElboLoss | None = None, **kwargs: Any
    ) -> None:
        """Configures training, as `keras.Model.compile` does; the loss is the negative ELBO.

        Args:
          optimizer: Any Keras optimizer.
          elbo_loss: Settings of the loss and of the guard against bad steps. Its fields are also
            accepted as keywords: `compile(optimizer="adam", entropy_penalty=0.4)`.
          **kwargs: `jit_compile`, `steps_per_execution`, `run_eagerly`, and fields of `ElboLoss`.

        Raises:
          ValueError: If a setting is out of range or does not go with the model.
        """
        self.elbo_loss = compiled_loss(self.config, elbo_loss, kwargs)
        super().compile(optimizer=optimizer, **kwargs)
        # Variables created while a step is traced would cost a second trace of the whole step.
        with self.distribute_strategy.scope():
            self.optimizer.build(self.trainable_variables)

    def get_compile_config(self):
        config = super().get_compile_config()
        return config | {"elbo_loss": to_dict(self.elbo_loss)} if self.compiled else config

    def compile_from_config(self, config):
        elbo_loss = from_dict(ElboLoss, config.pop("elbo_loss", {}))
        config = keras.saving.deserialize_keras_object(config)
        given = {name: value for name, value in config.items() if value is not None}
        self.compile(elbo_loss=elbo_loss, **given)

    def fit(
        self,
        x=None,
        y=None,
        *args,
        callbacks=None,
        validation_data=None,
        class_weight=None,
        **kwargs,
    ):
        """Trains, as `keras.Model.fit` does; images are checked as they come, see `MatNet`.

        Args:
          x: Images as an array, or batches of them as a `tf.data.Dataset`, a
            `keras.utils.PyDataset` or a generator.
          y: None: there are no targets.
          *args: As `keras.Model.fit`.
          callbacks: As `keras.Model.fit`. `mode="auto"` knows that a higher `elbo` is better.
          validation_data: As x.
          class_weight: None: there are no classes.
          **kwargs: As `keras.Model.fit`. `sample_weight` weighs the bounds of images, in the loss
            and in the means that are reported.

        Raises:
          ValueError: If images are not what the config says, or the data set is empty or endless.
          TrainingDiverged: After too many skipped steps in a row.
        """
        check_unused(y, class_weight)
        monitor_directions(callbacks)
        own = [NonFiniteImages(), SkippedSteps(self.elbo_loss.max_skipped)]
        kwargs["callbacks"] = [*(callbacks or []), *own]
        if validation_data is not None:
            steps = kwargs.get("validation_steps")
            kwargs["validation_data"] = checked_data(self.input_form, validation_data, steps)
        before = int(self.step.numpy())
        data = checked_data(self.input_form, x, kwargs.get("steps_per_epoch"))
        if not isinstance(data, np.ndarray | dict):
            kwargs.setdefault("shuffle", False)  # Keras warns that it cannot.
        with data_errors():
            # Without targets Keras would lose the weights.
            history = super().fit(data, kwargs.get("sample_weight"), *args, **kwargs)
        if history.epoch and int(self.step.numpy()) == before:
            raise ValueError(EMPTY)
        return history

    def evaluate(self, x=None, y=None, *args, callbacks=None, **kwargs):
        """Means over images of the ELBO and its parts, in nats, as `keras.Model.evaluate`.

        The noise is a function of the model's seed, its step and the number of the batch, so a
        second call gives the same result.
        """
        check_unused(y)
        self.batch_count.reset_state()
        if not isinstance(callbacks, keras.callbacks.CallbackList):  # As `fit` gives them.
            callbacks = [*(callbacks or []), NonFiniteImages()]
        data = checked_data(self.input_form, x, kwargs.get("steps"))
        with data_errors():
            targets = kwargs.get("sample_weight")  # See `fit`.
            result = super().evaluate(data, targets, *args, callbacks=callbacks, **kwargs)
        if not self.bound_metric.count.numpy() + self.bound_metric.non_finite.numpy():
            raise ValueError(EMPTY)
        return result

    def predict(self, x, *args, **kwargs):
        """Reconstructions of images (see `call`), as `keras.Model.predict`.

        The noise is a function of the model's seed and the number of the batch.
        """
        self.batch_count.reset_state()
        data = checked_data(self.input_form, x, kwargs.get("steps"))
        with data_errors():
            return super().predict(data, *args, **kwargs)

    def train_on_batch(self, x, y=None, sample_weight=None, class_weight=None, return_dict=False):
        """One step on an array of images, as `keras.Model.train_on_batch`."""
        check_unused(y, class_weight)
        x = checked_data(self.input_form, x)
        return super().train_on_batch(x, None, sample_weight, return_dict=return_dict)

    def test_on_batch(self, x, y=None, sample_weight=None, return_dict=False):
        """The bound of an array of images, as `keras.Model.test_on_batch`."""
        check_unused(y)
        x = checked_data(self.input_form, x)
        return super().test_on_batch(x, None, sample_weight, return_dict=return_dict)

    def predict_on_batch(self, x):
        """Reconstructions of an array of images, as `keras.Model.predict_on_batch`."""
        self.batch_count.reset_state()
        return super().predict_on_batch(checked_data(self.input_form, x))

    def summary(self, *args, expand_nested=False, **kwargs):
        """Prints the layers, as `keras.Model.summary`; nested ones down to the modules."""
        with listed_parts(self.hierarchy) if expand_nested else contextlib.nullcontext():
            super().summary(*args, expand_nested=expand_nested, **kwargs)

    def make_train_function(self, force=False):
        if self.train_function is None or force:
            self.train_function = make_train_steps(self)
        return self.train_function

    def make_test_function(self, force=False):
        if self.test_function is None or force:
            self.test_function = make_steps(self, self.test_step)
        return self.test_function

    def make_predict_function(self, force=False):
        if self.predict_function is None or force:
            self.predict_function = make_predict_steps(self)
        return self.predict_function

    def get_config(self):
        return {"config": to_dict(self.config), "seed": self.seed, "name": self.name}

    def loss_per_image(self, bound: Bound, trace: Trace) -> tf.Tensor:
        """The training loss `[B]`, see `model.losses`."""
        weights = LossWeights(
            self.kl_weight.value, self.free_bits_weight.value, self.kl_balance.value
        )
        return loss_per_image(self.elbo_loss, weights, bound, trace)

    def regularizer_loss(self, inputs: tuple[tf.Tensor, ...], seed: tf.Tensor) -> tf.Tensor:
        """The guide's loss `[B]` on images drawn from the model, see `model.regularizer`."""
        kind = self.elbo_loss.regularizer
        return regularizer_loss(self.hierarchy, kind, self.loss_per_image, inputs, seed)

    # Steps.

    @property
    def training_stage(self) -> int:
        """The stage that steps on data train, from 1; 0 trains all stages at once."""
        return self._training_stage

    @training_stage.setter
    def training_stage(self, stage: int) -> None:
        stages = self.hierarchy.num_stages
        if isinstance(stage, bool) or stage not in range(stages + 1):
            raise ValueError(
                f"training_stage must be 0, for all, or one of the {stages} stages; got {stage!r}"
            )
        self._training_stage = stage

    def train_step(self, data):
        variables = self.hierarchy.stage_variables(self.training_stage)
        inputs = self.input_form.tensors(data)
        skipped = 1 - step_or_skip(
            self, self._data_losses, inputs, self.step_seed(), variables, on_data=True
        )
        # At the end of a data set a graph would otherwise count a step that has no batch.
        with tf.control_dependencies([skipped]):
            self.step.assign_add(1)
        self.skipped.assign_add(skipped)
        self.skipped_in_a_row.assign(skipped * (self.skipped_in_a_row.value + 1))
        return self.get_metrics_result()

    def _data_losses(self, tensors, seed) -> tf.Tensor:
        """The losses `[B]` of images from the data, which the metrics count."""
        inputs, weights = self.input_form.split(tensors)
        stages = self.training_stage or None
        if self.elbo_loss.importance_weighted:
            loss, bound = importance_loss(
                self.hierarchy, inputs, seed, self.elbo_loss, self.kl_weight.value, stages
            )
        else:
            bound, trace = self.hierarchy.bound_and_trace(*inputs, seed, stages)
            loss = self.loss_per_image(bound, trace)
        self.bound_metric.update_state(bound, weights)
        return loss if weights is None else loss * weights

    def regularizer_step(self, data) -> None:
        """Updates the guide alone, on as many images from the model as `data` has."""
        inputs, _ = self.input_form.split(self.input_form.tensors(data))
        variables = self.hierarchy.guide_variables
        seed = tf.random.fold_in(self.step_seed(), _REGULARIZER_STREAM)
        before = tf.identity(self.optimizer.iterations.value)
        kept = step_or_skip(self, self.regularizer_loss, inputs, seed, variables)
        self.skipped.assign_add(1 - kept)
        # Schedules based on `optimizer.iterations` count data updates only.
        self.optimizer.iterations.assign(before)

    def test_step(self, data):
        inputs, weights = self.input_form.split(self.input_form.tensors(data))
        bound = self.hierarchy.elbo(*inputs, self._batch_seed(self.step_seed()))
        self.bound_metric.update_state(bound, weights)
        return self.get_metrics_result()

    def predict_step(self, data):
        seed = self._batch_seed(stateless_random.seed_tensor(self.seed))
        inputs, _ = self.input_form.split(self.input_form.tensors(data))
        return self.hierarchy(inputs, seed)

    def step_seed(self) -> tf.Tensor:
        """The seed of this step's noise, int32 `[2]`: a function of (seed, step, replica)."""
        seed = tf.random.fold_in(stateless_random.seed_tensor(self.seed), self.step.value)
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        return tf.random.fold_in(seed, replica)

    def _batch_seed(self, seed: tf.Tensor) -> tf.Tensor:
        """The seed of the next batch of `evaluate` or `predict`; the first one's is `seed`."""
        context = tf.distribute.get_replica_context()
        before = self.batch_count.result() * context.num_replicas_in_sync
        index = before + context.replica_id_in_sync_group
        self.batch_count.update_state()
        return tf.where(index > 0, tf.random.fold_in(seed, index), seed)

    # Weights, and the size of a pass.

    @property
    def bound_weights(self) -> list[keras.Variable]:
        """All weights that the model's distributions depend on, trainable or not."""
        return self.hierarchy.weights

    @property
    def samples_per_pass(self) -> int:
        """Image-samples in one pass of a bound or a sample, which bounds the memory."""
        return self.hierarchy.samples_per_pass
