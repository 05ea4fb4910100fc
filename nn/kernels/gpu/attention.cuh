// Attention in tiles, the softmax's statistics carried along: Dao 2023, FlashAttention-2, algorithms 1 and 2.
//
// A block has some queries of one head, or some keys of one head, in shared memory ("rows"), and goes through the keys,
// or the queries, that they meet ("columns") tile by tile; the next tile is on its way while one is worked on. Scores and
// sums are float32, in registers. reference_attention.py derives the gradients. They take two launches: dq by blocks of
// queries, dk and dv by blocks of keys, over all heads that share them. So each sum has one thread and a fixed order, and
// the price is a second pass over the scores: 7 products of T S D numbers instead of the 5 that sums by atomics need.
// Here is what a tile needs; attention_passes.cuh has the three passes.
//
// How products are formed is a Way (attention.cu: FFMA; attention_tensor.cu: tensor cores). A thread of it holds R x C
// scores and R x OUT results: rows row(r), columns col(c) and out_col(c); LANES neighbouring threads share a row.
//
// Exponentials are powers of two: scores come times log2(e), and p = 2^(s - m). lse is kept in natural logarithms.

constexpr int PIECE = 16 / sizeof(Stored);                  // numbers in a chunk
constexpr float LN2 = 0.6931471805599453f, LOG2E = 1.4426950408889634f;

struct Options {                                            // sizes, and How of reference_attention.py
    int queries, keys, heads, groups, d, first, causal, window, kind, length, columns;
    float scale;
    const bool* keep;                                       // (B, S) or null
    const float* slopes;                                    // (H,) or null
    const long long* rows;                                  // (B,) or null
    unsigned long long key, least;                          // dropout: what draws `least` or more stays, times share
    float share;                                            // 0: no dropout
};

#define OPTIONS                                                                                                    \
    long long queries, long long keys, long long heads, long long groups, long long d, long long first,            \
        long long causal, long long window, long long kind, long long length, long long columns, double scale,     \
        const bool *keep, const float *slopes, const long long *rows, unsigned long long key,                      \
        unsigned long long least, double share, long long memory
#define OPTED                                                                                                      \
    Options {                                                                                                      \
        (int)queries, (int)keys, (int)heads, (int)groups, (int)d, (int)first, (int)causal, (int)window, (int)kind, \
            (int)length, (int)columns, (float)scale, keep, slopes, rows, key, least, (float)share                  \
    }

__device__ inline float infinite() { return float_of(0x7f800000u); }
__device__ inline int least_of(int a, int b) { return a < b ? a : b; }
__device__ inline int most_of(int a, int b) { return a > b ? a : b; }

// Whether pattern and keep let the query at position i see key j, j < S; keep: of this row of the batch.
__device__ inline bool sees(const Options& how, const bool* keep, int i, int j) {
    const int apart = i < j ? j - i : i - j;
    if (how.kind == 1 && apart >= how.length && apart % how.length) return false;
    if (how.kind == 2 && i / how.length != j / how.length && j % how.length < how.length - how.columns) return false;
    return !keep || keep[j];
}

struct Span {                                               // from lo on, before hi
    int lo, hi;
};

// The keys that queries at the positions [first, last] may see at most, and the queries (numbers) of keys [first, last].
__device__ inline Span keys_of(const Options& how, int first, int last) {
    Span found = {0, how.keys};
    if (how.causal) found.hi = least_of(found.hi, last + 1);
    if (how.window) found = {most_of(0, first - how.window + 1), least_of(found.hi, last + how.window)};
    return found;
}

__device__ inline Span queries_of(const Options& how, int first, int last) {
    Span found = {0, how.queries};
    if (how.causal) found.lo = most_of(0, first - how.first);
    if (how.window) found.lo = most_of(found.lo, first - how.window + 1 - how.first);
    if (how.window) found.hi = least_of(found.hi, last + how.window - how.first);
    return found;
}

// A bit for each of a thread's pairs (r, c), number C r + c: what costs much is asked in a loop, of one pair at a time.
template <typename Way, typename Test>
__device__ inline unsigned long long bits(Test test) {
    static_assert(Way::R * Way::C <= 64);
    unsigned long long found = 0;
#pragma unroll 1
    for (int n = 0; n < Way::R * Way::C; n++) found |= (unsigned long long)test(Way::row(n / Way::C), Way::col(n % Way::C)) << n;
    return found;
}

// Scores in units of log2(e), those of pairs that may not see each other at -inf. i0: the position of the tile's first
// query, j0: its first key. TURNED: rows are keys.
template <typename Way, bool TURNED>
__device__ inline void limit(typename Way::Scores& s, const Options& how, const bool* keep, float slope, int i0, int j0) {
    constexpr int TALL = TURNED ? Way::COLS : Way::ROWS, LONG = TURNED ? Way::ROWS : Way::COLS;
    constexpr int FAR = 1 << 30;
    const int low = how.causal ? 0 : how.window ? 1 - how.window : -FAR, high = how.window ? how.window : FAR;
    const int far = i0 - j0;                                // low <= i - j < high, or the query sees nothing
    const bool all = j0 + LONG <= how.keys && far - LONG + 1 >= low && far + TALL - 1 < high;
    unsigned long long seen = ~0ULL;
    if (how.kind || keep)
        seen = bits<Way>([&](int row, int col) {
            const int i = i0 + (TURNED ? col : row), j = j0 + (TURNED ? row : col);
            return j < how.keys && sees(how, keep, i, j);
        });
    const float factor = how.scale * LOG2E;
#pragma unroll
    for (int r = 0; r < Way::R; r++)
#pragma unroll
        for (int c = 0; c < Way::C; c++) {
            const int i = TURNED ? Way::col(c) : Way::row(r), j = TURNED ? Way::row(r) : Way::col(c), by = far + i - j;
            float& v = Way::of(s, r, c);
            v *= factor;
            if (slope != 0) v -= slope * (by < 0 ? -by : by);
            if (!all && (by < low || by >= high || j0 + j >= how.keys)) v = -infinite();
            if (!(seen >> (r * Way::C + c) & 1)) v = -infinite();
        }
}

// Dropout: a bit for each pair that stays. start: the number of the first query's draw of its first key.
template <typename Way, bool TURNED>
__device__ inline unsigned long long stays(const Options& how, unsigned long long start) {
    if (how.share == 0) return ~0ULL;
    return bits<Way>([&](int row, int col) {
        const unsigned long long number = start + (unsigned long long)(TURNED ? col : row) * how.keys + (TURNED ? row : col);
        return mix64(how.key + (number + 1) * 0x9E3779B97F4A7C15ULL) >> 41 >= how.least;
    });
}

// Rows from `start` on of a matrix, `step` numbers apart, to `tile` at `base`; zeros behind the last and behind d, up to
// a multiple of 16 numbers.
template <typename Way, int ROWS, typename Tile>
__device__ inline void copy_rows(Tile& tile, int base, const Stored* from, int start, int count, int step, int d) {
    const int used = (d + 15) / 16 * (16 / PIECE);
#pragma unroll
    for (int n = 0; n < ROWS * Way::CHUNKS / Way::THREADS; n++) {
        const int at = n * Way::THREADS + threadIdx.x, row = at / Way::CHUNKS, chunk = at % Way::CHUNKS;
        const bool there = start + row < count && chunk * PIECE < d;
        if (chunk < used)
            copy_chunk(tile, base + Way::place(row, chunk),
                       there ? from + (long long)(start + row) * step + chunk * PIECE : from, there);
    }
}

template <typename Way>
__device__ inline float sum_lanes(float v) {
#pragma unroll
    for (int far = 1; far < Way::LANES; far *= 2) v += __shfl_xor_sync(0xffffffffu, v, far);
    return v;
}

template <typename Way>
__device__ inline float largest(float v) {
#pragma unroll
    for (int far = 1; far < Way::LANES; far *= 2) v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, far));
    return v;
}

// Results times factor[r] to rows of `to`, `step` numbers apart.
template <typename Way>
__device__ inline void store(typename Way::Results& out, const float* factor, Stored* to, int start, int count, int step,
                             int d) {
#pragma unroll
    for (int r = 0; r < Way::R; r++) {
        const int row = start + Way::row(r);
        if (row >= count) continue;
#pragma unroll
        for (int c = 0; c < Way::OUT; c += 2) {
            if (Way::out_col(c) >= d) continue;
            Pack<2> pair;
            pair.v[0] = Way::of(out, r, c) * factor[r], pair.v[1] = Way::of(out, r, c + 1) * factor[r];
            *(Pack<2>*)(to + (long long)row * step + Way::out_col(c)) = pair;
        }
    }
}
