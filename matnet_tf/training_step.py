# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The training and test steps on the ELBO, as a Keras model that a MatNet extends.

The loss is a value: a step computes the bound, weighs its KL, and takes the gradient of the mean
over the global batch. A step whose gradient is not finite or too large changes nothing and is
counted. Between the steps on data there may be updates of the guide alone, on images drawn from
the model (Eq. 13).
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from matnet_tf.graphs import Graphs, graph
from matnet_tf.inputs import EMPTY, OneClearError, check_specs
from matnet_tf.loss_scaling import LossScale
from matnet_tf.monitoring import BoundMetric, SkippedSteps
from matnet_tf.optimization import Adam
from matnet_tf.training_settings import check_settings

__all__ = ["TrainableBound"]

_REGULARIZER_STREAM = 0x5EED  # Sets the noise of the guide's own updates apart from the data's.


class TrainableBound(keras.Model):
    """A Keras model that maximizes a variational bound; see `MatNet` for a whole one.

    Its inputs are a tuple of tensors, images `x` first. A subclass defines
    `bound_and_trace(*inputs, seed)`, `regularizer_loss(inputs, seed)`, `guide_variables`, what its
    inputs are (`inputs_of`, `element_of`, `checked_inputs`, `valid_inputs`), and calls
    `add_training_state(level_names)` and `initialize_weights()` when it is built.
    """

    # The stage that trains, those before it being fixed; 0 is all of them. See `ConditionalMatNet`.
    training_stage = 0
    trains_in_parts = False

    # What `compile` sets beside the optimizer.
    clip_norm: float = 1000.0
    skip_norm: float = 1e6
    max_skipped: int = 50
    squared_kl: bool = False
    approximate_kl: bool = True
    entropy_penalty: float = 0.0
    regularizer: str = "none"
    regularizer_start: int = 0
    regularizer_every: int = 1
    micro_batches: int = 1

    def __init__(self, seed: int = 0, **kwargs):
        super().__init__(**kwargs)
        self.seed = seed
        self._graphs = Graphs()

    def add_training_state(self, level_names) -> None:
        """Adds the step counter, the counts of skipped steps, the KL weight and the metric."""
        self.step = self._counter("step")
        self.skipped = self._counter("skipped")
        self.skipped_in_a_row = self._counter("skipped_in_a_row")
        self.kl_weight = self.add_weight(
            shape=(), initializer="ones", trainable=False, name="kl_weight"
        )
        self.bound_metric = BoundMetric(level_names)
        # Small gradients are zero in float16 alone.
        self.loss_scale = LossScale(self) if self.compute_dtype == "float16" else None

    def _counter(self, name):
        return self.add_weight(
            shape=(), dtype="int64", initializer="zeros", trainable=False, name=name
        )

    def initialize_weights(self) -> None:
        """Draws every kernel anew from `seed` (Glorot uniform), whatever global state says."""
        for index, variable in enumerate(self.trainable_variables):
            if len(variable.shape) > 1:
                initializer = keras.initializers.GlorotUniform(seed=1_000_003 * self.seed + index)
                variable.assign(initializer(variable.shape, variable.dtype))

    @property
    def metrics(self):
        return [self.bound_metric]

    def compile(
        self,
        optimizer: Any = "adam",
        clip_norm: float = 1000.0,
        skip_norm: float = 1e6,
        max_skipped: int = 50,
        squared_kl: bool = False,
        approximate_kl: bool = True,
        entropy_penalty: float = 0.0,
        regularizer: str = "none",
        regularizer_start: int = 0,
        regularizer_every: int = 1,
        micro_batches: int = 1,
        **kwargs: Any,
    ) -> None:
        """As `keras.Model.compile`, without losses: the loss is the negative bound.

        Args:
          optimizer: any Keras optimizer.
          clip_norm: global norm to which gradients are clipped; 0 is no clip.
          skip_norm: a step with a larger global norm, or one that is not finite, is skipped.
          max_skipped: skipped steps in a row after which `fit` raises `TrainingDiverged`.
          squared_kl: blend with the squared KL (see `TrainConfig.kl_schedule`).
          approximate_kl: train a mixture prior on Eq. 12, not on the sampled log-ratio; metrics
            and bounds have the log-ratio either way.
          entropy_penalty: weight, beside the KL, of the mixture component's entropy (Sec. 3).
          regularizer: updates of the guide alone on images drawn from the model: `free_energy`
            maximizes their bound (Eq. 13), `sleep` the log-probability of their own latents.
          regularizer_start: steps before the first such update.
          regularizer_every: steps from one such update to the next.
          micro_batches: parts in which a replica takes its images, summing their gradients.
          **kwargs: `jit_compile`, `steps_per_execution`, `run_eagerly`.

        Raises:
          ValueError: if a value is out of range.
        """
        settings = {name: value for name, value in locals().items() if name in _SETTINGS}
        check_settings(**settings)
        for name, value in settings.items():
            setattr(self, name, type(getattr(TrainableBound, name))(value))
        kwargs.setdefault("auto_scale_loss", False)  # `LossScale` does it.
        super().compile(optimizer=optimizer, **kwargs)
        # Variables that are made while a step is traced cost a second tracing of the whole step.
        with self.distribute_strategy.scope():
            self.optimizer.build(self.trainable_variables)

    def get_compile_config(self):
        config = super().get_compile_config()
        if not self.compiled:
            return config
        return config | {name: getattr(self, name) for name in _SETTINGS}

    def compile_from_config(self, config):
        config = keras.saving.deserialize_keras_object(config)
        self.compile(**{name: value for name, value in config.items() if value is not None})

    def fit(self, x=None, *args, callbacks=None, validation_data=None, **kwargs):
        """As `keras.Model.fit`; images are checked as they come, see `MatNet`.

        Raises:
          ValueError: if images are not as the config says, or the data set is empty.
          TrainingDiverged: after too many skipped steps in a row.
        """
        kwargs["callbacks"] = [*(callbacks or []), SkippedSteps(self.max_skipped)]
        if validation_data is not None:
            kwargs["validation_data"] = self.checked_data(validation_data)
        before = int(self.step.numpy())
        with OneClearError():
            history = super().fit(self.checked_data(x), *args, **kwargs)
        if history.epoch and int(self.step.numpy()) == before:
            raise ValueError(EMPTY)
        return history

    def evaluate(self, x=None, *args, **kwargs):
        """As `keras.Model.evaluate`: means over images of the ELBO and its parts, in nats."""
        with OneClearError():
            result = super().evaluate(self.checked_data(x), *args, **kwargs)
        if not self.bound_metric.count.numpy():
            raise ValueError(EMPTY)
        return result

    def predict(self, x, *args, **kwargs):
        """As `keras.Model.predict`: the mean reconstruction of every image."""
        with OneClearError():
            return super().predict(self.checked_data(x), *args, **kwargs)

    def checked_data(self, x: Any) -> Any:
        """A data set of the model's inputs alone, each batch checked; or arrays, checked now."""
        if not isinstance(x, tf.data.Dataset):
            if x is None:
                raise ValueError("data must be a tf.data.Dataset or an array of images; got None")
            arrays = [part.numpy() for part in self.checked_inputs(*self.inputs_of(x))]
            return self.element_of(*arrays)
        check_specs(self.inputs_of(x.element_spec), self.config.image_shape)
        if int(x.cardinality()) == 0:
            raise ValueError(EMPTY)
        self.likelihood.pixels.check_ready()

        def prepare(*element):
            inputs = self.inputs_of(element[0] if len(element) == 1 else element)
            return self.element_of(*self.valid_inputs(*inputs))

        return x.map(prepare)

    def loss_of(self, bound, trace) -> tf.Tensor:
        """The training loss per image, `[B]`: minus log-likelihood plus the weighted KL."""
        kl, top = sum(bound.kl.values()), trace.levels[0]
        if top.is_mixture and self.approximate_kl:
            kl += top.analytic_kl() - bound.kl[top.name]
        if top.is_mixture and self.entropy_penalty:
            log_prob = top.prior.assign(top.z)
            kl -= self.entropy_penalty * tf.reduce_sum(tf.exp(log_prob) * log_prob, axis=-1)
        weighted = self.kl_weight * kl
        if self.squared_kl:
            squares = [tf.square(level.kl_per_unit()) for level in trace.levels]
            squared = [tf.reduce_sum(s, axis=list(range(1, s.shape.rank))) for s in squares]
            weighted += (1 - self.kl_weight) * sum(squared)
        return weighted - bound.log_likelihood

    def train_step(self, data):
        inputs, variables = self._tensors(data), self.training_variables

        def losses(part, seed):
            bound, trace = self.training_bound(part, seed)
            self.bound_metric.update_state(bound)
            return self.loss_of(bound, trace)

        gradients = self._gradients(losses, inputs, self.step_seed(), variables)
        skipped = 1 - self._update(gradients, variables)
        self.step.assign_add(1)
        self.skipped.assign_add(skipped)
        self.skipped_in_a_row.assign(skipped * (self.skipped_in_a_row.value + 1))
        return self.get_metrics_result()

    def regularizer_step(self, data) -> None:
        """Updates the guide alone, on as many images from the model as there are in `data`."""
        inputs, seed = self._tensors(data), tf.random.fold_in(self.step_seed(), _REGULARIZER_STREAM)
        gradients = self._gradients(self.regularizer_loss, inputs, seed, self.guide_variables)
        self.skipped.assign_add(1 - self._update(gradients, self.guide_variables))
        # What depends on the number of updates is meant by those on data.
        self.optimizer.iterations.assign_sub(1)

    def _gradients(self, losses, inputs, seed, variables) -> list[tf.Tensor]:
        """Gradients of the mean loss over the global batch, in parts of it if asked for.

        Args:
          losses: gives the losses `[B]` of images `[B, ...]` and a seed.
          inputs: of this replica.
          seed: int32 `[2]`.
          variables: to differentiate by.
        """
        total = self._global_batch_size(inputs[0])
        if self.micro_batches == 1:
            return self._part_gradients(losses, inputs, seed, variables, total)
        rows = tf.shape(inputs[0])[0]
        parts = tf.minimum(self.micro_batches, rows)

        def add(index, sums):
            first, last = index * rows // parts, (index + 1) * rows // parts
            part = tuple(tensor[first:last] for tensor in inputs)
            own_seed = tf.random.fold_in(seed, index)
            gradients = self._part_gradients(losses, part, own_seed, variables, total)
            return index + 1, [s + g for s, g in zip(sums, gradients, strict=True)]

        zeros = [tf.zeros(variable.shape, variable.dtype) for variable in variables]
        # A loop, of which one turn at a time is in memory.
        _, gradients = tf.while_loop(
            lambda index, sums: index < parts, add, (0, zeros), parallel_iterations=1
        )
        return gradients

    def _part_gradients(self, losses, inputs, seed, variables, total) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(losses(inputs, seed)) / total
            if self.loss_scale is not None:
                loss = self.loss_scale.scaled(loss)
        gradients = tape.gradient(loss, variables)
        return gradients if self.loss_scale is None else self.loss_scale.unscaled(gradients)

    def test_step(self, data):
        bound, _ = self.bound_and_trace(*self._tensors(data), self.step_seed())
        self.bound_metric.update_state(bound)
        return self.get_metrics_result()

    def _tensors(self, data) -> tuple[tf.Tensor, ...]:
        return tuple(tf.cast(part, tf.float32) for part in self.inputs_of(data))

    def training_bound(self, inputs, seed: tf.Tensor) -> tuple[Any, Any]:
        """The bound that is trained on, and its trace."""
        return self.bound_and_trace(*inputs, seed)

    @property
    def training_variables(self) -> list[Any]:
        """The weights that steps on data move."""
        return self.trainable_variables

    def step_seed(self) -> tf.Tensor:
        """The seed of this step's noise, a function of (seed, step, replica)."""
        words = [(self.seed >> 31) % 2**31, self.seed % 2**31]
        seed = tf.random.fold_in(tf.constant(words, tf.int32), self.step.value)
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        return tf.random.fold_in(seed, replica)

    def _global_batch_size(self, x):
        size = tf.cast(tf.shape(x)[0], tf.float32)
        if self.distribute_strategy.num_replicas_in_sync == 1:
            return size
        context = tf.distribute.get_replica_context()
        return context.all_reduce(tf.distribute.ReduceOp.SUM, size)

    def _update(self, gradients, variables) -> tf.Tensor:
        """Clips and applies the gradient of the global batch: 1, or skips it: 0 (int64)."""
        replicas = self.distribute_strategy.num_replicas_in_sync
        if replicas > 1:
            context = tf.distribute.get_replica_context()
            gradients = context.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
        norm = tf.linalg.global_norm(gradients)
        if self.loss_scale is not None:
            self.loss_scale.update(tf.math.is_finite(norm))
        keep = tf.math.is_finite(norm) & (norm <= self.skip_norm)
        clip = tf.minimum(1.0, self.clip_norm / norm) if self.clip_norm else 1.0
        # The optimizer sums over replicas once more, hence the division.
        factor = tf.where(keep, clip / replicas, 0.0)
        gradients = [tf.math.multiply_no_nan(g, factor) for g in gradients]
        if isinstance(self.optimizer, Adam):
            self.optimizer.apply_if(keep, gradients, variables)
        elif replicas > 1:
            # Other optimizers cannot run in a branch under a strategy: their moments move on.
            self.optimizer.apply(gradients, variables)
        else:
            tf.cond(keep, lambda: self._apply(gradients, variables), lambda: False)
        return tf.cast(keep, tf.int64)

    def _apply(self, gradients, variables):
        self.optimizer.apply(gradients, variables)
        return True

    def make_train_function(self, force=False):
        # Stock `fit` fails under MultiWorkerMirroredStrategy, and its own loop over
        # steps_per_execution under MirroredStrategy; this one runs under every strategy.
        if self.train_function is None or force:
            if self.regularizer == "none" and not self.trains_in_parts:
                self.train_function = self._steps(self.steps_per_execution, self.train_step)
            else:
                self.train_function = self._chosen()
        return self.train_function

    def make_test_function(self, force=False):
        if self.test_function is None or force:
            self.test_function = self._steps(self.steps_per_execution, self.test_step)
        return self.test_function

    def _steps(self, count, *parts):
        """A function that runs `parts` on each of `count` batches."""

        def whole(data):
            for part in parts:
                part(data)

        if not self.run_eagerly:
            whole = graph(whole, jit_compile=self.jit_compile)

        def steps(iterator):
            def step(done):
                self.distribute_strategy.run(whole, args=(next(iterator),))
                return (done + 1,)

            tf.while_loop(lambda done: done < count, step, (0,))
            if self.train_step in parts and isinstance(self.optimizer, Adam):
                self.optimizer.update_averages(self.trainable_variables, count)
            return self.get_metrics_result()

        return steps if self.run_eagerly else graph(steps)

    def _chosen(self):
        """An execution that chooses anew for each of its steps what it is made of."""
        functions = {}

        # In Python: under MirroredStrategy, TensorFlow cannot run a branch within a loop.
        def steps(iterator):
            for _ in range(self.steps_per_execution):
                choice = self.training_stage, self._regularizer_is_due()
                if choice not in functions:
                    extra = [self.regularizer_step] if choice[1] else []
                    functions[choice] = self._steps(1, self.train_step, *extra)
                logs = functions[choice](iterator)
            return logs

        return steps

    def _regularizer_is_due(self) -> bool:
        # While stages train one by one, those before are fixed, their guides too.
        if self.regularizer == "none" or self.training_stage:
            return False
        since = int(self.step.numpy()) + 1 - self.regularizer_start
        return since > 0 and since % self.regularizer_every == 0


_SETTINGS = tuple(name for name in TrainableBound.__annotations__)
