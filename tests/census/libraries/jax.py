"""JAX: functions of jax.nn, jax.numpy, jax.scipy and jax.lax, in float64."""

import jax
import jax.numpy as jnp
import jax.scipy as jsp
import numpy as np
from arrays import (
    A,
    B,
    D,
    P,
    Q,
    S,
    U,
    bits,
    inside,
    labels,
    normal,
    positive,
    probabilities,
)
from jax import lax, nn
from jax.scipy import special as sp
from jax.scipy import stats

from tinygrad_mnist.testing.jax import check_jax

DISTRIBUTION = "jax"
IMAGE, SEQUENCE = normal(2, 3, 6, 6), normal(2, 5, 2, 4)
AT = np.array([0, 2, 2])
MASK = bits(3, 4) > 0


check = check_jax


def symmetric(function):
    return lambda a: function((a + a.T) / 2)


def parts(function):
    return lambda a: jnp.stack([jnp.real(function(a)), jnp.imag(function(a))])


def pooled(function, start):
    return lambda x: lax.reduce_window(x, start, function, (1, 1, 3, 2), (1, 1, 2, 1), "SAME")


def scanned(x):
    return lax.scan(lambda h, row: (jnp.tanh(h + row), h * row), jnp.ones(4), x)[1]


def ode(y0, a):
    from jax.experimental.ode import odeint

    times = jnp.linspace(0.0, 1.0, 4)
    return odeint(lambda y, t, a: a * y - t, y0, times, a, rtol=1e-10, atol=1e-10)


CASES = [
    # jax.nn
    ("nn.celu", nn.celu, A),
    ("nn.elu", nn.elu, A),
    ("nn.gelu", nn.gelu, A),
    ("nn.gelu, exact", lambda a: nn.gelu(a, approximate=False), A),
    ("nn.glu", nn.glu, A),
    ("nn.hard_sigmoid", nn.hard_sigmoid, 2 * A),
    ("nn.hard_silu", nn.hard_silu, 2 * A),
    ("nn.hard_tanh", nn.hard_tanh, A),
    ("nn.leaky_relu", nn.leaky_relu, A),
    ("nn.log_sigmoid", nn.log_sigmoid, A),
    ("nn.log_softmax", nn.log_softmax, A),
    ("nn.logmeanexp", lambda a: nn.logmeanexp(a, axis=1), A),
    ("nn.logsumexp", lambda a: nn.logsumexp(a, axis=1), A),
    ("nn.mish", nn.mish, A),
    ("nn.relu", nn.relu, A),
    ("nn.relu6", nn.relu6, 4 * A),
    ("nn.selu", nn.selu, A),
    ("nn.sigmoid", nn.sigmoid, A),
    ("nn.silu", nn.silu, A),
    ("nn.soft_sign", nn.soft_sign, A),
    ("nn.softmax", nn.softmax, A),
    ("nn.softmax, where", lambda a: nn.softmax(a, where=MASK | (np.arange(4) == 0)), A),
    ("nn.softplus", nn.softplus, A),
    ("nn.sparse_plus", nn.sparse_plus, A),
    ("nn.sparse_sigmoid", nn.sparse_sigmoid, A),
    ("nn.squareplus", nn.squareplus, A),
    ("nn.standardize", nn.standardize, A),
    (
        "nn.dot_product_attention",
        nn.dot_product_attention,
        SEQUENCE,
        SEQUENCE + 1,
        normal(2, 5, 2, 4, seed=1),
    ),
    # jax.numpy
    ("numpy.sinc", jnp.sinc, A),
    ("numpy.sinc at 0", jnp.sinc, np.array([0.0, 0.5, -1.5])),
    ("numpy.arctan2", jnp.arctan2, A, B),
    ("numpy.hypot", jnp.hypot, A, B),
    ("numpy.power", jnp.power, P, B),
    ("numpy.float_power", jnp.float_power, P, B),
    ("numpy.logaddexp", jnp.logaddexp, A, B),
    ("numpy.logaddexp2", jnp.logaddexp2, A, B),
    ("numpy.cbrt", jnp.cbrt, A),
    ("numpy.i0", jnp.i0, A),
    ("numpy.mod", jnp.mod, 3 * A, P),
    ("numpy.fmod", jnp.fmod, 3 * A, P),
    ("numpy.where", lambda a, b: jnp.where(MASK, a, b), A, B),
    ("numpy.clip", lambda a: jnp.clip(a, -0.5, 0.5), A),
    ("numpy.prod with a zero", lambda a: jnp.prod(a, axis=1), A * (A > 0)),
    ("numpy.cumprod with zeros", lambda a: jnp.cumprod(a, axis=1), A * (A > 0)),
    ("numpy.cumsum", lambda a: jnp.cumsum(a, axis=1), A),
    ("numpy.max", lambda a: jnp.max(a, axis=1), A),
    ("numpy.sort", lambda a: jnp.sort(a, axis=0), A),
    ("numpy.partition", lambda a: jnp.partition(a, 2), A),
    ("numpy.median", lambda a: jnp.median(a, axis=1), A),
    ("numpy.quantile", lambda a: jnp.quantile(a, 0.3, axis=1), A),
    ("numpy.percentile, of q", lambda a, q: jnp.percentile(a, q), A, np.array(33.0)),
    ("numpy.std", lambda a: jnp.std(a, axis=1, ddof=1), A),
    ("numpy.var", lambda a: jnp.var(a, axis=1, where=MASK | (np.arange(4) < 2)), A),
    ("numpy.average", lambda a, w: jnp.average(a, axis=1, weights=w), A, P),
    ("numpy.cov", jnp.cov, A),
    ("numpy.corrcoef", jnp.corrcoef, A),
    ("numpy.interp", jnp.interp, inside(5), np.linspace(-1, 1, 4), normal(4)),
    ("numpy.trapezoid", jnp.trapezoid, A),
    ("numpy.gradient", lambda a: jnp.gradient(a, axis=1), A),
    ("numpy.diff", lambda a: jnp.diff(a, 2), A),
    ("numpy.convolve", jnp.convolve, normal(5), normal(3)),
    ("numpy.einsum", lambda a, b: jnp.einsum("bij,jk->bik", a, b), normal(2, 3, 4), normal(4, 2)),
    ("numpy.einsum, a trace", lambda a: jnp.einsum("ijj->i", a), normal(2, 3, 3)),
    ("numpy.trace of an oblong matrix", jnp.trace, normal(4, 2)),
    ("numpy.kron", jnp.kron, A, normal(2, 2)),
    ("numpy.cross", jnp.cross, normal(4, 3), normal(4, 3, seed=1)),
    ("numpy.pad, reflect", lambda a: jnp.pad(a, 2, "reflect"), A),
    ("numpy.pad, linear_ramp", lambda a: jnp.pad(a, 2, "linear_ramp"), A),
    ("numpy.roll", lambda a: jnp.roll(a, 2, 1), A),
    ("numpy.take_along_axis", lambda a: jnp.take_along_axis(a, labels(3, 2), 1), A),
    ("at.set", lambda a, b: a.at[AT[:2]].set(b), A, normal(2, 4)),
    ("at.add, an index twice", lambda a, b: a.at[AT].add(b), A, normal(3, 4)),
    ("at.multiply, an index twice", lambda a, b: a.at[AT].multiply(b), A, normal(3, 4)),
    ("at.max", lambda a, b: a.at[AT].max(b), A, normal(3, 4, seed=2)),
    ("fft.fft", parts(jnp.fft.fft), A),
    ("fft.rfft2", parts(jnp.fft.rfft2), A),
    ("fft.irfft", lambda a, b: jnp.fft.irfft(a + 1j * b), A, B),
    # jax.numpy.linalg, jax.scipy.linalg
    ("linalg.det", jnp.linalg.det, S),
    ("linalg.slogdet", lambda a: jnp.linalg.slogdet(a)[1], S),
    ("linalg.inv", jnp.linalg.inv, D),
    ("linalg.pinv", jnp.linalg.pinv, A),
    ("linalg.solve", jnp.linalg.solve, D, normal(4, 2)),
    ("linalg.lstsq", lambda a, b: jnp.linalg.lstsq(a, b)[0], normal(5, 3), normal(5, 2)),
    ("linalg.cholesky", symmetric(jnp.linalg.cholesky), D),
    ("linalg.qr", lambda a: jnp.concatenate(jnp.linalg.qr(a)), S),
    ("linalg.svd, values", lambda a: jnp.linalg.svd(a, compute_uv=False), A),
    ("linalg.svd, vectors", lambda a: jnp.linalg.svd(a, full_matrices=False)[0] ** 2, A),
    ("linalg.eigh, values", symmetric(lambda a: jnp.linalg.eigh(a)[0]), S),
    ("linalg.eigh, vectors", symmetric(lambda a: jnp.linalg.eigh(a)[1] ** 2), S),
    ("linalg.eigvals", lambda a: jnp.abs(jnp.linalg.eigvals(a)), S),
    ("linalg.norm, nuclear", lambda a: jnp.linalg.norm(a, "nuc"), A),
    ("linalg.norm, 3", lambda a: jnp.linalg.norm(a, 3, axis=1), A),
    ("linalg.matrix_power", lambda a: jnp.linalg.matrix_power(a, -2), D),
    ("scipy.linalg.expm", jsp.linalg.expm, S),
    ("scipy.linalg.lu", lambda a: jsp.linalg.lu(a)[1] + jsp.linalg.lu(a)[2], D),
    ("scipy.linalg.solve_triangular", jsp.linalg.solve_triangular, D, normal(4, 2)),
    ("scipy.linalg.sqrtm", lambda a: jnp.real(jsp.linalg.sqrtm(a)), D),
    # jax.scipy
    ("special.bessel_jn", lambda x: sp.bessel_jn(x, v=3), P),
    ("special.beta", sp.beta, P, Q),
    ("special.betainc", lambda x: sp.betainc(1.5, 2.5, x), abs(U)),
    ("special.betaln", sp.betaln, P, Q),
    ("special.digamma", sp.digamma, P),
    ("special.entr", sp.entr, P),
    ("special.erf", sp.erf, A),
    ("special.erfc", sp.erfc, A),
    ("special.erfinv", sp.erfinv, U),
    ("special.exp1", sp.exp1, P),
    ("special.expi", sp.expi, P),
    ("special.expn", lambda x: sp.expn(2, x), P),
    ("special.expit", sp.expit, A),
    ("special.gamma", sp.gamma, P),
    ("special.gammainc", sp.gammainc, P, Q),
    ("special.gammaincc", sp.gammaincc, P, Q),
    ("special.gammaln", sp.gammaln, P),
    ("special.hyp1f1", sp.hyp1f1, P, Q, A),
    ("special.i0", sp.i0, A),
    ("special.i0e", sp.i0e, A),
    ("special.i1", sp.i1, A),
    ("special.i1e", sp.i1e, A),
    ("special.kl_div", sp.kl_div, P, Q),
    ("special.log_ndtr", sp.log_ndtr, A),
    ("special.logit", sp.logit, probabilities(3, 4)),
    ("special.multigammaln", lambda x: sp.multigammaln(x, 2), 1 + P),
    ("special.ndtr", sp.ndtr, A),
    ("special.ndtri", sp.ndtri, abs(U)),
    ("special.poch", sp.poch, P, Q),
    ("special.polygamma", lambda x: sp.polygamma(1, x), P),
    ("special.rel_entr", sp.rel_entr, P, Q),
    ("special.spence", sp.spence, P),
    ("special.xlog1py", sp.xlog1py, A, P),
    ("special.xlogy", sp.xlogy, A, P),
    ("special.zeta", lambda q: sp.zeta(2.5, q), P),
    ("stats.beta.logpdf", stats.beta.logpdf, abs(U), P, Q),
    ("stats.cauchy.logpdf", stats.cauchy.logpdf, A, B, P),
    ("stats.dirichlet.logpdf", lambda a: stats.dirichlet.logpdf(probabilities(4), a), positive(4)),
    ("stats.gamma.logpdf", stats.gamma.logpdf, P, Q),
    ("stats.laplace.logpdf", stats.laplace.logpdf, A, B, P),
    ("stats.logistic.logcdf", lambda x: jnp.log(stats.logistic.cdf(x)), A),
    (
        "stats.multivariate_normal.logpdf",
        lambda x, m: stats.multivariate_normal.logpdf(x, m, D),
        A,
        normal(4),
    ),
    ("stats.norm.logcdf", stats.norm.logcdf, A, B, P),
    ("stats.pareto.logpdf", lambda x: stats.pareto.logpdf(x, 1.5), 1 + P),
    ("stats.t.logpdf", stats.t.logpdf, A, P, B, Q),
    ("stats.truncnorm.logpdf", lambda x: stats.truncnorm.logpdf(x, -2.0, 2.0), U),
    (
        "ndimage.map_coordinates",
        lambda a: jsp.ndimage.map_coordinates(a, [positive(5), positive(5, seed=1)], 1),
        A,
    ),
    ("signal.convolve2d", jsp.signal.convolve2d, A, normal(2, 2)),
    # jax.lax and others
    (
        "lax.conv_general_dilated",
        lambda x, k: lax.conv_general_dilated(x, k, (2, 1), [(1, 1), (2, 0)], (1, 2), (2, 1)),
        IMAGE,
        normal(2, 3, 3, 2),
    ),
    (
        "lax.conv_transpose",
        lambda x, k: lax.conv_transpose(
            x, k, (2, 1), "SAME", dimension_numbers=("NCHW", "OIHW", "NCHW")
        ),
        IMAGE,
        normal(2, 3, 3, 2),
    ),
    ("lax.reduce_window, max", pooled(lax.max, -jnp.inf), IMAGE),
    ("lax.reduce_window, add", pooled(lax.add, 0.0), IMAGE),
    ("lax.cummax", lambda a: lax.cummax(a, 1), A),
    ("lax.cumlogsumexp", lambda a: lax.cumlogsumexp(a, 1), A),
    ("lax.top_k", lambda a: lax.top_k(a, 2)[0], A),
    ("lax.rsqrt", lax.rsqrt, P),
    ("lax.igamma", lax.igamma, P, Q),
    ("lax.scan", scanned, A),
    ("lax.associative_scan", lambda a: lax.associative_scan(jnp.multiply, a, axis=1), A),
    (
        "lax.linalg.tridiagonal_solve",
        lambda d, b: lax.linalg.tridiagonal_solve(P[0], d + 5, Q[0], b),
        normal(4),
        normal(4, 2),
    ),
    ("checkpoint", lambda a: jax.checkpoint(lambda a: jnp.sin(a) ** 2)(a), A),
    ("image.resize, cubic", lambda x: jax.image.resize(x, (2, 3, 9, 4), "cubic"), IMAGE),
    ("image.resize, lanczos3", lambda x: jax.image.resize(x, (2, 3, 4, 9), "lanczos3"), IMAGE),
    ("ops.segment_sum", lambda a: jax.ops.segment_sum(a, AT, 3), A),
    ("ops.segment_prod", lambda a: jax.ops.segment_prod(a, AT, 3), A),
    ("experimental.ode.odeint", ode, normal(2), normal(2, seed=1)),
]
