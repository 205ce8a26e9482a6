"""Triton: activations for every kernel that has one, in few instructions.

`gelu(x) = x · Φ(x)`, and `Φ(-|x|) = 2^P(|x|)`: the logarithm of the normal distribution's tail is smooth, so that one
polynomial serves all of it, where libdevice's erf computes two and chooses: behind the last product of a GEGLU to int8
the compiled kernels of sm_89 and sm_90 had 3039 and 3291 instructions, and have 1817 and 2003. Against float64, for
float32 of [-12, 12]: off by 2.1e-7 · |x| at most, where `1 + erf` has 1.1e-7; of results above 1e-6 by 0.03 % of
themselves, where that cancels on the left and is 7 % off.

`sigmoid(x) = 1 / (1 + 2^(-x / ln 2))` is the square of a reciprocal root, one instruction, where a quotient is several;
so is a power of two, where `exp` looks after subnormals.
"""

# Triton reads these functions' source: names in capitals are compile-time constants.
# mypy: ignore-errors
import triton
import triton.language as tl

# Minimax of (P - log2(Φ(-x))) · (Φ(-x) + 0.001 · e^(-x/3)) on [0, 6.5] with P(0) = -1, by linear programming. The last
# is negative: beyond, P falls on, and 2^P is 0.
TAIL_1 = tl.constexpr(-1.1511114835739136)
TAIL_2 = tl.constexpr(-0.4591362774372101)
TAIL_3 = tl.constexpr(-0.05275595188140869)
TAIL_4 = tl.constexpr(0.007478902582079172)
TAIL_5 = tl.constexpr(-0.00046926975483074784)
TAIL_6 = tl.constexpr(-4.872271529166028e-05)
TAIL_7 = tl.constexpr(1.1410419574531261e-05)
TAIL_8 = tl.constexpr(-6.250942305996432e-07)


@triton.jit
def gelu(x):
    """`x · Φ(x)`, float32. NaN stays; minus infinity gives NaN, as by erf."""
    far = tl.abs(x)
    power = TAIL_8 * far + TAIL_7
    power = power * far + TAIL_6
    power = power * far + TAIL_5
    power = power * far + TAIL_4
    power = power * far + TAIL_3
    power = power * far + TAIL_2
    power = power * far + TAIL_1
    tail = tl.exp2(power * far - 1.0)
    return x * tl.where(x < 0.0, tail, 1.0 - tail)


@triton.jit
def sigmoid(x):
    """`1 / (1 + e^-x)`, float32. NaN stays."""
    root = tl.rsqrt(1.0 + tl.exp2(x * -1.4426950408889634))
    return root * root
