// Shared by the CUDA files of this folder. Real is float or double, given on the compiler's command line.

// 16 bytes of numbers, moved by one instruction; a Pack<1> is one number.
template <int W>
struct alignas(W * sizeof(Real)) Pack {
    Real v[W];
};

enum { WIDE = 16 / sizeof(Real) };

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
