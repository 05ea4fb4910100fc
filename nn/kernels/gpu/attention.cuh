// Attention in tiles, the softmax's statistics carried along: Dao 2023, FlashAttention-2, algorithms 1 and 2.
//
// A block has some queries of one head, or some keys of one head, in shared memory ("rows"), and goes through the keys,
// or the queries, that they meet ("columns") tile by tile; the next tile is on its way while one is worked on. Scores and
// sums are float32, in registers. reference_attention.py derives the gradients. They take two launches: dq by blocks of
// queries, dk and dv by blocks of keys, over all heads that share them. So each sum has one thread and a fixed order, and
// the price is a second pass over the scores: 7 products of T S D numbers instead of the 5 that sums by atomics need.
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

template <typename Way, int STAGES, bool BACKWARD>
struct Layout {                                             // chunks of shared memory
    static constexpr int ROWS = Way::ROWS * Way::CHUNKS, COLS = Way::COLS * Way::CHUNKS;
    static constexpr int TILES = ROWS * (BACKWARD ? 2 : 1), SPARE = TILES + STAGES * 2 * COLS, SIZE = SPARE + Way::SPARE;
};

// o and lse of a block's queries.   q, o: (B, T, H, D)   k, v: (B, S, G, D)   lse: (B, H, T)
template <typename Way, typename Tile>
__device__ inline void forward(Tile& tile, const Stored* q, const Stored* k, const Stored* v, Stored* o, float* lse,
                               const Options& how) {
    using At = Layout<Way, 2, false>;
    const int tiles = (how.queries + Way::ROWS - 1) / Way::ROWS, number = blockIdx.x, d = how.d;
    const int i0 = (tiles - 1 - number % tiles) * Way::ROWS;        // under a causal mask the longest come first
    const int h = number / tiles % how.heads, b = number / tiles / how.heads, g = h / (how.heads / how.groups);
    const bool* keep = how.keep ? how.keep + (long long)b * how.keys : nullptr;
    const long long mine = ((long long)b * how.queries * how.heads + h) * d;
    const long long theirs = ((long long)b * how.keys * how.groups + g) * d;
    const float slope = how.slopes ? how.slopes[h] * LOG2E : 0;
    const unsigned long long draw = (((how.rows ? how.rows[b] : b) * how.heads + h) * how.queries + i0) * how.keys;
    const Span span = keys_of(how, how.first + i0, how.first + least_of(i0 + Way::ROWS, how.queries) - 1);
    auto load = [&](int j0, int stage) {
        const int base = At::TILES + stage * 2 * At::COLS;
        copy_rows<Way, Way::COLS>(tile, base, k + theirs, j0, how.keys, how.groups * d, d);
        copy_rows<Way, Way::COLS>(tile, base + At::COLS, v + theirs, j0, how.keys, how.groups * d, d);
        commit_copies();
    };
    copy_rows<Way, Way::ROWS>(tile, 0, q + mine, i0, how.queries, how.heads * d, d);
    int j0 = span.lo / Way::COLS * Way::COLS, stage = 0;
    load(j0, 0);
    typename Way::Results out;
    float top[Way::R], total[Way::R];
#pragma unroll
    for (int r = 0; r < Way::R; r++) {
        top[r] = -infinite(), total[r] = 0;
#pragma unroll
        for (int c = 0; c < Way::OUT; c++) Way::of(out, r, c) = 0;
    }
    for (; j0 < span.hi; j0 += Way::COLS, stage = 1 - stage) {
        wait_for_copies<0>();
        __syncthreads();                                    // the tile is there, and all are done with the one before
        if (j0 + Way::COLS < span.hi) load(j0 + Way::COLS, 1 - stage);
        const int base = At::TILES + stage * 2 * At::COLS;
        typename Way::Scores s;
        Way::scores(s, tile, 0, base, d);
        limit<Way, false>(s, how, keep, slope, how.first + i0, j0);
        const unsigned long long stay = stays<Way, false>(how, draw + j0);
#pragma unroll
        for (int r = 0; r < Way::R; r++) {
            float high = top[r];
#pragma unroll
            for (int c = 0; c < Way::C; c++) high = fmaxf(high, Way::of(s, r, c));
            high = largest<Way>(high);
            const float middle = high == -infinite() ? 0 : high, shrink = exp2f(top[r] - middle);
            top[r] = high, total[r] *= shrink;
#pragma unroll
            for (int c = 0; c < Way::C; c++) {
                float& p = Way::of(s, r, c);
                p = exp2f(p - middle);
                total[r] += p;
                if (how.share != 0) p *= stay >> (r * Way::C + c) & 1 ? how.share : 0.0f;
            }
#pragma unroll
            for (int c = 0; c < Way::OUT; c++) Way::of(out, r, c) *= shrink;
        }
        Way::accumulate(out, s, tile, base + At::COLS, At::SPARE, d, false);
    }
#pragma unroll
    for (int r = 0; r < Way::R; r++) {
        const float sum = sum_lanes<Way>(total[r]);
        const int i = i0 + Way::row(r);
        if (threadIdx.x % Way::LANES == 0 && i < how.queries)
            lse[((long long)b * how.heads + h) * how.queries + i] = sum > 0 ? top[r] * LN2 + logf(sum) : infinite();
        total[r] = 1 / (sum > 0 ? sum : 1);
    }
    store<Way>(out, total, o + mine, i0, how.queries, how.heads * d, d);
    wait_for_copies<0>();                                   // of the queries, where no key may be seen
}

// dots[r] = do . o for this thread's rows of one head.
template <typename Way>
__device__ inline void dots_of(float* dots, const Stored* o, const Stored* dy, int start, int count, int step, int d) {
#pragma unroll
    for (int r = 0; r < Way::R; r++) {
        const int row = start + Way::row(r);
        float sum = 0;
        for (int at = threadIdx.x % Way::LANES * PIECE; at < d && row < count; at += Way::LANES * PIECE) {
            const Pack<PIECE> one = *(const Pack<PIECE>*)(o + (long long)row * step + at);
            const Pack<PIECE> two = *(const Pack<PIECE>*)(dy + (long long)row * step + at);
#pragma unroll
            for (int e = 0; e < PIECE; e++) sum += (float)one.v[e] * (float)two.v[e];
        }
        dots[r] = sum_lanes<Way>(sum);
    }
}

// dq of a block's queries (KEYS false; it leaves do . o in `dots`), or dk and dv of a block's keys, from `dots`.
template <typename Way, bool KEYS, int STAGES, typename Tile>
__device__ inline void backward(Tile& tile, const Stored* q, const Stored* k, const Stored* v, const Stored* o,
                                const Stored* dy, const float* lse, float* dots, Stored* first, Stored* second,
                                const Options& how) {
    using At = Layout<Way, STAGES, true>;
    constexpr int N = KEYS ? Way::C : Way::R;               // queries of this thread
    const int d = how.d, number = blockIdx.x, share = how.heads / how.groups, own = KEYS ? how.keys : how.queries;
    const int others = KEYS ? how.queries : how.keys, tiles = (own + Way::ROWS - 1) / Way::ROWS;
    const int heads = KEYS ? how.groups : how.heads, head = number / tiles % heads, b = number / tiles / heads;
    const int start = (KEYS ? number % tiles : tiles - 1 - number % tiles) * Way::ROWS;
    const int last = least_of(start + Way::ROWS, own) - 1, other = KEYS ? head * share : head / share;
    const int rows_step = heads * d, cols_step = (KEYS ? how.heads : how.groups) * d;
    const bool* keep = how.keep ? how.keep + (long long)b * how.keys : nullptr;
    const long long mine = ((long long)b * own * heads + head) * d, theirs = (long long)b * others * cols_step;
    const Span span = KEYS ? queries_of(how, start, last) : keys_of(how, how.first + start, how.first + last);
    const int begin = span.lo / Way::COLS * Way::COLS;
    const int lengths = span.hi > begin ? (span.hi - begin + Way::COLS - 1) / Way::COLS : 0;
    const int steps = KEYS ? lengths * share : lengths;     // of dk and dv: head by head
    auto load = [&](int step, int stage) {
        const int base = At::TILES + stage * 2 * At::COLS, at = begin + step % lengths * Way::COLS;
        const long long from = theirs + (other + (KEYS ? step / lengths : 0)) * d;
        copy_rows<Way, Way::COLS>(tile, base, (KEYS ? q : k) + from, at, others, cols_step, d);
        copy_rows<Way, Way::COLS>(tile, base + At::COLS, (KEYS ? dy : v) + from, at, others, cols_step, d);
        commit_copies();
    };
    copy_rows<Way, Way::ROWS>(tile, 0, (KEYS ? k : q) + mine, start, own, rows_step, d);
    copy_rows<Way, Way::ROWS>(tile, At::ROWS, (KEYS ? v : dy) + mine, start, own, rows_step, d);
    commit_copies();
    if (STAGES == 2 && steps > 0) load(0, 0);
    float low[N], dot[N], factor[Way::R], one[Way::R];      // of each query: lse log2(e), do . o
    typename Way::Results out, more;
#pragma unroll
    for (int r = 0; r < Way::R; r++) {
        factor[r] = how.scale, one[r] = 1;
#pragma unroll
        for (int c = 0; c < Way::OUT; c++) Way::of(out, r, c) = 0, Way::of(more, r, c) = 0;
    }
    if constexpr (!KEYS) dots_of<Way>(dot, o + mine, dy + mine, start, own, rows_step, d);
    for (int step = 0, stage = 0; step < steps; step++, stage = STAGES == 2 ? 1 - stage : 0) {
        if (STAGES == 1) __syncthreads(), load(step, 0);
        const int h = KEYS ? other + step / lengths : head, at = begin + step % lengths * Way::COLS;
        const int i0 = KEYS ? at : start, j0 = KEYS ? start : at;
        const long long line = ((long long)b * how.heads + h) * how.queries;
        if (KEYS || step == 0) {
#pragma unroll
            for (int n = 0; n < N; n++) {
                const int i = i0 + (KEYS ? Way::col(n) : Way::row(n));
                low[n] = i < how.queries ? lse[line + i] * LOG2E : infinite();
                if (KEYS) dot[n] = i < how.queries ? dots[line + i] : 0;
            }
        }
        wait_for_copies<0>();
        __syncthreads();
        if (STAGES == 2 && step + 1 < steps) load(step + 1, 1 - stage);
        const int base = At::TILES + stage * 2 * At::COLS;
        const float slope = how.slopes ? how.slopes[h] * LOG2E : 0;
        const unsigned long long draw = (((how.rows ? how.rows[b] : b) * how.heads + h) * how.queries + i0) * how.keys + j0;
        typename Way::Scores s, ds;
        Way::scores(s, tile, 0, base, d);
        Way::scores(ds, tile, At::ROWS, base + At::COLS, d);
        limit<Way, KEYS>(s, how, keep, slope, how.first + i0, j0);
        const unsigned long long stay = stays<Way, KEYS>(how, draw);
#pragma unroll
        for (int r = 0; r < Way::R; r++)
#pragma unroll
            for (int c = 0; c < Way::C; c++) {
                const int n = KEYS ? c : r;
                const float m = how.share == 0 ? 1.0f : stay >> (r * Way::C + c) & 1 ? how.share : 0.0f;
                float &p = Way::of(s, r, c), &dp = Way::of(ds, r, c);
                p = exp2f(p - low[n]);
                dp = p * (m * dp - dot[n]);
                p *= m;
            }
        if constexpr (KEYS) Way::accumulate(more, s, tile, base + At::COLS, At::SPARE, d, false);
        Way::accumulate(out, ds, tile, base, At::SPARE, d, KEYS);
    }
    if constexpr (!KEYS) {
#pragma unroll
        for (int r = 0; r < Way::R; r++)
            if (threadIdx.x % Way::LANES == 0 && start + Way::row(r) < own)
                dots[((long long)b * how.heads + head) * how.queries + start + Way::row(r)] = dot[r];
    }
    store<Way>(out, factor, first + mine, start, own, rows_step, d);
    if constexpr (KEYS) store<Way>(more, one, second + mine, start, own, rows_step, d);
    wait_for_copies<0>();
}

#define ATTENTION const Stored *q, const Stored *k, const Stored *v, Stored *o, float *lse, OPTIONS
#define ATTENTION_BACKWARD                                                                                                 \
    const Stored *q, const Stored *k, const Stored *v, const Stored *o, const Stored *dy, const float *lse,      \
        float *dots, Stored *first_out, Stored *second_out, OPTIONS
