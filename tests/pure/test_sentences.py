# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""What programs say at their end, word for word."""

from matnet_tf.cli import sentences

IMAGES = {"images": {"count": 20, "of": 297}, "split": "test", "data": "digits"}
WEIGHTS = {"weights": "raw", "checkpoint_step": 5000, "num_samples": 100}


def test_a_bound_is_told_with_all_that_it_depends_on():
    record = {
        **IMAGES,
        **WEIGHTS,
        "binarization": {"method": "dynamic"},
        "dequantization": {"method": "none"},
        **{"nll": 22.358, "nll_se": 0.204, "bits_per_dim": 0.50403, "dims": 64.0},
    }
    end = "raw weights of step 5,000. Recorded in w/evaluation.json"
    assert sentences.of_evaluation(record, "w") == (
        "log p(x) >= -22.36 +- 0.20 nats per image, or 0.504 bits for each of 64 values: K=100, "
        f"20 of 297 test images of digits, dynamic binarization, {end}"
    )
    record |= {"mask": {}, "nll_se": None, "binarization": {"method": "none"}}
    record |= {"images": {"count": 297, "of": 297}, "dequantization": {"method": "uniform"}}
    assert sentences.of_evaluation(record, "w") == (
        "log p(hidden pixels | known ones) >= -22.36 nats per image, or 0.504 bits for each of 64 "
        f"values: K=100, all 297 test images of digits, dequantized, {end}"
    )


def test_the_other_programs_end_with_a_sentence():
    run = {"step": 3000, "seconds": 46.2, "elbo": -23.456, "skipped": 0, "rollbacks": 0}
    assert sentences.of_training(run, "w") == (
        "trained to step 3,000 in 46 s; ELBO of training images in the last interval: -23.46 nats. "
        "Everything is in w"
    )
    run |= {"interrupted": True, "elbo": None, "skipped": 7, "rollbacks": 1, "seconds": 7200.0}
    assert sentences.of_training(run, "w") == (
        "stopped by a signal at step 3,000 in 2.0 h; skipped steps: 7, returns to a checkpoint: 1. "
        "Everything is in w"
    )
    scores = {**IMAGES, **WEIGHTS, "scores": "w/a.csv", "auroc": {"log_p": 0.5}}
    assert sentences.of_scores(scores).splitlines() == [
        "AUROC log_p         0.5000",
        "scored 20 of 297 test images of digits, K=100, with raw weights of step 5,000: w/a.csv",
    ]
    clusters = {**IMAGES, "files": ["w/c.csv"], "clusters": 3, "mixture": None}
    clusters["kmeans_pixels"] = {"used_clusters": 2, "purity": 0.25, "nmi": 0.5}
    assert sentences.of_clusters(clusters).splitlines() == [
        "w/c.csv",
        "k-means on pixels: 2 of 3 used, purity 0.250, NMI 0.500",
        "clustered 20 of 297 test images of digits",
    ]
    done = {"images": [1, 2], "skipped": [3], "contact_sheet": "w/sheet.png"}
    assert sentences.of_imputations(done) == "filled in 2 of 3 pictures; see w/sheet.png"
