// Attention on tensor cores: float16, bfloat16, and float32 in TF32; sums and softmax in float32.
//
// Each of the four warps has 16 TALL rows, whose scores it keeps: a score's place in a sum is its place in a factor of
// the next product but for two words (tensor.cuh), so that p and ds never leave the registers. Terms are then taken in
// another order: word t and word t + 4 of TF32 are the columns 2 t and 2 t + 1.
//
// A chunk of columns serves 16 TALL rows when it is read; with TALL = 2 shared memory could feed the units at their full
// rate, with 1 at half of it. Registers allow 2 forward, and 1 backward, where a thread keeps two kinds of scores, and two
// of results for keys: 168 to 255 of them without a spill, 2 or 3 blocks on a multiprocessor. Shared memory is 48 to 96 KB.

// A word of a factor from two numbers of a sum, or from the first alone where a word is a float.
template <typename T>
__device__ inline unsigned word_from(const T*, float low, float high) {
    return T(low).bits | (unsigned)T(high).bits << 16;
}
__device__ inline unsigned word_from(const float* kind, float low, float) { return rounded(kind, bits_of(low)); }

template <int TALL, int LONG, int WIDTH>
struct Tensor {
    static constexpr int THREADS = 128, ROWS = 64 * TALL, COLS = LONG, R = 2 * TALL, C = COLS / 4, OUT = WIDTH / 4;
    static constexpr int LANES = 4, CHUNKS = WIDTH / PIECE, SPARE = 0, TERMS = 2 * PIECE;   // terms of a product
    typedef float Scores[TALL][COLS / 8][4];
    typedef float Results[TALL][WIDTH / 8][4];

    __device__ static int row(int r) { return threadIdx.x / 32 * (16 * TALL) + r * 8 + threadIdx.x % 32 / 4; }
    __device__ static int col(int c) { return c / 2 * 8 + threadIdx.x % 4 * 2 + c % 2; }
    __device__ static int out_col(int c) { return col(c); }
    __device__ static int place(int row, int chunk) { return row * CHUNKS + (chunk ^ (row & 7)); }

    template <typename T>
    __device__ static float& of(T& s, int r, int c) {
        return s[r / 2][c / 2][r % 2 * 2 + c % 2];
    }

    // s = rows columns'
    template <typename Tile>
    __device__ static void scores(Scores& s, Tile& tile, int rows, int columns, int d) {
        const Stored* kind = nullptr;
        const int lane = threadIdx.x % 32, top = threadIdx.x / 32 * (16 * TALL);
#pragma unroll
        for (int n = 0; n < TALL * COLS / 2; n++) s[n / (COLS / 2)][n / 4 % (COLS / 8)][n % 4] = 0;
#pragma unroll 2
        for (int k = 0; k * TERMS < d; k++) {
            unsigned a[TALL][4], b[4];
#pragma unroll
            for (int i = 0; i < TALL; i++) {
                load_rows(a[i], tile, rows + place(top + i * 16 + lane % 16, 2 * k + lane / 16));
#pragma unroll
                for (int n = 0; n < 4; n++) a[i][n] = rounded(kind, a[i][n]);
            }
#pragma unroll
            for (int j = 0; j < COLS / 16; j++) {
                load_rows(b, tile, columns + place(j * 16 + lane % 8 + lane / 16 * 8, 2 * k + lane / 8 % 2));
#pragma unroll
                for (int n = 0; n < 4; n++) b[n] = rounded(kind, b[n]);
#pragma unroll
                for (int n = 0; n < TALL * 2; n++) multiply(kind, s[n / 2][2 * j + n % 2], a[n / 2], b + 2 * (n % 2));
            }
        }
    }

    // The words of columns `at` to at + 15 of a factor for the terms of the k-th product; rows: terms.
    template <typename Tile>
    __device__ static void load_terms(unsigned* b, Tile& tile, int base, int k, int at) {
        const int lane = threadIdx.x % 32;
        if constexpr (sizeof(Stored) == 2) {
            load_columns(b, tile, base + place(16 * k + lane % 16, at / 8 + lane / 16));
        } else {
            const Stored* kind = nullptr;
#pragma unroll
            for (int m = 0; m < 4; m++) {
                const int column = at + m / 2 * 8 + lane / 4;
                b[m] = rounded(kind, word_of(tile, base + place(8 * k + lane % 4 * 2 + m % 2, column / 4), column % 4));
            }
        }
    }

    // out += s columns
    template <typename Tile>
    __device__ static void accumulate(Results& out, Scores& s, Tile& tile, int columns, int, int d, bool) {
        const Stored* kind = nullptr;
        constexpr int HALF = sizeof(Stored) == 2;           // two words of a sum make one of a factor
#pragma unroll
        for (int k = 0; k < COLS / TERMS; k++) {
            unsigned a[TALL][4], b[4];
#pragma unroll
            for (int n = 0; n < TALL * 4; n++) {
                const int i = n / 4, m = n % 4, far = m % 2 * 2;        // m: row g or g + 8, then the later terms
                if constexpr (HALF)
                    a[i][m] = word_from(kind, s[i][2 * k + m / 2][far], s[i][2 * k + m / 2][far + 1]);
                else
                    a[i][m] = word_from(kind, s[i][k][far + m / 2], 0);
            }
#pragma unroll
            for (int at = 0; at < WIDTH; at += 16) {
                if (at >= d) continue;
                load_terms(b, tile, columns, k, at);
#pragma unroll
                for (int n = 0; n < TALL * 2; n++) multiply(kind, out[n / 2][at / 8 + n % 2], a[n / 2], b + 2 * (n % 2));
            }
        }
    }
};

constexpr bool HALVES = sizeof(Stored) == 2;                 // tiles of floats are twice as large: fewer rows and columns

extern "C" __global__ void __launch_bounds__(128, 2) attention_mma_64(ATTENTION) {
    using Way = Tensor<2, HALVES ? 64 : 32, 64>;
    constexpr int SIZE = Layout<Way, 2, false>::SIZE;
    SHARED(tile, SIZE);
    if (memory != SIZE) __trap();
    forward<Way>(tile, q, k, v, o, lse, OPTED);
}

extern "C" __global__ void __launch_bounds__(128, 2) attention_mma_128(ATTENTION) {
    using Way = Tensor<HALVES ? 2 : 1, HALVES ? 64 : 32, 128>;
    constexpr int SIZE = Layout<Way, 2, false>::SIZE;
    SHARED(tile, SIZE);
    if (memory != SIZE) __trap();
    forward<Way>(tile, q, k, v, o, lse, OPTED);
}

extern "C" __global__ void __launch_bounds__(128, 3) attention_mma_queries_64(ATTENTION_BACKWARD) {
    using Way = Tensor<1, HALVES ? 64 : 32, 64>;
    constexpr int SIZE = Layout<Way, 2, true>::SIZE;
    SHARED(tile, SIZE);
    if (memory != SIZE) __trap();
    backward<Way, false, 2>(tile, q, k, v, o, dy, lse, dots, first_out, second_out, OPTED);
}

extern "C" __global__ void __launch_bounds__(128, 2) attention_mma_queries_128(ATTENTION_BACKWARD) {
    using Way = Tensor<1, HALVES ? 64 : 32, 128>;
    constexpr int SIZE = Layout<Way, HALVES ? 2 : 1, true>::SIZE;
    SHARED(tile, SIZE);
    if (memory != SIZE) __trap();
    backward<Way, false, HALVES ? 2 : 1>(tile, q, k, v, o, dy, lse, dots, first_out, second_out, OPTED);
}

extern "C" __global__ void __launch_bounds__(128, 2) attention_mma_keys_64(ATTENTION_BACKWARD) {
    using Way = Tensor<1, HALVES ? 64 : 32, 64>;
    constexpr int SIZE = Layout<Way, 2, true>::SIZE;
    SHARED(tile, SIZE);
    if (memory != SIZE) __trap();
    backward<Way, true, 2>(tile, q, k, v, o, dy, lse, dots, first_out, second_out, OPTED);
}

extern "C" __global__ void __launch_bounds__(128, 2) attention_mma_keys_128(ATTENTION_BACKWARD) {
    using Way = Tensor<1, 32, 128>;
    constexpr int SIZE = Layout<Way, HALVES ? 2 : 1, true>::SIZE;
    SHARED(tile, SIZE);
    if (memory != SIZE) __trap();
    backward<Way, true, HALVES ? 2 : 1>(tile, q, k, v, o, dy, lse, dots, first_out, second_out, OPTED);
}
