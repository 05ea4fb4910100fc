// The gates of recurrent layers at time t, a thread a unit of a row. Arrays (B, times, k width) as in
// reference_recurrent.py; n = B width. Kernels of one sequence follow one another, so what a thread reads of the time
// before is there.

__device__ inline Real logistic(Real x) { return (Real)0.5 + (Real)0.5 * tanh((Real)0.5 * x); }

struct Cell {
    int i, width;                                           // in arrays (B, width)
    long long gate, unit, before;                           // of the first gate; in (B, times, width); a time ago
};

__device__ inline Cell cell(int gates, long long t, long long times, long long width, long long n) {
    const long long i = blockIdx.x * 256LL + threadIdx.x;
    if (i >= n) return {-1};
    const int b = (int)i / (int)width, j = (int)i % (int)width;
    const long long row = b * times + t;
    return {(int)i, (int)width, row * gates * width + j, row * width + j, (row - 1) * width + j};
}

// a: in, the gates' sums; out, the gates. c = f before + i g, y = o tanh c; seen, where there is a mask: mask y.
extern "C" __global__ void __launch_bounds__(256) lstm_cell(Real* a, const Real* c0, const Real* mask, Real* c, Real* y,
                                                            Real* seen, long long t, long long times, long long width,
                                                            long long n) {
    const Cell at = cell(4, t, times, width, n);
    if (at.i < 0) return;
    Real* gates = a + at.gate;
    const Real before = t ? c[at.before] : c0[at.i];
    const Real i = logistic(gates[0]), f = logistic(gates[at.width]);
    const Real g = tanh(gates[2 * at.width]), o = logistic(gates[3 * at.width]);
    const Real state = f * before + i * g, h = o * tanh(state);
    gates[0] = i, gates[at.width] = f, gates[2 * at.width] = g, gates[3 * at.width] = o;
    c[at.unit] = state, y[at.unit] = h;
    if (seen) seen[at.i] = h * mask[at.i];
}

// dh: what comes back from the time behind, times the mask where there is one; dc: in, of c_t, out, of c_(t-1).
extern "C" __global__ void __launch_bounds__(256) lstm_cell_backward(
    const Real* gates, const Real* c, const Real* c0, const Real* mask, const Real* dy, const Real* dh, Real* dc,
    Real* da, long long t, long long times, long long width, long long n) {
    const Cell at = cell(4, t, times, width, n);
    if (at.i < 0) return;
    const Real* gate = gates + at.gate;
    const Real before = t ? c[at.before] : c0[at.i], w = tanh(c[at.unit]);
    const Real i = gate[0], f = gate[at.width], g = gate[2 * at.width], o = gate[3 * at.width];
    const Real h = dy[at.unit] + (mask ? dh[at.i] * mask[at.i] : dh[at.i]);
    const Real state = dc[at.i] + h * o * (1 - w * w);
    Real* d = da + at.gate;
    d[0] = state * g * i * (1 - i);
    d[at.width] = state * before * f * (1 - f);
    d[2 * at.width] = state * i * (1 - g * g);
    d[3 * at.width] = h * w * o * (1 - o);
    dc[at.i] = state * f;
}

// product: U u_t, (B, 3 width). q = its last part + bias, n = tanh(a_n + r q), y = (1 - z) n + z before.
extern "C" __global__ void __launch_bounds__(256) gru_cell(
    Real* a, const Real* product, const Real* bias, const Real* h0, const Real* mask, Real* q, Real* y, Real* seen,
    long long t, long long times, long long width, long long n) {
    const Cell at = cell(3, t, times, width, n);
    if (at.i < 0) return;
    Real* gates = a + at.gate;
    const int j = at.i % at.width;
    const Real* sums = product + 3LL * (at.i - j) + j;
    const Real before = t ? y[at.before] : h0[at.i], inner = sums[2 * at.width] + bias[j];
    const Real r = logistic(gates[0] + sums[0]), z = logistic(gates[at.width] + sums[at.width]);
    const Real candidate = tanh(gates[2 * at.width] + r * inner), h = (1 - z) * candidate + z * before;
    gates[0] = r, gates[at.width] = z, gates[2 * at.width] = candidate;
    q[at.unit] = inner, y[at.unit] = h;
    if (seen) seen[at.i] = h * mask[at.i];
}

// dh: in, what comes straight back from the time behind, out, from this one; through: what comes through U, times the
// mask where there is one; null at the last time.
extern "C" __global__ void __launch_bounds__(256) gru_cell_backward(
    const Real* gates, const Real* q, const Real* before, const Real* mask, const Real* dy, const Real* through,
    Real* dh, Real* da, Real* db, long long t, long long times, long long width, long long n) {
    const Cell at = cell(3, t, times, width, n);
    if (at.i < 0) return;
    const Real* gate = gates + at.gate;
    const Real r = gate[0], z = gate[at.width], candidate = gate[2 * at.width];
    Real h = dy[at.unit] + dh[at.i];
    if (through) h += mask ? through[at.i] * mask[at.i] : through[at.i];
    const Real dn = h * (1 - z) * (1 - candidate * candidate);
    const Real dz = h * (before[at.unit] - candidate) * z * (1 - z), dr = dn * q[at.unit] * r * (1 - r);
    Real *d = da + at.gate, *e = db + at.gate;
    d[0] = e[0] = dr, d[at.width] = e[at.width] = dz;
    d[2 * at.width] = dn, e[2 * at.width] = dn * r;
    dh[at.i] = h * z;
}
