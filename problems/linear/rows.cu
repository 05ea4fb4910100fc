// A pass over rows of a linear model, but for its two products. Before this text stands the loss's `loss_of`: steps.cuh.

// z: (B, K) outputs without the intercepts c, which become the slopes; values: the rows' losses times their weights; ws,
// where it is not null, the slopes times them. A thread a row.
template <typename T>
__device__ void slopes_of(T* z, T* ws, double* values, const T* c, const T* y, const double* weights,
                          const double* numbers, long long K, long long b) {
    T* s = z + b * K;
    for (long long k = 0; c && k < K; k++) s[k] += c[k];
    const double w = weights ? weights[b] : 1.0;
    values[b] = w * loss_of(numbers, (double)y[b], s, 0, (int)K);
    for (long long k = 0; ws && k < K; k++) ws[b * K + k] = (T)(w * (double)s[k]);
}

extern "C" __global__ void rows_slopes(void* z, void* ws, double* values, const void* c, const void* y,
                                       const double* weights, const double* numbers, long long K, long long B,
                                       int is_double) {
    const long long b = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (b >= B) return;
    if (is_double)
        slopes_of((double*)z, (double*)ws, values, (const double*)c, (const double*)y, weights, numbers, K, b);
    else
        slopes_of((float*)z, (float*)ws, values, (const float*)c, (const float*)y, weights, numbers, K, b);
}

// (1/B) sum_b (values_b + w_b l2/2 |W|^2), W the first `weighted` numbers of x. One block of 256 threads.
extern "C" __global__ void __launch_bounds__(256) rows_value(double* value, const double* values, const void* x,
                                                             const double* weights, double l2, long long B,
                                                             long long weighted, int is_double) {
    __shared__ double sums[24];
    double total = 0, square = 0, w = 0;
    for (long long b = threadIdx.x; b < B; b += 256) {
        total += values[b];
        w += weights ? weights[b] : 1.0;
    }
    for (long long j = threadIdx.x; j < weighted; j += 256) {
        const double v = is_double ? ((const double*)x)[j] : (double)((const float*)x)[j];
        square += v * v;
    }
    for (int far = 16; far > 0; far /= 2) {
        total += __shfl_xor_sync(0xffffffffu, total, far);
        square += __shfl_xor_sync(0xffffffffu, square, far);
        w += __shfl_xor_sync(0xffffffffu, w, far);
    }
    const int warp = threadIdx.x / 32;
    if (threadIdx.x % 32 == 0) {
        sums[3 * warp] = total;
        sums[3 * warp + 1] = square;
        sums[3 * warp + 2] = w;
    }
    __syncthreads();
    if (threadIdx.x > 0) return;
    total = square = w = 0;
    for (int q = 0; q < 24; q += 3) {
        total += (double)sums[q];
        square += (double)sums[q + 1];
        w += (double)sums[q + 2];
    }
    *value = (total + 0.5 * l2 * w * square) / B;
}
