# SPDX-License-Identifier: Apache-2.0
"""Eight doubles as one value of compiled code: a register of AVX-512, two of AVX2, four of NEON.

Arrays are flat; `load(array, i)` takes the i-th eight of them. Left to itself the compiler does not
find such loops: it has to assume that arrays overlap.
"""

import math
import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.core.datamodel import models
from numba.extending import intrinsic, overload, register_model

LANES = 8
"""Channels side by side."""

_DOUBLES = ir.VectorType(ir.DoubleType(), LANES)
_WHOLES = ir.VectorType(ir.IntType(64), LANES)
_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
_ROUND = 6755399441055744.0  # 1.5 * 2^52: adding it leaves a whole number in the low bits


class _Lanes(types.Type):
    def __init__(self) -> None:
        super().__init__(name="lanes")


lanes: Any = _Lanes()


@register_model(_Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _DOUBLES)  # type: ignore[no-untyped-call]


def _pointer(context: Any, builder: Any, kind: Any, array: Any, index: Any) -> Any:
    made = context.make_array(kind)(context, builder, array)
    first = builder.mul(index, ir.Constant(index.type, LANES))
    return builder.bitcast(builder.gep(made.data, [first]), _DOUBLES.as_pointer())


def _intrinsic(function: Any) -> Any:
    """Without the types that numba's own has only where it is looked at by mypy."""
    return intrinsic(function)


@_intrinsic
def load(typing: Any, array: Any, index: Any) -> Any:
    """The index-th eight numbers of a flat array of doubles."""

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        at = context.cast(builder, given[1], signature.args[1], types.intp)
        return builder.load(_pointer(context, builder, signature.args[0], given[0], at), align=8)

    return lanes(array, index), generate


@_intrinsic
def store(typing: Any, array: Any, index: Any, value: Any) -> Any:
    """Write eight numbers; one number is spread."""

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        at = context.cast(builder, given[1], signature.args[1], types.intp)
        pointer = _pointer(context, builder, signature.args[0], given[0], at)
        builder.store(_as_lanes(context, builder, given[2], signature.args[2]), pointer, align=8)
        return context.get_dummy_value()

    return types.void(array, index, value), generate


def _constant(value: Any, kind: Any = _DOUBLES) -> Any:
    return ir.Constant(kind, [value] * LANES)


def _as_lanes(context: Any, builder: Any, value: Any, kind: Any) -> Any:
    if kind == lanes:
        return value
    scalar = context.cast(builder, value, kind, types.float64)
    nothing = ir.Constant(_DOUBLES, ir.Undefined)
    word = ir.IntType(32)
    one = builder.insert_element(nothing, scalar, ir.Constant(word, 0))
    return builder.shuffle_vector(
        one, nothing, ir.Constant(ir.VectorType(word, LANES), [0] * LANES)
    )


@_intrinsic
def spread(typing: Any, scalar: Any) -> Any:
    """One number, eight times."""

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        return _as_lanes(context, builder, given[0], signature.args[0])

    return lanes(scalar), generate


@_intrinsic
def pick(typing: Any, array: Any, index: Any) -> Any:
    """The index-th number of a flat array of doubles, eight times; the index is not looked at."""

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        made = context.make_array(signature.args[0])(context, builder, given[0])
        at = context.cast(builder, given[1], signature.args[1], types.intp)
        number = builder.load(builder.gep(made.data, [at]))
        return _as_lanes(context, builder, number, types.float64)

    return lanes(array, index), generate


def _lanewise(build: Callable[..., Any], count: int) -> Any:
    """A function of one to three lanes or numbers."""

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        values = [
            _as_lanes(context, builder, *part) for part in zip(given, signature.args, strict=True)
        ]
        return build(builder, *values)

    if count == 1:
        return _intrinsic(lambda typing, a: (lanes(a), generate))
    if count == 2:
        return _intrinsic(lambda typing, a, b: (lanes(a, b), generate))
    return _intrinsic(lambda typing, a, b, c: (lanes(a, b, c), generate))


_FUSED = ("contract",)  # products and sums may be one instruction; nothing else is loosened
_OPERATORS = {
    operator.add: _lanewise(lambda b, x, y: b.fadd(x, y, flags=_FUSED), 2),
    operator.sub: _lanewise(lambda b, x, y: b.fsub(x, y, flags=_FUSED), 2),
    operator.mul: _lanewise(lambda b, x, y: b.fmul(x, y, flags=_FUSED), 2),
    operator.truediv: _lanewise(lambda b, x, y: b.fdiv(x, y, flags=_FUSED), 2),
}


def _register(symbol: Any, function: Any) -> None:
    @overload(symbol)
    def implement(a, b):  # type: ignore[no-untyped-def]
        return (lambda a, b: function(a, b)) if lanes in (a, b) else None


for _symbol, _function in _OPERATORS.items():
    _register(_symbol, _function)


def _sqrt(builder: Any, x: Any) -> Any:
    kind = ir.FunctionType(_DOUBLES, [_DOUBLES])
    function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.sqrt.v{LANES}f64")
    return builder.call(function, [x])


def _exponent(builder: Any, x: Any) -> Any:
    """The power of two of a positive number, as a double: its bits behind those of 2^52."""
    bits = builder.lshr(builder.bitcast(x, _WHOLES), _constant(52, _WHOLES))
    behind = builder.or_(bits, _constant(0x4330000000000000, _WHOLES))
    return builder.fsub(builder.bitcast(behind, _DOUBLES), _constant(2.0**52 + 1022))


def _mantissa(builder: Any, x: Any) -> Any:
    """In [0.5, 1)."""
    bits = builder.and_(builder.bitcast(x, _WHOLES), _constant(0x000FFFFFFFFFFFFF, _WHOLES))
    return builder.bitcast(builder.or_(bits, _constant(0x3FE0000000000000, _WHOLES)), _DOUBLES)


def _doubled(builder: Any, x: Any, rounded: Any) -> Any:
    """x 2^n, n in the low bits of `rounded` (n + 1.5 2^52)."""
    shift = builder.shl(builder.bitcast(rounded, _WHOLES), _constant(52, _WHOLES))
    return builder.bitcast(builder.add(builder.bitcast(x, _WHOLES), shift), _DOUBLES)


def _choose(builder: Any, condition: Any, yes: Any, no: Any) -> Any:
    return builder.select(builder.fcmp_ordered(">", condition, _constant(0.0)), yes, no)


root = _lanewise(_sqrt, 1)
larger = _lanewise(lambda b, x, y: b.select(b.fcmp_ordered(">", x, y), x, y), 2)
smaller = _lanewise(lambda b, x, y: b.select(b.fcmp_ordered("<", x, y), x, y), 2)
where_positive = _lanewise(_choose, 3)
"""(c, a, b): a where c > 0, else b."""

_exponents = _lanewise(_exponent, 1)
_mantissas = _lanewise(_mantissa, 1)
_doubling = _lanewise(_doubled, 2)


@njit
def nearest(x: Any) -> Any:
    """The nearest whole number, half to even, of numbers below 2^51."""
    return (x + _ROUND) - _ROUND


@njit
def log(x: Any) -> Any:
    """Natural logarithm of positive normal numbers, to 2e-16 of itself or of 1."""
    m, e = _mantissas(x), _exponents(x)
    low = 0.70710678118654752 - m
    m = where_positive(low, m + m, m)
    e = where_positive(low, e - 1.0, e)
    s = (m - 1.0) / (m + 1.0)
    z = s * s
    series = spread(1 / 21)
    series = series * z + 1 / 19
    series = series * z + 1 / 17
    series = series * z + 1 / 15
    series = series * z + 1 / 13
    series = series * z + 1 / 11
    series = series * z + 1 / 9
    series = series * z + 1 / 7
    series = series * z + 1 / 5
    series = series * z + 1 / 3
    return e * _LN2_HIGH + (e * _LN2_LOW + (s + s) * (series * z + 1.0))


@njit
def exp(x: Any) -> Any:
    """Exponential of numbers from -700 to 700, to 2e-16 of itself."""
    rounded = x * (1 / math.log(2)) + _ROUND
    n = rounded - _ROUND
    r = (x - n * _LN2_HIGH) - n * _LN2_LOW
    series = spread(1 / 6227020800)
    series = series * r + 1 / 479001600
    series = series * r + 1 / 39916800
    series = series * r + 1 / 3628800
    series = series * r + 1 / 362880
    series = series * r + 1 / 40320
    series = series * r + 1 / 5040
    series = series * r + 1 / 720
    series = series * r + 1 / 120
    series = series * r + 1 / 24
    series = series * r + 1 / 6
    series = series * r + 0.5
    return _doubling((series * r + 1.0) * r + 1.0, rounded)
