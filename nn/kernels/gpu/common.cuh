// Shared by the CUDA files of this folder. Real, float or double, is what sums and parameters are; activations are
// Stored: Real too, or numbers of two bytes, which become floats when they are read. Both are given on the command line.

#ifdef __CUDACC__
__device__ inline unsigned short half_of(float v) {         // to the nearest, ties to even
    unsigned short bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(v));
    return bits;
}
__device__ inline float float_of_half(unsigned short bits) {
    float v;
    asm("cvt.f32.f16 %0, %1;" : "=f"(v) : "h"(bits));
    return v;
}
__device__ inline unsigned bits_of(float v) { return __float_as_uint(v); }
__device__ inline float float_of(unsigned bits) { return __uint_as_float(bits); }
#endif

struct Half {                                               // IEEE binary16
    unsigned short bits;
    Half() = default;
    __device__ Half(float v) { bits = half_of(v); }
    __device__ operator float() const { return float_of_half(bits); }
};

struct Bfloat {                                             // the upper half of a float
    unsigned short bits;
    Bfloat() = default;
    __device__ Bfloat(float v) {
        const unsigned b = bits_of(v);
        bits = v != v ? 0x7fff : (b + 0x7fffu + (b >> 16 & 1)) >> 16;
    }
    __device__ operator float() const { return float_of((unsigned)bits << 16); }
};

// Numbers moved by one instruction, 16 bytes of them or fewer.
template <int W>
struct alignas(W * sizeof(Stored)) Pack {
    Stored v[W];
};

enum { WIDE = 16 / sizeof(Stored) };

// A window's geometry: images (height, width), positions (rows, columns), kernel, stride and padding.
struct Window {
    int height, width, rows, columns, kh, kw, down, right, top, left;
};

#define WINDOW                                                                                                       \
    long long height, long long width, long long rows, long long columns, long long kh, long long kw, long long down, \
        long long right, long long top, long long left
#define GEOMETRY                                                                                                   \
    Window {                                                                                                       \
        (int)height, (int)width, (int)rows, (int)columns, (int)kh, (int)kw, (int)down, (int)right, (int)top, (int)left \
    }
