// The network's two ends, and functions number by number.

// y = max(x, 0); NaN stays. y may be x.
extern "C" __global__ void __launch_bounds__(256) relu(const Stored* x, Stored* y, long long n) {
    const long long i = blockIdx.x * 256LL + threadIdx.x;
    if (i < n) y[i] = (Real)x[i] < 0 ? (Real)0 : (Real)x[i];
}

// dx = dy where y > 0, else 0. dx may be dy.
extern "C" __global__ void __launch_bounds__(256) relu_backward(const Stored* y, const Stored* dy, Stored* dx,
                                                                long long n) {
    const long long i = blockIdx.x * 256LL + threadIdx.x;
    if (i < n) dx[i] = (Real)y[i] > 0 ? (Real)dy[i] : (Real)0;
}

// x <- erf(x)
extern "C" __global__ void __launch_bounds__(256) erf_in_place(Stored* x, long long n) {
    const long long i = blockIdx.x * 256LL + threadIdx.x;
    if (i < n) x[i] = erf((Real)x[i]);
}

// dw_v = sum of dy_n over the places n of word v. order: the places, those of a word together and in order; sorted: their
// words. A thread has one number of the first place of a word, and sums over the others in float64.
extern "C" __global__ void __launch_bounds__(256) sum_words(const Stored* __restrict__ dy,
                                                            const long long* __restrict__ order,
                                                            const long long* __restrict__ sorted,
                                                            Real* __restrict__ dw, long long places, long long width,
                                                            long long n) {
    const long long i = blockIdx.x * 256LL + threadIdx.x;
    if (i >= n) return;
    const long long first = i / width, j = i % width, word = sorted[first];
    if (first > 0 && sorted[first - 1] == word) return;
    double sum = 0;
    for (long long p = first; p < places && sorted[p] == word; p++) sum += (Real)dy[order[p] * width + j];
    dw[word * width + j] = (Real)sum;
}

__device__ inline Real larger(Real a, Real b) { return a > b || a != a ? a : b; }      // NaN stays

// One warp a row: rows_b = l_b, the cross-entropy of softmax(z_b) and (1 - s) e_(t_b) + s/K;  p = (w_b / B) dl_b/dz.
extern "C" __global__ void __launch_bounds__(256) softmax(const Real* __restrict__ z, const long long* __restrict__ t,
                                                          double smoothing, const Real* __restrict__ weights,
                                                          Real* __restrict__ p, Real* __restrict__ rows,
                                                          long long batch, long long classes) {
    const long long b = blockIdx.x * 8LL + threadIdx.y;
    if (b >= batch) return;                                 // the whole warp
    const Real* row = z + b * classes;
    const long long target = t[b];
    Real top = row[0], total = 0, sum = 0;
    for (long long k = threadIdx.x; k < classes; k += 32) top = larger(top, row[k]);
    for (int far = 16; far > 0; far /= 2) top = larger(top, __shfl_xor_sync(0xffffffffu, top, far));
    for (long long k = threadIdx.x; k < classes; k += 32) {
        total += exp(row[k] - top);
        sum += row[k] - top;
    }
    for (int far = 16; far > 0; far /= 2) {
        total += __shfl_xor_sync(0xffffffffu, total, far);
        sum += __shfl_xor_sync(0xffffffffu, sum, far);
    }
    const Real share = (Real)(smoothing / classes), hit = (Real)(1 - smoothing);
    const Real factor = (weights ? weights[b] : (Real)1) / batch;
    for (long long k = threadIdx.x; k < classes; k += 32) {
        const Real q = share + (k == target ? hit : (Real)0);
        p[b * classes + k] = factor * (exp(row[k] - top) / total - q);
    }
    if (threadIdx.x > 0) return;
    Real loss = log(total) - hit * (row[target] - top);
    if (smoothing > 0) loss -= share * sum;                 // a logit may be -inf
    rows[b] = loss;
}

// out[b] = scale data[rows[b]] + shift, moved: pixel (h, w) comes from (h + moves[b, 0], w' + moves[b, 1]), w' = W-1-w
// where moves[b, 2] is not 0; outside the image the pixel is 0 before scaling. rows, moves may be null.
template <typename Data>
__device__ void images(const Data* __restrict__ data, const long long* __restrict__ rows,
                       const long long* __restrict__ moves, const Real* __restrict__ scale,
                       const Real* __restrict__ shift, Real* __restrict__ out, int height, int width, int c) {
    const long long line = blockIdx.x, b = line / height;   // (image, row of pixels)
    const int t = blockIdx.y * blockDim.x + threadIdx.x;
    if (t >= width * c) return;
    const int k = t % c;
    long long h = line % height, w = t / c;
    if (moves) {
        h += moves[3 * b];
        w = (moves[3 * b + 2] ? width - 1 - w : w) + moves[3 * b + 1];
    }
    const bool inside = h >= 0 && h < height && w >= 0 && w < width;
    const Data* image = data + (rows ? rows[b] : b) * height * width * c;
    out[line * width * c + t] = scale[k] * (inside ? (Real)image[(h * width + w) * c + k] : (Real)0) + shift[k];
}

extern "C" __global__ void __launch_bounds__(256) gather_images(
    const Real* data, const long long* rows, const long long* moves, const Real* scale, const Real* shift, Real* out,
    long long height, long long width, long long c) {
    images(data, rows, moves, scale, shift, out, (int)height, (int)width, (int)c);
}

extern "C" __global__ void __launch_bounds__(256) gather_bytes(
    const unsigned char* data, const long long* rows, const long long* moves, const Real* scale, const Real* shift, Real* out,
    long long height, long long width, long long c) {
    images(data, rows, moves, scale, shift, out, (int)height, (int)width, (int)c);
}
