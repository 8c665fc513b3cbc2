"""autograd: NumPy's and SciPy's functions, wrapped. Complex results are made real at both ends."""

import autograd.numpy as np
import autograd.scipy.linalg as sla
import autograd.scipy.special as sp
import autograd.scipy.stats as stats
from arrays import A, B, D, P, Q, S, U, bits, definite, normal, positive, probabilities
from autograd import make_vjp
from autograd.builtins import tuple as traced
from autograd.scipy.integrate import odeint
from autograd.scipy.signal import convolve

from tinygrad_mnist.testing import check_vjp

DISTRIBUTION = "autograd"


def check(function, *arrays):
    def vjp(dy, *arrays):
        back, _ = make_vjp(lambda inputs: function(*inputs))(tuple(arrays))
        return back(dy)

    return check_vjp(function, vjp, *arrays)


def symmetric(function):
    """Return the function of the symmetric part, for those that read one triangle only."""
    return lambda a: function((a + np.swapaxes(a, -1, -2)) / 2)


def gaussian(function):
    """Return a function whose last argument is a covariance, of which one triangle is read."""
    return lambda *a: symmetric(lambda covariance: function(*a[:-1], covariance))(a[-1])


def real(function):
    """Return the real and imaginary parts of a function of a + ib."""

    def f(a, b):
        z = function(a + 1j * b)
        return np.stack([np.real(z), np.imag(z)])

    return f


def parts(function):
    """Return the real and imaginary parts of a function of a real array."""
    return lambda a: np.stack([np.real(z := function(a)), np.imag(z)])


def eig(a):
    """Return what does not hang on the scale of the eigenvectors."""
    w, v = np.linalg.eig(a)
    return np.stack([np.real(w), np.imag(w)]), np.real(v @ np.linalg.inv(v))


def ode(y0, a):
    settings = {"rtol": 1e-12, "atol": 1e-12}
    return odeint(lambda y, t, a: a * y - t, y0, np.linspace(0.0, 1.0, 5), traced((a,)), **settings)


CASES = [
    # two arguments
    ("add", np.add, A, B),
    ("add, broadcast", np.add, A, normal(4)),
    ("subtract", np.subtract, A, normal(3, 1)),
    ("multiply", np.multiply, A, normal(4)),
    ("divide", np.divide, A, P),
    ("true_divide, broadcast", np.true_divide, A, positive(3, 1)),
    ("power", np.power, P, B),
    ("power, integer", lambda a: a**3, A),
    ("mod", np.mod, 3 * A, P),
    ("remainder", np.remainder, 3 * A, P),
    ("maximum", np.maximum, A, B),
    ("minimum", np.minimum, A, B),
    ("fmax", np.fmax, A, B),
    ("fmin", np.fmin, A, B),
    ("logaddexp", np.logaddexp, A, B),
    ("logaddexp2", np.logaddexp2, A, B),
    ("arctan2", np.arctan2, A, B),
    ("hypot", np.hypot, A, B),
    ("where", lambda a, b: np.where(bits(3, 4) > 0, a, b), A, B),
    ("cross", np.cross, normal(4, 3), normal(4, 3, seed=1)),
    ("kron", np.kron, A, normal(2, 2)),
    ("inner", np.inner, A, B),
    ("outer", np.outer, normal(3), normal(4)),
    ("dot", np.dot, A, normal(4, 2)),
    ("dot of a stack", np.dot, normal(2, 3, 4), normal(4)),
    ("matmul", np.matmul, A, normal(4, 2)),
    ("matmul of stacks", np.matmul, normal(2, 3, 4), normal(4, 2)),
    ("tensordot", lambda a, b: np.tensordot(a, b, 2), normal(2, 3, 4), normal(3, 4, 2)),
    ("tensordot, axes", lambda a, b: np.tensordot(a, b, ([1], [0])), normal(2, 3, 4), A),
    ("einsum", lambda a, b: np.einsum("bij,jk->bik", a, b), normal(2, 3, 4), normal(4, 2)),
    ("einsum, a trace", lambda a: np.einsum("ijj->i", a), normal(2, 3, 3)),
    # elementwise
    ("negative", np.negative, A),
    ("abs", np.abs, A),
    ("absolute", np.absolute, A),
    ("fabs", np.fabs, A),
    ("reciprocal", np.reciprocal, P),
    ("exp", np.exp, A),
    ("exp2", np.exp2, A),
    ("expm1", np.expm1, A),
    ("log", np.log, P),
    ("log2", np.log2, P),
    ("log10", np.log10, P),
    ("log1p", np.log1p, P),
    ("sin", np.sin, A),
    ("cos", np.cos, A),
    ("tan", np.tan, U),
    ("arcsin", np.arcsin, U),
    ("arccos", np.arccos, U),
    ("arctan", np.arctan, A),
    ("sinh", np.sinh, A),
    ("cosh", np.cosh, A),
    ("tanh", np.tanh, A),
    ("arcsinh", np.arcsinh, A),
    ("arccosh", np.arccosh, 1 + P),
    ("arctanh", np.arctanh, U),
    ("rad2deg", np.rad2deg, A),
    ("degrees", np.degrees, A),
    ("deg2rad", np.deg2rad, A),
    ("radians", np.radians, A),
    ("square", np.square, A),
    ("sqrt", np.sqrt, P),
    ("sinc", np.sinc, A),
    ("clip", lambda a: np.clip(a, -0.5, 0.5), A),
    ("nan_to_num", np.nan_to_num, A),
    ("real_if_close", np.real_if_close, A),
    # of complex numbers, as pairs
    ("real", real(np.real), A, B),
    ("imag", real(np.imag), A, B),
    ("conj", real(np.conj), A, B),
    ("conjugate", real(np.conjugate), A, B),
    ("angle", real(np.angle), A, B),
    ("abs, complex", real(np.abs), A, B),
    ("exp, complex", real(np.exp), A, B),
    ("sqrt, complex", real(np.sqrt), A, B),
    # reductions
    ("sum", np.sum, A),
    ("sum, axis", lambda a: np.sum(a, axis=1), normal(2, 3, 4)),
    ("sum, keepdims", lambda a: np.sum(a, axis=(0, 2), keepdims=True), normal(2, 3, 4)),
    ("mean", np.mean, A),
    ("mean, axis", lambda a: np.mean(a, axis=0), A),
    ("prod", np.prod, A),
    ("prod, axis", lambda a: np.prod(a, axis=1), A),
    ("var", np.var, A),
    ("var, ddof", lambda a: np.var(a, axis=1, ddof=1), A),
    ("std", np.std, A),
    ("std, ddof", lambda a: np.std(a, axis=0, ddof=1), A),
    ("max", np.max, A),
    ("max, axis", lambda a: np.max(a, axis=1), A),
    ("min", np.min, A),
    ("amax", lambda a: np.amax(a, axis=0), A),
    ("amin", lambda a: np.amin(a, axis=0), A),
    ("cumsum", np.cumsum, A),
    ("cumsum, axis", lambda a: np.cumsum(a, axis=1), A),
    ("trace", np.trace, A),
    ("trace, offset", lambda a: np.trace(a, offset=1), A),
    # shapes
    ("reshape", lambda a: np.reshape(a, (2, 6)), A),
    ("reshape, Fortran order", lambda a: np.reshape(a, (2, 6), order="F"), A),
    ("ravel", np.ravel, A),
    ("ravel, Fortran order", lambda a: np.ravel(a, order="F"), A),
    ("roll", lambda a: np.roll(a, 2, axis=1), A),
    ("split", lambda a: np.concatenate(np.split(a, 2, axis=1)[::-1]), A),
    ("array_split", lambda a: np.concatenate(np.array_split(a, 3, axis=1)[::-1], axis=1), A),
    ("vsplit", lambda a: np.vsplit(a, 3)[1], A),
    ("hsplit", lambda a: np.hsplit(a, 2)[1], A),
    ("dsplit", lambda a: np.dsplit(a, 2)[1], normal(2, 3, 4)),
    ("expand_dims", lambda a: np.expand_dims(a, 1), A),
    ("squeeze", np.squeeze, normal(3, 1, 4)),
    ("diag of a vector", np.diag, normal(4)),
    ("diag of a matrix", np.diag, S),
    ("diag of a matrix, offset", lambda a: np.diag(a, 1), S),
    ("diag of an oblong matrix", np.diag, A),
    ("diagonal", lambda a: np.diagonal(a, axis1=-1, axis2=-2), normal(2, 3, 3)),
    ("make_diagonal", lambda a: np.make_diagonal(a, axis1=-1, axis2=-2), A),
    ("flipud", np.flipud, A),
    ("fliplr", np.fliplr, A),
    ("rot90", np.rot90, A),
    ("full", lambda a: np.full((2, 3), a), np.array(0.7)),
    ("triu", lambda a: np.triu(a, k=1), A),
    ("tril", lambda a: np.tril(a, k=-1), A),
    ("swapaxes", lambda a: np.swapaxes(a, 0, 2), normal(2, 3, 4)),
    ("moveaxis", lambda a: np.moveaxis(a, 0, 2), normal(2, 3, 4)),
    ("rollaxis", lambda a: np.rollaxis(a, 2, 1), normal(2, 3, 4)),
    ("transpose", np.transpose, A),
    ("transpose, axes", lambda a: np.transpose(a, (2, 0, 1)), normal(2, 3, 4)),
    ("broadcast_to", lambda a: np.broadcast_to(a, (3, 4)), normal(4)),
    ("repeat", lambda a: np.repeat(a, 2, axis=1), A),
    ("repeat, flat", lambda a: np.repeat(a, 2), A),
    ("tile", lambda a: np.tile(a, (2, 3)), A),
    ("concatenate", lambda a, b: np.concatenate([a, b], axis=1), A, B),
    ("vstack", lambda a, b: np.vstack([a, b]), A, B),
    ("hstack", lambda a, b: np.hstack([a, b]), A, B),
    ("column_stack", lambda a, b: np.column_stack([a, b]), A, B),
    ("stack", lambda a, b: np.stack([a, b], axis=1), A, B),
    ("append", lambda a, b: np.append(a, b, axis=0), A, B),
    ("array", lambda a, b: np.array([a[0], b[1], a[2] * b[0]]), A, B),
    ("atleast_1d", np.atleast_1d, np.array(0.7)),
    ("atleast_2d", np.atleast_2d, normal(4)),
    ("atleast_3d", np.atleast_3d, A),
    ("pad", lambda a: np.pad(a, ((1, 2), (0, 1)), "constant"), A),
    ("getitem, slices", lambda a: a[1:, ::-2], A),
    ("getitem, an index twice", lambda a: a[[0, 2, 2], [1, 3, 3]], A),
    ("select", lambda a, b: np.select([bits(3, 4) > 0], [a], b), A, B),
    # order and differences
    ("sort", np.sort, A[0]),
    ("sort, axis", lambda a: np.sort(a, axis=1), A),
    ("partition", lambda a: np.partition(a, 2), normal(6)),
    ("diff", np.diff, A),
    ("diff, twice", lambda a: np.diff(a, 2, axis=0), A),
    ("gradient", lambda a: np.gradient(a, axis=1), normal(4, 5)),
    # Fourier transforms
    ("fft.fft", parts(np.fft.fft), A),
    ("fft.ifft", parts(np.fft.ifft), A),
    ("fft.fft2", parts(np.fft.fft2), A),
    ("fft.ifft2", parts(np.fft.ifft2), A),
    ("fft.fftn", parts(np.fft.fftn), normal(2, 3, 4)),
    ("fft.ifftn", parts(np.fft.ifftn), normal(2, 3, 4)),
    ("fft.rfft", parts(np.fft.rfft), A),
    ("fft.rfft2", parts(np.fft.rfft2), A),
    ("fft.rfftn", parts(np.fft.rfftn), normal(2, 3, 4)),
    ("fft.irfft", lambda a, b: np.fft.irfft(a + 1j * b), A, B),
    ("fft.irfft2", lambda a, b: np.fft.irfft2(a + 1j * b), A, B),
    ("fft.irfftn", lambda a, b: np.fft.irfftn(a + 1j * b), A, B),
    ("fft.fftshift", np.fft.fftshift, A),
    ("fft.ifftshift", np.fft.ifftshift, A),
    # linear algebra
    ("linalg.det", np.linalg.det, S),
    ("linalg.slogdet", lambda a: np.linalg.slogdet(a)[1], S),
    ("linalg.inv", np.linalg.inv, D),
    ("linalg.pinv", np.linalg.pinv, A),
    ("linalg.solve", np.linalg.solve, D, normal(4, 2)),
    ("linalg.solve, a vector", np.linalg.solve, D, normal(4)),
    ("linalg.norm", np.linalg.norm, A),
    ("linalg.norm, rows", lambda a: np.linalg.norm(a, axis=1), A),
    ("linalg.norm, ord 3", lambda a: np.linalg.norm(a, 3, axis=1), A),
    ("linalg.norm, nuclear", lambda a: np.linalg.norm(a, "nuc"), A),
    ("linalg.eigh, values", symmetric(lambda a: np.linalg.eigh(a)[0]), S),
    ("linalg.eigh, vectors", symmetric(lambda a: np.linalg.eigh(a)[1] ** 2), S),
    ("linalg.eig, values", lambda a: eig(a)[0], D + normal(4, 4)),
    ("linalg.eig, vectors", lambda a: eig(a)[1] + a, D + normal(4, 4)),
    ("linalg.cholesky", symmetric(np.linalg.cholesky), D),
    ("linalg.svd, values", lambda a: np.linalg.svd(a, compute_uv=False), A),
    ("linalg.svd, vectors", lambda a: np.linalg.svd(a, full_matrices=False)[0] ** 2, A),
    ("scipy.linalg.sqrtm", sla.sqrtm, D),
    (
        "scipy.linalg.solve_triangular",
        lambda a, b: sla.solve_triangular(np.tril(a), b, lower=True),
        D,
        normal(4, 3),
    ),
    ("scipy.linalg.solve_sylvester", sla.solve_sylvester, D, definite(3), normal(4, 3)),
    (
        "scipy.linalg.solve_banded",
        lambda ab, b: sla.solve_banded((1, 1), ab, b),
        normal(3, 4) + 3,
        normal(4),
    ),
    # signal and integration
    ("scipy.signal.convolve", convolve, normal(5), normal(3)),
    (
        "scipy.signal.convolve, axes",
        lambda a, b: convolve(a, b, axes=([1], [1]), mode="valid"),
        A,
        normal(3, 2),
    ),
    ("scipy.integrate.odeint", ode, normal(2), normal(2, seed=1)),
    # special functions
    ("special.beta", sp.beta, P, Q),
    ("special.betainc", lambda x: sp.betainc(1.5, 2.5, x), abs(U)),
    ("special.betaln", sp.betaln, P, Q),
    ("special.polygamma", lambda x: sp.polygamma(1, x), P),
    ("special.psi", sp.psi, P),
    ("special.digamma", sp.digamma, P),
    ("special.gamma", sp.gamma, P),
    ("special.gammaln", sp.gammaln, P),
    ("special.rgamma", sp.rgamma, P),
    ("special.multigammaln", lambda x: sp.multigammaln(x, 2), 1 + positive(4)),
    ("special.gammainc", lambda x: sp.gammainc(1.5, x), P),
    ("special.gammaincc", lambda x: sp.gammaincc(1.5, x), P),
    ("special.j0", sp.j0, A),
    ("special.y0", sp.y0, P),
    ("special.j1", sp.j1, A),
    ("special.y1", sp.y1, P),
    ("special.jn", lambda x: sp.jn(3, x), P),
    ("special.yn", lambda x: sp.yn(3, x), P),
    ("special.i0", sp.i0, A),
    ("special.i1", sp.i1, A),
    ("special.iv", lambda x: sp.iv(2, x), P),
    ("special.ive", lambda x: sp.ive(2, x), P),
    ("special.erf", sp.erf, A),
    ("special.erfc", sp.erfc, A),
    ("special.erfinv", sp.erfinv, U),
    ("special.erfcinv", sp.erfcinv, 1 + U),
    ("special.logit", sp.logit, probabilities(3, 4)),
    ("special.expit", sp.expit, A),
    ("special.logsumexp", sp.logsumexp, A),
    ("special.logsumexp, axis", lambda a: sp.logsumexp(a, axis=1), A),
    ("special.logsumexp, weights", lambda a: sp.logsumexp(a, axis=1, b=P), A),
    # distributions
    ("stats.norm.pdf", stats.norm.pdf, A, B, P),
    ("stats.norm.cdf", stats.norm.cdf, A, B, P),
    ("stats.norm.logpdf", stats.norm.logpdf, A, B, P),
    ("stats.norm.logcdf", stats.norm.logcdf, A, B, P),
    ("stats.norm.sf", stats.norm.sf, A, B, P),
    ("stats.norm.logsf", stats.norm.logsf, A, B, P),
    ("stats.t.pdf", stats.t.pdf, A, P, B, Q),
    ("stats.t.cdf", lambda x, m: stats.t.cdf(x, 3.5, m, Q), A, B),
    ("stats.t.cdf, its scale", lambda s: stats.t.cdf(A, 3.5, B, s), P),
    ("stats.t.logpdf", stats.t.logpdf, A, P, B, Q),
    ("stats.t.logcdf", lambda x, m: stats.t.logcdf(x, 3.5, m, Q), A, B),
    ("stats.t.logcdf, its scale", lambda s: stats.t.logcdf(A, 3.5, B, s), P),
    ("stats.beta.pdf", stats.beta.pdf, abs(U), P, Q),
    ("stats.beta.cdf", lambda x: stats.beta.cdf(x, 1.5, 2.5), abs(U)),
    ("stats.beta.logpdf", stats.beta.logpdf, abs(U), P, Q),
    ("stats.gamma.pdf", stats.gamma.pdf, P, Q),
    ("stats.gamma.cdf", lambda x: stats.gamma.cdf(x, 1.5), P),
    ("stats.gamma.logpdf", stats.gamma.logpdf, P, Q),
    ("stats.chi2.pdf", lambda x: stats.chi2.pdf(x, 3.0), P),
    ("stats.chi2.cdf", lambda x: stats.chi2.cdf(x, 3.0), P),
    ("stats.chi2.logpdf", lambda x: stats.chi2.logpdf(x, 3.0), P),
    ("stats.poisson.pmf", lambda mu: stats.poisson.pmf(2, mu), P),
    ("stats.poisson.cdf", lambda mu: stats.poisson.cdf(2, mu), P),
    ("stats.poisson.logpmf", lambda mu: stats.poisson.logpmf(2, mu), P),
    ("stats.dirichlet.logpdf", lambda a: stats.dirichlet.logpdf(probabilities(4), a), positive(4)),
    ("stats.dirichlet.pdf", lambda a: stats.dirichlet.pdf(probabilities(4), a), positive(4)),
    (
        "stats.multivariate_normal.logpdf",
        gaussian(stats.multivariate_normal.logpdf),
        A,
        normal(4),
        D,
    ),
    ("stats.multivariate_normal.pdf", gaussian(stats.multivariate_normal.pdf), A, normal(4), D),
    (
        "stats.multivariate_normal.entropy",
        gaussian(stats.multivariate_normal.entropy),
        normal(4),
        D,
    ),
]
