// Batch norm and other work on a matrix (N, D) whose columns have numbers of their own.
//
// A block of 32 x 8 threads has 32 columns: a warp reads 32 neighbours of a row. Each thread has ROWS rows in flight,
// all of them read before the first is written, because outputs may lie over inputs. Sums over rows go in two levels:
// ROWS numbers in Real, then float64 within the block and over the parts, in a fixed order, without atomics.

#define ROWS 8
#define LANES 8
#define COLUMN (blockIdx.y * 32LL + threadIdx.x)
#define FIRST (n * blockIdx.x / gridDim.x)                  // the rows of this part: [FIRST, LAST)
#define LAST (n * (blockIdx.x + 1) / gridDim.x)

// parts: (P, 2, D): mean and squared deviation of each part's rows; parts are joined by Chan, Golub & LeVeque 1979.
extern "C" __global__ void __launch_bounds__(256) moments(const Stored* __restrict__ x, double* __restrict__ parts,
                                                          long long n, long long d) {
    __shared__ double means[256];
    __shared__ double squares[256];
    __shared__ double counts[256];
    const long long j = COLUMN, last = LAST;
    double mean = 0, square = 0, seen = 0;
    if (j < d) {
        for (long long i = FIRST + threadIdx.y * ROWS; i < last; i += LANES * ROWS) {
            const int count = last - i < ROWS ? (int)(last - i) : ROWS;
            Real v[ROWS], sum = 0, spread = 0;
#pragma unroll
            for (int k = 0; k < ROWS; k++) v[k] = k < count ? (Real)x[(i + k) * d + j] : (Real)0;
#pragma unroll
            for (int k = 0; k < ROWS; k++) sum += v[k];
            const Real middle = sum / count;
#pragma unroll
            for (int k = 0; k < ROWS; k++) spread += k < count ? (v[k] - middle) * (v[k] - middle) : (Real)0;
            const double step = middle - mean, weight = count / (seen + count);
            mean += step * weight;
            square += spread + step * step * seen * weight;
            seen += count;
        }
    }
    const int mine = threadIdx.y * 32 + threadIdx.x;
    means[mine] = mean;
    squares[mine] = square;
    counts[mine] = seen;
    __syncthreads();
    if (threadIdx.y > 0 || j >= d) return;
    for (int y = 1; y < LANES; y++) {
        const double count = counts[y * 32 + threadIdx.x];
        if (count > 0) {
            const double step = means[y * 32 + threadIdx.x] - mean, weight = count / (seen + count);
            mean += step * weight;
            square += squares[y * 32 + threadIdx.x] + step * step * seen * weight;
            seen += count;
        }
    }
    parts[2 * blockIdx.x * d + j] = mean;
    parts[(2 * blockIdx.x + 1) * d + j] = square;
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

// The sum over the block's rows of threads, in the first of them.
template <typename Work>
__device__ double sum_block(Work& work, double value) {
    work[threadIdx.y * 32 + threadIdx.x] = value;
    __syncthreads();
    double sum = 0;
    if (threadIdx.y == 0) {
        for (int y = 0; y < LANES; y++) sum += work[y * 32 + threadIdx.x];
    }
    return sum;
}

// parts: (P, D): sums over the rows of a; a single part is the result, out.
extern "C" __global__ void __launch_bounds__(256) sum_rows(const Stored* __restrict__ a, double* __restrict__ parts,
                                                           Real* __restrict__ out, long long n, long long d) {
    __shared__ double work[256];
    const long long j = COLUMN, last = LAST;
    double total = 0;
    if (j < d) {
        for (long long i = FIRST + threadIdx.y * ROWS; i < last; i += LANES * ROWS) {
            Real v[ROWS], sum = 0;
#pragma unroll
            for (int k = 0; k < ROWS; k++) v[k] = i + k < last ? (Real)a[(i + k) * d + j] : (Real)0;
#pragma unroll
            for (int k = 0; k < ROWS; k++) sum += v[k];
            total += sum;
        }
    }
    total = sum_block(work, total);
    if (threadIdx.y > 0 || j >= d) return;
    if (gridDim.x == 1)
        out[j] = (Real)total;
    else
        parts[blockIdx.x * d + j] = total;
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

// dy <- dy where y > 0, else 0, unless y is null; then parts: (P, 2, D): sums of dy (x - mean) and of dy.
extern "C" __global__ void __launch_bounds__(256) normalise_sums(const Stored* __restrict__ x,
                                                                 const Real* __restrict__ mean, Stored* dy,
                                                                 const Stored* __restrict__ y,
                                                                 double* __restrict__ parts, long long n,
                                                                 long long d) {
    __shared__ double work[256];
    __shared__ double more[256];
    const long long j = COLUMN, last = LAST;
    double product = 0, total = 0;
    if (j < d) {
        const Real middle = mean[j];
        for (long long i = FIRST + threadIdx.y * ROWS; i < last; i += LANES * ROWS) {
            Real v[ROWS], s[ROWS], p = 0, sum = 0;
#pragma unroll
            for (int k = 0; k < ROWS; k++) {
                const long long at = (i + k) * d + j;
                const bool there = i + k < last;
                v[k] = there ? (Real)x[at] : (Real)0;
                s[k] = there ? (Real)dy[at] : (Real)0;
                if (y && there && !((Real)y[at] > 0)) s[k] = 0;
            }
#pragma unroll
            for (int k = 0; k < ROWS; k++) {
                if (y && i + k < last) dy[(i + k) * d + j] = s[k];
                p += (v[k] - middle) * s[k];
                sum += s[k];
            }
            product += p;
            total += sum;
        }
    }
    product = sum_block(work, product);
    total = sum_block(more, total);
    if (threadIdx.y > 0 || j >= d) return;
    parts[2 * blockIdx.x * d + j] = product;
    parts[(2 * blockIdx.x + 1) * d + j] = total;
}

// Rows of an elementwise pass: this thread's k-th of ROWS, neighbouring rows to neighbouring rows of threads.
#define ROW ((blockIdx.x * (long long)ROWS + k) * LANES + threadIdx.y)

// y = (x - mean) scale + offset, plus skip unless null; at least 0 where rectify is set. NaN stays.
extern "C" __global__ void __launch_bounds__(256) normalise(const Stored* x, const Real* __restrict__ mean,
                                                            const Real* __restrict__ scale,
                                                            const Real* __restrict__ offset, const Stored* skip,
                                                            long long rectify, Stored* y, long long n, long long d) {
    const long long j = COLUMN;
    if (j >= d) return;
    const Real m = mean[j], a = scale[j], b = offset[j];
    Real v[ROWS];
#pragma unroll
    for (int k = 0; k < ROWS; k++) {
        const long long i = ROW;
        v[k] = i < n ? ((Real)x[i * d + j] - m) * a + b : (Real)0;
        if (skip && i < n) v[k] += (Real)skip[i * d + j];
    }
#pragma unroll
    for (int k = 0; k < ROWS; k++) {
        const long long i = ROW;
        if (i < n) y[i * d + j] = rectify && v[k] < 0 ? (Real)0 : v[k];
    }
}

// dx = scale (dy - offset - (x - mean) slope); dx may be dy.
extern "C" __global__ void __launch_bounds__(256) normalise_backward(
    const Stored* __restrict__ x, const Real* __restrict__ mean, const Real* __restrict__ scale, const Stored* dy,
    const Real* __restrict__ slope, const Real* __restrict__ offset, Stored* dx, long long n, long long d) {
    const long long j = COLUMN;
    if (j >= d) return;
    const Real m = mean[j], a = scale[j], b = offset[j], e = slope[j];
    Real v[ROWS];
#pragma unroll
    for (int k = 0; k < ROWS; k++) {
        const long long i = ROW, at = i * d + j;
        v[k] = 0;
        if (i < n) v[k] = a * ((Real)dy[at] - b - ((Real)x[at] - m) * e);
    }
#pragma unroll
    for (int k = 0; k < ROWS; k++) {
        const long long i = ROW;
        if (i < n) dx[i * d + j] = v[k];
    }
}

// y += bias, row by row.
extern "C" __global__ void __launch_bounds__(256) add_row(Stored* y, const Real* __restrict__ bias, long long n,
                                                          long long d) {
    const long long j = COLUMN;
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
