// A warp's pieces of a matrix product on tensor cores: 16-byte chunks of shared memory, and products of small matrices.
//
// The lanes of a warp hold a product's factors and its sum in parts. With g = lane / 4 and t = lane % 4, and words of 4
// bytes that hold one float or two halves, a product of (16, 32 bytes) and (32 bytes, 8) has
//     a[0], a[1], a[2], a[3]      word t of row g, of row g + 8, and word t + 4 of the same rows
//     b[0], b[1]                  words t and t + 4 of column g
//     c[0], c[1], c[2], c[3]      (g, 2 t), (g, 2 t + 1), (g + 8, 2 t), (g + 8, 2 t + 1)
// (PTX ISA, "Matrix fragments for mma.m16n8k8" and "mma.m16n8k16".)

struct alignas(16) Chunk {
    unsigned v[4];
};

#ifdef __CUDACC__

#define SHARED(name, count)                                 /* so many chunks, given at the launch */ \
    extern __shared__ Chunk name##_memory[];                                                         \
    Chunk* name = name##_memory

__device__ inline unsigned address(const Chunk* p) {        // in shared memory
    unsigned found;
    asm("{ .reg .u64 t; cvta.to.shared.u64 t, %1; cvt.u32.u64 %0, t; }" : "=r"(found) : "l"(p));
    return found;
}

// tile[at] = 16 bytes from global memory, or zeros; it is there after a `wait` that covers the copy, and a barrier.
__device__ inline void copy_chunk(Chunk* tile, int at, const void* from, bool there) {
    const int bytes = there ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address(tile + at)), "l"(from), "r"(bytes));
}

__device__ inline void commit_copies() { asm volatile("cp.async.commit_group;"); }

template <int LATEST>                                       // all groups but so many
__device__ inline void wait_for_copies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(LATEST) : "memory");
}

// Four matrices of 8 rows of 16 bytes; lane 8 m + r gives where row r of matrix m is. out[m]: word t of row g.
__device__ inline void load_rows(unsigned* out, const Chunk* tile, int at) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(address(tile + at)));
}

// The same, each matrix of halves transposed: out[m] holds numbers 2 t and 2 t + 1 of column g.
__device__ inline void load_columns(unsigned* out, const Chunk* tile, int at) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(address(tile + at)));
}

__device__ inline unsigned word_of(const Chunk* tile, int at, int word) { return tile[at].v[word]; }

#define MULTIPLY(kind)                                                                                              \
    asm("mma.sync.aligned." kind " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"                 \
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])                                                            \
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))

__device__ inline void multiply(const float*, float* c, const unsigned* a, const unsigned* b) {
    MULTIPLY("m16n8k8.row.col.f32.tf32.tf32.f32");
}
__device__ inline void multiply(const Half*, float* c, const unsigned* a, const unsigned* b) {
    MULTIPLY("m16n8k16.row.col.f32.f16.f16.f32");
}
__device__ inline void multiply(const Bfloat*, float* c, const unsigned* a, const unsigned* b) {
    MULTIPLY("m16n8k16.row.col.f32.bf16.bf16.f32");
}

#endif

// A factor's bits: floats to the nearest with 10 bits after the point, ties away from 0. (The unit cuts the other 13.)
__device__ inline unsigned rounded(const float*, unsigned bits) { return bits + 0x1000u; }
template <typename T>
__device__ inline unsigned rounded(const T*, unsigned bits) {
    return bits;
}
