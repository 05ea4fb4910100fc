// Steps on CSR rows, as sparse.py and single.py make them on the CPU: a step costs its rows' non-zeros. plan: the rates
// lr, the steps d of v, the clock C, the scale S. cells: (K d, 3), v, m and the time of the last touch of each column.

struct Matrix {
    const Real* values;
    const int *indices, *indptr;
};

// v after the steps a..b-1 of v <- S_{d_t l1}(v - d_t m), with C[t] = d_0 + ... + d_{t-1}: see steps.py.
__device__ double caught_up(double v, double m, const double* C, long long a, long long b, double l1) {
    while (a < b) {
        if (v == 0 && fabs(m) <= l1) return v;
        const double side = v > 0 || (v == 0 && m < 0) ? 1.0 : -1.0, slide = side * m + l1, size = side * v;
        if (slide <= 0 || size > slide * (C[b] - C[a])) return v - side * slide * (C[b] - C[a]);
        long long low = a, high = b;                        // the last step before it meets 0
        while (high - low > 1) {
            const long long middle = (low + high) / 2;
            if (size > slide * (C[middle] - C[a])) low = middle;
            else high = middle;
        }
        const double d = C[low + 1] - C[low];
        v -= side * slide * (C[low] - C[a]);
        v = soft(v - d * m, d * l1);                        // the step that meets 0, and may pass it
        a = low + 1;
    }
    return v;
}

// v of column j at step t. Its time is a number of steps where there is an l1, else the clock.
template <typename V>
__device__ double at_step(const Steps& p, V& cells, long long j, const double* C, long long t) {
    const double v = cells[3 * j], m = cells[3 * j + 1], then = cells[3 * j + 2];
    return p.l1 > 0 ? caught_up(v, m, C, (long long)then, t, p.l1) : v - m * (C[t] - then);
}

// The cells from x and the mean; |W|^2 / 2 l2, which losses keep throughout.
template <typename V>
__device__ double start(const Steps& p, V& cells) {
    __shared__ double sums[2 * WARPS];
    double square = 0, none = 0;
    for (int j = threadIdx.x; j < p.K * p.d; j += blockDim.x) {
        const double v = (double)p.x[j];
        square += v * v;
        cells[3LL * j] = v;
        cells[3LL * j + 1] = p.mean ? (double)p.mean[j] : 0.0;
        cells[3LL * j + 2] = 0.0;
    }
    block_sums(square, none, sums, 0);                      // the barrier before the first step is in it
    return 0.5 * p.l2 * square;
}

// x, and where it moves the mean, after `taken` steps.
template <typename V>
__device__ void finish(const Steps& p, V& cells, long long taken) {
    for (int j = threadIdx.x; j < p.K * p.d; j += blockDim.x) {
        p.x[j] = (Real)(planned(p, 3, taken) * at_step(p, cells, j, p.plan + 2 * (p.steps + 1), taken));
        if (p.moves) p.mean[j] = (Real)(double)cells[3LL * j + 1];
    }
}

// The step of one column of the only row of step t, whose value there is a.
template <typename V>
__device__ void single_step(const Steps& p, V& cells, long long j, double a, const double* C, long long t, double change,
                            double shift) {
    const double v = cells[3 * j], m = cells[3 * j + 1], d = planned(p, 1, t);
    if (p.l1 > 0) {
        cells[3 * j] = soft(v - change * a - d * m, d * p.l1);
        cells[3 * j + 2] = (double)(t + 1);
    } else {
        const double then = cells[3 * j + 2];
        cells[3 * j] = v - change * a - m * (C[t + 1] - then);
        cells[3 * j + 2] = C[t + 1];
    }
    cells[3 * j + 1] = m + shift * a;
}

// A column's part of an output at step t. With l1 the column is caught up on the way: only one thread has it.
template <typename V>
__device__ double single_part(const Steps& p, V& cells, long long j, double a, const double* C, long long t) {
    const double v = at_step(p, cells, j, C, t);
    if (p.l1 > 0) {
        cells[3 * j] = v;
        cells[3 * j + 2] = (double)t;
    }
    return a * v;
}

// One row a step and one output. A thread has one non-zero of the row in registers, fetched a step before, and every
// blockDim.x-th of the others; where the rows lie is fetched two steps before.
template <typename V>
__device__ void sparse_single(const Steps& p, const Matrix& A, V& cells) {
    __shared__ double sums[4 * WARPS];
    const double* C = p.plan + 2 * (p.steps + 1);
    const double penalty = start(p, cells);
    const bool inner = p.dim > p.d;
    double constant = inner ? (double)p.x[p.d] : 0.0, drift = inner && p.mean ? (double)p.mean[p.d] : 0.0, none = 0;
    const long long last = p.steps - 1;
    long long i1 = p.rows[0], i2 = p.rows[last < 1 ? last : 1], t = 0;
    int first1 = A.indptr[i1], end1 = A.indptr[i1 + 1];
    int j1 = 0;
    Real a1 = 0, y1 = p.y[i1];
    if (first1 + (int)threadIdx.x < end1) j1 = A.indices[first1 + threadIdx.x], a1 = A.values[first1 + threadIdx.x];
    for (; t < p.steps; t++) {
        const long long i = i1;
        const int first = first1, end = end1, j = j1, mine = first + threadIdx.x;
        const double a = (double)a1, y = (double)y1, w = weight(p, t), old = p.table ? (double)p.table[i] : 0.0;
        i1 = i2, i2 = p.rows[t + 2 < last ? t + 2 : last];
        first1 = A.indptr[i1], end1 = A.indptr[i1 + 1], y1 = p.y[i1];
        double z = mine < end ? single_part(p, cells, j, a, C, t) : 0.0;
        for (int q = mine + blockDim.x; q < end; q += blockDim.x)
            z += single_part(p, cells, A.indices[q], (double)A.values[q], C, t);
        if (first1 + (int)threadIdx.x < end1) j1 = A.indices[first1 + threadIdx.x], a1 = A.values[first1 + threadIdx.x];
        block_sums(z, none, sums, (t % 2) * 2 * WARPS);
        double s[1] = {planned(p, 3, t) * z + constant};
        const double loss = w * (loss_of(p.numbers, y, s, 0, 1) + penalty);
        if (threadIdx.x == 0) p.losses[t] = loss;
        if (infinite(loss)) break;
        const double e = w * (s[0] - old), shift = p.moves ? ((double)(Real)s[0] - old) / p.n : 0.0;
        if (p.moves && threadIdx.x == 0) p.table[i] = (Real)s[0];
        if (inner) constant -= planned(p, 0, t) * (e + drift), drift += shift;
        const double change = planned(p, 1, t) * e;
        if (mine < end) single_step(p, cells, j, a, C, t, change, shift);
        for (int q = mine + blockDim.x; q < end; q += blockDim.x)
            single_step(p, cells, A.indices[q], (double)A.values[q], C, t, change, shift);
        __syncthreads();
    }
    finish(p, cells, t);
    if (inner && threadIdx.x == 0) {
        p.x[p.d] = (Real)constant;
        if (p.moves) p.mean[p.d] = (Real)drift;
    }
}

// The sums of batch t that outputs are made of; cells are read alone, as rows may share columns.
template <typename V, typename R>
__device__ void products(const Steps& p, const Matrix& A, long long t, V& cells, const double* C, R& room) {
    const int lane = threadIdx.x % 32, cut = pieces(p);
    for (int q = threadIdx.x / 32; q < p.size * p.K * cut; q += blockDim.x / 32) {
        const long long i = p.rows[t * p.size + q / cut / p.K], column = (long long)(q / cut % p.K) * p.d;
        double sum = 0;
        for (int at = A.indptr[i] + q % cut * 32 + lane; at < A.indptr[i + 1]; at += 32 * cut)
            sum += (double)A.values[at] * at_step(p, cells, column + A.indices[at], C, t);
        keep(room, q, cut, sum);
    }
}

// A column's share in the step of one of the batch's rows, whose error is e: it catches up when the first row meets it.
// With l1 the soft threshold has to wait for all rows: `late` is the second round.
template <typename V>
__device__ void touch(const Steps& p, V& cells, long long j, double a, const double* C, long long t, bool late, double e,
                      double shift) {
    const double d = planned(p, 1, t), v = cells[3 * j], m = cells[3 * j + 1], then = cells[3 * j + 2];
    if (p.l1 == 0) {
        cells[3 * j] = v - d * e * a - m * (C[t + 1] - then);
        cells[3 * j + 1] = m + shift * a;
        cells[3 * j + 2] = C[t + 1];
    } else if (!late) {
        cells[3 * j] = caught_up(v, m, C, (long long)then, t, p.l1) - d * e * a;
        cells[3 * j + 2] = (double)t;
    } else {
        if ((long long)then == t) {
            cells[3 * j] = soft(v - d * m, d * p.l1);
            cells[3 * j + 2] = (double)(t + 1);
        }
        cells[3 * j + 1] = m + shift * a;
    }
}

// The step of batch t: row after row, for two of them may have a column in common.
template <typename V, typename R>
__device__ void move(const Steps& p, const Matrix& A, long long t, V& cells, const double* C, R& room) {
    for (int round = 0; round < (p.l1 > 0 ? 2 : 1); round++)
        for (int b = 0; b < p.size; b++) {
            const long long i = p.rows[t * p.size + b];
            const int first = A.indptr[i], count = A.indptr[i + 1] - first;
            for (int q = threadIdx.x; q < p.K * count; q += blockDim.x) {
                const int at = first + q % count, k = q / count, pair = b * p.K + k;
                touch(p, cells, (long long)k * p.d + A.indices[at], (double)A.values[at], C, t, round > 0,
                      (double)room.e[pair], p.moves ? (double)room.shift[pair] : 0.0);
            }
            __syncthreads();
        }
}

// The intercepts and their means: output k is thread k's.
template <typename R, typename S>
__device__ void move_intercepts(const Steps& p, long long t, R& room, S& constant, S& drift) {
    for (int k = threadIdx.x; k < p.K; k += blockDim.x) {
        double total = drift[k], moved = total;
        for (int b = 0; b < p.size; b++) {
            total += (double)room.e[b * p.K + k];
            if (p.moves) moved += (double)room.shift[b * p.K + k];
        }
        constant[k] = (double)constant[k] - planned(p, 0, t) * total;
        drift[k] = moved;
    }
}

// Batches and outputs of any number, size K <= SLOTS, K <= OUTPUTS.
template <typename V, typename R, typename S>
__device__ void sparse_batches(const Steps& p, const Matrix& A, V& cells, R& room, S& constant, S& drift) {
    const int cut = pieces(p), weighted = p.K * p.d;
    const bool inner = p.dim > weighted;
    const double* C = p.plan + 2 * (p.steps + 1);
    for (int k = threadIdx.x; k < p.K; k += blockDim.x) {
        constant[k] = inner ? (double)p.x[weighted + k] : 0.0;
        drift[k] = inner && p.mean ? (double)p.mean[weighted + k] : 0.0;
    }
    const double penalty = start(p, cells);
    long long t = 0;
    for (; t < p.steps; t++) {
        products(p, A, t, cells, C, room);
        __syncthreads();
        for (int b = threadIdx.x; b < p.size; b += blockDim.x) {
            for (int at = b * p.K; at < (b + 1) * p.K; at++)
                room.s[at] = planned(p, 3, t) * kept(room, at, cut) + (double)constant[at % p.K];
            judge(p, t, b, penalty, room);
        }
        __syncthreads();
        const double loss = batch_loss(p, room);
        if (threadIdx.x == 0) p.losses[t] = loss;
        if (infinite(loss)) break;
        write_table(p, t, room);
        if (inner) move_intercepts(p, t, room, constant, drift);
        move(p, A, t, cells, C, room);
    }
    finish(p, cells, t);
    for (int k = threadIdx.x; inner && k < p.K; k += blockDim.x) {
        p.x[weighted + k] = (Real)(double)constant[k];
        if (p.moves) p.mean[weighted + k] = (Real)(double)drift[k];
    }
}

extern "C" __global__ void __launch_bounds__(256, 1) sparse_single_steps(
    const Real* values, const int* indices, const int* indptr, double* cells, STEPS) {
    const Steps p = GATHERED;
    const Matrix A = {values, indices, indptr};
    __shared__ double held[CELLS];
    if (3 * d <= CELLS) sparse_single(p, A, held);
    else sparse_single(p, A, cells);
}

extern "C" __global__ void __launch_bounds__(256, 1) sparse_batch_steps(
    const Real* values, const int* indices, const int* indptr, double* cells, STEPS) {
    const Steps p = GATHERED;
    const Matrix A = {values, indices, indptr};
    __shared__ double held[CELLS];
    __shared__ double constant[OUTPUTS];
    __shared__ double drift[OUTPUTS];
    ROOM;
    if (3 * K * d <= CELLS) sparse_batches(p, A, held, room, constant, drift);
    else sparse_batches(p, A, cells, room, constant, drift);
}
