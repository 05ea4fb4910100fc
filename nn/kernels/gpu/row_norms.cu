// Norms along the rows of x, (N, D), and rotations of pairs.
//
// Forward a warp has a row. It keeps the first HELD packs of each lane in registers (1024 floats, 2048 halves), so that
// x is read once; what is behind comes again from the caches. A pack is 16 bytes in the kernels called _wide, else a
// number. Sums are in Real.
//
// Backward a block has some rows, 8 at a time: first a warp a row for the two means along it, then a thread a column for
// dx and for its terms of da and db. The second reading finds the 8 rows in the caches: 64 KB for 1024 floats. Where
// rows are short, `teams` of threads share the 8 rows, each with sums of its own.

enum { HELD = 8, ROWS = 8, COLUMNS = 4096 };                // COLUMNS: the widest row of a backward pass

template <int W>
struct alignas(W * sizeof(Real) < 16 ? W * sizeof(Real) : 16) Reals {
    Real v[W];
};

__device__ inline Real sum_warp(Real v) {
#pragma unroll
    for (int far = 16; far > 0; far /= 2) v += __shfl_xor_sync(0xffffffffu, v, far);
    return v;
}

// f(pack, column) for all packs of a lane's row; `held` is written first where LOAD is set.
template <int W, bool LOAD, typename F>
__device__ inline void each(Pack<W> (&held)[HELD], const Stored* row, int d, F f) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int k = 0; k < HELD; k++)
        if (LOAD && (k * 32 + lane) * W < d) held[k] = *(const Pack<W>*)(row + (k * 32 + lane) * W);
#pragma unroll
    for (int k = 0; k < HELD; k++)
        if ((k * 32 + lane) * W < d) f(held[k], (k * 32 + lane) * W);
    for (int j = (HELD * 32 + lane) * W; j < d; j += 32 * W) f(*(const Pack<W>*)(row + j), j);
}

// y = a (x - m) r + b, m the mean of a row if CENTRED, else 0 and without b; r = (mean (x - m)^2 + eps)^(-1/2).
template <int W, bool CENTRED>
__device__ inline void norm_of(const Stored* __restrict__ x, const Real* __restrict__ a, const Real* __restrict__ b,
                               double eps, Stored* __restrict__ y, Real* __restrict__ m, Real* __restrict__ r,
                               long long n, int d) {
    const long long i = blockIdx.x * (long long)ROWS + threadIdx.x / 32;
    if (i >= n) return;                                     // the whole warp
    Pack<W> held[HELD];
    const Stored* row = x + i * d;
    Real sum = 0, square = 0, mean = 0;
    if (CENTRED) {
        each<W, true>(held, row, d, [&](const Pack<W>& v, int) {
#pragma unroll
            for (int e = 0; e < W; e++) sum += (Real)v.v[e];
        });
        mean = sum_warp(sum) / d;
    }
    each<W, !CENTRED>(held, row, d, [&](const Pack<W>& v, int) {
#pragma unroll
        for (int e = 0; e < W; e++) square += ((Real)v.v[e] - mean) * ((Real)v.v[e] - mean);
    });
    const Real scale = 1 / sqrt(sum_warp(square) / d + (Real)eps);
    each<W, false>(held, row, d, [&](const Pack<W>& v, int j) {
        const Reals<W> factor = *(const Reals<W>*)(a + j), offset = CENTRED ? *(const Reals<W>*)(b + j) : factor;
        Pack<W> out;
#pragma unroll
        for (int e = 0; e < W; e++) {
            const Real value = ((Real)v.v[e] - mean) * scale * factor.v[e];
            out.v[e] = CENTRED ? value + offset.v[e] : value;
        }
        *(Pack<W>*)(y + i * d + j) = out;
    });
    if (threadIdx.x % 32 > 0) return;
    r[i] = scale;
    if (CENTRED) m[i] = mean;
}

#define NORM                                                                                                       \
    const Stored *__restrict__ x, const Real *__restrict__ a, const Real *__restrict__ b, double eps,              \
        Stored *__restrict__ y, Real *__restrict__ m, Real *__restrict__ r, long long n, long long d

extern "C" __global__ void __launch_bounds__(256, 3) layer_norm(NORM) { norm_of<1, true>(x, a, b, eps, y, m, r, n, (int)d); }

extern "C" __global__ void __launch_bounds__(256, 3) layer_norm_wide(NORM) {
    norm_of<WIDE, true>(x, a, b, eps, y, m, r, n, (int)d);
}

extern "C" __global__ void __launch_bounds__(256, 3) rms_norm(NORM) { norm_of<1, false>(x, a, b, eps, y, m, r, n, (int)d); }

extern "C" __global__ void __launch_bounds__(256, 3) rms_norm_wide(NORM) {
    norm_of<WIDE, false>(x, a, b, eps, y, m, r, n, (int)d);
}

// With xh = (x - m) r and h = a dy:  dx = r (h - mean h - xh mean(h xh)), without mean h unless CENTRED. dx may be dy, or
// null. parts: (P teams, 2, D): sums over a team's rows of dy xh and of dy, or null.   work: (3, ROWS)
template <int W, bool CENTRED, typename Work>
__device__ inline void norm_backward_of(Work& work, const Stored* __restrict__ x, const Real* __restrict__ a,
                                        const Real* __restrict__ m, const Real* __restrict__ r, const Stored* dy,
                                        Stored* dx, double* __restrict__ parts, int teams, long long n, int d) {
    constexpr int GROUPS = COLUMNS / 256 / W;
    Real product[GROUPS][W], total[GROUPS][W];
#pragma unroll
    for (int k = 0; k < GROUPS * W; k++) product[k / W][k % W] = total[k / W][k % W] = 0;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int wide = 256 / teams, team = threadIdx.x / wide, place = threadIdx.x % wide;
    const long long last = n * (blockIdx.x + 1) / gridDim.x;
    for (long long first = n * blockIdx.x / gridDim.x; first < last; first += ROWS) {
        const long long i = first + warp;
        if (i < last) {
            Real plain = 0, crossed = 0;
            const Real mean = CENTRED ? m[i] : (Real)0;
            if (dx) {
#pragma unroll 4
                for (int j = lane * W; j < d; j += 32 * W) {
                    const Pack<W> v = *(const Pack<W>*)(x + i * d + j), g = *(const Pack<W>*)(dy + i * d + j);
                    const Reals<W> factor = *(const Reals<W>*)(a + j);
#pragma unroll
                    for (int e = 0; e < W; e++) {
                        const Real h = factor.v[e] * (Real)g.v[e];
                        plain += h, crossed += h * ((Real)v.v[e] - mean);
                    }
                }
            }
            plain = sum_warp(plain) / d, crossed = sum_warp(crossed) / d;
            if (lane == 0) work[warp] = mean, work[ROWS + warp] = plain, work[2 * ROWS + warp] = crossed;
        }
        __syncthreads();
        const int rows = last - first < ROWS ? (int)(last - first) : ROWS;
#pragma unroll
        for (int k = 0; k < GROUPS; k++) {
            const int j = (k * wide + place) * W;
            if (j >= d) continue;
            const Reals<W> factor = *(const Reals<W>*)(a + j);
            Real p[W], s[W];
#pragma unroll
            for (int e = 0; e < W; e++) p[e] = s[e] = 0;
#pragma unroll 2
            for (int row = team; row < rows; row += teams) {
                const long long at = (first + row) * d + j;
                const Pack<W> v = *(const Pack<W>*)(x + at);
                Pack<W> g = *(const Pack<W>*)(dy + at);
                const Real scale = r[first + row], mean = work[row], plain = work[ROWS + row];
                const Real slope = work[2 * ROWS + row] * scale;
#pragma unroll
                for (int e = 0; e < W; e++) {
                    const Real up = g.v[e], xh = ((Real)v.v[e] - mean) * scale;
                    p[e] += up * xh, s[e] += up;
                    g.v[e] = scale * (factor.v[e] * up - (CENTRED ? plain : (Real)0) - xh * slope);
                }
                if (dx) *(Pack<W>*)(dx + at) = g;
            }
#pragma unroll
            for (int e = 0; e < W; e++) product[k][e] += p[e], total[k][e] += s[e];
        }
        __syncthreads();
    }
    if (!parts) return;
#pragma unroll
    for (int k = 0; k < GROUPS * W; k++) {
        const int j = (k / W * wide + place) * W + k % W;
        if (j >= d) continue;
        const long long part = blockIdx.x * (long long)teams + team;
        parts[2 * part * d + j] = product[k / W][k % W];
        parts[(2 * part + 1) * d + j] = total[k / W][k % W];
    }
}

#define NORM_BACKWARD                                                                                             \
    const Stored *__restrict__ x, const Real *__restrict__ a, const Real *__restrict__ m,                         \
        const Real *__restrict__ r, const Stored *dy, Stored *dx, double *__restrict__ parts, long long teams,        \
        long long n, long long d

extern "C" __global__ void __launch_bounds__(256, 1) layer_norm_backward(NORM_BACKWARD) {
    __shared__ Real work[24];
    norm_backward_of<1, true>(work, x, a, m, r, dy, dx, parts, (int)teams, n, (int)d);
}

extern "C" __global__ void __launch_bounds__(256, 1) layer_norm_backward_wide(NORM_BACKWARD) {
    __shared__ Real work[24];
    norm_backward_of<WIDE, true>(work, x, a, m, r, dy, dx, parts, (int)teams, n, (int)d);
}

extern "C" __global__ void __launch_bounds__(256, 1) rms_norm_backward(NORM_BACKWARD) {
    __shared__ Real work[24];
    norm_backward_of<1, false>(work, x, a, m, r, dy, dx, parts, (int)teams, n, (int)d);
}

extern "C" __global__ void __launch_bounds__(256, 1) rms_norm_backward_wide(NORM_BACKWARD) {
    __shared__ Real work[24];
    norm_backward_of<WIDE, false>(work, x, a, m, r, dy, dx, parts, (int)teams, n, (int)d);
}

// Pairs of x, (B, T, H, D), in place: (u, v) -> (u cos - v sin, u sin + v cos), a thread a pair, a block a piece of (b, t).
// cos, sin: (T, half).   A pair is (x_2i, x_2i+1) if adjacent is set, else (x_i, x_(i + half)).
extern "C" __global__ void __launch_bounds__(256) rotate(Stored* x, const Stored* __restrict__ cos,
                                                         const Stored* __restrict__ sin, long long adjacent,
                                                         long long times, long long heads, long long d, long long half) {
    const int pair = blockIdx.y * 256 + threadIdx.x, pairs = (int)half, h = pair / pairs, i = pair - h * pairs;
    if (h >= heads) return;
    const long long at = blockIdx.x % times * half + i;
    Stored* row = x + (blockIdx.x * heads + h) * d;
    Stored &u = row[adjacent ? 2 * i : i], &v = row[adjacent ? 2 * i + 1 : i + pairs];
    const Real c = cos[at], s = sin[at], one = u, two = v;
    u = one * c - two * s;
    v = one * s + two * c;
}
