// Attention of float32 numbers with products in float32: register tiles of 4 x 4 scores and of 4 x WIDTH/8 results.
//
// A block has 64 rows and tiles of 32 columns; its 128 threads stand 16 x 8. A warp is 4 x 8 of them, so that for four
// terms it reads 4 chunks of rows and 4 of columns for each thread's 64 multiply-adds: 8 accesses without conflicts of
// banks beside 16 cycles of the four schedulers. For results it is 12 beside 32 at a width of 64. So FFMA sets the time.
// At a width of 64 a thread has 128 or 168 registers and a block 56 or 72 KB of shared memory: 4 blocks of a forward
// pass, 3 of a backward one on a multiprocessor. At 128 it is 250 registers and 104 KB: 2 blocks.

template <int WIDTH>
struct Plain {
    static constexpr int THREADS = 128, ROWS = 64, COLS = 32, R = 4, C = 4, OUT = WIDTH / 8, LANES = 8;
    static constexpr int CHUNKS = WIDTH / PIECE, SPARE = ROWS * COLS / PIECE;       // of p, on its way to other threads
    typedef float Scores[R][C];
    typedef float Results[R][OUT];

    __device__ static int row(int r) { return threadIdx.x / 8 + 16 * r; }
    __device__ static int col(int c) { return threadIdx.x % 8 * 4 + c; }
    __device__ static int out_col(int c) { return (threadIdx.x % 8 + c / 4 * 8) * 4 + c % 4; }
    // of a warp's reads, 4 neighbouring rows and 8 rows with 4 between them lie in different banks
    __device__ static int place(int row, int chunk) { return row * CHUNKS + (chunk ^ ((row + (row >> 2)) & 7)); }

    template <typename T>
    __device__ static float& of(T& s, int r, int c) {
        return s[r][c];
    }

    // s = rows columns'
    template <typename Tile>
    __device__ static void scores(Scores& s, Tile& tile, int rows, int columns, int d) {
#pragma unroll
        for (int n = 0; n < R * C; n++) s[n / C][n % C] = 0;
#pragma unroll 1
        for (int chunk = 0; chunk < d / PIECE; chunk++) {
            Chunk a[R], b[C];
#pragma unroll
            for (int r = 0; r < R; r++) a[r] = tile[rows + place(row(r), chunk)];
#pragma unroll
            for (int c = 0; c < C; c++) b[c] = tile[columns + place(col(c), chunk)];
#pragma unroll
            for (int e = 0; e < 4; e++)
#pragma unroll
                for (int n = 0; n < R * C; n++) s[n / C][n % C] += float_of(a[n / C].v[e]) * float_of(b[n % C].v[e]);
        }
    }

    // out += s columns; s goes to the other threads through `spare`. again: it was used since the last barrier.
    template <typename Tile>
    __device__ static void accumulate(Results& out, const Scores& s, Tile& tile, int columns, int spare, int d, bool again) {
        if (again) __syncthreads();
#pragma unroll
        for (int r = 0; r < R; r++) {
            Chunk p;
#pragma unroll
            for (int c = 0; c < C; c++) p.v[c] = bits_of(s[r][c]);
            tile[spare + row(r) * 8 + (threadIdx.x % 8 ^ (row(r) & 7))] = p;
        }
        __syncthreads();
#pragma unroll 1
        for (int four = 0; four < COLS / 4; four++) {
            Chunk p[R];
#pragma unroll
            for (int r = 0; r < R; r++) p[r] = tile[spare + row(r) * 8 + (four ^ (row(r) & 7))];
#pragma unroll
            for (int e = 0; e < 4; e++)
#pragma unroll
                for (int m = 0; m < OUT / 4; m++) {
                    if (m * 32 >= d) continue;
                    const int chunk = threadIdx.x % 8 + 8 * m;
                    if (chunk * PIECE >= d) continue;
                    const Chunk b = tile[columns + place(4 * four + e, chunk)];
#pragma unroll
                    for (int n = 0; n < R * 4; n++)
                        out[n / 4][m * 4 + n % 4] += float_of(p[n / 4].v[e]) * float_of(b.v[n % 4]);
                }
        }
    }
};


extern "C" __global__ void __launch_bounds__(128, 4) attention_64(ATTENTION) {
    constexpr int SIZE = Layout<Plain<64>, 2, false>::SIZE;
    SHARED(tile, SIZE);
    if (memory != SIZE) __trap();
    forward<Plain<64>>(tile, q, k, v, o, lse, OPTED);
}

extern "C" __global__ void __launch_bounds__(128, 2) attention_128(ATTENTION) {
    constexpr int SIZE = Layout<Plain<128>, 2, false>::SIZE;
    SHARED(tile, SIZE);
    if (memory != SIZE) __trap();
    forward<Plain<128>>(tile, q, k, v, o, lse, OPTED);
}

extern "C" __global__ void __launch_bounds__(128, 3) attention_queries_64(ATTENTION_BACKWARD) {
    constexpr int SIZE = Layout<Plain<64>, 2, true>::SIZE;
    SHARED(tile, SIZE);
    if (memory != SIZE) __trap();
    backward<Plain<64>, false, 2>(tile, q, k, v, o, dy, lse, dots, first_out, second_out, OPTED);
}

extern "C" __global__ void __launch_bounds__(128, 3) attention_keys_64(ATTENTION_BACKWARD) {
    constexpr int SIZE = Layout<Plain<64>, 2, true>::SIZE;
    SHARED(tile, SIZE);
    if (memory != SIZE) __trap();
    backward<Plain<64>, true, 2>(tile, q, k, v, o, dy, lse, dots, first_out, second_out, OPTED);
}

extern "C" __global__ void __launch_bounds__(128, 2) attention_queries_128(ATTENTION_BACKWARD) {
    constexpr int SIZE = Layout<Plain<128>, 1, true>::SIZE;
    SHARED(tile, SIZE);
    if (memory != SIZE) __trap();
    backward<Plain<128>, false, 1>(tile, q, k, v, o, dy, lse, dots, first_out, second_out, OPTED);
}

extern "C" __global__ void __launch_bounds__(128, 2) attention_keys_128(ATTENTION_BACKWARD) {
    constexpr int SIZE = Layout<Plain<128>, 1, true>::SIZE;
    SHARED(tile, SIZE);
    if (memory != SIZE) __trap();
    backward<Plain<128>, true, 1>(tile, q, k, v, o, dy, lse, dots, first_out, second_out, OPTED);
}
