// CUDA C++ on a CPU, for tests: g++ compiles a kernel as C++, `launch` runs its blocks one after the other.
//
// A CUDA thread is a fibre: it runs until it ends, or waits at a barrier or in a shuffle, where the others catch up.
// Shared memory remembers, for each word, who wrote and who read it since the last barrier: two threads that meet there
// without a barrier between them, one of them writing, are a race, and so is a read of what nobody has written.
// Barriers that not all threads of a block reach, or shuffles that not all lanes of a warp reach, are errors too.

#pragma once
#include <math.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

#include <functional>
#include <type_traits>
#include <utility>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)

// CUDA's cos(pi x) of 0 <= x <= 2: x = k/2 + r, |r| <= 1/4, exactly
inline double cospi(double x) {
    const double pi = 3.14159265358979323846;
    int k = (int)(2 * x + 0.5);
    double r = x - 0.5 * k, y = k & 1 ? sin(pi * r) : cos(pi * r);
    return (k + 1) & 2 ? -y : y;
}

inline unsigned max(unsigned a, unsigned b) { return a > b ? a : b; }

namespace shim {

struct Dim {
    unsigned x, y, z;
};

enum State { READY, AT_BARRIER, IN_SHUFFLE, DONE };
enum { MOST = 1024, STACK = 1 << 16 };

struct Fibre {
    jmp_buf where;
    ucontext_t start;
    State state;
    bool started;
};

inline Fibre fibres[MOST];
inline jmp_buf home;
inline char* stacks;
inline int current, threads;
inline Dim thread_index, block_index, block_size, grid_size;
inline unsigned epoch, block_number;            // barriers passed, blocks begun: both over all launches
inline uint64_t slots[MOST];                    // what the lanes of a warp exchange
inline std::function<void()> body;
inline char message[256];

inline void leave(State state) {
    fibres[current].state = state;
    if (!_setjmp(fibres[current].where)) _longjmp(home, 1);
}

inline void fail(const char* text) {
    if (!message[0])
        snprintf(message, sizeof message, "%s (block %u,%u,%u thread %u,%u,%u)", text, block_index.x, block_index.y,
                 block_index.z, thread_index.x, thread_index.y, thread_index.z);
    leave(DONE);
}

inline void live() {
    for (;;) {
        body();
        leave(DONE);
    }
}

inline void resume(int t) {
    Fibre& f = fibres[t];
    current = t;
    thread_index = {t % block_size.x, t / block_size.x % block_size.y, t / (block_size.x * block_size.y)};
    if (_setjmp(home)) return;
    if (f.started) _longjmp(f.where, 1);
    f.started = true;
    getcontext(&f.start);
    f.start.uc_stack.ss_sp = stacks + (size_t)t * STACK;
    f.start.uc_stack.ss_size = STACK;
    f.start.uc_link = nullptr;
    makecontext(&f.start, live, 0);
    setcontext(&f.start);
}

inline void run_block() {
    block_number++, epoch++;
    for (int t = 0; t < threads; t++) fibres[t].state = READY;
    for (;;) {
        int count[4] = {0, 0, 0, 0};
        for (int t = 0; t < threads; t++) {
            if (fibres[t].state == READY) resume(t);
            if (message[0]) return;
        }
        for (int t = 0; t < threads; t++) count[fibres[t].state]++;
        if (count[DONE] == threads) return;
        bool moved = false;
        for (int warp = 0; warp < threads && count[IN_SHUFFLE]; warp += 32) {
            int here = 0;
            for (int t = warp; t < warp + 32 && t < threads; t++) here += fibres[t].state == IN_SHUFFLE;
            if (here == 32) {
                for (int t = warp; t < warp + 32; t++) fibres[t].state = READY;
                moved = true;
            }
        }
        if (!moved && count[AT_BARRIER] == threads) {
            for (int t = 0; t < threads; t++) fibres[t].state = READY;
            moved = true;
            epoch++;
        }
        if (!moved) {
            snprintf(message, sizeof message, "a barrier that not all reach: %d threads at it, %d in a shuffle, %d gone",
                     count[AT_BARRIER], count[IN_SHUFFLE], count[DONE]);
            return;
        }
    }
}

template <typename... A, size_t... I>
void call(void (*kernel)(A...), void** arguments, std::index_sequence<I...>) {
    kernel(*(std::remove_reference_t<A>*)arguments[I]...);
}

// Runs the kernel; what went wrong, or an empty text. sizes: the grid's three, the block's three.
template <typename... A>
const char* launch(void (*kernel)(A...), const unsigned* sizes, void** arguments) {
    message[0] = 0;
    if (!stacks)
        stacks = (char*)mmap(nullptr, (size_t)MOST * STACK, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    grid_size = {sizes[0], sizes[1], sizes[2]};
    block_size = {sizes[3], sizes[4], sizes[5]};
    threads = block_size.x * block_size.y * block_size.z;
    body = [=] { call(kernel, arguments, std::index_sequence_for<A...>()); };
    for (unsigned z = 0; z < grid_size.z; z++)
        for (unsigned y = 0; y < grid_size.y; y++)
            for (unsigned x = 0; x < grid_size.x; x++) {
                block_index = {x, y, z};
                run_block();
                if (message[0]) {
                    for (Fibre& f : fibres) f.started = false;
#ifdef __SANITIZE_ADDRESS__
                    __asan_unpoison_memory_region(stacks, (size_t)MOST * STACK);    // of calls that never return
#endif
                    return message;
                }
            }
    return message;
}

template <typename T>
void kind_of(char*& out) {
    *out++ = std::is_pointer_v<T> ? 'p' : std::is_floating_point_v<T> ? 'f' : std::is_signed_v<T> ? 'i' : 'u';
    *out++ = '0' + sizeof(T);
}

// Two letters for each parameter of the kernel: p, f, i or u, and its bytes.
template <typename... A>
void kinds(void (*)(A...), char* out) {
    (kind_of<std::remove_cv_t<A>>(out), ...);
    *out = 0;
}

template <typename T, int N>
struct Shared {
    struct Word {
        T value;
        int writer, reader;                     // reader -2: several
        unsigned written, read, filled;         // epochs, and the block that wrote last
    };
    Word words[N];

    struct Reference {
        Word& word;
        operator T() const {
            if (word.filled != block_number) fail("shared memory is read before it is written");
            if (word.written == epoch && word.writer != current) fail("race: read of a shared word that another wrote");
            word.reader = word.read == epoch && word.reader != current ? -2 : current;
            word.read = epoch;
            return word.value;
        }
        const Reference& operator=(T value) const {
            if (word.written == epoch && word.writer != current) fail("race: two writes to a shared word");
            if (word.read == epoch && word.reader != current) fail("race: write to a shared word that another read");
            word.value = value, word.writer = current, word.written = epoch, word.filled = block_number;
            return *this;
        }
        const Reference& operator=(const Reference& other) const { return *this = (T)other; }
        const Reference& operator+=(T value) const { return *this = (T)(*this) + value; }
    };

    Reference operator[](long long i) {
        if (i < 0 || i >= N) fail("shared memory: an index outside");
        return {words[i]};
    }
};

}  // namespace shim

#define threadIdx shim::thread_index
#define blockIdx shim::block_index
#define blockDim shim::block_size
#define gridDim shim::grid_size

inline void __syncthreads() { shim::leave(shim::AT_BARRIER); }
inline void __trap() { shim::fail("a trap"); }

// The value of thread `from` of the same warp.
template <typename T>
T shuffle(unsigned mask, T value, int from) {
    static_assert(sizeof(T) <= 8, "a lane exchanges 8 bytes");
    if (mask != 0xffffffffu) shim::fail("a shuffle of a part of the warp");
    memcpy(&shim::slots[shim::current], &value, sizeof value);
    shim::leave(shim::IN_SHUFFLE);
    memcpy(&value, &shim::slots[from], sizeof value);
    shim::leave(shim::IN_SHUFFLE);              // nobody writes the slots again before all have read
    return value;
}

template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lanes) {
    return shuffle(mask, value, shim::current ^ lanes);
}

template <typename T>
T __shfl_down_sync(unsigned mask, T value, int lanes) {         // the last lanes keep their own
    return shuffle(mask, value, shim::current % 32 + lanes < 32 ? shim::current + lanes : shim::current);
}

template <typename T>
T __shfl_sync(unsigned mask, T value, int lane) {
    return shuffle(mask, value, shim::current / 32 * 32 + lane);
}

// ---------------------------------------------------------------------------------- numbers of two bytes
inline unsigned bits_of(float v) {
    unsigned bits;
    memcpy(&bits, &v, 4);
    return bits;
}

inline float float_of(unsigned bits) {
    float v;
    memcpy(&v, &bits, 4);
    return v;
}

inline float float_of_half(unsigned short bits) {
    const int power = bits >> 10 & 31, rest = bits & 1023;
    const float size = power == 31 ? (rest ? NAN : INFINITY) : power ? ldexpf(1024 + rest, power - 25) : ldexpf(rest, -24);
    return bits >> 15 ? -size : size;
}

inline unsigned short half_of(float v) {                        // to the nearest, ties to even
    const unsigned short sign = bits_of(v) >> 16 & 0x8000;
    const float size = fabsf(v);
    if (v != v) return sign | 0x7e00;
    if (size >= 65520) return sign | 0x7c00;
    if (size == 0) return sign;
    int power;
    frexpf(size, &power);
    const int unit = power - 11 < -24 ? -24 : power - 11;       // size = count 2^unit
    int count = (int)rintf(ldexpf(size, -unit));
    if (unit == -24) return sign | count;                       // without a leading 1, or the first with one
    if (count == 2048) return sign | ((power + 15) << 10);
    return sign | ((power + 14) << 10) | (count - 1024);
}

// ---------------------------------------------------------------------------------- copies that land later, tensor cores
namespace shim {

struct Copy {
    std::function<void()> land;
    int group;
};

struct Lane {
    Copy copies[64];
    int count = 0, groups = 0;
    unsigned block = 0;
    unsigned words[6];                                          // what a product takes from this lane
};

inline Lane lanes[MOST];

inline Lane& lane() {
    Lane& mine = lanes[current];
    if (mine.block != block_number) mine.count = mine.groups = 0, mine.block = block_number;
    return mine;
}

}  // namespace shim

#define SHARED(name, count) static shim::Shared<Chunk, count> name

// Spoils what is there at once, and writes when the thread waits for it: neither may meet another thread's access.
template <typename Tile>
void copy_chunk(Tile& tile, int at, const void* from, bool there) {
    auto value = tile[at].word.value;
    memset(&value, 255, sizeof value);
    tile[at] = value;
    memset(&value, 0, sizeof value);
    if (there) memcpy(&value, from, sizeof value);
    if (there && (uintptr_t)from % 16) shim::fail("a copy of 16 bytes from an address that is no multiple of 16");
    shim::Lane& mine = shim::lane();
    if (mine.count == 64) shim::fail("more copies on their way than the stand-in holds");
    mine.copies[mine.count++] = {[&tile, at, value] { tile[at] = value; }, mine.groups};
}

inline void commit_copies() { shim::lane().groups++; }

template <int LATEST>
void wait_for_copies() {
    shim::Lane& mine = shim::lane();
    int left = 0;
    for (int k = 0; k < mine.count; k++) {
        if (mine.copies[k].group < mine.groups - LATEST)
            mine.copies[k].land();
        else
            mine.copies[left++] = mine.copies[k];
    }
    mine.count = left;
}

template <typename Tile>
unsigned word_of(Tile& tile, int at, int word) {
    auto chunk = tile[at].word.value;
    chunk = tile[at];
    return chunk.v[word];
}

template <typename Tile>
void load_rows(unsigned* out, Tile& tile, int at) {
    const int lane = shim::current % 32;
    for (int m = 0; m < 4; m++) out[m] = word_of(tile, __shfl_sync(0xffffffffu, at, 8 * m + lane / 4), lane % 4);
}

template <typename Tile>
void load_columns(unsigned* out, Tile& tile, int at) {
    const int lane = shim::current % 32, column = lane / 4;
    for (int m = 0; m < 4; m++) {
        unsigned both = 0;
        for (int e = 0; e < 2; e++) {
            const unsigned word = word_of(tile, __shfl_sync(0xffffffffu, at, 8 * m + 2 * (lane % 4) + e), column / 2);
            both |= (word >> 16 * (column % 2) & 0xffff) << 16 * e;
        }
        out[m] = both;
    }
}

// The k-th number of a row of 32 bytes, of which two lanes' words hold parts: words[0] the first half, words[1] the second.
template <typename T>
float number_of(int lane, int low, int high, int k) {
    const int words = 4 / sizeof(T), word = k / words;          // 8 words
    const unsigned bits = shim::lanes[shim::current / 32 * 32 + lane + word % 4].words[word < 4 ? low : high];
    if (sizeof(T) == 4) return float_of(bits & 0xffffe000u);
    T v;
    const unsigned short part = bits >> 16 * (k % words);
    memcpy(&v, &part, sizeof part);
    return v;
}

template <typename T>
void multiply(const T*, float* c, const unsigned* a, const unsigned* b) {
    const int lane = shim::current % 32, row = lane / 4;
    for (int k = 0; k < 4; k++) shim::lanes[shim::current].words[k] = a[k];
    for (int k = 0; k < 2; k++) shim::lanes[shim::current].words[4 + k] = b[k];
    shim::leave(shim::IN_SHUFFLE);
    for (int e = 0; e < 4; e++) {
        const int column = lane % 4 * 2 + e % 2, far = e / 2;
        for (int k = 0; k < 32 / (int)sizeof(T); k++)
            c[e] += number_of<T>(4 * row, far, 2 + far, k) * number_of<T>(4 * column, 4, 5, k);
    }
    shim::leave(shim::IN_SHUFFLE);
}
