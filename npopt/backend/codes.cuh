// Numbers kept as codes of 8 or 4 bits, in a kernel of codes_on_gpu.py. A lane has four numbers beside one another, and
// four more 128 places on, so that a warp has 256. Pointers are to the lane's first number, `left` numbers are there
// and behind it, and where `whole` says so all eight are there, at addresses for wide reads and writes.

#ifdef __CUDACC__
__device__ inline unsigned bits_of(float v) { return __float_as_uint(v); }
__device__ inline float float_of(unsigned bits) { return __uint_as_float(bits); }
#endif

struct alignas(16) Line {                                   // level = slope q + shift, at most last
    float slope, shift, last, none;
};

namespace codes {                                           // a formula's names hide none of these

template <typename T>
struct alignas(4 * sizeof(T)) Four {                        // moved by one instruction, or two
    T v[4];
};

template <typename T>
__device__ inline bool wide(const T* p, int bytes) {
    return (unsigned long long)p % bytes == 0;
}

template <typename T>
__device__ inline void take(const T* from, bool whole, int left, T* to) {
    if (whole) {
        const Four<T> near = *(const Four<T>*)from, far = *(const Four<T>*)(from + 128);
#pragma unroll
        for (int j = 0; j < 4; j++) to[j] = near.v[j], to[4 + j] = far.v[j];
        return;
    }
#pragma unroll
    for (int e = 0; e < 8; e++) to[e] = e / 4 * 128 + e % 4 < left ? from[e / 4 * 128 + e % 4] : (T)0;
}

template <typename T>
__device__ inline void give(T* to, bool whole, int left, const T* from) {
    if (whole) {
        *(Four<T>*)to = {from[0], from[1], from[2], from[3]};
        *(Four<T>*)(to + 128) = {from[4], from[5], from[6], from[7]};
        return;
    }
#pragma unroll
    for (int e = 0; e < 8; e++)
        if (e / 4 * 128 + e % 4 < left) to[e / 4 * 128 + e % 4] = from[e];
}

template <typename Table>
__device__ inline void fill(Table& table, const float* from, int count) {
    for (int i = threadIdx.x; i < count; i += blockDim.x) table[i] = from[i];
}

template <typename Lines>
__device__ inline void fill_lines(Lines& lines, const float* from) {
    for (int i = threadIdx.x; i < 32; i += blockDim.x) lines[i] = Line{from[4 * i], from[4 * i + 1], from[4 * i + 2], 0};
}

// The eight numbers of codes.
template <int BITS, typename Table>
__device__ inline void decode(const unsigned char* codes, Table& values, const float* scales, int block, bool whole,
                              int left, float* w) {
#pragma unroll
    for (int k = 0; k < 2; k++) {
        const unsigned char* four = codes + 128 * k * BITS / 8;
        unsigned word = 0;
        if (whole) {
            word = BITS == 8 ? *(const unsigned*)four : *(const unsigned short*)four;
        } else {
#pragma unroll
            for (int j = 0; j < BITS / 2; j++)              // bytes
                if (128 * k + j * 8 / BITS < left) word |= (unsigned)four[j] << 8 * j;
        }
        const float scale = 128 * k < left ? scales[128 * k / block] : 0;
#pragma unroll
        for (int j = 0; j < 4; j++) w[4 * k + j] = values[word >> BITS * j & (1 << BITS) - 1] * scale;
    }
}

// The nearest code of w over, of 8 bits, as in sixteen.py: a line for each piece of two octaves, and where that ends
// near a bound between two codes, the bound. t: thresholds between pieces, 16, and bounds.
template <bool SIGNED, int LEAST, typename Lines, typename Table>
__device__ inline int by_lines(Lines& lines, Table& t, float w, float over, int zero) {
    const float q = fmaxf((SIGNED ? fabsf(w) : w) * over, 4.656612873077393e-10f);      // 2^-31, octave 48
    const int octaves = (int)(bits_of(q) >> 24) - 48;
    const float threshold = t[octaves];
    const Line line = lines[2 * octaves + (q > threshold)];
    const unsigned units = (unsigned)(int)fminf(fmaf(q, line.slope, line.shift), line.last), upper = units + 2;
    int level = (int)(units >> DIGITS);
    if ((upper & ((1u << DIGITS) - 4)) == 0) {
        const float bound = t[16 + (int)(upper >> DIGITS)];
        level = (int)(upper >> DIGITS) - !(q > bound);
    }
    if (!SIGNED) return level;
    const int below = zero - (level > LEAST ? level : LEAST);
    return bits_of(w) >> 31 ? (below > 0 ? below : 0) : zero + level;
}

// How many of the 2^BITS - 1 bounds are below q. They stand level by level of a search tree: neighbours share no bank.
template <int BITS, typename Table>
__device__ inline int searched(Table& tree, float q) {
    int node = 1;
#pragma unroll
    for (int level = 0; level < BITS; level++) {
        const float bound = tree[node];
        node = 2 * node + (q > bound);
    }
    return node - (1 << BITS);
}

// LEAST 1: a number with a minus does not get the code of 0, but the one below.
template <int BITS, int LEAST, typename Table>
__device__ inline int by_search(Table& tree, float w, float over, int zero) {
    const int c = searched<BITS>(tree, w * over);
    return c - (LEAST && c == zero && bits_of(w) >> 31);
}

// The code below, or the one above, as often as w over is near it.
template <int BITS, typename Values, typename Table>
__device__ inline int drawn(Values& values, Table& tree, float w, float over, unsigned long long key, long long i) {
    const float q = w * over;
    const int below = searched<BITS>(tree, q), above = below + 1 < 1 << BITS ? below + 1 : below;
    const float value = values[below], step = (float)values[above] - value;
    return (float)hashed_uniform(key, (unsigned long long)i) * step < q - value ? above : below;
}

// Four codes, 128 k places on. Of 4 bits two go into a byte; behind the last one half a byte is 0, or the code of 0
// where all of the block are.
template <int BITS>
__device__ inline void put(unsigned char* codes, int k, bool whole, int left, bool zeros, unsigned zero, unsigned word) {
    unsigned char* four = codes + 128 * k * BITS / 8;
    const int here = left - 128 * k;
    if (!whole && here < 4) word &= here > 0 ? (1u << BITS * here) - 1 : 0;
    if (zeros) word = zero * (BITS == 8 ? 0x01010101u : 0x1111u);
    if (whole && BITS == 8) {
        *(unsigned*)four = word;
    } else if (whole) {
        *(unsigned short*)four = (unsigned short)word;
    } else {
#pragma unroll
        for (int j = 0; j < BITS / 2; j++)
            if (j * 8 / BITS < here) four[j] = word >> 8 * j;
    }
}

// top[k] becomes the largest top of the lanes that share its block; of blocks of more than 256, of the warp's.
template <int BLOCK>
__device__ inline void join(unsigned* top) {
    if (BLOCK > 128) top[0] = max(top[0], top[1]);
#pragma unroll
    for (int far = BLOCK > 128 ? 16 : BLOCK / 8; far > 0; far /= 2) {
#pragma unroll
        for (int k = 0; k < (BLOCK > 128 ? 1 : 2); k++) top[k] = max(top[k], __shfl_xor_sync(0xffffffffu, top[k], far));
    }
    if (BLOCK > 128) top[1] = top[0];
}

// The same over the warps that share a block of more than 256 numbers.
template <int BLOCK, typename Tops>
__device__ inline unsigned joined(Tops& tops, int warp) {
    const int many = BLOCK / 256, first = warp / many * many;
    unsigned top = 0;
    for (int w = first; w < first + many; w++) top = max(top, (unsigned)tops[w]);
    return top;
}

}  // namespace codes
