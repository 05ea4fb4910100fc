// Convolutions beside their matrix products: columns of windows, and the sum that carries them back.
//
// One block works on a piece of one line (an image's row); a thread has one pixel and W channels of it, so that
// neighbours read and write neighbouring addresses. Every output is written by one thread: no atomics, a fixed order.

// columns[b, h, w, i, j] = x[b, s h + i - p, s w + j - p], zero outside.
template <int W>
__device__ void gather(const Pack<W>* __restrict__ x, Pack<W>* __restrict__ out, Window g, int c) {
    const long long line = blockIdx.x;                      // (image, row of positions)
    const int t = blockIdx.y * blockDim.x + threadIdx.x;
    if (t >= g.columns * c) return;
    const int w = t / c, k = t - w * c;
    const int first = (int)(line % g.rows) * g.down - g.top, begin = w * g.right - g.left;
    const Pack<W>* image = x + line / g.rows * g.height * g.width * c + k;
    Pack<W>* to = out + (line * g.columns + w) * g.kh * g.kw * c + k;
    for (int i = first; i < first + g.kh; i++) {
        const bool inside = i >= 0 && i < g.height;
        for (int j = begin; j < begin + g.kw; j++) {
            Pack<W> v = {};
            if (inside && j >= 0 && j < g.width) v = image[((long long)i * g.width + j) * c];
            *to = v;
            to += c;
        }
    }
}

// dx[b, h, w] = sum of columns[b, (h + p - i)/s, (w + p - j)/s, i, j] over the taps where both quotients are positions.
template <int W>
__device__ void gather_back(const Pack<W>* __restrict__ columns, Pack<W>* __restrict__ dx, Window g, int c) {
    const long long line = blockIdx.x;                      // (image, row of pixels)
    const int t = blockIdx.y * blockDim.x + threadIdx.x;
    if (t >= g.width * c) return;
    const int w = t / c, k = t - w * c, h = (int)(line % g.height);
    const Pack<W>* image = columns + line / g.height * g.rows * g.columns * g.kh * g.kw * c + k;
    Real sum[W] = {};
    for (int i = 0; i < g.kh; i++) {
        const int a = h + g.top - i, row = a / g.down;
        if (a < 0 || row * g.down != a || row >= g.rows) continue;
        for (int j = 0; j < g.kw; j++) {
            const int e = w + g.left - j, column = e / g.right;
            if (e < 0 || column * g.right != e || column >= g.columns) continue;
            const Pack<W> v = image[((((long long)row * g.columns + column) * g.kh + i) * g.kw + j) * c];
            for (int n = 0; n < W; n++) sum[n] += (Real)v.v[n];
        }
    }
    Pack<W> all;
    for (int n = 0; n < W; n++) all.v[n] = sum[n];
    dx[line * g.width * c + t] = all;
}

extern "C" __global__ void __launch_bounds__(256) columns_of(const Stored* x, Stored* out, WINDOW, long long c) {
    gather<1>((const Pack<1>*)x, (Pack<1>*)out, GEOMETRY, (int)c);
}

extern "C" __global__ void __launch_bounds__(256) columns_of_wide(const Stored* x, Stored* out, WINDOW, long long c) {
    gather<WIDE>((const Pack<WIDE>*)x, (Pack<WIDE>*)out, GEOMETRY, (int)c);
}

extern "C" __global__ void __launch_bounds__(256) sum_columns(const Stored* columns_, Stored* dx, WINDOW, long long c) {
    gather_back<1>((const Pack<1>*)columns_, (Pack<1>*)dx, GEOMETRY, (int)c);
}

extern "C" __global__ void __launch_bounds__(256) sum_columns_wide(const Stored* columns_, Stored* dx, WINDOW, long long c) {
    gather_back<WIDE>((const Pack<WIDE>*)columns_, (Pack<WIDE>*)dx, GEOMETRY, (int)c);
}

// out[i] = sum over p of parts[p, i], in float64 and in order; parts: (count, n)
extern "C" __global__ void __launch_bounds__(256) sum_parts(const Real* __restrict__ parts, Real* __restrict__ out,
                                                            long long count, long long n) {
    const long long i = blockIdx.x * 256LL + threadIdx.x;
    if (i >= n) return;
    double sum = 0;
#pragma unroll 8
    for (long long p = 0; p < count; p++) sum += parts[p * n + i];
    out[i] = (Real)sum;
}
