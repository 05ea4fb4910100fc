// Maximum over windows, and its gradient as a gather. Blocks and threads as in windows.cu: a line, a pixel, a channel.

// y = the larger of the window's numbers, NaN if one is; index = the first tap that reaches it.
extern "C" __global__ void __launch_bounds__(256) max_pool(const Stored* __restrict__ x, Stored* __restrict__ y,
                                                           unsigned char* __restrict__ index, WINDOW, long long c) {
    const Window g = GEOMETRY;
    const long long line = blockIdx.x;                      // (image, row of positions)
    const int t = blockIdx.y * blockDim.x + threadIdx.x;
    if (t >= g.columns * (int)c) return;
    const int w = t / (int)c, k = t - w * (int)c;
    const int first = (int)(line % g.rows) * g.down - g.top, begin = w * g.right - g.left;
    const Stored* image = x + line / g.rows * g.height * g.width * c + k;
    Real best = 0;
    int winner = -1;
    for (int i = 0; i < g.kh; i++) {
        if (first + i < 0 || first + i >= g.height) continue;
        for (int j = 0; j < g.kw; j++) {
            if (begin + j < 0 || begin + j >= g.width) continue;
            const Real v = image[((long long)(first + i) * g.width + begin + j) * c];
            if (winner < 0 || v > best) {
                best = v;
                winner = i * g.kw + j;
            } else if (v != v) {
                best = v;                                   // NaN stays: nothing is larger
            }
        }
    }
    const long long at = line * g.columns * c + t;
    y[at] = best;
    index[at] = (unsigned char)winner;
}

// dx = sum of dy over the windows whose index points at this pixel, tap by tap.
extern "C" __global__ void __launch_bounds__(256) max_pool_backward(const Stored* __restrict__ dy,
                                                                    const unsigned char* __restrict__ index,
                                                                    Stored* __restrict__ dx, WINDOW, long long c) {
    const Window g = GEOMETRY;
    const long long line = blockIdx.x;                      // (image, row of pixels)
    const int t = blockIdx.y * blockDim.x + threadIdx.x;
    if (t >= g.width * (int)c) return;
    const int w = t / (int)c, k = t - w * (int)c, h = (int)(line % g.height);
    const long long image = line / g.height * g.rows * g.columns * c + k;
    Real sum = 0;
    for (int i = 0; i < g.kh; i++) {
        const int a = h + g.top - i, row = a / g.down;
        if (a < 0 || row * g.down != a || row >= g.rows) continue;
        for (int j = 0; j < g.kw; j++) {
            const int e = w + g.left - j, column = e / g.right;
            if (e < 0 || column * g.right != e || column >= g.columns) continue;
            const long long at = image + ((long long)row * g.columns + column) * c;
            if (index[at] == i * g.kw + j) sum += (Real)dy[at];
        }
    }
    dx[line * g.width * c + t] = sum;
}
