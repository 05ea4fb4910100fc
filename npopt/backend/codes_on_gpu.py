"""A formula over arrays of which some are kept as codes, on a GPU: one launch, in which no number is read twice.

A CUDA block takes 2048 numbers, or one block of codes where that has more. It decodes them into registers by a table in
shared memory, runs the formula, finds each block's largest magnitude by shuffles of a warp, across warps in shared
memory, and encodes. Products and sums are rounded one by one, as on the CPU. So numbers, codes and scales are the CPU's
bit for bit, but for formulas with functions that round otherwise there, such as exp or normal.

AdamW with m and v in 8 bits moves 16 bytes a number: x, g and both codes read, x and codes written, and 16 / block for
scales. Of 11.2 million parameters that is 180 MB, 43 us at 4.2 TB/s. Beside it are about 120 instructions a number (of
those that nvcc makes), 47 us on 132 multiprocessors that issue 4 warps' instructions a clock of 1.7 GHz, and 6 reads of
shared memory: 47 us where all of it overlaps, 90 where nothing does. (Computed, not measured. A step of 32 bits, which
moves 28 bytes, was measured at 100 us.) In array code a step is 61 launches.
"""

import functools
import pathlib

from npopt.backend import coding, cuda, sixteen
from npopt.backend.devices import xp
from npopt.backend.draws import CUDA_DRAWS
from npopt.backend.formulas_on_codes import check
from npopt.backend.translation import Cuda, Translation

import numpy as np

HERE = pathlib.Path(__file__).parent
STRIP, LONGEST = 2048, 4096  # numbers of a CUDA block of 256 threads at a time; the longest block of codes
FULL, TURNS = 792, 4  # CUDA blocks, twice what a card holds at a time; beyond, strips that one takes in turn
READ = False, False, False, 0  # of codes that are only read: how they were made makes no difference
OPTIONS = ("-std=c++17", "--fmad=false")  # no product and sum in one rounding
BESIDE = 16 + sixteen.LEAST - sixteen.BOUND  # thresholds and bounds of a table, beside its lines


def takes(x, block):
    """Whether blocks of so many numbers of a device array have a kernel: powers of two, 4 to 4096."""
    return cuda.compiles(x) and 4 <= block <= LONGEST and block & (block - 1) == 0


def tree(bounds):
    """The bounds in the order of a search: those of one depth beside one another, from place 1 on."""
    n = bounds.size + 1
    out = np.zeros(n, np.float32)
    for node in range(1, n):
        depth = node.bit_length() - 1
        out[node] = bounds[(2 * (node - (1 << depth)) + 1) * (n >> depth + 1) - 1]
    return out


def lines(table):
    """A table of sixteen.py as a kernel takes it: for each two octaves the lines of both their pieces, (16, 2, 4), then
    thresholds and bounds."""
    piece, out = table.view(np.int32)[sixteen.PIECE : sixteen.PIECE + 16], np.zeros((16, 2, 4), np.float32)
    for beyond in (0, 1):
        for j, place in enumerate((sixteen.SLOPE, sixteen.SHIFT, sixteen.LAST)):
            out[:, beyond, j] = table[place + np.minimum(piece + beyond, 15)]
    thresholds = table[sixteen.THRESHOLD : sixteen.THRESHOLD + 16]
    return np.concatenate([out.reshape(-1), thresholds, table[sixteen.BOUND : sixteen.LEAST]])


@functools.cache
def before():
    """What comes first in a kernel's text."""
    return f"{CUDA_DRAWS}\nenum {{ DIGITS = {sixteen.DIGITS} }};\n{(HERE / 'codes.cuh').read_text()}\n"


def source(formula, arrays, coded, dtype, block, scalars=()):
    """The text of the kernel. arrays: the arguments that are plain arrays; coded: those that are codes, (name, (bits,
    whether it is drawn, whether it has signs, whether a minus keeps its sign, the code of 0)) each; scalars: (name of a
    0-d array, its dtype) each."""
    coded, scalars = dict(coded), dict(scalars)
    text = lambda name: f"((double){name}[0])" if name in scalars else f"((double){name})"  # noqa: E731
    t = Translation(formula, (*arrays, *coded), dtype, Cuda(), text)
    kept, c, strip = [name for name in coded if name in formula.written], Cuda.C[dtype], max(STRIP, block)
    lines = tables(coded, kept, block, strip // 256)
    even = [f"codes::wide({name}_p_, {4 * np.dtype(dtype).itemsize})" for name in arrays]
    even += [f"codes::wide({name}_p_, {bits // 2})" for name, (bits, *_) in coded.items()]
    lines += [f"const bool wide_ = {' && '.join(even)};"] + [f"const {c} {name} = {code};" for name, code in t.hoisted]
    lines += [f"for (long long strip_ = blockIdx.x; strip_ * {strip} < n; strip_ += gridDim.x) {{"]
    lines += [f"const long long at_ = strip_ * {strip} + threadIdx.x / 32 * 256 + threadIdx.x % 32 * 4;"]
    lines += ["const int left_ = (int)(n - at_ < 132 ? n - at_ : 132);", "const bool whole_ = wide_ && left_ == 132;"]
    for name in arrays:
        lines += [f"{c} {name}_r_[8];", f"codes::take({name}_p_ + at_, whole_, left_, {name}_r_);"]
    for name, (bits, *_) in coded.items():
        given = f"{places(name, bits)}, {name}_values_, {name}_s_ + at_ / {block}, {block}"
        lines += [f"float {name}_r_[8];", f"codes::decode<{bits}>({given}, whole_, left_, {name}_r_);"]
    lines += [f"unsigned {name}_top_[2] = {{0, 0}};" for name in kept]
    lines += body(formula, t, arrays, coded, kept, c)
    lines += [f"codes::give({name}_p_ + at_, whole_, left_, {name}_r_);" for name in arrays if name in formula.written]
    lines += tops(kept, block)
    for name in kept:
        lines += encoding(name, coded[name], block)
    head = f'extern "C" __global__ void __launch_bounds__({strip // 8}) npopt_{formula.name}('
    parameters = parameters_of(formula, arrays, coded, kept, c, scalars)
    return before() + head + ", ".join(parameters) + ") {\n" + "\n".join([*lines, "}", "}"]) + "\n"


def places(name, bits):
    return f"{name}_p_ + at_{'' if bits == 8 else ' / 2'}"


def parameters_of(formula, arrays, coded, kept, c, scalars):
    found = []
    for name in formula.arguments:
        constant = "" if name in formula.written else "const "
        if name in coded:
            found += [f"{constant}unsigned char* {name}_p_", f"{constant}float* {name}_s_", f"const float* {name}_v_"]
            found += [f"const float* {name}_t_"] if name in kept else []
            found += [f"unsigned long long {name}_key_"] if name in kept and coded[name][1] else []
        elif name in arrays:
            found.append(f"{constant}{c}* {name}_p_")
        else:
            kind = "unsigned long long" if name in formula.keys else "double"
            found.append(f"const {Cuda.C[scalars[name]]}* {name}" if name in scalars else f"{kind} {name}")
    return [*found, "long long first_", "long long offset", "long long n"]


def tables(coded, kept, block, warps):
    """Shared memory, filled."""

    def table(name, start, size):
        return [f"__shared__ float {name}[{size}];", f"codes::fill({name}, {start}, {size});"]

    lines = []
    for name, (bits, draw, *_) in coded.items():
        lines += table(f"{name}_values_", f"{name}_v_", 2**bits)
        if name in kept and bits == 8 and not draw:
            lines += [f"__shared__ Line {name}_lines_[32];", f"codes::fill_lines({name}_lines_, {name}_t_);"]
            lines += table(f"{name}_table_", f"{name}_t_ + 128", BESIDE)
        elif name in kept:
            lines += table(f"{name}_table_", f"{name}_t_", 2**bits)
    if block > 256:
        lines += [f"__shared__ unsigned {name}_tops_[{warps}];" for name in kept]
    return [*lines, "__syncthreads();"]


def body(formula, t, arrays, coded, kept, c):
    """The formula on the lane's eight numbers. Where one that is to be kept as a code is not finite, it and its like
    are 0, and plain arrays are as before."""
    lines = ["#pragma unroll", "for (int e_ = 0; e_ < 8; e_++) {", "const int place_ = e_ / 4 * 128 + e_ % 4;"]
    lines += ["const long long i = at_ + place_;"] * bool(formula.keys)
    lines += [f"const {c} {name}_i = {name}_r_[e_];" for name in formula.read if name in arrays or name in coded]
    lines += [f"const {c} {name} = {code};" for name, code in t.body]
    stores = dict(t.stores)
    lines += [f"const float {name}_new_ = (float)({stores[name]});" for name in kept]
    lines += [f"const unsigned {name}_size_ = bits_of({name}_new_) & 0x7fffffffu;" for name in kept]
    fine = " && ".join(["place_ < left_", *(f"{name}_size_ < {coding.INFINITE}u" for name in kept)])
    lines += [f"const bool fine_ = {fine};"]
    lines += [f"if (fine_) {name}_r_[e_] = {code};" for name, code in t.stores if name in arrays]
    for name in kept:
        lines += [f"{name}_r_[e_] = fine_ ? {name}_new_ : 0.0f;"]
        lines += [f"{name}_top_[e_ / 4] = max({name}_top_[e_ / 4], bits_of({name}_r_[e_]) & 0x7fffffffu);"]
    return [*lines, "}"]


def tops(kept, block):
    """The largest magnitudes of blocks, from those of lanes."""
    lines = [f"codes::join<{block}>({name}_top_);" for name in kept]
    if block > 256 and kept:
        lines += ["if (threadIdx.x % 32 == 0) {"]
        lines += [f"{name}_tops_[threadIdx.x / 32] = {name}_top_[0];" for name in kept] + ["}", "__syncthreads();"]
        found = [f"codes::joined<{block}>({name}_tops_, threadIdx.x / 32)" for name in kept]
        lines += [f"{name}_top_[0] = {name}_top_[1] = {top};" for name, top in zip(kept, found, strict=True)]
        lines += ["__syncthreads();"]  # all have read before the next strip's are written
    return lines


def encoding(name, pattern, block):
    """Scales and codes of one array."""
    bits, draw, signed, minus, zero = pattern
    given = f"{name}_table_, {name}_r_[4 * k_ + j_], over_"
    how = f"codes::by_search<{bits}, {int(minus)}>({given}, {zero})"
    if draw:
        how = f"codes::drawn<{bits}>({name}_values_, {given}, {name}_key_, first_ + at_ + 128 * k_ + j_)"
    elif bits == 8:
        how = f"codes::by_lines<{str(signed).lower()}, {int(minus)}>({name}_lines_, {given}, {zero})"
    return [
        "#pragma unroll",
        "for (int k_ = 0; k_ < 2; k_++) {",
        f"const bool zeros_ = {name}_top_[k_] < {coding.NORMAL}u;",
        f"const float scale_ = zeros_ ? 0.0f : float_of({name}_top_[k_]), over_ = 1.0f / scale_;",
        "unsigned word_ = 0;",
        "#pragma unroll",
        f"for (int j_ = 0; j_ < 4; j_++) word_ |= (unsigned)({how}) << {bits} * j_;",
        f"codes::put<{bits}>({places(name, bits)}, k_, whole_, left_, zeros_, {zero}, word_);",
        f"if ((at_ + 128 * k_) % {block} == 0 && 128 * k_ < left_) {name}_s_[(at_ + 128 * k_) / {block}] = scale_;",
        "}",
    ]


compiled = {}  # (formula, CuPy, pattern) -> kernel


def run(formula, args, offset):
    """As formulas_on_codes.run, on a device with a compiler, for blocks that `takes` says."""
    named = dict(zip(formula.arguments, args, strict=True))
    coded = {name: a for name, a in named.items() if hasattr(a, "scales")}
    arrays = {name: a for name, a in named.items() if getattr(a, "ndim", 0) and name not in coded}
    check(formula, arrays, coded)
    some = next(iter(coded.values()))
    m, size = xp(some.codes), max(STRIP, some.block)
    key = formula, m, *pattern(formula, named, m.ndarray)
    if key not in compiled:
        module = m.RawModule(code=source(formula, *key[2:]), options=OPTIONS)
        compiled[key] = module.get_function(f"npopt_{formula.name}")
    given = []
    for name, a in named.items():
        if name in coded:
            values, _, table = a.code.there(a.key is not None)
            given += [a.codes, a.scales, values]
            if name in formula.written:
                given += [table] if a.key is None else [table, np.uint64(a.key)]
        elif isinstance(a, m.ndarray):
            given.append(a)
        else:
            given.append(np.uint64(a) if name in formula.keys else float(a))
    strips = -(-some.size // size)
    grid = strips if strips <= FULL else max(FULL, -(-strips // TURNS))
    compiled[key]((grid,), (size // 8,), (*given, some.first, offset, some.size))


def pattern(formula, named, kind):
    """What a kernel's text depends on, as `source` takes it; kind: the type of the device's arrays."""
    coded = {name: a for name, a in named.items() if hasattr(a, "scales")}
    plain = {name: a for name, a in named.items() if isinstance(a, kind)}
    arrays = tuple(name for name, a in plain.items() if a.ndim)
    some = next(iter(coded.values()))
    found = []
    for name, a in coded.items():
        code, draw = a.code, a.key is not None
        written = draw, code.signed, code.signed and code.signs and not draw, code.zero
        found.append((name, (code.bits, *(written if name in formula.written else READ))))
    scalars = tuple((name, a.dtype.name) for name, a in plain.items() if not a.ndim)
    return arrays, tuple(found), plain[arrays[0]].dtype.name if arrays else some.dtype.name, some.block, scalars
