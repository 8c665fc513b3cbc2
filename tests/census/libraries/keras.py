"""Keras on JAX: layers with their variables, losses, activations; in float64."""

import os

os.environ["KERAS_BACKEND"] = "jax"

import jax
import keras
import numpy as np
from arrays import A, B, P, bits, labels, normal, onehot, probabilities
from keras import activations, layers, losses

from tinygrad_mnist.testing.keras import check_keras

DISTRIBUTION = "keras"
SIGNAL, IMAGE, VOLUME = normal(2, 7, 3), normal(2, 6, 6, 3), normal(1, 4, 4, 4, 2)
OTHER, FILM = normal(2, 7, 3, seed=1), normal(2, 3, 5, 5, 2)
SIGNS, CLASSES, P1 = 2 * bits(3, 4) - 1, labels(3), probabilities(3, 4)


keras.config.set_floatx("float64")


def check(kind, make, *arrays):
    """Check the layer that a function makes, as trained or not, or another function as a layer."""
    keras.utils.set_random_seed(0)
    layer = OfFunction(make) if kind == "function" else make()
    if kind == "trained":
        with jax.enable_x64(True):  # so that what it is to update is in float64, too
            layer.build(arrays[0].shape)
    return check_keras(layer, *arrays, training=kind == "trained")


class OfFunction(layers.Layer):
    """A loss or an activation as a layer."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def call(self, x):
        return self.function(x)


def listed(make):
    """Return a layer that takes a list of inputs as one that takes several."""

    class Listed(layers.Layer):
        def __init__(self):
            super().__init__()
            self.inner = make()

        def call(self, *inputs):
            return self.inner(list(inputs))

    return Listed


LAYERS = [
    ("Activation", lambda: layers.Activation("tanh"), A),
    ("ELU", layers.ELU, A),
    ("LeakyReLU", layers.LeakyReLU, A),
    ("PReLU", layers.PReLU, A),
    ("ReLU", lambda: layers.ReLU(2.0, 0.1, 0.3), A),
    ("Softmax", layers.Softmax, A),
    ("Dense", lambda: layers.Dense(5, "sigmoid"), A),
    ("EinsumDense", lambda: layers.EinsumDense("abc,cd->abd", (None, 5), bias_axes="d"), SIGNAL),
    ("Identity", layers.Identity, A),
    ("Conv1D", lambda: layers.Conv1D(2, 3, padding="causal", dilation_rate=2), SIGNAL),
    ("Conv2D", lambda: layers.Conv2D(4, 3, 2, "same"), IMAGE),
    ("Conv2D, groups, dilation", lambda: layers.Conv2D(6, 2, groups=3, dilation_rate=2), IMAGE),
    ("Conv3D", lambda: layers.Conv3D(2, 2), VOLUME),
    ("Conv1DTranspose", lambda: layers.Conv1DTranspose(2, 3, 2, "same"), SIGNAL),
    ("Conv2DTranspose", lambda: layers.Conv2DTranspose(2, 3, 2, "same"), normal(2, 3, 3, 3)),
    ("DepthwiseConv1D", lambda: layers.DepthwiseConv1D(3, depth_multiplier=2), SIGNAL),
    ("DepthwiseConv2D", lambda: layers.DepthwiseConv2D(3, 2, depth_multiplier=2), IMAGE),
    ("SeparableConv1D", lambda: layers.SeparableConv1D(2, 3), SIGNAL),
    ("SeparableConv2D", lambda: layers.SeparableConv2D(2, 3), IMAGE),
    ("MaxPooling1D", lambda: layers.MaxPooling1D(3, 2, "same"), SIGNAL),
    ("MaxPooling2D", lambda: layers.MaxPooling2D(3, 2), IMAGE),
    ("MaxPooling3D", lambda: layers.MaxPooling3D(2), VOLUME),
    ("AveragePooling1D", lambda: layers.AveragePooling1D(3, 2, "same"), SIGNAL),
    ("AveragePooling2D", lambda: layers.AveragePooling2D(3, 2, "same"), IMAGE),
    ("GlobalMaxPooling2D", layers.GlobalMaxPooling2D, IMAGE),
    ("GlobalAveragePooling1D", layers.GlobalAveragePooling1D, SIGNAL),
    ("AdaptiveAveragePooling2D", lambda: layers.AdaptiveAveragePooling2D(4), IMAGE),
    ("AdaptiveMaxPooling2D", lambda: layers.AdaptiveMaxPooling2D(4), IMAGE),
    ("LayerNormalization", layers.LayerNormalization, A),
    ("RMSNormalization", layers.RMSNormalization, A),
    ("BatchNormalization", layers.BatchNormalization, A),
    ("GroupNormalization", lambda: layers.GroupNormalization(3), IMAGE),
    ("UnitNormalization", layers.UnitNormalization, A),
    ("SpectralNormalization", lambda: layers.SpectralNormalization(layers.Dense(5)), A),
    ("SimpleRNN", lambda: layers.SimpleRNN(4), SIGNAL),
    ("LSTM", lambda: layers.LSTM(4, return_sequences=True), SIGNAL),
    ("GRU", lambda: layers.GRU(4), SIGNAL),
    ("GRU, reset before", lambda: layers.GRU(4, reset_after=False), SIGNAL),
    ("Bidirectional", lambda: layers.Bidirectional(layers.LSTM(3)), SIGNAL),
    ("TimeDistributed", lambda: layers.TimeDistributed(layers.Dense(4)), SIGNAL),
    ("ConvLSTM1D", lambda: layers.ConvLSTM1D(2, 2), normal(2, 3, 5, 2)),
    ("ConvLSTM2D", lambda: layers.ConvLSTM2D(2, 2), FILM),
    ("Attention", listed(lambda: layers.Attention(use_scale=True)), SIGNAL, OTHER),
    ("Attention, concat", listed(lambda: layers.Attention(score_mode="concat")), SIGNAL, OTHER),
    ("AdditiveAttention", listed(layers.AdditiveAttention), SIGNAL, OTHER),
    ("Add", listed(layers.Add), A, B),
    ("Average", listed(layers.Average), A, B),
    ("Concatenate", listed(layers.Concatenate), A, B),
    ("Dot", listed(lambda: layers.Dot(axes=1, normalize=True)), A, B),
    ("Maximum", listed(layers.Maximum), A, B),
    ("Minimum", listed(layers.Minimum), A, B),
    ("Multiply", listed(layers.Multiply), A, B),
    ("Subtract", listed(layers.Subtract), A, B),
    ("Cropping2D", lambda: layers.Cropping2D(1), IMAGE),
    ("Flatten", layers.Flatten, IMAGE),
    ("Permute", lambda: layers.Permute((2, 1)), SIGNAL),
    ("Reshape", lambda: layers.Reshape((3, 7)), SIGNAL),
    ("RepeatVector", lambda: layers.RepeatVector(3), A),
    ("UpSampling2D", lambda: layers.UpSampling2D(2, interpolation="bilinear"), IMAGE),
    ("ZeroPadding2D", lambda: layers.ZeroPadding2D(2), IMAGE),
    ("Rescaling", lambda: layers.Rescaling(2.0, 1.0), A),
    ("Resizing", lambda: layers.Resizing(4, 9, "bicubic"), IMAGE),
    ("Normalization", lambda: layers.Normalization(mean=[1.0] * 4, variance=[2.0] * 4), A),
    ("ActivityRegularization", lambda: layers.ActivityRegularization(0.1), A),
    ("MultiHeadAttention", lambda: layers.MultiHeadAttention(2, 3), SIGNAL, OTHER),
    ("GroupQueryAttention", lambda: layers.GroupQueryAttention(3, 4, 2), SIGNAL, OTHER),
]
TRAINED = [
    ("BatchNormalization, training", layers.BatchNormalization, A),
    ("BatchNormalization of images, training", layers.BatchNormalization, IMAGE),
    ("SpectralNormalization, training", lambda: layers.SpectralNormalization(layers.Dense(5)), A),
    ("Dropout, training", lambda: layers.Dropout(0.3), A),
    ("SpatialDropout2D, training", lambda: layers.SpatialDropout2D(0.3), IMAGE),
    ("AlphaDropout, training", lambda: layers.AlphaDropout(0.3), A),
    ("GaussianDropout, training", lambda: layers.GaussianDropout(0.3), A),
    ("GaussianNoise, training", lambda: layers.GaussianNoise(0.3), A),
    ("LSTM with dropout, training", lambda: layers.LSTM(4, dropout=0.3), SIGNAL),
]
ACTIVATIONS = """celu elu exponential gelu glu hard_shrink hard_sigmoid hard_silu hard_tanh
    leaky_relu linear log_sigmoid log_softmax mish relu relu6 selu sigmoid silu soft_shrink softmax
    softplus softsign sparse_plus sparse_sigmoid sparsemax squareplus tanh tanh_shrink"""
LOSSES = [
    ("BinaryCrossentropy", losses.BinaryCrossentropy(), bits(3, 4), P1),
    ("BinaryCrossentropy, logits", losses.BinaryCrossentropy(True, 0.1), bits(3, 4), A),
    ("BinaryFocalCrossentropy", losses.BinaryFocalCrossentropy(True), bits(3, 4), P1),
    ("CategoricalCrossentropy", losses.CategoricalCrossentropy(), onehot(3), P1),
    ("CategoricalCrossentropy, logits", losses.CategoricalCrossentropy(True, 0.1), onehot(3), A),
    ("CategoricalFocalCrossentropy", losses.CategoricalFocalCrossentropy(), onehot(3), P1),
    (
        "CategoricalGeneralizedCrossEntropy",
        losses.CategoricalGeneralizedCrossEntropy(),
        CLASSES,
        P1,
    ),
    ("CategoricalHinge", losses.CategoricalHinge(), onehot(3), A),
    ("Circle", losses.Circle(), CLASSES % 2, A / np.linalg.norm(A, axis=1, keepdims=True)),
    ("CosineSimilarity", losses.CosineSimilarity(), B, A),
    ("Dice", losses.Dice(), bits(3, 4), P1),
    ("Hinge", losses.Hinge(), SIGNS, A),
    ("Huber", losses.Huber(0.7), B, A),
    ("KLDivergence", losses.KLDivergence(), probabilities(3, 4, seed=1), P1),
    ("LogCosh", losses.LogCosh(), B, A),
    ("MeanAbsoluteError", losses.MeanAbsoluteError(), B, A),
    ("MeanAbsolutePercentageError", losses.MeanAbsolutePercentageError(), P, A),
    ("MeanSquaredError", losses.MeanSquaredError(), B, A),
    ("MeanSquaredLogarithmicError", losses.MeanSquaredLogarithmicError(), P, P1),
    ("Poisson", losses.Poisson(), P, P1),
    ("SparseCategoricalCrossentropy", losses.SparseCategoricalCrossentropy(True), CLASSES, A),
    ("SquaredHinge", losses.SquaredHinge(), SIGNS, A),
    ("Tversky", losses.Tversky(0.3, 0.7), bits(3, 4), P1),
    ("CTC", losses.CTC(), np.array([[1, 2], [2, 1]]), normal(2, 6, 4)),
]


def toward(loss, target):
    return lambda prediction: loss(target, prediction)


CASES = [
    *((name, "layer", *row) for name, *row in LAYERS),
    *((name, "trained", *row) for name, *row in TRAINED),
    *((f"activations.{a}", "function", getattr(activations, a), A) for a in ACTIVATIONS.split()),
    ("activations.threshold", "function", lambda x: activations.threshold(x, 0.1, 2.0), A),
    *((name, "function", toward(loss, t), prediction) for name, loss, t, prediction in LOSSES),
]
