"""PyTorch: modules with their parameters, losses, functions; in float64."""

import torch
import torch.nn.functional as F
from arrays import (
    A,
    B,
    D,
    P,
    S,
    U,
    bits,
    inside,
    labels,
    normal,
    onehot,
    probabilities,
)
from torch import nn

from tinygrad_mnist.testing.torch import check_torch

DISTRIBUTION = "torch"
SIGNAL, IMAGE, VOLUME = normal(2, 4, 7), normal(2, 4, 6, 6), normal(2, 2, 4, 4, 4)
CLASSES = torch.from_numpy(labels(3))


def check(make, *arrays):
    """Check a function, or a module that is made in float64."""
    torch.manual_seed(0)
    function = make.double() if isinstance(make, nn.Module) else make
    return check_torch(function, *map(torch.from_numpy, arrays))


class First(nn.Module):
    """A module's first output."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, *inputs):
        return self.module(*inputs)[0]


class OfIntegers(nn.Module):
    """A module of given integers, as an embedding."""

    def __init__(self, module, *integers):
        super().__init__()
        self.module, self.integers = module, integers

    def forward(self):
        return self.module(*self.integers)


class Self(nn.Module):
    """Attention of an input to itself."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        return self.module(x, x, x)[0]


def toward(loss, target):
    """Return a loss with its target, in float64 unless it is one of labels."""
    t = target if isinstance(target, torch.Tensor) else torch.from_numpy(target)
    return lambda x: loss(x, t)


def symmetric(function):
    return lambda a: function((a + a.mT) / 2)


def parts(function):
    return lambda a: torch.view_as_real(function(a))


def ctc(x):
    lengths = torch.tensor([4, 3])
    targets = torch.tensor([[1, 2, 3], [2, 1, 1]])
    return F.ctc_loss(F.log_softmax(x, -1), targets, lengths, torch.tensor([2, 1]))


def unpooled(x):
    return F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2)


MODULES = [
    # activations
    ("ELU", nn.ELU(1.5), A),
    ("Hardshrink", nn.Hardshrink(), A),
    ("Hardsigmoid", nn.Hardsigmoid(), 2 * A),
    ("Hardtanh", nn.Hardtanh(), A),
    ("Hardswish", nn.Hardswish(), 2 * A),
    ("LeakyReLU", nn.LeakyReLU(), A),
    ("LogSigmoid", nn.LogSigmoid(), A),
    ("PReLU", nn.PReLU(4), A),
    ("ReLU", nn.ReLU(), A),
    ("ReLU6", nn.ReLU6(), 4 * A),
    ("RReLU", nn.RReLU(), A),
    ("SELU", nn.SELU(), A),
    ("CELU", nn.CELU(1.5), A),
    ("GELU", nn.GELU(), A),
    ("GELU, tanh", nn.GELU("tanh"), A),
    ("Sigmoid", nn.Sigmoid(), A),
    ("SiLU", nn.SiLU(), A),
    ("Mish", nn.Mish(), A),
    ("Softplus", nn.Softplus(2.0), A),
    ("Softshrink", nn.Softshrink(), A),
    ("Softsign", nn.Softsign(), A),
    ("Tanh", nn.Tanh(), A),
    ("Tanhshrink", nn.Tanhshrink(), A),
    ("Threshold", nn.Threshold(0.1, 2.0), A),
    ("GLU", nn.GLU(), A),
    ("Softmin", nn.Softmin(-1), A),
    ("Softmax", nn.Softmax(-1), A),
    ("Softmax2d", nn.Softmax2d(), IMAGE),
    ("LogSoftmax", nn.LogSoftmax(-1), A),
    # linear and attention
    ("Identity", nn.Identity(), A),
    ("Linear", nn.Linear(4, 5), A),
    ("Bilinear", nn.Bilinear(4, 4, 3), A, B),
    ("Embedding", OfIntegers(nn.Embedding(5, 3), torch.tensor([1, 4, 1]))),
    ("Embedding, max_norm", OfIntegers(nn.Embedding(5, 3, max_norm=1.0), torch.tensor([1, 4, 1]))),
    (
        "EmbeddingBag, sum",
        OfIntegers(nn.EmbeddingBag(5, 3, mode="sum"), torch.tensor([[1, 1], [0, 2]])),
    ),
    (
        "EmbeddingBag, max",
        OfIntegers(nn.EmbeddingBag(5, 3, mode="max"), torch.tensor([[1, 1], [0, 2]])),
    ),
    ("MultiheadAttention", Self(nn.MultiheadAttention(4, 2, batch_first=True)), normal(2, 3, 4)),
    (
        "TransformerEncoderLayer",
        nn.TransformerEncoderLayer(4, 2, 6, batch_first=True),
        normal(2, 3, 4),
    ),
    (
        "TransformerDecoderLayer",
        nn.TransformerDecoderLayer(4, 2, 6, batch_first=True),
        normal(2, 3, 4),
        normal(2, 3, 4, seed=1),
    ),
    # convolutions
    ("Conv1d", nn.Conv1d(4, 3, 3, 2, 1), SIGNAL),
    ("Conv2d", nn.Conv2d(4, 3, 3, padding="same"), IMAGE),
    ("Conv2d, groups, dilation", nn.Conv2d(4, 4, 2, 2, 1, 2, 2), IMAGE),
    ("Conv2d, reflect", nn.Conv2d(4, 3, 3, padding=1, padding_mode="reflect"), IMAGE),
    ("Conv3d", nn.Conv3d(2, 3, 2), VOLUME),
    ("ConvTranspose1d", nn.ConvTranspose1d(4, 3, 3, 2, 1), SIGNAL),
    ("ConvTranspose2d", nn.ConvTranspose2d(4, 4, 3, 2, 1, 1, 2), normal(2, 4, 3, 3)),
    ("ConvTranspose3d", nn.ConvTranspose3d(2, 3, 2), normal(1, 2, 2, 2, 2)),
    ("Unfold", nn.Unfold(2, stride=2, padding=1), IMAGE),
    ("Fold", nn.Fold((4, 4), 2), normal(2, 8, 9)),
    # pooling, padding, shuffling
    ("MaxPool1d", nn.MaxPool1d(3, 2, 1), SIGNAL),
    ("MaxPool2d", nn.MaxPool2d(3, 2, 1), IMAGE),
    ("MaxPool2d, dilation", nn.MaxPool2d(2, 1, dilation=2, ceil_mode=True), IMAGE),
    ("MaxPool3d", nn.MaxPool3d(2, 1), VOLUME),
    ("AvgPool1d", nn.AvgPool1d(3, 2, 1), SIGNAL),
    ("AvgPool2d", nn.AvgPool2d(3, 2, 1, True, False), IMAGE),
    ("AvgPool3d", nn.AvgPool3d(2, 1), VOLUME),
    ("LPPool1d", nn.LPPool1d(3, 2), abs(SIGNAL)),
    ("LPPool2d", nn.LPPool2d(2, 2), IMAGE),
    ("FractionalMaxPool2d", nn.FractionalMaxPool2d(2, output_size=3), IMAGE),
    ("AdaptiveAvgPool2d", nn.AdaptiveAvgPool2d(4), IMAGE),
    ("AdaptiveMaxPool2d", nn.AdaptiveMaxPool2d(4), IMAGE),
    ("MaxUnpool2d", unpooled, IMAGE),
    ("ReflectionPad2d", nn.ReflectionPad2d(2), IMAGE),
    ("ReplicationPad2d", nn.ReplicationPad2d(2), IMAGE),
    ("CircularPad2d", nn.CircularPad2d(2), IMAGE),
    ("ZeroPad2d", nn.ZeroPad2d((1, 2, -1, 0)), IMAGE),
    ("ConstantPad2d", nn.ConstantPad2d(1, 3.0), IMAGE),
    ("PixelShuffle", nn.PixelShuffle(2), IMAGE),
    ("PixelUnshuffle", nn.PixelUnshuffle(2), IMAGE),
    ("ChannelShuffle", nn.ChannelShuffle(2), IMAGE),
    ("Upsample, nearest", nn.Upsample(scale_factor=1.5), IMAGE),
    ("Upsample, bilinear", nn.Upsample(scale_factor=1.5, mode="bilinear"), IMAGE),
    ("Upsample, bicubic", nn.Upsample(size=9, mode="bicubic", align_corners=True), IMAGE),
    # normalization and dropout
    ("BatchNorm1d", nn.BatchNorm1d(4), A),
    ("BatchNorm2d", nn.BatchNorm2d(4), IMAGE),
    ("BatchNorm2d, evaluation", nn.BatchNorm2d(4).eval(), IMAGE),
    ("GroupNorm", nn.GroupNorm(2, 4), IMAGE),
    ("InstanceNorm2d", nn.InstanceNorm2d(4, affine=True), IMAGE),
    ("LayerNorm", nn.LayerNorm(4), A),
    ("RMSNorm", nn.RMSNorm(4), A),
    ("LocalResponseNorm", nn.LocalResponseNorm(2), IMAGE),
    ("Dropout", nn.Dropout(0.3), A),
    ("Dropout2d", nn.Dropout2d(0.3), IMAGE),
    ("AlphaDropout", nn.AlphaDropout(0.3), A),
    ("FeatureAlphaDropout", nn.FeatureAlphaDropout(0.3), IMAGE),
    # recurrence
    ("RNN", First(nn.RNN(4, 3, 2)), normal(5, 2, 4)),
    ("LSTM", First(nn.LSTM(4, 3, bidirectional=True)), normal(5, 2, 4)),
    ("LSTM, projection", First(nn.LSTM(4, 3, proj_size=2)), normal(5, 2, 4)),
    ("GRU", First(nn.GRU(4, 3)), normal(5, 2, 4)),
    ("RNNCell", nn.RNNCell(4, 3), A, normal(3, 3)),
    ("LSTMCell", First(nn.LSTMCell(4, 3)), A),
    ("GRUCell", nn.GRUCell(4, 3), A, normal(3, 3)),
    # distances
    ("CosineSimilarity", nn.CosineSimilarity(), A, B),
    ("PairwiseDistance", nn.PairwiseDistance(), A, B),
]
LOSSES = [
    ("L1Loss", toward(nn.L1Loss(), B), A),
    ("MSELoss", toward(nn.MSELoss(), B), A),
    ("CrossEntropyLoss", toward(nn.CrossEntropyLoss(label_smoothing=0.1), CLASSES), A),
    ("CrossEntropyLoss, probabilities", toward(nn.CrossEntropyLoss(), probabilities(3, 4)), A),
    ("CTCLoss", ctc, normal(4, 2, 5)),
    ("NLLLoss", toward(nn.NLLLoss(), CLASSES), A),
    ("PoissonNLLLoss", toward(nn.PoissonNLLLoss(full=True), P), A),
    ("GaussianNLLLoss", nn.GaussianNLLLoss(), A, B, P),
    ("KLDivLoss", nn.KLDivLoss(reduction="sum"), A, probabilities(3, 4)),
    ("BCELoss", nn.BCELoss(), probabilities(3, 4), probabilities(3, 4, seed=1)),
    ("BCEWithLogitsLoss", nn.BCEWithLogitsLoss(), A, probabilities(3, 4)),
    (
        "MarginRankingLoss",
        lambda a, b: F.margin_ranking_loss(a, b, torch.from_numpy(2 * bits(3) - 1), 0.5),
        A[:, 0],
        B[:, 0],
    ),
    ("HingeEmbeddingLoss", toward(nn.HingeEmbeddingLoss(), 2 * bits(3, 4) - 1), A),
    (
        "MultiLabelMarginLoss",
        toward(nn.MultiLabelMarginLoss(), torch.tensor([[1, 2, -1, 0]] * 3)),
        A,
    ),
    ("HuberLoss", toward(nn.HuberLoss(delta=0.7), B), A),
    ("SmoothL1Loss", toward(nn.SmoothL1Loss(beta=0.7), B), A),
    ("SoftMarginLoss", toward(nn.SoftMarginLoss(), 2 * bits(3, 4) - 1), A),
    ("MultiLabelSoftMarginLoss", toward(nn.MultiLabelSoftMarginLoss(), bits(3, 4)), A),
    (
        "CosineEmbeddingLoss",
        lambda a, b: F.cosine_embedding_loss(a, b, torch.tensor([1, -1, 1])),
        A,
        B,
    ),
    ("MultiMarginLoss", toward(nn.MultiMarginLoss(), CLASSES), A),
    ("TripletMarginLoss", nn.TripletMarginLoss(), A, B, A - B + P),
    ("AdaptiveLogSoftmaxWithLoss", lambda x: ADAPTIVE(x, CLASSES).loss, A),
]
ADAPTIVE = nn.AdaptiveLogSoftmaxWithLoss(4, 4, [2]).double()
FUNCTIONS = [
    ("trace of an oblong matrix", torch.trace, normal(4, 2)),
    ("cumprod with zeros", lambda a: torch.cumprod(a, 1), A * (A > 0)),
    ("prod with a zero", lambda a: torch.prod(a, 1), A * (A > 0)),
    ("logcumsumexp", lambda a: torch.logcumsumexp(a, 1), A),
    ("logsumexp", lambda a: torch.logsumexp(a, 1), A),
    ("cummax", lambda a: torch.cummax(a, 1).values, A),
    ("sort", lambda a: torch.sort(a, 1).values, A),
    ("topk", lambda a: torch.topk(a, 2).values, A),
    ("median", lambda a: torch.median(a, 1).values, A),
    ("quantile", lambda a: torch.quantile(a, 0.3, dim=1), A),
    ("std", lambda a: torch.std(a, 1), A),
    ("norm, 3", lambda a: torch.linalg.vector_norm(a, 3, dim=1), A),
    ("renorm", lambda a: torch.renorm(a, 2, 0, 1.5), A),
    ("cdist", torch.cdist, A, normal(5, 4)),
    ("cdist, p = 3", lambda a, b: torch.cdist(a, b, 3.0), A, normal(5, 4)),
    ("pdist", F.pdist, A),
    ("atan2", torch.atan2, A, B),
    ("hypot", torch.hypot, A, B),
    ("pow", torch.pow, P, B),
    ("float_power", torch.float_power, P, B),
    ("xlogy", torch.xlogy, A, P),
    ("logaddexp", torch.logaddexp, A, B),
    ("fmod", torch.fmod, 3 * A, P),
    ("remainder", torch.remainder, 3 * A, P),
    ("lerp", torch.lerp, A, B, U),
    ("addcmul", torch.addcmul, A, B, P),
    ("addcdiv", torch.addcdiv, A, B, P),
    ("clamp", torch.clamp, A, A - 0.3 * B, A + 0.3 * P),
    ("erf", torch.erf, A),
    ("erfinv", torch.erfinv, U),
    ("lgamma", torch.lgamma, P),
    ("digamma", torch.digamma, P),
    ("polygamma", lambda a: torch.polygamma(2, a), P),
    ("mvlgamma", lambda a: torch.mvlgamma(a, 2), 1 + P),
    ("igamma", lambda a: torch.igamma(torch.full_like(a, 1.5), a), P),
    ("i0", torch.i0, A),
    ("special.i0e", torch.special.i0e, A),
    ("special.i1", torch.special.i1, A),
    ("special.i1e", torch.special.i1e, A),
    ("special.ndtri", torch.special.ndtri, abs(U)),
    ("special.log_ndtr", torch.special.log_ndtr, A),
    ("special.erfcx", torch.special.erfcx, A),
    ("special.entr", torch.special.entr, P),
    ("special.zeta", lambda q: torch.special.zeta(torch.full_like(q, 2.5), q), P),
    ("special.xlog1py", torch.special.xlog1py, A, P),
    ("sinc", torch.sinc, A),
    ("logit", torch.logit, probabilities(3, 4)),
    ("frac", torch.frac, 3 * A),
    ("fft.fft", parts(torch.fft.fft), A),
    ("fft.rfft2", parts(torch.fft.rfft2), A),
    ("fft.irfft", lambda a, b: torch.fft.irfft(torch.complex(a, b), 6), A, B),
    ("fft.hfft", lambda a, b: torch.fft.hfft(torch.complex(a, b)), A, B),
    (
        "stft",
        lambda a: torch.view_as_real(
            torch.stft(a, 4, return_complex=True, window=torch.ones(4).double())
        ),
        normal(12),
    ),
    ("linalg.det", torch.linalg.det, S),
    ("linalg.slogdet", lambda a: torch.linalg.slogdet(a)[1], S),
    ("linalg.inv", torch.linalg.inv, D),
    ("linalg.pinv", torch.linalg.pinv, A),
    ("linalg.solve", torch.linalg.solve, D, normal(4, 2)),
    (
        "linalg.solve_triangular",
        lambda a, b: torch.linalg.solve_triangular(a, b, upper=True),
        D,
        normal(4, 2),
    ),
    ("linalg.lstsq", lambda a, b: torch.linalg.lstsq(a, b).solution, normal(5, 3), normal(5, 2)),
    ("linalg.cholesky", symmetric(torch.linalg.cholesky), D),
    ("cholesky_inverse", lambda a: torch.cholesky_inverse(torch.tril(a)), D),
    ("linalg.qr", lambda a: torch.cat(torch.linalg.qr(a)), normal(4, 4)),
    (
        "linalg.lu",
        lambda a: torch.linalg.lu(a)[1] @ torch.linalg.lu(a)[2] + torch.linalg.lu(a)[2],
        D,
    ),
    ("linalg.svdvals", torch.linalg.svdvals, A),
    ("linalg.eigvalsh", symmetric(torch.linalg.eigvalsh), S),
    ("linalg.eigh, vectors", symmetric(lambda a: torch.linalg.eigh(a)[1] ** 2), S),
    ("linalg.eigvals", lambda a: torch.linalg.eigvals(a).abs(), S),
    ("linalg.matrix_exp", torch.linalg.matrix_exp, S),
    ("linalg.matrix_power", lambda a: torch.linalg.matrix_power(a, -2), D),
    ("linalg.matrix_norm, nuclear", lambda a: torch.linalg.matrix_norm(a, "nuc"), A),
    ("linalg.cond", torch.linalg.cond, D),
    ("linalg.householder_product", torch.linalg.householder_product, normal(4, 3), P[0, :3]),
    ("logdet", torch.logdet, D),
    ("cross", torch.linalg.cross, normal(4, 3), normal(4, 3, seed=1)),
    ("kron", torch.kron, A, normal(2, 2)),
    ("einsum, a trace", lambda a: torch.einsum("ijj->i", a), normal(2, 3, 3)),
    ("einsum", lambda a, b: torch.einsum("bij,jk->bik", a, b), normal(2, 3, 4), normal(4, 2)),
    ("gather", lambda a: torch.gather(a, 1, torch.tensor([[0, 0], [1, 2], [3, 3]])), A),
    (
        "scatter_add",
        lambda a, b: a.scatter_add(1, torch.tensor([[0, 0], [1, 2], [3, 3]]), b),
        A,
        normal(3, 2),
    ),
    (
        "scatter_reduce, prod",
        lambda a, b: a.scatter_reduce(1, torch.tensor([[0, 0], [1, 2], [3, 3]]), b, "prod"),
        A,
        normal(3, 2),
    ),
    (
        "scatter_reduce, mean",
        lambda a, b: a.scatter_reduce(1, torch.tensor([[0, 0], [1, 2], [3, 3]]), b, "mean"),
        A,
        normal(3, 2),
    ),
    (
        "index_put, accumulate",
        lambda a, b: a.index_put((torch.tensor([0, 0]),), b, accumulate=True),
        A,
        normal(2, 4),
    ),
    ("masked_scatter", lambda a, b: a.masked_scatter(torch.from_numpy(bits(3, 4) > 0), b), A, B),
    ("roll", lambda a: torch.roll(a, 2, 1), A),
    ("flip", lambda a: a.flip(0, 1), A),
    ("tril", torch.tril, A),
    ("diag of an oblong matrix", torch.diag, A),
    ("diff", lambda a: torch.diff(a, 2), A),
    ("gradient", lambda a: torch.gradient(a, dim=1)[0], A),
    ("trapezoid", torch.trapezoid, A),
    ("grid_sample", F.grid_sample, IMAGE, inside(2, 3, 3, 2)),
    (
        "grid_sample, border, bicubic",
        lambda x, g: F.grid_sample(x, g, "bicubic", "border", True),
        IMAGE,
        inside(2, 3, 3, 2),
    ),
    ("affine_grid", lambda t: F.affine_grid(t, [2, 1, 3, 4], align_corners=False), normal(2, 2, 3)),
    (
        "interpolate, antialias",
        lambda x: F.interpolate(x, 4, mode="bilinear", antialias=True),
        IMAGE,
    ),
    (
        "scaled_dot_product_attention",
        F.scaled_dot_product_attention,
        normal(2, 3, 4),
        normal(2, 5, 4),
        normal(2, 5, 4, seed=1),
    ),
    ("gumbel_softmax", F.gumbel_softmax, A),
    ("normalize", F.normalize, A),
    (
        "one_hot cross entropy of soft labels",
        lambda x: F.cross_entropy(x, torch.from_numpy(onehot(3))),
        A,
    ),
    (
        "multilabel_soft_margin_loss",
        lambda x: F.multilabel_soft_margin_loss(x, torch.from_numpy(bits(3, 4))),
        A,
    ),
]
CASES = [*MODULES, *LOSSES, *FUNCTIONS]
