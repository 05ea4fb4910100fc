// Convolutions as products of matrices on tensor cores, the columns of windows never written: chunks of 16 bytes go
// from the images to shared memory as they are needed. Sums are float32. Every output has one thread, in a fixed order.
//
// A block makes ROWS x COLS outputs. Its terms come in slices of 64 bytes (16 floats, 32 halves), STAGES of them on
// their way at a time. A warp makes 64 x 32 outputs (32 x 32 in a block of 64 columns): 4 x 4 small products.

constexpr int SLICE = 64 / sizeof(Stored);                  // terms in a slice
constexpr int PIECE = 16 / sizeof(Stored);                  // numbers in a chunk

// Which pixels the positions (image, row, column) of a launch see, tap by tap, and where their outputs go:
//     input pixel (row down + top + i down_tap, column right + left + j right_tap), zero outside of the image;
//     output pixel (row out_down + out_top, column out_right + out_left) of images (out_height, out_width).
struct View {
    int height, width, rows, columns, down, right, top, left, taps_down, taps_across, down_tap, right_tap;
    int out_height, out_width, out_down, out_right, out_top, out_left;
};

#define VIEW                                                                                                         \
    long long height, long long width, long long rows, long long columns, long long down, long long right,           \
        long long top, long long left, long long taps_down, long long taps_across, long long down_tap,               \
        long long right_tap, long long out_height, long long out_width, long long out_down, long long out_right,     \
        long long out_top, long long out_left
#define VIEWED                                                                                                       \
    View {                                                                                                           \
        (int)height, (int)width, (int)rows, (int)columns, (int)down, (int)right, (int)top, (int)left,                \
            (int)taps_down, (int)taps_across, (int)down_tap, (int)right_tap, (int)out_height, (int)out_width,        \
            (int)out_down, (int)out_right, (int)out_top, (int)out_left                                               \
    }

// A position's image, and the pixel of its tap (0, 0).
struct Origin {
    int image, h, w;
};

__device__ inline Origin origin_of(int position, const View& v) {
    const int line = position / v.columns, image = line / v.rows;
    return {image, (line - image * v.rows) * v.down + v.top, (position - line * v.columns) * v.right + v.left};
}

// Where a chunk of a row of 4 chunks lies: neighbours of a column in different banks.
__device__ inline int spread(int row, int chunk) { return row * 4 + (chunk ^ (row >> 1 & 3)); }

// y[position, n] = bias[n] + sum over taps and channels of x[pixel(position, tap), c] w[n, tap, c]
// x: images of c channels   w: (count, taps, c)   y: images of `count` channels   positions: images rows columns
template <int COLS, int THREADS_, int STAGES, typename Tile>
__device__ inline void convolve(Tile& tile, const Stored* __restrict__ x, const Stored* __restrict__ w,
                                const float* __restrict__ bias, Stored* __restrict__ y, const View v, int c, int count,
                                int positions) {
    constexpr int ROWS = 128, WARPS_ACROSS = COLS / 32, DEEP = THREADS_ / 32 / WARPS_ACROSS, TALL = ROWS / DEEP / 16;
    constexpr int MINE = ROWS * 4 / THREADS_, ITS = COLS * 4 / THREADS_, STAGE = (ROWS + COLS) * 4;
    const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
    const int first = blockIdx.x * ROWS, column = blockIdx.y * COLS, chunk = thread % 4;
    const int per_tap = c / SLICE, slices = v.taps_down * v.taps_across * per_tap;
    Origin mine[MINE];
#pragma unroll
    for (int k = 0; k < MINE; k++) {
        const int position = first + thread / 4 + k * (THREADS_ / 4);
        mine[k] = position < positions ? origin_of(position, v) : Origin{0, -(1 << 28), 0};
    }
    int tap_down = 0, tap_across = 0, part = 0;             // of the slice that is loaded next
    auto load = [&](int slice) {
        if (slice < slices) {
            const int base = slice % STAGES * STAGE, at = part * SLICE + chunk * PIECE;
#pragma unroll
            for (int k = 0; k < MINE; k++) {
                const int h = mine[k].h + tap_down * v.down_tap, z = mine[k].w + tap_across * v.right_tap;
                const bool inside = h >= 0 && h < v.height && z >= 0 && z < v.width;
                const long long pixel = inside ? ((long long)mine[k].image * v.height + h) * v.width + z : 0;
                copy_chunk(tile, base + spread(thread / 4 + k * (THREADS_ / 4), chunk), x + pixel * c + at, inside);
            }
#pragma unroll
            for (int k = 0; k < ITS; k++) {
                const int row = thread / 4 + k * (THREADS_ / 4), n = column + row;
                const long long from = n < count ? ((long long)n * slices + slice) * SLICE + chunk * PIECE : 0;
                copy_chunk(tile, base + ROWS * 4 + spread(row, chunk), w + from, n < count);
            }
            if (++part == per_tap) {
                part = 0;
                if (++tap_across == v.taps_across) tap_across = 0, tap_down++;
            }
        }
        commit_copies();
    };
    for (int s = 0; s < STAGES - 1; s++) load(s);
    float sum[TALL][4][4];
#pragma unroll
    for (int i = 0; i < TALL * 16; i++) sum[i / 16][i / 4 % 4][i % 4] = 0;
    const int tall = warp / WARPS_ACROSS * TALL * 16, across = warp % WARPS_ACROSS * 32;
    for (int slice = 0; slice < slices; slice++) {
        wait_for_copies<STAGES - 2>();
        __syncthreads();                                    // the slice is there, and all are done with the one before
        load(slice + STAGES - 1);
        const int base = slice % STAGES * STAGE;
#pragma unroll
        for (int half = 0; half < 2; half++) {
            unsigned a[TALL][4], b[2][4];
#pragma unroll
            for (int i = 0; i < TALL; i++)
                load_rows(a[i], tile, base + spread(tall + i * 16 + lane % 16, 2 * half + lane / 16));
#pragma unroll
            for (int j = 0; j < 2; j++)
                load_rows(b[j], tile,
                          base + ROWS * 4 + spread(across + j * 16 + lane % 8 + lane / 16 * 8, 2 * half + lane / 8 % 2));
#pragma unroll
            for (int k = 0; k < TALL * 4; k++) a[k / 4][k % 4] = rounded(x, a[k / 4][k % 4]);
#pragma unroll
            for (int k = 0; k < 8; k++) b[k / 4][k % 4] = rounded(x, b[k / 4][k % 4]);
#pragma unroll
            for (int i = 0; i < TALL; i++)
#pragma unroll
                for (int j = 0; j < 4; j++) multiply(x, sum[i][j], a[i], b[j / 2] + 2 * (j % 2));
        }
    }
#pragma unroll
    for (int i = 0; i < TALL * 2; i++) {
        const int position = first + tall + i * 8 + lane / 4;
        if (position >= positions) continue;
        const int line = position / v.columns, image = line / v.rows;
        const int h = (line - image * v.rows) * v.out_down + v.out_top;
        const int z = (position - line * v.columns) * v.out_right + v.out_left;
        Stored* to = y + (((long long)image * v.out_height + h) * v.out_width + z) * count;
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const int n = column + across + j * 8 + lane % 4 * 2;
            if (n >= count) continue;
            Pack<2> pair;
#pragma unroll
            for (int e = 0; e < 2; e++) pair.v[e] = sum[i / 2][j][i % 2 * 2 + e] + (bias ? bias[n + e] : 0.0f);
            *(Pack<2>*)(to + n) = pair;
        }
    }
}

#define CONVOLUTION                                                                                            \
    const Stored *x, const Stored *w, const float *bias, Stored *y, VIEW, long long c, long long count, \
        long long positions

extern "C" __global__ void __launch_bounds__(256) convolve_128(CONVOLUTION) {
    __shared__ Chunk tile[3072];
    convolve<128, 256, 3>(tile, x, w, bias, y, VIEWED, (int)c, (int)count, (int)positions);
}

extern "C" __global__ void __launch_bounds__(128) convolve_64(CONVOLUTION) {
    __shared__ Chunk tile[3072];
    convolve<64, 128, 4>(tile, x, w, bias, y, VIEWED, (int)c, (int)count, (int)positions);
}

// Where a chunk of a row of numbers lies, rows being terms: what a product reads at once in different banks.
template <int CHUNKS>
__device__ inline int turned(int row, int chunk) {
    return row * CHUNKS + (chunk ^ (sizeof(Stored) == 4 ? (row & 3) << 1 : row & 7));
}

// The words of 16 outputs from `at` on and one half of the slice's terms: of a factor (rows: terms, chunks: outputs).
template <int CHUNKS, typename Tile>
__device__ inline void load_turned(unsigned* out, Tile& tile, int base, int half, int at, bool left) {
    const int lane = threadIdx.x % 32;
    if (sizeof(Stored) == 2) {
        const int block = lane / 8, far = left ? block / 2 : block % 2, aside = left ? block % 2 : block / 2;
        load_columns(out, tile, base + turned<CHUNKS>(16 * half + 8 * far + lane % 8, at / 8 + aside));
        return;
    }
#pragma unroll
    for (int m = 0; m < 4; m++) {
        const int far = left ? m / 2 : m % 2, aside = left ? m % 2 : m / 2, output = at + 8 * aside + lane / 4;
        out[m] = word_of(tile, base + turned<CHUNKS>(8 * half + 4 * far + lane % 4, output / 4), output % 4);
    }
}

// sums[part, o, n] = sum over the part's positions of dy[position, o] x[pixel(position, tap), c], n = tap c' + c
// dy: (positions, count)   x: images of c channels   sums: (parts, count, taps c)   a part has `length` positions
template <int ROWS, int THREADS_, int STAGES, typename Tile>
__device__ inline void weights(Tile& tile, const Stored* __restrict__ dy, const Stored* __restrict__ x,
                               float* __restrict__ sums, const View v, int c, int count, int positions, int length) {
    constexpr int COLS = 128, DEEP = ROWS / 32, ACROSS = THREADS_ / 32 / DEEP, WIDE = COLS / ACROSS / 16;
    constexpr int UP = ROWS / PIECE, LONG = COLS / PIECE, STAGE = SLICE * (UP + LONG);      // chunks of a row, a stage
    constexpr int MINE = SLICE * UP / THREADS_, ITS = SLICE * LONG / THREADS_;
    const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
    const int row = blockIdx.y * ROWS, all = v.taps_down * v.taps_across * c;
    const int begin = blockIdx.z * length, end = begin + length < positions ? begin + length : positions;
    const int n = blockIdx.x * COLS + thread % LONG * PIECE, tap = n / c, i = tap / v.taps_across;
    const int down = i * v.down_tap, across_by = (tap - i * v.taps_across) * v.right_tap;
    auto load = [&](int slice) {
        const int base = slice % STAGES * STAGE, start = begin + slice * SLICE;
        if (start < end) {
#pragma unroll
            for (int k = 0; k < MINE; k++) {
                const int term = thread / UP + k * (THREADS_ / UP), o = row + thread % UP * PIECE;
                const bool there = start + term < end && o < count;
                copy_chunk(tile, base + turned<UP>(term, thread % UP),
                           dy + (there ? (long long)(start + term) * count + o : 0), there);
            }
#pragma unroll
            for (int k = 0; k < ITS; k++) {
                const int term = thread / LONG + k * (THREADS_ / LONG);
                const Origin p = origin_of(start + term, v);
                const int h = p.h + down, z = p.w + across_by;
                const bool there = start + term < end && n < all && h >= 0 && h < v.height && z >= 0 && z < v.width;
                const long long pixel = there ? ((long long)p.image * v.height + h) * v.width + z : 0;
                copy_chunk(tile, base + SLICE * UP + turned<LONG>(term, thread % LONG),
                           x + (there ? pixel * c + n - tap * c : 0), there);
            }
        }
        commit_copies();
    };
    for (int s = 0; s < STAGES - 1; s++) load(s);
    float sum[2][WIDE * 2][4];
#pragma unroll
    for (int k = 0; k < WIDE * 16; k++) sum[k / (WIDE * 8)][k / 4 % (WIDE * 2)][k % 4] = 0;
    const int tall = warp / ACROSS * 32, across = warp % ACROSS * WIDE * 16;
    const int slices = (end - begin + SLICE - 1) / SLICE;
    for (int slice = 0; slice < slices; slice++) {
        wait_for_copies<STAGES - 2>();
        __syncthreads();
        load(slice + STAGES - 1);
        const int base = slice % STAGES * STAGE;
#pragma unroll
        for (int half = 0; half < 2; half++) {
            unsigned a[2][4], b[WIDE][4];
#pragma unroll
            for (int k = 0; k < 2; k++) load_turned<UP>(a[k], tile, base, half, tall + k * 16, true);
#pragma unroll
            for (int k = 0; k < WIDE; k++)
                load_turned<LONG>(b[k], tile, base + SLICE * UP, half, across + k * 16, false);
#pragma unroll
            for (int k = 0; k < 8; k++) a[k / 4][k % 4] = rounded(x, a[k / 4][k % 4]);
#pragma unroll
            for (int k = 0; k < WIDE * 4; k++) b[k / 4][k % 4] = rounded(x, b[k / 4][k % 4]);
#pragma unroll
            for (int k = 0; k < 2; k++)
#pragma unroll
                for (int j = 0; j < WIDE * 2; j++) multiply(x, sum[k][j], a[k], b[j / 2] + 2 * (j % 2));
        }
    }
#pragma unroll
    for (int k = 0; k < 4; k++) {
        const int o = row + tall + k * 8 + lane / 4;
        if (o >= count) continue;
        float* to = sums + ((long long)blockIdx.z * count + o) * all;
#pragma unroll
        for (int j = 0; j < WIDE * 2; j++) {
            const int at = blockIdx.x * COLS + across + j * 8 + lane % 4 * 2;
            if (at < all) to[at] = sum[k / 2][j][k % 2 * 2], to[at + 1] = sum[k / 2][j][k % 2 * 2 + 1];
        }
    }
}

#define WEIGHTS                                                                                               \
    const Stored *dy, const Stored *x, float *sums, VIEW, long long c, long long count, long long positions, \
        long long length

extern "C" __global__ void __launch_bounds__(256) weights_128(WEIGHTS) {
    __shared__ Chunk tile[3072];
    weights<128, 256, 3>(tile, dy, x, sums, VIEWED, (int)c, (int)count, (int)positions, (int)length);
}

extern "C" __global__ void __launch_bounds__(128) weights_64(WEIGHTS) {
    __shared__ Chunk tile[3072];
    weights<64, 128, 4>(tile, dy, x, sums, VIEWED, (int)c, (int)count, (int)positions, (int)length);
}

// out[n, tap, k] of the taps (first + step a, begin + stride b), a < down, b < across: w[n, i, j, k], or w[k, i, j, n]
// where `turn` is set.   w: (o, high, wide, c)   size: numbers of out
extern "C" __global__ void __launch_bounds__(256)
    arrange(const float* __restrict__ w, Stored* __restrict__ out, long long turn, long long o, long long high,
            long long wide, long long c, long long first, long long step, long long down, long long begin,
            long long stride, long long across, long long size) {
    const long long t = blockIdx.x * 256LL + threadIdx.x;
    if (t >= size) return;
    const long long inner = turn ? o : c, k = t % inner, tap = t / inner % (down * across), n = t / inner / (down * across);
    const long long i = first + step * (tap / across), j = begin + stride * (tap % across);
    out[t] = turn ? w[((k * high + i) * wide + j) * c + n] : w[((n * high + i) * wide + j) * c + k];
}

// out[i] = sum over p of parts[p, i], in float64 and in order; parts: (count, n)
extern "C" __global__ void __launch_bounds__(256)
    sum_in_order(const float* __restrict__ parts, float* __restrict__ out, long long count, long long n) {
    const long long i = blockIdx.x * 256LL + threadIdx.x;
    if (i >= n) return;
    double sum = 0;
#pragma unroll 8
    for (long long p = 0; p < count; p++) sum += parts[p * n + i];
    out[i] = (float)sum;
}
