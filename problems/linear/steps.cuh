// What the compiled steps of linear models share on a GPU; the algebra stands in problems/linear/steps.py. Real is float
// or double. Before this text stands the loss:
//
//     template <typename S> double loss_of(const double* numbers, double y, S& s, int first, int K)
//
// the loss at the K outputs that s holds from `first` on; they become the slopes. All kernels are one block, which makes
// the steps one after the other. Sums are float64, and their order depends on shapes alone.

enum { WARPS = 8, AHEAD = 4, HELD = 16384 / sizeof(Real), CELLS = 2048 };
enum { SLOTS = 768, OUTPUTS = 128 };                        // at most: size K, and K

// rows: batch behind batch, `size` rows each; weights: like rows, or null. plan: numbers of the steps, (., steps + 1).
// table, mean: null for SGD; they follow the steps where it `moves`. buffer: of momentum, or null. losses: (steps,); one that is not finite is the last.
struct Steps {
    Real* x;
    const Real* y;
    const long long* rows;
    const double *weights, *plan, *numbers;
    Real *table, *mean, *buffer;
    double* losses;
    long long n, steps;
    int d, dim, K, size;
    double l2, l1, beta;
    bool moves;
};

#define STEPS                                                                                                         \
    Real *x, const Real *y, const long long *rows, const double *weights, const double *plan, const double *numbers,  \
        Real *table, Real *mean, Real *buffer, double *losses, long long n, long long steps, long long d, long long dim,            \
        long long K, long long size, double l2, double l1, double beta,        \
        long long moves
#define GATHERED                                                                                                     \
    Steps {                                                                                                          \
        x, y, rows, weights, plan, numbers, table, mean, buffer, losses, n, steps, (int)d, (int)dim, (int)K, (int)size, l2,  \
            l1, beta, moves != 0                                                                                           \
    }

__device__ inline double planned(const Steps& p, int which, long long t) { return p.plan[which * (p.steps + 1) + t]; }

__device__ inline double weight(const Steps& p, long long at) { return p.weights ? p.weights[at] : 1.0; }

__device__ inline bool infinite(double v) { return v - v != 0; }                        // or NaN

__device__ inline double above(double v) { return v > 0 || v != v ? v : 0.0; }

__device__ inline double soft(double v, double t) { return above(v - t) - above(-v - t); }

__device__ inline double warp_sum(double v) {
    for (int far = 16; far > 0; far /= 2) v += __shfl_xor_sync(0xffffffffu, v, far);
    return v;
}

// Sums of a and of b over the block, for all its threads. place: 2 WARPS numbers, that nobody else uses before the
// barrier after the next one.
template <typename V>
__device__ void block_sums(double& a, double& b, V& place, int first) {
    const int warp = threadIdx.x / 32, warps = blockDim.x / 32;
    a = warp_sum(a), b = warp_sum(b);
    if (threadIdx.x % 32 == 0) {
        place[first + 2 * warp] = a;
        place[first + 2 * warp + 1] = b;
    }
    __syncthreads();
    a = b = 0;
    for (int w = 0; w < warps; w++) {
        a += (double)place[first + 2 * w];
        b += (double)place[first + 2 * w + 1];
    }
}

// What the rows of a batch leave for each other in shared memory. s: outputs, then slopes; e: errors; shift: for SAGA the
// changes of the table over n, of a row that comes twice in the batch once; values: weighted losses.
template <typename Long, typename Short>
struct Room {
    Long &s, &e, &shift, &values;
    Short& part;
};

// A batch's outputs are (row, k) pairs; a warp sums one of `pieces` of a pair, so that few pairs keep all warps busy.
__device__ inline int pieces(const Steps& p) {
    const int pairs = p.size * p.K, warps = blockDim.x / 32;
    return pairs < warps ? warps / pairs : 1;
}

// A piece's sum from the lanes of its warp.
template <typename R>
__device__ void keep(R& room, int piece, int cut, double sum) {
    sum = warp_sum(sum);
    if (threadIdx.x % 32) return;
    if (cut == 1) room.s[piece] = sum;
    else room.part[piece] = sum;
}

template <typename R>
__device__ double kept(R& room, int pair, int cut) {
    if (cut == 1) return room.s[pair];
    double sum = 0;
    for (int c = 0; c < cut; c++) sum += (double)room.part[pair * cut + c];
    return sum;
}

// Row b of batch t, whose outputs room.s holds.
template <typename R>
__device__ void judge(const Steps& p, long long t, int b, double penalty, R& room) {
    const long long* batch = p.rows + t * p.size;
    const long long i = batch[b];
    const double w = weight(p, t * p.size + b);
    room.values[b] = w * (loss_of(p.numbers, (double)p.y[i], room.s, b * p.K, p.K) + penalty);
    bool again = false;
    for (int c = 0; p.moves && c < b; c++) again = again || batch[c] == i;
    for (int k = 0; k < p.K; k++) {
        const int at = b * p.K + k;
        const double slope = room.s[at], old = p.table ? (double)p.table[i * p.K + k] : 0.0;
        room.e[at] = (slope - old) * w / p.size;
        if (p.moves) room.shift[at] = again ? 0.0 : ((double)(Real)slope - old) / p.n;
    }
}

// The batch's loss from those of its rows: each warp for itself, all in the same order.
template <typename R>
__device__ double batch_loss(const Steps& p, R& room) {
    double total = 0;
    for (int b = threadIdx.x % 32; b < p.size; b += 32) total += (double)room.values[b];
    return warp_sum(total) / p.size;
}

template <typename R>
__device__ void write_table(const Steps& p, long long t, R& room) {
    for (int at = threadIdx.x; p.moves && at < p.size * p.K; at += blockDim.x)
        p.table[p.rows[t * p.size + at / p.K] * p.K + at % p.K] = (Real)(double)room.s[at];
}

#define ROOM                                                           \
    __shared__ double s[SLOTS];                                        \
    __shared__ double e[SLOTS];                                        \
    __shared__ double shift[SLOTS];                                    \
    __shared__ double losses_of_rows[SLOTS];                           \
    __shared__ double part[OUTPUTS];                                   \
    Room<decltype(s), decltype(part)> room = {s, e, shift, losses_of_rows, part}
