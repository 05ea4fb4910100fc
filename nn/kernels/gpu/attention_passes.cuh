// The passes of attention.cuh: a block's rows, and its way through the columns that they meet.

template <typename Way, int STAGES, bool BACKWARD>
struct Layout {                                             // chunks of shared memory
    static constexpr int ROWS = Way::ROWS * Way::CHUNKS, COLS = Way::COLS * Way::CHUNKS;
    static constexpr int TILES = ROWS * (BACKWARD ? 2 : 1), SPARE = TILES + STAGES * 2 * COLS, SIZE = SPARE + Way::SPARE;
};

// Rows are queries of one head and columns keys, step by step; or rows are keys (KEYS) and columns queries, of one head
// after the other of those that share the keys. Under a causal mask the blocks with the most steps come first.
template <typename Way, bool KEYS>
struct Walk {
    int own, others, heads, head, b, start, other, begin, lengths, steps, rows_step, cols_step;
    long long mine, theirs;
    const bool* keep;

    __device__ Walk(const Options& how) {
        const int share = how.heads / how.groups, number = blockIdx.x;
        own = KEYS ? how.keys : how.queries, others = KEYS ? how.queries : how.keys;
        heads = KEYS ? how.groups : how.heads;
        const int tiles = (own + Way::ROWS - 1) / Way::ROWS;
        start = (KEYS ? number % tiles : tiles - 1 - number % tiles) * Way::ROWS;
        head = number / tiles % heads, b = number / tiles / heads, other = KEYS ? head * share : head / share;
        rows_step = heads * how.d, cols_step = (KEYS ? how.heads : how.groups) * how.d;
        mine = ((long long)b * own * heads + head) * how.d;
        theirs = (long long)b * others * cols_step + other * how.d;
        keep = how.keep ? how.keep + (long long)b * how.keys : nullptr;
        const int last = least_of(start + Way::ROWS, own) - 1;
        const Span span = KEYS ? queries_of(how, start, last) : keys_of(how, how.first + start, how.first + last);
        begin = span.lo / Way::COLS * Way::COLS;
        lengths = span.hi > begin ? (span.hi - begin + Way::COLS - 1) / Way::COLS : 0;
        steps = KEYS ? lengths * share : lengths;
    }

    __device__ int column(int step) const { return begin + step % lengths * Way::COLS; }
    __device__ int query_head(int step) const { return KEYS ? other + step / lengths : head; }
    __device__ int query(int step) const { return KEYS ? column(step) : start; }
    __device__ int key(int step) const { return KEYS ? start : column(step); }
    __device__ long long line(const Options& how, int h) const { return ((long long)b * how.heads + h) * how.queries; }

    // The number of the draw of the step's first pair.
    __device__ unsigned long long draw(const Options& how, int step) const {
        const unsigned long long row = how.rows ? how.rows[b] : b;
        return ((row * how.heads + query_head(step)) * how.queries + query(step)) * how.keys + key(step);
    }

    // A step's columns of two matrices are on their way.
    template <typename Tile>
    __device__ void load(Tile& tile, int base, int step, const Stored* one, const Stored* two, int d) const {
        const long long from = theirs + (KEYS ? step / lengths : 0) * d;
        copy_rows<Way, Way::COLS>(tile, base, one + from, column(step), others, cols_step, d);
        copy_rows<Way, Way::COLS>(tile, base + Way::COLS * Way::CHUNKS, two + from, column(step), others, cols_step, d);
        commit_copies();
    }

    template <typename Tile>
    __device__ void load_rows_of(Tile& tile, int base, const Stored* a, int d) const {
        copy_rows<Way, Way::ROWS>(tile, base, a + mine, start, own, rows_step, d);
    }
};

template <typename Way>
__device__ inline void clear(typename Way::Results& out) {
#pragma unroll
    for (int n = 0; n < Way::R * Way::OUT; n++) Way::of(out, n / Way::OUT, n % Way::OUT) = 0;
}

// p = 2^(s - m) in the place of s, times M of dropout; what was summed so far shrinks with the old m.
template <typename Way>
__device__ inline void go_on(typename Way::Scores& s, typename Way::Results& out, float* top, float* total,
                             const Options& how, unsigned long long stay) {
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
}

// o and lse of a block's queries.   q, o: (B, T, H, D)   k, v: (B, S, G, D)   lse: (B, H, T)
template <typename Way, typename Tile>
__device__ inline void forward(Tile& tile, const Stored* q, const Stored* k, const Stored* v, Stored* o, float* lse,
                               const Options& how) {
    using At = Layout<Way, 2, false>;
    const Walk<Way, false> walk(how);
    const int d = how.d;
    const float slope = how.slopes ? how.slopes[walk.head] * LOG2E : 0;
    walk.load_rows_of(tile, 0, q, d);
    commit_copies();
    if (walk.steps > 0) walk.load(tile, At::TILES, 0, k, v, d);
    typename Way::Results out;
    float top[Way::R], total[Way::R];
    clear<Way>(out);
#pragma unroll
    for (int r = 0; r < Way::R; r++) top[r] = -infinite(), total[r] = 0;
    for (int step = 0; step < walk.steps; step++) {
        wait_for_copies<0>();
        __syncthreads();                                    // the tile is there, and all are done with the one before
        const int base = At::TILES + step % 2 * 2 * At::COLS, next = At::TILES + (step + 1) % 2 * 2 * At::COLS;
        if (step + 1 < walk.steps) walk.load(tile, next, step + 1, k, v, d);
        typename Way::Scores s;
        Way::scores(s, tile, 0, base, d);
        limit<Way, false>(s, how, walk.keep, slope, how.first + walk.start, walk.key(step));
        go_on<Way>(s, out, top, total, how, stays<Way, false>(how, walk.draw(how, step)));
        Way::accumulate(out, s, tile, base + At::COLS, At::SPARE, d, false);
    }
#pragma unroll
    for (int r = 0; r < Way::R; r++) {
        const float sum = sum_lanes<Way>(total[r]);
        const int i = walk.start + Way::row(r);
        if (threadIdx.x % Way::LANES == 0 && i < how.queries)
            lse[walk.line(how, walk.head) + i] = sum > 0 ? top[r] * LN2 + logf(sum) : infinite();
        total[r] = 1 / (sum > 0 ? sum : 1);
    }
    store<Way>(out, total, o + walk.mine, walk.start, how.queries, walk.rows_step, d);
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

// p M in the place of s, and ds = p (M dp - do . o) in that of dp. low, dot: lse log2(e) and do . o of each query
template <typename Way, bool KEYS>
__device__ inline void differentiate(typename Way::Scores& s, typename Way::Scores& ds, const float* low, const float* dot,
                                     const Options& how, unsigned long long stay) {
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
}

// dq of a block's queries (KEYS false; it leaves do . o in `dots`), or dk and dv of a block's keys, from `dots`.
template <typename Way, bool KEYS, int STAGES, typename Tile>
__device__ inline void backward(Tile& tile, const Stored* q, const Stored* k, const Stored* v, const Stored* o,
                                const Stored* dy, const float* lse, float* dots, Stored* first, Stored* second,
                                const Options& how) {
    using At = Layout<Way, STAGES, true>;
    constexpr int N = KEYS ? Way::C : Way::R;               // queries of this thread
    const Walk<Way, KEYS> walk(how);
    const Stored *one = KEYS ? q : k, *two = KEYS ? dy : v;
    const int d = how.d;
    walk.load_rows_of(tile, 0, KEYS ? k : q, d);
    walk.load_rows_of(tile, At::ROWS, KEYS ? v : dy, d);
    commit_copies();
    if (STAGES == 2 && walk.steps > 0) walk.load(tile, At::TILES, 0, one, two, d);
    float low[N], dot[N], factor[Way::R];
    typename Way::Results out, more;
    clear<Way>(out);
    clear<Way>(more);
    if constexpr (!KEYS) dots_of<Way>(dot, o + walk.mine, dy + walk.mine, walk.start, walk.own, walk.rows_step, d);
    for (int step = 0; step < walk.steps; step++) {
        const int base = At::TILES + step % STAGES * 2 * At::COLS, next = At::TILES + (step + 1) % STAGES * 2 * At::COLS;
        if (STAGES == 1) __syncthreads(), walk.load(tile, base, step, one, two, d);
        const int h = walk.query_head(step), i0 = walk.query(step);
        if (KEYS || step == 0) {
#pragma unroll
            for (int n = 0; n < N; n++) {
                const int i = i0 + (KEYS ? Way::col(n) : Way::row(n));
                low[n] = i < how.queries ? lse[walk.line(how, h) + i] * LOG2E : infinite();
                if (KEYS) dot[n] = i < how.queries ? dots[walk.line(how, h) + i] : 0;
            }
        }
        wait_for_copies<0>();
        __syncthreads();
        if (STAGES == 2 && step + 1 < walk.steps) walk.load(tile, next, step + 1, one, two, d);
        typename Way::Scores s, ds;
        Way::scores(s, tile, 0, base, d);
        Way::scores(ds, tile, At::ROWS, base + At::COLS, d);
        limit<Way, KEYS>(s, how, walk.keep, how.slopes ? how.slopes[h] * LOG2E : 0, how.first + i0, walk.key(step));
        differentiate<Way, KEYS>(s, ds, low, dot, how, stays<Way, KEYS>(how, walk.draw(how, step)));
        if constexpr (KEYS) Way::accumulate(more, s, tile, base + At::COLS, At::SPARE, d, false);
        Way::accumulate(out, ds, tile, base, At::SPARE, d, KEYS);
    }
#pragma unroll
    for (int r = 0; r < Way::R; r++) {
        const int i = walk.start + Way::row(r);
        if (!KEYS && threadIdx.x % Way::LANES == 0 && i < walk.own) dots[walk.line(how, walk.head) + i] = dot[KEYS ? 0 : r];
        factor[r] = how.scale;
    }
    store<Way>(out, factor, first + walk.mine, walk.start, walk.own, walk.rows_step, d);
#pragma unroll
    for (int r = 0; r < Way::R; r++) factor[r] = 1;
    if constexpr (KEYS) store<Way>(more, factor, second + walk.mine, walk.start, walk.own, walk.rows_step, d);
    wait_for_copies<0>();
}

#define ATTENTION const Stored *q, const Stored *k, const Stored *v, Stored *o, float *lse, OPTIONS
#define ATTENTION_BACKWARD                                                                                        \
    const Stored *q, const Stored *k, const Stored *v, const Stored *o, const Stored *dy, const float *lse,       \
        float *dots, Stored *first_out, Stored *second_out, OPTIONS
