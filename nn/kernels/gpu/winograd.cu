// The maps of Winograd's F(4 x 4, 3 x 3): the same 1-D maps as in nn/kernels/winograd.py, on registers.
//
// A thread has one tile of one channel, or one filter of one pair of channels; its 36 numbers lie in 36 matrices, one
// for each point, whose last axis is the channel: neighbours read and write neighbouring addresses.

// The points 0, +-P, +-Q, infinity, chosen there for the least rounding; AT_P = 1 / prod (P - q) over the other points q.
constexpr Real P = 0.625, Q = 1.5, P2 = P * P, Q2 = Q * Q, P3 = P2 * P, Q3 = Q2 * Q;
constexpr Real AT_0 = 1 / (P2 * Q2), AT_P = 1 / (2 * P2 * (P2 - Q2)), AT_Q = 1 / (2 * Q2 * (Q2 - P2));

// Each map takes numbers at distance S to numbers at distance S, in place.
template <int S>
__device__ inline void inputs(Real* d) {                    // B': 6 -> 6
    const Real d0 = d[0], d1 = d[S], d2 = d[2 * S], d3 = d[3 * S], d4 = d[4 * S], d5 = d[5 * S];
    const Real a = d4 - Q2 * d2, b = P * d3 - P * Q2 * d1, c = d4 - P2 * d2, e = Q * d3 - Q * P2 * d1;
    d[0] = P2 * Q2 * d0 - (P2 + Q2) * d2 + d4;
    d[S] = a + b, d[2 * S] = a - b, d[3 * S] = c + e, d[4 * S] = c - e;
    d[5 * S] = P2 * Q2 * d1 - (P2 + Q2) * d3 + d5;
}

template <int S>
__device__ inline void weights(Real* g) {                   // G: 3 -> 6
    const Real g0 = g[0], g1 = g[S], g2 = g[2 * S];
    const Real a = g0 * AT_P + g2 * (P2 * AT_P), b = g1 * (P * AT_P);
    const Real c = g0 * AT_Q + g2 * (Q2 * AT_Q), d = g1 * (Q * AT_Q);
    g[0] = g0 * AT_0;
    g[S] = a + b, g[2 * S] = a - b, g[3 * S] = c + d, g[4 * S] = c - d, g[5 * S] = g2;
}

template <int S>
__device__ inline void outputs(Real* m) {                   // A': 6 -> 4
    const Real m0 = m[0], m1 = m[S], m2 = m[2 * S], m3 = m[3 * S], m4 = m[4 * S], m5 = m[5 * S];
    const Real a = m1 + m2, b = m1 - m2, c = m3 + m4, d = m3 - m4;
    m[0] = m0 + a + c, m[S] = P * b + Q * d, m[2 * S] = P2 * a + Q2 * c, m[3 * S] = P3 * b + Q3 * d + m5;
}

template <int S>
__device__ inline void outputs_adjoint(Real* y) {           // A: 4 -> 6
    const Real y0 = y[0], y1 = y[S], y2 = y[2 * S], y3 = y[3 * S];
    const Real a = y0 + P2 * y2, b = P * y1 + P3 * y3, c = y0 + Q2 * y2, d = Q * y1 + Q3 * y3;
    y[S] = a + b, y[2 * S] = a - b, y[3 * S] = c + d, y[4 * S] = c - d, y[5 * S] = y3;
}

template <int S>
__device__ inline void weights_adjoint(Real* u) {           // G': 6 -> 3
    const Real u0 = u[0], u5 = u[5 * S];
    const Real a = (u[S] + u[2 * S]) * AT_P, b = (u[S] - u[2 * S]) * AT_P;
    const Real c = (u[3 * S] + u[4 * S]) * AT_Q, d = (u[3 * S] - u[4 * S]) * AT_Q;
    u[0] = u0 * AT_0 + a + c;
    u[S] = P * b + Q * d, u[2 * S] = P2 * a + Q2 * c + u5;
}

// Thread i of count: a tile of a channel, i = tile c + channel; tile = (image, row, column), each of 4 x 4 pixels.
struct Tile {
    long long image;
    int row, column, channel;
};

__device__ inline Tile tile_of(unsigned i, int down, int across, int c) {
    const unsigned tile = i / c, line = tile / across;
    return {(long long)(line / down), (int)(line % down), (int)(tile % across), (int)(i % c)};
}

// v[p] = B' d B: d the 6 x 6 pixels of x from (4 row - top, 4 column - left) on, zero outside. v: (36, tiles, C)
extern "C" __global__ void __launch_bounds__(256)
    winograd_inputs(const Real* __restrict__ x, Real* __restrict__ v, long long height, long long width, long long down,
                    long long across, long long top, long long left, long long c, long long count) {
    const unsigned i = blockIdx.x * 256u + threadIdx.x;
    if (i >= count) return;
    const Tile t = tile_of(i, (int)down, (int)across, (int)c);
    const int h = 4 * t.row - (int)top, w = 4 * t.column - (int)left;
    const Real* image = x + t.image * height * width * c + t.channel;
    Real d[36];
#pragma unroll
    for (int a = 0; a < 6; a++) {
#pragma unroll
        for (int b = 0; b < 6; b++) {
            const bool inside = h + a >= 0 && h + a < height && w + b >= 0 && w + b < width;
            d[6 * a + b] = inside ? image[((h + a) * width + w + b) * c] : (Real)0;
        }
    }
#pragma unroll
    for (int k = 0; k < 6; k++) inputs<6>(d + k);
#pragma unroll
    for (int k = 0; k < 6; k++) inputs<1>(d + 6 * k);
#pragma unroll
    for (int p = 0; p < 36; p++) v[p * count + i] = d[p];
}

// u[p] = G w G', the taps turned round where `turn` is set. w: (O, 3, 3, C)   u: (36, O, C)   count = O C
extern "C" __global__ void __launch_bounds__(256)
    winograd_weights(const Real* __restrict__ w, Real* __restrict__ u, long long turn, long long c, long long count) {
    const unsigned i = blockIdx.x * 256u + threadIdx.x;
    if (i >= count) return;
    const Real* filter = w + i / c * 9 * c + i % c;
    Real g[36];
#pragma unroll
    for (int a = 0; a < 3; a++) {
#pragma unroll
        for (int b = 0; b < 3; b++) g[6 * a + b] = filter[(turn ? 8 - 3 * a - b : 3 * a + b) * c];
    }
#pragma unroll
    for (int k = 0; k < 3; k++) weights<6>(g + k);
#pragma unroll
    for (int k = 0; k < 6; k++) weights<1>(g + 6 * k);
#pragma unroll
    for (int p = 0; p < 36; p++) u[p * count + i] = g[p];
}

// y = A' m A + bias on the pixels of the tile that y has; bias may be null. m: (36, tiles, C)
extern "C" __global__ void __launch_bounds__(256)
    winograd_outputs(const Real* __restrict__ m, const Real* __restrict__ bias, Real* __restrict__ y, long long height,
                     long long width, long long down, long long across, long long c, long long count) {
    const unsigned i = blockIdx.x * 256u + threadIdx.x;
    if (i >= count) return;
    const Tile t = tile_of(i, (int)down, (int)across, (int)c);
    Real d[36];
#pragma unroll
    for (int p = 0; p < 36; p++) d[p] = m[p * count + i];
#pragma unroll
    for (int k = 0; k < 6; k++) outputs<6>(d + k);
#pragma unroll
    for (int k = 0; k < 4; k++) outputs<1>(d + 6 * k);
    const Real more = bias ? bias[t.channel] : (Real)0;
    Real* image = y + t.image * height * width * c + t.channel;
#pragma unroll
    for (int a = 0; a < 4; a++) {
#pragma unroll
        for (int b = 0; b < 4; b++) {
            const long long h = 4 * t.row + a, w = 4 * t.column + b;
            if (h < height && w < width) image[(h * width + w) * c] = d[6 * a + b] + more;
        }
    }
}

// m = A dy A', dy being zero outside: what dW needs of dy. m: (36, tiles, C)
extern "C" __global__ void __launch_bounds__(256)
    winograd_outputs_adjoint(const Real* __restrict__ dy, Real* __restrict__ m, long long height, long long width,
                             long long down, long long across, long long c, long long count) {
    const unsigned i = blockIdx.x * 256u + threadIdx.x;
    if (i >= count) return;
    const Tile t = tile_of(i, (int)down, (int)across, (int)c);
    const Real* image = dy + t.image * height * width * c + t.channel;
    Real d[36];
#pragma unroll
    for (int a = 0; a < 4; a++) {
#pragma unroll
        for (int b = 0; b < 4; b++) {
            const long long h = 4 * t.row + a, w = 4 * t.column + b;
            d[6 * a + b] = h < height && w < width ? image[(h * width + w) * c] : (Real)0;
        }
    }
#pragma unroll
    for (int k = 0; k < 4; k++) outputs_adjoint<6>(d + k);
#pragma unroll
    for (int k = 0; k < 6; k++) outputs_adjoint<1>(d + 6 * k);
#pragma unroll
    for (int p = 0; p < 36; p++) m[p * count + i] = d[p];
}

// dw = G' (sum over parts of du) G, added to dw where `add` is set. du: (36, parts, O, C)   dw: (O, 3, 3, C)
extern "C" __global__ void __launch_bounds__(256)
    winograd_weights_adjoint(const Real* __restrict__ du, Real* __restrict__ dw, long long parts, long long add,
                             long long c, long long count) {
    const unsigned i = blockIdx.x * 256u + threadIdx.x;
    if (i >= count) return;
    Real d[36];
#pragma unroll
    for (int p = 0; p < 36; p++) d[p] = du[p * parts * count + i];
    for (long long part = 1; part < parts; part++) {
#pragma unroll
        for (int p = 0; p < 36; p++) d[p] += du[(p * parts + part) * count + i];
    }
#pragma unroll
    for (int k = 0; k < 6; k++) weights_adjoint<6>(d + k);
#pragma unroll
    for (int k = 0; k < 3; k++) weights_adjoint<1>(d + 6 * k);
    Real* filter = dw + i / c * 9 * c + i % c;
#pragma unroll
    for (int a = 0; a < 3; a++) {
#pragma unroll
        for (int b = 0; b < 3; b++) {
            Real* to = filter + (3 * a + b) * c;
            *to = add ? *to + d[6 * a + b] : d[6 * a + b];
        }
    }
}
