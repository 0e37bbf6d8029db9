# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Likelihoods p(x | z): Keras layers from the last top-down state to a TFP distribution.

An `observation.ObservationModel` says which values images have and how they are distributed, given
P parameters per value. A likelihood layer computes the parameters: `independent.Likelihood` from
the state alone, `autoregressive.LocalAutoregression` also from the values before.
"""
