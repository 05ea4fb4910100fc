// Convolutions as products of matrices on tensor cores, the columns of windows never written: chunks of 16 bytes go
// from the images to shared memory as they are needed. Sums are float32. Every output has one thread, in a fixed order.
//
// A block's terms come in slices of 128 bytes (32 floats, 64 halves), STAGES of them on their way at a time. Its warps,
// DOWN x ACROSS, make 16 TALL x 16 WIDE outputs each: 64 x 64 where there are enough, so that a word of shared memory
// is used eight times for each time that it is read.

constexpr int SLICE = 128 / sizeof(Stored);                 // terms in a slice
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

// Where a chunk of a row of 8 chunks lies: a column's neighbours in different banks.
__device__ inline int spread(int row, int chunk) { return row * 8 + (chunk ^ (row & 7)); }

// sum += a b for a warp's 16 TALL x 16 WIDE outputs and 32 bytes of their terms; a and b are rounded in place.
template <int TALL, int WIDE>
__device__ inline void add_products(float (&sum)[TALL][WIDE * 2][4], unsigned (&a)[TALL][4], unsigned (&b)[WIDE][4]) {
    const Stored* kind = nullptr;
#pragma unroll
    for (int k = 0; k < TALL * 4; k++) a[k / 4][k % 4] = rounded(kind, a[k / 4][k % 4]);
#pragma unroll
    for (int k = 0; k < WIDE * 4; k++) b[k / 4][k % 4] = rounded(kind, b[k / 4][k % 4]);
#pragma unroll
    for (int i = 0; i < TALL; i++)
#pragma unroll
        for (int j = 0; j < WIDE * 2; j++) multiply(kind, sum[i][j], a[i], b[j / 2] + 2 * (j % 2));
}

// y[position, n] = bias[n] + sum over taps and channels of x[pixel(position, tap), c] w[n, tap, c]
// x: images of c channels   w: (count, taps, c)   y: images of `count` channels   positions: images rows columns
template <int DOWN, int ACROSS, int TALL, int WIDE, int STAGES, typename Tile>
__device__ inline void convolve(Tile& tile, const Stored* __restrict__ x, const Stored* __restrict__ w,
                                const float* __restrict__ bias, Stored* __restrict__ y, const View v, int c, int count,
                                int positions) {
    constexpr int ROWS = 16 * TALL * DOWN, COLS = 16 * WIDE * ACROSS, THREADS_ = 32 * DOWN * ACROSS, STEP = THREADS_ / 8;
    constexpr int MINE = ROWS / STEP, ITS = COLS / STEP, STAGE = (ROWS + COLS) * 8;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, chunk = threadIdx.x % 8, my = threadIdx.x / 8;
    const int first = blockIdx.x * ROWS, column = blockIdx.y * COLS;
    const int per_tap = c / SLICE, slices = v.taps_down * v.taps_across * per_tap;
    int pixel[MINE], at[MINE];                              // of tap (0, 0): its number, and (row, column) as 16 bits each
#pragma unroll
    for (int k = 0; k < MINE; k++) {
        const int position = first + my + k * STEP, line = position / v.columns, image = line / v.rows;
        const int h = (line - image * v.rows) * v.down + v.top, z = (position - line * v.columns) * v.right + v.left;
        pixel[k] = (image * v.height + h) * v.width + z;
        at[k] = position < positions ? h * 65536 + (z & 65535) : -(1 << 30);
    }
    const Stored* filter = w + (long long)(column + my) * slices * SLICE + chunk * PIECE;
    int down = 0, across = 0, part = 0;                     // tap and channels of the slice that is loaded next
    auto load = [&](int slice) {
        if (slice < slices) {
            const int base = slice % STAGES * STAGE, by = down * v.down_tap, aside = across * v.right_tap;
            const Stored* from = x + (long long)(by * v.width + aside) * c + part * SLICE + chunk * PIECE;
#pragma unroll
            for (int k = 0; k < MINE; k++) {
                const int h = (at[k] >> 16) + by, z = (short)at[k] + aside;
                const bool inside = h >= 0 && h < v.height && z >= 0 && z < v.width;
                copy_chunk(tile, base + spread(my + k * STEP, chunk), inside ? from + (long long)pixel[k] * c : x, inside);
            }
#pragma unroll
            for (int k = 0; k < ITS; k++) {
                const bool there = column + my + k * STEP < count;
                const Stored* row = filter + ((long long)k * STEP * slices + slice) * SLICE;
                copy_chunk(tile, base + ROWS * 8 + spread(my + k * STEP, chunk), there ? row : w, there);
            }
            if (++part == per_tap) {
                part = 0;
                if (++across == v.taps_across) across = 0, down++;
            }
        }
        commit_copies();
    };
    for (int s = 0; s < STAGES - 1; s++) load(s);
    float sum[TALL][WIDE * 2][4];
#pragma unroll
    for (int k = 0; k < TALL * WIDE * 8; k++) sum[k / (WIDE * 8)][k / 4 % (WIDE * 2)][k % 4] = 0;
    const int top = warp / ACROSS * TALL * 16, left = warp % ACROSS * WIDE * 16;
    for (int slice = 0; slice < slices; slice++) {
        wait_for_copies<STAGES - 2>();
        __syncthreads();                                    // the slice is there, and all are done with the one before
        load(slice + STAGES - 1);
        const int base = slice % STAGES * STAGE;
#pragma unroll
        for (int quarter = 0; quarter < 4; quarter++) {
            unsigned a[TALL][4], b[WIDE][4];
#pragma unroll
            for (int i = 0; i < TALL; i++)
                load_rows(a[i], tile, base + spread(top + i * 16 + lane % 16, 2 * quarter + lane / 16));
#pragma unroll
            for (int j = 0; j < WIDE; j++)
                load_rows(b[j], tile, base + ROWS * 8 + spread(left + j * 16 + lane % 8 + lane / 16 * 8,
                                                               2 * quarter + lane / 8 % 2));
            add_products<TALL, WIDE>(sum, a, b);
        }
    }
#pragma unroll
    for (int i = 0; i < TALL * 2; i++) {
        const int position = first + top + i * 8 + lane / 4;
        if (position >= positions) continue;
        const int line = position / v.columns, image = line / v.rows;
        const int h = (line - image * v.rows) * v.out_down + v.out_top;
        const int z = (position - line * v.columns) * v.out_right + v.out_left;
        Stored* to = y + (((long long)image * v.out_height + h) * v.out_width + z) * count;
#pragma unroll
        for (int j = 0; j < WIDE * 2; j++) {
            const int n = column + left + j * 8 + lane % 4 * 2;
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

extern "C" __global__ void __launch_bounds__(128) convolve_128(CONVOLUTION) {     // 128 x 128 outputs
    SHARED(tile, 6144);
    convolve<2, 2, 4, 4, 3>(tile, x, w, bias, y, VIEWED, (int)c, (int)count, (int)positions);
}

extern "C" __global__ void __launch_bounds__(256) convolve_wide(CONVOLUTION) {    // 256 x 128
    SHARED(tile, 9216);
    convolve<4, 2, 4, 4, 3>(tile, x, w, bias, y, VIEWED, (int)c, (int)count, (int)positions);
}

extern "C" __global__ void __launch_bounds__(128) convolve_256(CONVOLUTION) {     // 256 x 64
    SHARED(tile, 5120);
    convolve<4, 1, 4, 4, 2>(tile, x, w, bias, y, VIEWED, (int)c, (int)count, (int)positions);
}

extern "C" __global__ void __launch_bounds__(128) convolve_64(CONVOLUTION) {      // 64 x 64
    SHARED(tile, 4096);
    convolve<2, 2, 2, 2, 4>(tile, x, w, bias, y, VIEWED, (int)c, (int)count, (int)positions);
}

// Where a chunk of a row of numbers lies, rows being terms: what a product reads at once in different banks.
template <int CHUNKS>
__device__ inline int turned(int row, int chunk) {
    return row * CHUNKS + (chunk ^ (sizeof(Stored) == 4 ? (row & 3) << 1 : row & 7));
}

// The words of 16 outputs from `at` on and a quarter of the slice's terms, of a factor (rows: terms, chunks: outputs).
template <int CHUNKS, typename Tile>
__device__ inline void load_turned(unsigned* out, Tile& tile, int base, int quarter, int at, bool first) {
    const int lane = threadIdx.x % 32;
    if constexpr (sizeof(Stored) == 2) {
        const int block = lane / 8, far = first ? block / 2 : block % 2, aside = first ? block % 2 : block / 2;
        load_columns(out, tile, base + turned<CHUNKS>(16 * quarter + 8 * far + lane % 8, at / 8 + aside));
    } else {
#pragma unroll
        for (int m = 0; m < 4; m++) {
            const int far = first ? m / 2 : m % 2, aside = first ? m % 2 : m / 2, output = at + 8 * aside + lane / 4;
            out[m] = word_of(tile, base + turned<CHUNKS>(8 * quarter + 4 * far + lane % 4, output / 4), output % 4);
        }
    }
}

// sums[part, o, n] = sum over the part's positions of dy[position, o] x[pixel(position, tap), c], n = tap c' + c
// dy: (positions, count)   x: images of c channels   sums: (parts, count, taps c)   a part has `length` positions
template <int DOWN, int ACROSS, int TALL, int WIDE, int STAGES, typename Tile>
__device__ inline void weights(Tile& tile, const Stored* __restrict__ dy, const Stored* __restrict__ x,
                               float* __restrict__ sums, const View v, int c, int count, int positions, int length) {
    constexpr int ROWS = 16 * TALL * DOWN, COLS = 16 * WIDE * ACROSS, THREADS_ = 32 * DOWN * ACROSS;
    constexpr int UP = ROWS / PIECE, LONG = COLS / PIECE, STAGE = SLICE * (UP + LONG);      // chunks of a row, a stage
    constexpr int RISE = THREADS_ / UP, STEP = THREADS_ / LONG;                             // rows that are copied at once
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int row = blockIdx.y * ROWS, all = v.taps_down * v.taps_across * c;
    const int begin = blockIdx.z * length, end = begin + length < positions ? begin + length : positions;
    const int o = row + threadIdx.x % UP * PIECE, rise = threadIdx.x / UP, chunk = threadIdx.x % LONG;
    const int n = blockIdx.x * COLS + chunk * PIECE, tap = n / c, i = tap / v.taps_across;
    const int by = i * v.down_tap + v.top, aside = (tap - i * v.taps_across) * v.right_tap + v.left;
    const Stored* from = x + n - tap * c;
    const Stored* mine = dy + o;
    // the position that is copied next, and how far the next one is
    int position = begin + threadIdx.x / LONG, z = position % v.columns, h = position / v.columns % v.rows;
    int image = position / v.columns / v.rows;
    const int far = STEP % v.columns, deep = STEP / v.columns % v.rows, images = STEP / v.columns / v.rows;
    auto load = [&](int slice) {
        const int base = slice % STAGES * STAGE, start = begin + slice * SLICE;
        if (start < end) {
#pragma unroll
            for (int k = 0; k < SLICE / RISE; k++) {
                const int term = rise + k * RISE;
                const bool there = start + term < end && o < count;
                copy_chunk(tile, base + turned<UP>(term, threadIdx.x % UP),
                           there ? mine + (long long)(start + term) * count : dy, there);
            }
#pragma unroll
            for (int k = 0; k < SLICE / STEP; k++) {
                const int u = h * v.down + by, t = z * v.right + aside;
                const bool there = position < end && n < all && u >= 0 && u < v.height && t >= 0 && t < v.width;
                copy_chunk(tile, base + SLICE * UP + turned<LONG>(threadIdx.x / LONG + k * STEP, chunk),
                           there ? from + (((long long)image * v.height + u) * v.width + t) * c : x, there);
                position += STEP, z += far, h += deep, image += images;
                if (z >= v.columns) z -= v.columns, h++;
                if (h >= v.rows) h -= v.rows, image++;
            }
        }
        commit_copies();
    };
    for (int s = 0; s < STAGES - 1; s++) load(s);
    float sum[TALL][WIDE * 2][4];
#pragma unroll
    for (int k = 0; k < TALL * WIDE * 8; k++) sum[k / (WIDE * 8)][k / 4 % (WIDE * 2)][k % 4] = 0;
    const int top = warp / ACROSS * TALL * 16, left = warp % ACROSS * WIDE * 16;
    const int slices = (end - begin + SLICE - 1) / SLICE;
    for (int slice = 0; slice < slices; slice++) {
        wait_for_copies<STAGES - 2>();
        __syncthreads();
        load(slice + STAGES - 1);
        const int base = slice % STAGES * STAGE;
#pragma unroll
        for (int quarter = 0; quarter < 4; quarter++) {
            unsigned a[TALL][4], b[WIDE][4];
#pragma unroll
            for (int k = 0; k < TALL; k++) load_turned<UP>(a[k], tile, base, quarter, top + k * 16, true);
#pragma unroll
            for (int k = 0; k < WIDE; k++) load_turned<LONG>(b[k], tile, base + SLICE * UP, quarter, left + k * 16, false);
            add_products<TALL, WIDE>(sum, a, b);
        }
    }
#pragma unroll
    for (int k = 0; k < TALL * 2; k++) {
        const int output = row + top + k * 8 + lane / 4;
        if (output >= count) continue;
        float* to = sums + ((long long)blockIdx.z * count + output) * all;
#pragma unroll
        for (int j = 0; j < WIDE * 2; j++) {
            const int at = blockIdx.x * COLS + left + j * 8 + lane % 4 * 2;
            if (at < all) to[at] = sum[k / 2][j][k % 2 * 2], to[at + 1] = sum[k / 2][j][k % 2 * 2 + 1];
        }
    }
}

#define WEIGHTS                                                                                               \
    const Stored *dy, const Stored *x, float *sums, VIEW, long long c, long long count, long long positions, \
        long long length

extern "C" __global__ void __launch_bounds__(128) weights_128(WEIGHTS) {          // 128 x 128 outputs
    SHARED(tile, 6144);
    weights<2, 2, 4, 4, 3>(tile, dy, x, sums, VIEWED, (int)c, (int)count, (int)positions, (int)length);
}

extern "C" __global__ void __launch_bounds__(128) weights_64(WEIGHTS) {           // 64 x 128
    SHARED(tile, 4608);
    weights<2, 2, 2, 4, 3>(tile, dy, x, sums, VIEWED, (int)c, (int)count, (int)positions, (int)length);
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
