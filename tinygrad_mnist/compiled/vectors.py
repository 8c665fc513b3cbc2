"""Vectors: n numbers that a compiled loop keeps in the machine's registers.

A vector is a local variable, so a sum stays where it is computed. In an array numba would have to
write it down in each round, as W might overlap it::

    sums = load(y, 0, 40)
    for i in range(count):
        sums = sums + a[i] * load(W, 40 * i, 40)
    store(y, 0, sums)

The words come first, as functions of NumPy arrays of one axis: what they say is what they do, and
plain Python runs them so. Below stands the LLVM code that numba puts in their place in a compiled
function, where n must be a constant. LLVM takes the widest registers that the machine has.

Nothing may lie outside an array. Plain Python refuses that, and so does compiled code if it was
compiled with NUMBA_BOUNDSCHECK=1.
"""

import operator
from functools import partial, reduce, wraps
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinygrad_mnist._extras import needing

with needing("tinygrad_mnist.compiled", "compiled"):
    from llvmlite import ir
    from numba.core import cgutils, codegen, config, types
    from numba.extending import lower_builtin, models, register_model, type_callable

# The words, beside + - * of two vectors, or of a vector and a number of its dtype


def load(array: NDArray[Any], at: int, n: int) -> NDArray[Any]:
    """Return array[at : at + n]."""
    return array[at : at + n].reshape(n).copy()  # refuses what the array's end cuts short


def entry(array: NDArray[Any], at: int) -> Any:
    """Return array[at] for at >= 0. Compiled code need not ask whether to count from the end."""
    return load(array, at, 1)[0]


def store(array: NDArray[Any], at: int, v: NDArray[Any]) -> None:
    """Write v to array[at : at + n]."""
    array[at : at + len(v)].reshape(len(v))[:] = v


def prefetch(array: NDArray[Any], at: int) -> None:
    """Ask for the cache line of array[at], which will be needed soon. It may be anywhere."""


def splat(x: np.generic, n: int) -> NDArray[Any]:
    """Return n times x."""
    return np.full(n, x)


def total(v: NDArray[np.floating[Any]]) -> Any:
    """Return the sum, added in any order."""
    return v.sum()


def nonzero(v: NDArray[Any]) -> int:
    """Return an integer whose bit i is 1 where v[i] is not 0, for up to 64 numbers."""
    return sum(1 << i for i in np.flatnonzero(v).tolist())


def larger(a: NDArray[Any], b: NDArray[Any]) -> int:
    """Return an integer whose bit i is 1 where a[i] > b[i], or a[i] is NaN."""
    return nonzero((a > b) | np.isnan(a))


def where(bits: int, a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    """Return a vector with a[i] where bit i is 1, else b[i]."""
    return np.where([int(bits) >> i & 1 for i in range(len(a))], a, b)


def popcount(bits: int) -> int:
    """Return how many bits are 1."""
    return bits.bit_count()


def lowest(bits: int) -> int:
    """Return the number of the lowest bit that is 1, for bits other than 0."""
    return (int(bits) & -int(bits)).bit_length() - 1


# Their LLVM code

_features = config.CPU_FEATURES  # type: ignore[attr-defined]
if _features is None:
    _features = codegen.get_host_cpu_features()
REGISTERS = 32 * 64 if "+avx512f" in _features else 16 * 32  # bytes that a kernel should count on


class Vector(types.Type):
    """The type: n numbers of a dtype, in parts as large as the power of two that divides n.

    40 numbers are 5 parts of 8; LLVM alone would make 64 numbers of them. In rows of 40 float32
    that begin with a cache line, no part lies on two lines.
    """

    def __init__(self, dtype, n):
        self.dtype, self.n, self.size = dtype, n, n & -n
        super().__init__(f"Vector({dtype}, {n})")


@register_model(Vector)
class _Model(models.PrimitiveModel):
    def __init__(self, manager, vector):
        number = manager.lookup(vector.dtype).get_value_type()
        part = ir.VectorType(number, vector.size)
        super().__init__(manager, vector, ir.ArrayType(part, vector.n // vector.size))


def _word(plain, result, *operands):
    """Decorate what emits the code of a word for operands of these kinds of types.

    result is a function from their types to the type of what the word returns, or to None.
    """

    @wraps(result)
    def typed(*arguments):
        fit = len(arguments) == len(operands) and all(map(isinstance, arguments, operands))
        return result(*arguments) if fit else None

    def register(emit):
        type_callable(plain)(lambda context: typed)
        lower_builtin(plain, *operands)(emit)
        return emit

    return register


def _is_flat(array):
    return array.ndim == 1 and array.layout == "C"


def _loaded(array, at, n):
    return Vector(array.dtype, n.literal_value) if _is_flat(array) else None


def _stored(array, at, v):
    return types.none if _is_flat(array) and array.mutable and array.dtype == v.dtype else None


@_word(load, _loaded, types.Array, types.Integer, types.IntegerLiteral)
def _load(context, builder, signature, arguments):
    vector = signature.return_type
    places = _places(context, builder, signature, arguments, vector)
    return _joined(builder, [builder.load(p, align=vector.dtype.bitwidth // 8) for p in places])


@_word(
    entry, lambda array, at: array.dtype if _is_flat(array) else None, types.Array, types.Integer
)
def _entry(context, builder, signature, arguments):
    array, at, place = _place(context, builder, signature, arguments)
    if context.enable_boundscheck:
        cgutils.do_boundscheck(context, builder, at, array.nitems)
    return builder.load(place)


@_word(store, _stored, types.Array, types.Integer, Vector)
def _store(context, builder, signature, arguments):
    vector = signature.args[2]
    places = _places(context, builder, signature, arguments, vector)
    for place, part in zip(places, _parts(builder, arguments[2]), strict=True):
        builder.store(part, place, align=vector.dtype.bitwidth // 8)
    return context.get_dummy_value()


@_word(prefetch, lambda array, at: types.none, types.Array, types.Integer)
def _prefetch(context, builder, signature, arguments):
    _, _, place = _place(context, builder, signature, arguments)
    number = ir.IntType(32)
    read, second_level, data = number(0), number(2), number(1)
    kind = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, number, number, number])
    ask = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    builder.call(ask, [builder.bitcast(place, cgutils.voidptr_t), read, second_level, data])
    return context.get_dummy_value()


def _place(context, builder, signature, arguments):
    """Return an array, an index, and a pointer to what is there."""
    array = context.make_array(signature.args[0])(context, builder, arguments[0])
    at = context.cast(builder, arguments[1], signature.args[1], types.intp)
    return array, at, builder.gep(array.data, [at])


def _places(context, builder, signature, arguments, vector):
    """Return pointers to the parts of a vector that stands at an index of an array."""
    array, at, place = _place(context, builder, signature, arguments)
    if context.enable_boundscheck:
        for i in (at, builder.add(at, at.type(vector.n - 1))):
            cgutils.do_boundscheck(context, builder, i, array.nitems)
    part = context.get_value_type(vector).element
    first = builder.bitcast(place, part.as_pointer())
    return [builder.gep(first, [at.type(i)]) for i in range(vector.n // vector.size)]


def _number_or_vector(a, b):
    vector = a if isinstance(a, Vector) else b
    return vector if {a, b} <= {vector, vector.dtype} else None


def _operator(symbol, of_floats, of_integers):
    def emit(context, builder, signature, arguments):
        vector = signature.return_type
        kind = context.get_value_type(vector)
        a, b = (
            _parts(builder, x if isinstance(of, Vector) else _spread(builder, x, kind))
            for x, of in zip(arguments, signature.args, strict=True)
        )
        if isinstance(vector.dtype, types.Float):  # "contract": a * b + c may be one instruction
            emitted = partial(getattr(builder, of_floats), flags=["contract"])
        else:
            emitted = getattr(builder, of_integers)
        return _joined(builder, list(map(emitted, a, b)))

    for operands in (Vector, Vector), (types.Number, Vector), (Vector, types.Number):
        _word(symbol, _number_or_vector, *operands)(emit)


_operator(operator.add, "fadd", "add")
_operator(operator.sub, "fsub", "sub")
_operator(operator.mul, "fmul", "mul")


@_word(splat, lambda x, n: Vector(x, n.literal_value), types.Number, types.IntegerLiteral)
def _splat(context, builder, signature, arguments):
    return _spread(builder, arguments[0], context.get_value_type(signature.return_type))


@_word(len, lambda v: types.literal(v.n), Vector)
def _len(context, builder, signature, arguments):
    return ir.Constant(context.get_value_type(types.intp), signature.args[0].n)


@_word(total, lambda v: v.dtype if isinstance(v.dtype, types.Float) else None, Vector)
def _total(context, builder, signature, arguments):
    part = reduce(partial(builder.fadd, flags=["contract"]), _parts(builder, arguments[0]))
    number = part.type.element
    kind = ir.FunctionType(number, [number, part.type])
    name = f"llvm.vector.reduce.fadd.v{part.type.count}f{signature.return_type.bitwidth}"
    add = cgutils.get_or_insert_function(builder.module, kind, name)
    return builder.call(add, [number(0), part], fastmath=["reassoc", "nsz"])


@_word(nonzero, lambda v: types.uint64 if v.n <= 64 else None, Vector)
def _nonzero(context, builder, signature, arguments):
    (vector,), parts = signature.args, _parts(builder, arguments[0])
    if isinstance(vector.dtype, types.Float):
        differ = builder.fcmp_unordered  # NaN does, too
    else:
        differ = builder.icmp_unsigned
    return _bits(builder, [differ("!=", part, part.type(None)) for part in parts])


@_word(larger, lambda a, b: types.uint64 if _floats(a, b) and a.n <= 64 else None, Vector, Vector)
def _larger(context, builder, signature, arguments):
    pairs = zip(*(_parts(builder, x) for x in arguments), strict=True)
    return _bits(
        builder,
        [
            builder.or_(builder.fcmp_ordered(">", a, b), builder.fcmp_unordered("uno", a, a))
            for a, b in pairs
        ],
    )


def _floats(a, b):
    return a == b and isinstance(a.dtype, types.Float)


def _bits(builder, parts):
    """Return an integer of 64 bits, of what is true in the parts of a vector."""
    bits = ir.IntType(64)(0)
    for i, part in enumerate(parts):
        size = part.type.count
        some = builder.zext(builder.bitcast(part, ir.IntType(size)), bits.type)
        bits = builder.or_(bits, builder.shl(some, bits.type(i * size)))
    return bits


@_word(where, lambda bits, a, b: a if a == b and a.n <= 64 else None, types.Integer, Vector, Vector)
def _where(context, builder, signature, arguments):
    bits = context.cast(builder, arguments[0], signature.args[0], types.uint64)
    chosen = []
    for i, (a, b) in enumerate(zip(*(_parts(builder, x) for x in arguments[1:]), strict=True)):
        size = a.type.count
        some = builder.trunc(builder.lshr(bits, bits.type(i * size)), ir.IntType(size))
        flags = builder.bitcast(some, ir.VectorType(ir.IntType(1), size))
        chosen.append(builder.select(flags, a, b))
    return _joined(builder, chosen)


@_word(popcount, lambda bits: types.intp if bits.bitwidth == 64 else None, types.Integer)
def _popcount(context, builder, signature, arguments):
    return builder.ctpop(arguments[0])


@_word(lowest, lambda bits: types.intp if bits.bitwidth == 64 else None, types.Integer)
def _lowest(context, builder, signature, arguments):
    of_zero_undefined = ir.IntType(1)(1)
    return builder.cttz(arguments[0], of_zero_undefined)


# In LLVM a vector is an array of its parts


def _parts(builder, vector):
    return [builder.extract_value(vector, i) for i in range(vector.type.count)]


def _joined(builder, parts):
    vector = ir.ArrayType(parts[0].type, len(parts))(ir.Undefined)
    for i, part in enumerate(parts):
        vector = builder.insert_value(vector, part, i)
    return vector


def _spread(builder, x, kind):
    """Return a vector of this kind, full of the number x."""
    part, index = kind.element, ir.IntType(32)
    first = builder.insert_element(part(ir.Undefined), x, index(0))
    of_first = ir.VectorType(index, part.count)(None)  # zeros
    return _joined(builder, [builder.shuffle_vector(first, first, of_first)] * kind.count)
