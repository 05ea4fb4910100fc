// Batch norm and other work on a matrix (N, D) whose columns have numbers of their own.
//
// A thread has W neighbouring columns: 4 where D and all addresses allow that (the kernels called _wide), else 1. A block
// has 32 or 16 threads side by side. Each has ROWS rows in flight, all of them read before the first is written, because
// outputs may lie over inputs. Sums over rows go in two levels: ROWS numbers in Real, then float64 within the block and
// over the parts, in a fixed order, without atomics.

template <int W>
struct Block {
    enum { ACROSS = W == 1 ? 32 : 16, LANES = 256 / ACROSS, ROWS = W == 1 ? 8 : 4 };
};

#define COLUMN (blockIdx.y * 32LL + threadIdx.x)            // of the kernels that join parts
#define FIRST (n * blockIdx.x / gridDim.x)                  // the rows of this part: [FIRST, LAST)
#define LAST (n * (blockIdx.x + 1) / gridDim.x)
#define SHAPE                                                                                              \
    constexpr int ACROSS = Block<W>::ACROSS, LANES = Block<W>::LANES, ROWS = Block<W>::ROWS;               \
    const long long j = (blockIdx.y * (long long)ACROSS + threadIdx.x) * W

template <int W>
__device__ inline Pack<W> pack_of(const Stored* p) {
    return *(const Pack<W>*)p;
}

// The sum over the block's rows of threads, in the first of them; work: (W, 256)
template <int W, typename Work>
__device__ inline void sum_block(Work& work, double* value) {
    constexpr int ACROSS = Block<W>::ACROSS, LANES = Block<W>::LANES;
#pragma unroll
    for (int e = 0; e < W; e++) work[e * 256 + threadIdx.y * ACROSS + threadIdx.x] = value[e];
    __syncthreads();
    if (threadIdx.y > 0) return;
#pragma unroll
    for (int e = 0; e < W; e++) {
        value[e] = 0;
        for (int y = 0; y < LANES; y++) value[e] += work[e * 256 + y * ACROSS + threadIdx.x];
    }
}

// parts: (P, 2, D): mean and squared deviation of each part's rows; parts are joined by Chan, Golub & LeVeque 1979.
template <int W, typename Work>
__device__ void moments_of(Work& means, Work& squares, const Stored* __restrict__ x, double* __restrict__ parts,
                           long long n, long long d) {
    SHAPE;
    const long long last = LAST;
    const int mine = threadIdx.y * ACROSS + threadIdx.x;
    double mean[W], square[W], seen = 0;
#pragma unroll
    for (int e = 0; e < W; e++) mean[e] = square[e] = 0;
    if (j < d) {
        for (long long i = FIRST + threadIdx.y * ROWS; i < last; i += LANES * ROWS) {
            const int count = last - i < ROWS ? (int)(last - i) : ROWS;
            const Real share = (Real)1 / count;
            const double weight = count / (seen + count);
            Pack<W> v[ROWS];
#pragma unroll
            for (int k = 0; k < ROWS; k++)
                if (k < count) v[k] = pack_of<W>(x + (i + k) * d + j);
#pragma unroll
            for (int e = 0; e < W; e++) {
                Real sum = 0, spread = 0;
#pragma unroll
                for (int k = 0; k < ROWS; k++) sum += k < count ? (Real)v[k].v[e] : (Real)0;
                const Real middle = sum * share;
#pragma unroll
                for (int k = 0; k < ROWS; k++) {
                    const Real far = k < count ? (Real)v[k].v[e] - middle : (Real)0;
                    spread += far * far;
                }
                const double step = middle - mean[e];
                mean[e] += step * weight;
                square[e] += spread + step * step * seen * weight;
            }
            seen += count;
        }
    }
#pragma unroll
    for (int e = 0; e < W; e++) {
        means[e * 256 + mine] = mean[e];
        squares[e * 256 + mine] = square[e];
    }
    __syncthreads();
    if (threadIdx.y > 0 || j >= d) return;
    const long long rows = last - FIRST;
#pragma unroll
    for (int e = 0; e < W; e++) {
        double before = seen;
        for (int y = 1; y < LANES; y++) {
            // lane y has had the groups of ROWS rows y, y + LANES, ...: of the whole ones, and of what is left behind them
            const long long whole = rows / (LANES * ROWS) * ROWS, rest = rows % (LANES * ROWS) - y * ROWS;
            const double count = whole + (rest < 0 ? 0 : rest < ROWS ? rest : ROWS);
            if (count > 0) {
                const double step = means[e * 256 + y * ACROSS + threadIdx.x] - mean[e], weight = count / (before + count);
                mean[e] += step * weight;
                square[e] += squares[e * 256 + y * ACROSS + threadIdx.x] + step * step * before * weight;
                before += count;
            }
        }
        parts[2 * blockIdx.x * d + j + e] = mean[e];
        parts[(2 * blockIdx.x + 1) * d + j + e] = square[e];
    }
}

extern "C" __global__ void __launch_bounds__(256)
    moments(const Stored* __restrict__ x, double* __restrict__ parts, long long n, long long d) {
    __shared__ double means[256];
    __shared__ double squares[256];
    moments_of<1>(means, squares, x, parts, n, d);
}

extern "C" __global__ void __launch_bounds__(256)
    moments_wide(const Stored* __restrict__ x, double* __restrict__ parts, long long n, long long d) {
    __shared__ double means[1024];
    __shared__ double squares[1024];
    moments_of<4>(means, squares, x, parts, n, d);
}

// The sum of each column of threads of a block of 32 x 32, in order; every thread of the column gets it.
template <typename Work>
__device__ double sum_lanes(Work& work, double value) {
    work[threadIdx.y * 32 + threadIdx.x] = value;
    __syncthreads();
    double sum = 0;
    for (int y = 0; y < 32; y++) sum += work[y * 32 + threadIdx.x];
    __syncthreads();
    return sum;
}

// mean and biased variance from the parts: first the mean of all, then the deviations from it.
extern "C" __global__ void __launch_bounds__(1024) join_moments(const double* __restrict__ parts,
                                                                Real* __restrict__ mean, Real* __restrict__ variance,
                                                                long long count, long long n, long long d) {
    __shared__ double work[1024];
    const long long j = COLUMN;
    double sum = 0, square = 0;
    if (j < d) {
        for (long long p = threadIdx.y; p < count; p += 32)
            sum += (double)(n * (p + 1) / count - n * p / count) * parts[2 * p * d + j];
    }
    const double middle = sum_lanes(work, sum) / n;
    if (j < d) {
        for (long long p = threadIdx.y; p < count; p += 32) {
            const double step = parts[2 * p * d + j] - middle;
            square += parts[(2 * p + 1) * d + j] + (double)(n * (p + 1) / count - n * p / count) * step * step;
        }
    }
    square = sum_lanes(work, square);
    if (threadIdx.y > 0 || j >= d) return;
    mean[j] = (Real)middle;
    variance[j] = (Real)(square / n);
}

// out[j] = sum over p of parts[p, q, j], times factor[j] if q = 0 and there is one; q = blockIdx.x chooses first, second.
extern "C" __global__ void __launch_bounds__(1024) join_sums(const double* __restrict__ parts,
                                                             const Real* __restrict__ factor, Real* __restrict__ first,
                                                             Real* __restrict__ second, long long count, long long d) {
    __shared__ double work[1024];
    const long long j = COLUMN;
    double sum = 0;
    if (j < d) {
        for (long long p = threadIdx.y; p < count; p += 32) sum += parts[(p * gridDim.x + blockIdx.x) * d + j];
    }
    sum = sum_lanes(work, sum);
    if (threadIdx.y > 0 || j >= d) return;
    if (blockIdx.x > 0)
        second[j] = (Real)sum;
    else
        first[j] = (Real)(factor ? sum * factor[j] : sum);
}

// parts: (P, D): sums over the rows of a; a single part is the result, out.
extern "C" __global__ void __launch_bounds__(256) sum_rows(const Stored* __restrict__ a, double* __restrict__ parts,
                                                           Real* __restrict__ out, long long n, long long d) {
    __shared__ double work[256];
    constexpr int W = 1;
    SHAPE;
    const long long last = LAST;
    double total[1] = {0};
    if (j < d) {
        for (long long i = FIRST + threadIdx.y * ROWS; i < last; i += LANES * ROWS) {
            Real v[ROWS], sum = 0;
#pragma unroll
            for (int k = 0; k < ROWS; k++) v[k] = i + k < last ? (Real)a[(i + k) * d + j] : (Real)0;
#pragma unroll
            for (int k = 0; k < ROWS; k++) sum += v[k];
            total[0] += sum;
        }
    }
    sum_block<1>(work, total);
    if (threadIdx.y > 0 || j >= d) return;
    if (gridDim.x == 1)
        out[j] = (Real)total[0];
    else
        parts[blockIdx.x * d + j] = total[0];
}

// dy <- dy where y > 0, else 0, unless y is null; then parts: (P, 2, D): sums of dy (x - mean) and of dy.
template <int W, typename Work>
__device__ void normalise_sums_of(Work& work, Work& more, const Stored* __restrict__ x, const Real* __restrict__ mean,
                                  Stored* dy, const Stored* __restrict__ y, double* __restrict__ parts, long long n,
                                  long long d) {
    SHAPE;
    const long long last = LAST;
    double product[W], total[W];
    Real middle[W];
#pragma unroll
    for (int e = 0; e < W; e++) {
        product[e] = total[e] = 0;
        middle[e] = j < d ? mean[j + e] : (Real)0;
    }
    if (j < d) {
        for (long long i = FIRST + threadIdx.y * ROWS; i < last; i += LANES * ROWS) {
            Pack<W> v[ROWS], s[ROWS], t[ROWS];
#pragma unroll
            for (int k = 0; k < ROWS; k++) {
                if (i + k >= last) continue;
                v[k] = pack_of<W>(x + (i + k) * d + j);
                s[k] = pack_of<W>(dy + (i + k) * d + j);
                if (y) t[k] = pack_of<W>(y + (i + k) * d + j);
            }
            Real p[W], sum[W];
#pragma unroll
            for (int e = 0; e < W; e++) p[e] = sum[e] = 0;
#pragma unroll
            for (int k = 0; k < ROWS; k++) {
                if (i + k >= last) continue;
#pragma unroll
                for (int e = 0; e < W; e++) {
                    if (y && !((Real)t[k].v[e] > 0)) s[k].v[e] = (Real)0;
                    p[e] += ((Real)v[k].v[e] - middle[e]) * (Real)s[k].v[e];
                    sum[e] += (Real)s[k].v[e];
                }
                if (y) *(Pack<W>*)(dy + (i + k) * d + j) = s[k];
            }
#pragma unroll
            for (int e = 0; e < W; e++) {
                product[e] += p[e];
                total[e] += sum[e];
            }
        }
    }
    sum_block<W>(work, product);
    sum_block<W>(more, total);
    if (threadIdx.y > 0 || j >= d) return;
#pragma unroll
    for (int e = 0; e < W; e++) {
        parts[2 * blockIdx.x * d + j + e] = product[e];
        parts[(2 * blockIdx.x + 1) * d + j + e] = total[e];
    }
}

#define NORMALISE_SUMS                                                                                        \
    const Stored *__restrict__ x, const Real *__restrict__ mean, Stored *dy, const Stored *__restrict__ y,    \
        double *__restrict__ parts, long long n, long long d

extern "C" __global__ void __launch_bounds__(256) normalise_sums(NORMALISE_SUMS) {
    __shared__ double work[256];
    __shared__ double more[256];
    normalise_sums_of<1>(work, more, x, mean, dy, y, parts, n, d);
}

extern "C" __global__ void __launch_bounds__(256) normalise_sums_wide(NORMALISE_SUMS) {
    __shared__ double work[1024];
    __shared__ double more[1024];
    normalise_sums_of<4>(work, more, x, mean, dy, y, parts, n, d);
}

// Rows of an elementwise pass: this thread's k-th of ROWS, neighbouring rows to neighbouring rows of threads.
#define ROW ((blockIdx.x * (long long)ROWS + k) * LANES + threadIdx.y)

// y = (x - mean) scale + offset, plus skip unless null; at least 0 where rectify is set. NaN stays.
template <int W>
__device__ inline void normalise_of(const Stored* x, const Real* __restrict__ mean, const Real* __restrict__ scale,
                                    const Real* __restrict__ offset, const Stored* skip, long long rectify, Stored* y,
                                    long long n, long long d) {
    SHAPE;
    if (j >= d) return;
    Pack<W> v[ROWS], s[ROWS];
#pragma unroll
    for (int k = 0; k < ROWS; k++) {
        if (ROW >= n) continue;
        v[k] = pack_of<W>(x + ROW * d + j);
        if (skip) s[k] = pack_of<W>(skip + ROW * d + j);
    }
    Real m[W], a[W], b[W];
#pragma unroll
    for (int e = 0; e < W; e++) m[e] = mean[j + e], a[e] = scale[j + e], b[e] = offset[j + e];
#pragma unroll
    for (int k = 0; k < ROWS; k++) {
        if (ROW >= n) continue;
#pragma unroll
        for (int e = 0; e < W; e++) {
            Real value = ((Real)v[k].v[e] - m[e]) * a[e] + b[e];
            if (skip) value += (Real)s[k].v[e];
            v[k].v[e] = rectify && value < 0 ? (Real)0 : value;
        }
        *(Pack<W>*)(y + ROW * d + j) = v[k];
    }
}

#define NORMALISE                                                                                             \
    const Stored *x, const Real *__restrict__ mean, const Real *__restrict__ scale,                           \
        const Real *__restrict__ offset, const Stored *skip, long long rectify, Stored *y, long long n, long long d

extern "C" __global__ void __launch_bounds__(256) normalise(NORMALISE) {
    normalise_of<1>(x, mean, scale, offset, skip, rectify, y, n, d);
}

extern "C" __global__ void __launch_bounds__(256) normalise_wide(NORMALISE) {
    normalise_of<4>(x, mean, scale, offset, skip, rectify, y, n, d);
}

// dx = scale (dy - offset - (x - mean) slope); dx may be dy.
template <int W>
__device__ inline void normalise_backward_of(const Stored* __restrict__ x, const Real* __restrict__ mean,
                                             const Real* __restrict__ scale, const Stored* dy,
                                             const Real* __restrict__ slope, const Real* __restrict__ offset,
                                             Stored* dx, long long n, long long d) {
    SHAPE;
    if (j >= d) return;
    Pack<W> v[ROWS], s[ROWS];
#pragma unroll
    for (int k = 0; k < ROWS; k++) {
        if (ROW >= n) continue;
        v[k] = pack_of<W>(x + ROW * d + j);
        s[k] = pack_of<W>(dy + ROW * d + j);
    }
    Real m[W], a[W], b[W], g[W];
#pragma unroll
    for (int e = 0; e < W; e++) m[e] = mean[j + e], a[e] = scale[j + e], b[e] = offset[j + e], g[e] = slope[j + e];
#pragma unroll
    for (int k = 0; k < ROWS; k++) {
        if (ROW >= n) continue;
#pragma unroll
        for (int e = 0; e < W; e++)
            s[k].v[e] = a[e] * ((Real)s[k].v[e] - b[e] - ((Real)v[k].v[e] - m[e]) * g[e]);
        *(Pack<W>*)(dx + ROW * d + j) = s[k];
    }
}

#define NORMALISE_BACKWARD                                                                                    \
    const Stored *__restrict__ x, const Real *__restrict__ mean, const Real *__restrict__ scale,              \
        const Stored *dy, const Real *__restrict__ slope, const Real *__restrict__ offset, Stored *dx,        \
        long long n, long long d

extern "C" __global__ void __launch_bounds__(256) normalise_backward(NORMALISE_BACKWARD) {
    normalise_backward_of<1>(x, mean, scale, dy, slope, offset, dx, n, d);
}

extern "C" __global__ void __launch_bounds__(256) normalise_backward_wide(NORMALISE_BACKWARD) {
    normalise_backward_of<4>(x, mean, scale, dy, slope, offset, dx, n, d);
}

// y += bias, row by row.
extern "C" __global__ void __launch_bounds__(256) add_row(Stored* y, const Real* __restrict__ bias, long long n,
                                                          long long d) {
    constexpr int W = 1;
    SHAPE;
    if (j >= d) return;
    const Real b = bias[j];
    Real v[ROWS];
#pragma unroll
    for (int k = 0; k < ROWS; k++) v[k] = ROW < n ? (Real)y[ROW * d + j] : (Real)0;
#pragma unroll
    for (int k = 0; k < ROWS; k++) {
        const long long i = ROW;
        if (i < n) y[i * d + j] = v[k] + b;
    }
}
