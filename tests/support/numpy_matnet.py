# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""An independent MatNet in NumPy and float64, written from the paper's equations.

Equations keep the paper's letters: kernels u, v, w and states h_b, h_t, h_m. A linear map is a pair
(kernel, bias) with a kernel [in, out] (dense) or [height, width, in, out] (convolution).
"""

import numpy as np
import scipy.special

LEAKY_SLOPE = 0.1
LAYER_NORMALIZATION_EPSILON = 1e-3

ACTIVATIONS = {
    "leaky_relu": lambda x: np.where(x > 0, x, LEAKY_SLOPE * x),
    "tanh": np.tanh,
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "silu": lambda x: x * scipy.special.expit(x),
}


def lrelu(x):
    return ACTIVATIONS["leaky_relu"](x)


def same(x):
    return x


# Linear maps.


def _padding(size, out, kernel, stride):
    """Zeros before and after one axis for TensorFlow's SAME padding; an odd one comes after."""
    total = max((out - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def conv(x, kernel, bias=0.0, strides=(1, 1)):
    """The paper's convolution (a cross-correlation) with zero padding."""
    height, width = kernel.shape[:2]
    out = [-(-n // s) for n, s in zip(x.shape[1:3], strides, strict=True)]
    pads = [
        _padding(n, o, k, s)
        for n, o, k, s in zip(x.shape[1:3], out, kernel.shape[:2], strides, strict=True)
    ]
    x = np.pad(x, [(0, 0), *pads, (0, 0)])
    result = np.zeros((len(x), *out, kernel.shape[-1]))
    for i in range(height):
        for j in range(width):
            rows = slice(i, i + (out[0] - 1) * strides[0] + 1, strides[0])
            columns = slice(j, j + (out[1] - 1) * strides[1] + 1, strides[1])
            result += x[:, rows, columns] @ kernel[i, j]
    return result + bias


def transposed_conv(x, kernel, bias=0.0, strides=(1, 1)):
    """The adjoint of `conv` with these strides, for a kernel [height, width, out, in]."""
    fine = [n * s for n, s in zip(x.shape[1:3], strides, strict=True)]
    before = [
        _padding(f, n, k, s)[0]
        for f, n, k, s in zip(fine, x.shape[1:3], kernel.shape[:2], strides, strict=True)
    ]
    full = [f + k for f, k in zip(fine, kernel.shape[:2], strict=True)]
    result = np.zeros((len(x), *full, kernel.shape[2]))
    for i in range(kernel.shape[0]):
        for j in range(kernel.shape[1]):
            rows = slice(i, i + (x.shape[1] - 1) * strides[0] + 1, strides[0])
            columns = slice(j, j + (x.shape[2] - 1) * strides[1] + 1, strides[1])
            result[:, rows, columns] += x @ kernel[i, j].T
    result = result[:, before[0] :, before[1] :]
    return result[:, : fine[0], : fine[1]] + bias


def linear(x, weights):
    """A dense layer or shape-preserving convolution, given as (kernel, bias)."""
    kernel, bias = weights
    return x @ kernel + bias if kernel.ndim == 2 else conv(x, kernel, bias)


def stack(*parts):
    """The concatenation [x; x'] along the feature axis."""
    return np.concatenate(parts, axis=-1)


# The equations of Sec. 2.2.


def eq_7(h_t, z, v, w):
    return lrelu(h_t + linear(lrelu(linear(stack(h_t, z), v)), w))


def eq_8(h_t, v, w):
    return linear(lrelu(linear(h_t, v)), w)


def eq_9(h_b, v, w):
    return lrelu(h_b + linear(lrelu(linear(h_b, v)), w))


def eq_10(h_m, h_b, h_t, u, v):
    return lrelu(h_m + linear(lrelu(linear(stack(h_m, h_b, h_t), u)), v))


def eq_11(h_m, w):
    return linear(h_m, w)


def gru(state, inputs, gates, candidate, act=np.tanh, norms=(same, same)):
    """The GRU-style update of Sec. 2.2, with a gate bias of 1."""
    r, u = np.split(
        scipy.special.expit(norms[0](linear(stack(state, *inputs), gates)) + 1), 2, axis=-1
    )
    new = act(norms[1](linear(stack(r * state, *inputs), candidate)))
    return u * state + (1 - u) * new


def layer_normalization(x, gamma, beta):
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + LAYER_NORMALIZATION_EPSILON) * gamma + beta


# Distributions.


def gaussian(parameters, latent_scale=1.0, log_var_bound=8.0):
    """A pair (mean, log-variance) from `[mean; log-variance]`."""
    mean, log_var = np.split(latent_scale * parameters, 2, axis=-1)
    return mean, log_var_bound * np.tanh(log_var / log_var_bound)


def kl_per_unit(q, p):
    """KL(q || p) of diagonal Gaussians given as pairs (mean, log-variance)."""
    (m, a), (n, b) = q, p
    return 0.5 * (b - a + np.exp(a - b) + (m - n) ** 2 / np.exp(b) - 1)


def sum_per_image(x):
    return x.reshape(len(x), -1).sum(1)


def log_sum_exp(x):
    largest = x.max(-1, keepdims=True)
    return largest[..., 0] + np.log(np.exp(x - largest).sum(-1))


def mixture_log_prob(z, log_weights, mean, deviation):
    """Log-density [B] of vectors [B, units] under a mixture of Gaussians [K, units]."""
    inside = -0.5 * ((z[:, None] - mean) / deviation) ** 2 - np.log(deviation * np.sqrt(2 * np.pi))
    return log_sum_exp(log_weights + inside.sum(-1))


def eq_12(q, log_weights, mean, deviation):
    """Eq. 12's KL [B] of Gaussians q from a mixture, with the weights that the paper omits."""
    components = mean, 2 * np.log(deviation)
    kl = [kl_per_unit(q, [part[k] for part in components]).sum(-1) for k in range(len(mean))]
    return -log_sum_exp(log_weights - np.stack(kl, axis=-1))


def bernoulli_log_prob(x, logits):
    return sum_per_image(x * logits - np.logaddexp(0, logits))


def logistic_log_probs(x, loc, scale):
    """Log-masses of values x in [0, 1] under a discretized Logistic over values in [-1, 1]."""
    level = np.rint(255 * x)
    upper = np.where(level == 255, np.inf, (level + 0.5) / 127.5 - 1)
    lower = np.where(level == 0, -np.inf, (level - 0.5) / 127.5 - 1)
    upper, lower = (upper - loc) / scale, (lower - loc) / scale
    # Both differences are equal; the one of small numbers keeps its precision.
    tail = scipy.special.expit(-lower) - scipy.special.expit(-upper)
    head = scipy.special.expit(upper) - scipy.special.expit(lower)
    return np.log(np.where(lower > 0, tail, head))


def logistic_mixture_log_probs(x, parameters):
    """Log-masses of pixels, [B, H, W], from the parameters [B, H, W, R, K] of PixelCNN++."""
    channels = x.shape[-1]
    rows = list(np.moveaxis(np.float64(parameters), -2, 0))
    total = rows[0] - log_sum_exp(rows[0])[..., None]
    pairs = iter(np.tanh(rows[1 + 2 * channels :]))
    for c in range(channels):
        loc = rows[1 + c] + sum(next(pairs) * (2 * x[..., [j]] - 1) for j in range(c))
        scale = np.exp(7 * np.tanh((rows[1 + channels + c] - 2) / 7))
        total = total + logistic_log_probs(x[..., [c]], loc, scale)
    return log_sum_exp(total)


def normal_log_prob(y, loc, scale):
    return sum_per_image(-0.5 * ((y - loc) / scale) ** 2 - np.log(scale * np.sqrt(2 * np.pi)))


# Reading the weights of our layers.


def randomize(layer, seed=0, scale=0.5):
    """Draws all trainable weights of a layer, biases too, so that none is left at zero."""
    rng = np.random.default_rng(seed)
    for variable in layer.trainable_variables:
        fan = max(1, np.prod(variable.shape[:-1]))
        deviation = 2 * scale / np.sqrt(fan) if len(variable.shape) > 1 else scale
        variable.assign(rng.normal(0, deviation, variable.shape))
    return layer


def weights(layer):
    """The pair (kernel, bias) of a dense or convolutional layer."""
    kernel = np.asarray(layer.kernel, np.float64)
    return kernel, np.asarray(layer.bias, np.float64) if layer.use_bias else 0.0


def merge_kernel(module):
    """The kernel u of Eq. 10 over [h_m; h_b; h_t], which the module splits into two."""
    kernel, bias = weights(module.update_layer.hidden)
    split = module.filters if module.carry else 0
    parts = [kernel[..., :split, :], weights(module.projection)[0], kernel[..., split:, :]]
    return np.concatenate(parts, axis=-2), bias


# The whole network.


class Walk:
    """One pass down a MatNet with residual updates, given images and latents.

    Args:
      model: A `MatNet`, or its `Hierarchy`.
      x: Images [B, H, W, C].
      latents: The latents of every level, top first.

    Attributes:
      priors, posteriors: Pairs (mean, log-variance), one per level, top first.
      parameters: Parameters of the observation model, [B, H, W, C, P]; if autoregressive, given x.
      logits: The first parameter of every value.
      log_likelihood: log p(x | z), [B], in nats.
    """

    def __init__(self, model, x, latents):
        hierarchy = getattr(model, "hierarchy", model)
        self.config, self.likelihood = hierarchy.config, hierarchy.likelihood
        self.guide, self.top_down = hierarchy.guide, hierarchy.top_down
        self.act = ACTIVATIONS[self.config.activation]
        self.scale = float(self.top_down.latent_scale.numpy())
        latents = [np.asarray(z, np.float64) for z in latents]
        x = np.asarray(x, np.float64)
        y, log_det = self.standardize(x)
        states = self.bottom_up(y)
        self.priors = [(np.zeros_like(latents[0]), np.zeros_like(latents[0]))]
        self.posteriors = [self.gaussian(self.two(self.guide.top, states[0].reshape(len(x), -1)))]
        h_t = self.enter(self.top_down.top, latents[0])
        h_m = self.enter(self.guide.start, latents[0]) if self.guide.start else None
        for i, z in enumerate(latents[1:]):
            h_t = self.resample(self.top_down.resampling.get(i), h_t)
            h_m = self.resample(self.guide.resampling.get(i), h_m)
            h_m = self.merge(self.guide.modules[i], h_m, states[i], h_t)
            h_t = self.generate(self.top_down.modules[i], h_t, z, latents[0])
        self.parameters = self.to_image(h_t, y)
        self.logits = self.parameters[..., 0]
        self.log_likelihood = self.log_prob(x, y) + log_det

    def standardize(self, x):
        """The values that the networks read, and the log-determinant of the map to them."""
        if self.config.likelihood == "bernoulli":
            return x, 0.0
        size = x[0].size
        if "logistic" in self.config.likelihood:
            return 2 * x - 1, 0.0  # Probabilities do not depend on the unit.
        if not self.config.whitening:
            return 2 * x - 1, size * np.log(2)
        layer = self.likelihood.observation.whitening_layer
        matrix, mean = (np.asarray(w, np.float64) for w in (layer.matrix, layer.location))
        rows = (x.reshape(-1, size) - mean) @ matrix.T
        return rows.reshape(x.shape), np.linalg.slogdet(matrix)[1]

    def gaussian(self, parameters):
        return gaussian(parameters, self.scale, self.config.log_var_bound)

    def two(self, module, x):
        return linear(self.act(linear(x, weights(module.hidden))), weights(module.head))

    def enter(self, module, z):
        hidden = self.act(linear(z, weights(module.hidden)))
        h = self.act(linear(hidden, weights(module.output_map)))
        return h.reshape(len(z), *module.state_shape)

    def bottom_up(self, x):
        network, h = self.guide.bottom_up, x
        if self.config.scales[-1].dense:
            h = self.act(linear(h.reshape(len(h), -1), weights(network.image_in)))
            h = self.act(linear(h, weights(network.image_hidden)))
        else:
            h = self.resample(network.image_hidden, self.act(linear(h, weights(network.image_in))))
        states, module = [], len(network.modules)
        for scale in reversed(range(len(self.config.scales))):
            for _ in range(self.config.scales[scale].modules):
                module -= 1
                h = self.residual(network.modules[module].update_layer, h, h)
                states.insert(0, h)
            h = self.resample(network.resampling[scale - 1] if scale else None, h)
        return states

    def residual(self, layer, state, stacked):
        hidden = self.act(linear(stacked, weights(layer.hidden)))
        out = linear(hidden, weights(layer.output_map))
        return self.act(state + out if layer.carry else out)

    def merge(self, module, h_m, h_b, h_t):
        parts = [h_m, h_b, h_t] if module.carry else [h_b, h_t]
        hidden = self.act(linear(stack(*parts), merge_kernel(module)))
        out = linear(hidden, weights(module.update_layer.output_map))
        h_m = self.act(h_m + out if module.carry else out)
        self.posteriors.append(self.gaussian(linear(h_m, weights(module.head))))
        return h_m

    def generate(self, module, h_t, z, z_0):
        if module.prior == "learned":
            hidden = self.act(linear(h_t, weights(module.prior_hidden)))
            prior = self.gaussian(linear(hidden, weights(module.prior_head)))
        else:
            prior = np.zeros_like(z), np.zeros_like(z)
        self.priors.append(prior)
        if self.config.top_everywhere:
            places = z_0.reshape(len(z), *[1] * (z.ndim - 2), -1)
            z = stack(z, np.broadcast_to(places, (*z.shape[:-1], z_0.shape[-1])))
        return self.residual(module.update_layer, h_t, stack(h_t, z) if module.carry else z)

    def resample(self, layer, h):
        if layer is None or h is None:
            return h
        if layer.dense:
            h = self.act(linear(h.reshape(len(h), -1), weights(layer.steps[0])))
            shape = () if layer.to_shape == (1, 1) else layer.to_shape
            return h.reshape(len(h), *shape, layer.filters)
        for step, (height, width) in zip(layer.steps, layer.sizes, strict=True):
            kind = transposed_conv if "Transpose" in type(step).__name__ else conv
            h = self.act(kind(h, *weights(step), step.strides)[:, :height, :width])
        return h

    def to_image(self, h_t, y):
        if self.config.scales[-1].dense:
            h_t = self.act(linear(h_t, weights(self.top_down.image_out)))
        else:
            h_t = self.resample(self.top_down.image_out, h_t)
        last = self.local if self.config.autoregressive else self.independent
        return last(h_t, y).reshape(-1, *self.likelihood.observation.parameters_shape)

    def independent(self, h_t, y):
        return linear(h_t, weights(self.likelihood.head))

    def local(self, h_t, y):
        """The masked convolutions of Sec. 2.3; the state enters each of them."""
        layer, (*area, _) = self.likelihood, self.config.image_shape
        if layer.spread:
            h_t = self.act(linear(h_t, weights(layer.spread))).reshape(len(y), *area, -1)
        context, first = linear(h_t, weights(layer.context)), 0
        for i, convolution in enumerate(layer.convolutions):
            kernel = self.masked(convolution)
            share = context[..., first : first + kernel.shape[-1]]
            first += kernel.shape[-1]
            sums = conv(y, kernel) + share
            if i == 0:
                sums, shortcut = np.split(sums, [convolution.filters], axis=-1)
            if i < len(layer.convolutions) - 1:
                y = self.act(sums) + (y if i else 0)
        return sums + shortcut

    def masked(self, convolution):
        """The full kernel [k, k, in, out], zero wherever the input is not before the output."""
        half = np.asarray(convolution.kernel, np.float64)
        radius, channels = len(half) - 1, self.likelihood.steps
        kernel = np.concatenate([half, np.zeros_like(half[:radius])])
        kernel[radius, radius + 1 :] = 0
        reads, filters, shortcut = kernel.shape[2], convolution.filters, convolution.shortcut
        owners = [j * channels // filters for j in range(filters)]
        owners += [j * channels // shortcut for j in range(shortcut)]
        for i, j in np.ndindex(kernel.shape[2:]):
            order = i * channels // reads - owners[j]
            if order > 0 or (order == 0 and convolution.mask == "A"):
                kernel[radius, radius, i, j] = 0
        return kernel

    def log_prob(self, x, y):
        """log p(x | z) without the log-determinant, [B]."""
        kind = self.config.likelihood
        if kind == "bernoulli":
            return bernoulli_log_prob(x, self.logits)
        if kind == "logistic_mixture":
            return sum_per_image(logistic_mixture_log_probs(x, self.parameters))
        if self.config.likelihood_scale == "pixel":
            start = {"normal": -1.0, "logistic": -2.0}[kind]
            log_scale = self.parameters[..., 1] + (0.0 if self.config.whitening else start)
        else:
            log_scale = np.asarray(self.likelihood.observation.log_scale, np.float64)
        scale = np.exp(7 * np.tanh(log_scale / 7))
        if kind == "logistic":
            return sum_per_image(logistic_log_probs(x, self.logits, scale))
        return normal_log_prob(y, self.logits, scale + np.zeros_like(y))
