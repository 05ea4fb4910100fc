// Steps on dense rows, as dense.py makes them on the CPU. plan: the rates lr, l2 times the mean
// weight, 1 / (1 + lr ridge).

// Column j of x by one step whose gradient, without l2, is g; the square of the new number, if it is one of W.
template <typename V>
__device__ double step(const Steps& p, long long t, V& x, int j, double g) {
    const bool weighted = j < p.K * p.d;
    const double rate = planned(p, 0, t), decay = planned(p, 1, t), old = (double)x[j];
    Real moved;
    if (p.buffer) {
        const Real m = (Real)(p.beta * (double)p.buffer[j] + (weighted ? g + decay * old : g));
        p.buffer[j] = m;
        moved = (Real)(old - rate * (double)m);
    } else if (weighted) moved = (Real)(planned(p, 2, t) * soft((1 - rate * decay) * old - rate * g, rate * p.l1));
    else moved = (Real)(old - rate * g);
    x[j] = moved;
    return weighted ? (double)moved * (double)moved : 0.0;
}

__device__ inline Real number(const Real* row, int j, int d) { return j < d ? row[j] : (Real)1; }   // 1: the intercept's

// The next row's numbers of this thread, before they are needed.
__device__ inline void fetch(const Steps& p, const Real* row, Real* next) {
#pragma unroll
    for (int q = 0; q < AHEAD; q++) {
        const int j = threadIdx.x + q * blockDim.x;
        next[q] = j < p.dim ? number(row, j, p.d) : (Real)0;
    }
}

// Column j by one step, and its mean: what lies between product and product of dense_single.
template <typename V>
__device__ double single_step(const Steps& p, long long t, V& x, int j, double a, double e, double shift) {
    const double m = p.mean ? (double)p.mean[j] : 0.0;
    if (p.moves) p.mean[j] = (Real)(m + shift * a);
    return step(p, t, x, j, m + e * a);
}

// One row a step and one output. A thread has the columns threadIdx.x + q blockDim.x to itself, in the product and in the
// step, and all threads know the slope: one barrier a step.
template <typename V>
__device__ void dense_single(const Steps& p, const Real* X, V& x) {
    __shared__ double sums[4 * WARPS];
    const int threads = blockDim.x, rest = threadIdx.x + AHEAD * threads;
    Real now[AHEAD], next[AHEAD];
    double square = 0, held = 0;                            // held: the table's number of the row before
    long long before = -1;
    for (int j = threadIdx.x; j < p.dim; j += threads) {
        x[j] = p.x[j];
        if (j < p.d) square += (double)x[j] * (double)x[j];
    }
    fetch(p, X + p.rows[0] * p.d, next);
    for (long long t = 0; t < p.steps; t++) {
        const long long i = p.rows[t];
        const Real* row = X + i * p.d;
        const double w = weight(p, t), y = (double)p.y[i];
        // what the row before wrote into the table may not be there yet
        const double old = i == before && p.moves ? held : p.table ? (double)p.table[i] : 0.0;
#pragma unroll
        for (int q = 0; q < AHEAD; q++) now[q] = next[q];
        if (t + 1 < p.steps) fetch(p, X + p.rows[t + 1] * p.d, next);
        double z = 0;
#pragma unroll
        for (int q = 0; q < AHEAD; q++) {
            const int j = threadIdx.x + q * threads;
            if (j < p.dim) z += (double)now[q] * (double)x[j];
        }
        for (int j = rest; j < p.dim; j += threads) z += (double)number(row, j, p.d) * (double)x[j];
        block_sums(z, square, sums, (t % 2) * 2 * WARPS);
        double s[1] = {z};
        const double loss = w * (loss_of(p.numbers, y, s, 0, 1) + 0.5 * p.l2 * square);
        if (threadIdx.x == 0) p.losses[t] = loss;
        if (infinite(loss)) break;
        const double e = w * (s[0] - old), shift = ((double)(Real)s[0] - old) / p.n;
        before = i, held = (double)(Real)s[0], square = 0;
        if (p.moves && threadIdx.x == 0) p.table[i] = (Real)s[0];
#pragma unroll
        for (int q = 0; q < AHEAD; q++) {
            const int j = threadIdx.x + q * threads;
            if (j < p.dim) square += single_step(p, t, x, j, (double)now[q], e, shift);
        }
        for (int j = rest; j < p.dim; j += threads)
            square += single_step(p, t, x, j, (double)number(row, j, p.d), e, shift);
    }
    for (int j = threadIdx.x; j < p.dim; j += threads) p.x[j] = (Real)x[j];
}

// The sums of batch t that outputs are made of.
template <typename V, typename R>
__device__ void products(const Steps& p, const Real* X, long long t, V& x, R& room) {
    const int lane = threadIdx.x % 32, cut = pieces(p);
    for (int q = threadIdx.x / 32; q < p.size * p.K * cut; q += blockDim.x / 32) {
        const int pair = q / cut, column = pair % p.K * p.d;
        const Real* row = X + p.rows[t * p.size + pair / p.K] * p.d;
        double sum = 0;
        for (int j = q % cut * 32 + lane; j < p.d; j += 32 * cut) sum += (double)row[j] * (double)x[column + j];
        keep(room, q, cut, sum);
    }
}

// Column q of x by the step of batch t, and its mean.
template <typename V, typename R>
__device__ double column_step(const Steps& p, const Real* X, long long t, V& x, int q, R& room) {
    const bool inner = q >= p.K * p.d;
    const int k = inner ? q - p.K * p.d : q / p.d, j = inner ? p.d : q % p.d;
    const double m = p.mean ? (double)p.mean[q] : 0.0;
    double g = m, moved = m;
    for (int b = 0; b < p.size; b++) {
        const double a = (double)number(X + p.rows[t * p.size + b] * p.d, j, p.d);
        g += (double)room.e[b * p.K + k] * a;
        if (p.moves) moved += (double)room.shift[b * p.K + k] * a;
    }
    if (p.moves) p.mean[q] = (Real)moved;
    return step(p, t, x, q, g);
}

// Batches and outputs of any number, size K <= SLOTS.
template <typename V, typename R>
__device__ void dense_batches(const Steps& p, const Real* X, V& x, R& room) {
    __shared__ double squares[WARPS];
    const int cut = pieces(p), weighted = p.K * p.d;
    double square = 0;
    for (int j = threadIdx.x; j < p.dim; j += blockDim.x) {
        const double v = (double)p.x[j];
        x[j] = p.x[j];
        if (j < weighted) square += v * v;
    }
    __syncthreads();
    for (long long t = 0; t < p.steps; t++) {
        products(p, X, t, x, room);
        square = warp_sum(square);
        if (threadIdx.x % 32 == 0) squares[threadIdx.x / 32] = square;
        __syncthreads();
        double total = 0;
        for (int w = 0; w < blockDim.x / 32; w++) total += (double)squares[w];
        for (int b = threadIdx.x; b < p.size; b += blockDim.x) {
            for (int at = b * p.K; at < (b + 1) * p.K; at++)
                room.s[at] = kept(room, at, cut) + (p.dim > weighted ? (double)x[weighted + at % p.K] : 0.0);
            judge(p, t, b, 0.5 * p.l2 * total, room);
        }
        __syncthreads();
        const double loss = batch_loss(p, room);
        if (threadIdx.x == 0) p.losses[t] = loss;
        if (infinite(loss)) break;
        write_table(p, t, room);
        square = 0;
        for (int q = threadIdx.x; q < p.dim; q += blockDim.x) square += column_step(p, X, t, x, q, room);
        __syncthreads();
    }
    for (int j = threadIdx.x; j < p.dim; j += blockDim.x) p.x[j] = (Real)x[j];
}

extern "C" __global__ void __launch_bounds__(256, 1) dense_single_steps(const Real* X, STEPS) {
    const Steps p = GATHERED;
    __shared__ Real held[HELD];
    if (dim <= HELD) dense_single(p, X, held);
    else dense_single(p, X, x);
}

extern "C" __global__ void __launch_bounds__(256, 1) dense_batch_steps(const Real* X, STEPS) {
    const Steps p = GATHERED;
    __shared__ Real held[HELD];
    ROOM;
    if (dim <= HELD) dense_batches(p, X, held, room);
    else dense_batches(p, X, x, room);
}
