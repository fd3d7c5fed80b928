// Stands in for csrc/common/sm90.cuh: one block of a kernel, run on the host. Every CUDA thread is
// a coroutine; which one continues at a synchronisation is random, and so is when a copy lands.
// Wrong uses that the hardware would punish by chance, a race or a hang, end the program here.
#pragma once

#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <vector>

#define __device__
#define __forceinline__ inline

struct Index {
  unsigned x;
};
struct float2 {
  float x, y;
};
inline float2 make_float2(float x, float y) { return {x, y}; }

namespace fastinn {
namespace sm90 {

constexpr int kWarp = 32;
constexpr int kWarpgroup = 4 * kWarp;

[[noreturn]] inline void fail(const char* what) {
  std::fprintf(stderr, "emulator: %s\n", what);
  std::exit(1);
}

inline void require(bool holds, const char* what) {
  if (!holds) fail(what);
}

struct Product {
  float* sums;
  int n;
  uint64_t a;
  uint64_t b;
};

struct Thread {
  ucontext_t context;
  std::vector<char> stack = std::vector<char>(1 << 16);
  unsigned index;
  bool done = false;
  std::function<bool()> ready = [] { return true; };
  std::deque<std::vector<Product>> groups;  // of products; the last is open
  std::vector<uint32_t> unfenced;           // addresses written, not yet visible to products
};

struct Barrier {
  int count;
  int arrivals_left;
  int64_t bytes_left;
  uint32_t phase;
};

struct Copy {
  uint32_t to;
  const void* from;
  uint32_t bytes;
  uint32_t barrier;
};

// Threads that meet; what they bring is kept until all are there.
struct Meeting {
  int arrived = 0;
  int round = 0;
};

constexpr uint32_t kSharedStart = 16;  // not aligned to what a kernel may want

struct Block {
  std::mt19937 random;
  std::vector<uint8_t> shared;
  std::vector<std::unique_ptr<Thread>> threads;
  Thread* current = nullptr;
  ucontext_t scheduler;
  std::map<uint32_t, Barrier> barriers;
  std::map<int, Meeting> meetings;
  std::vector<Copy> copies;
  std::multiset<uint32_t> unfenced;
  uint32_t lane_data[3 * kWarpgroup][5];
};

inline Block* block;
inline Index blockIdx, gridDim;

#define threadIdx (::Index{::fastinn::sm90::block->current->index})

// Lets others run until `ready` holds.
inline void wait_until(std::function<bool()> ready) {
  Thread* self = block->current;
  self->ready = std::move(ready);
  swapcontext(&self->context, &block->scheduler);
}

inline void meet(int meeting, int n_threads) {
  Meeting& at = block->meetings[meeting];
  const int round = at.round;
  if (++at.arrived == n_threads) {
    at.arrived = 0;
    ++at.round;
  }
  wait_until([&at, round] { return at.round != round; });
}

inline void meet_warp() { meet(1000 + block->current->index / kWarp, kWarp); }

// --- Shared memory.

inline uint8_t* at(uint32_t address, uint32_t bytes) {
  require(address >= kSharedStart && address + bytes <= block->shared.size(),
          "access outside of shared memory");
  return block->shared.data() + address;
}

inline uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(static_cast<const uint8_t*>(pointer) - block->shared.data());
}

inline uint32_t start_of(uint64_t descriptor) { return (descriptor & 0x3fff) << 4; }

// All rows of an operand, n times 128 bytes, count as read: which warp reads which is not defined.
inline bool reads(uint64_t descriptor, int n, uint32_t address, uint32_t bytes) {
  const uint32_t first = start_of(descriptor) / 128 * 128;
  return address < first + n * 128 && first < address + bytes;
}

inline void require_unread(uint32_t address, uint32_t bytes) {
  for (const auto& thread : block->threads)
    for (const auto& group : thread->groups)
      for (const Product& product : group)
        require(
            !reads(product.a, 64, address, bytes) && !reads(product.b, product.n, address, bytes),
            "shared memory written while a product reads it");
}

inline void write(uint32_t address, const void* from, uint32_t bytes) {
  require_unread(address, bytes);
  std::memcpy(at(address, bytes), from, bytes);
  block->current->unfenced.push_back(address);
  block->unfenced.insert(address);
}

inline void store_word(uint32_t address, uint32_t word) { write(address, &word, 4); }

inline void async_proxy_fence() {
  for (uint32_t address : block->current->unfenced)
    block->unfenced.erase(block->unfenced.find(address));
  block->current->unfenced.clear();
}

inline uint32_t* lane_data(int lane) {
  return block->lane_data[block->current->index / kWarp * kWarp + lane];
}

inline void store_matrices(uint32_t row, uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
  const int self = block->current->index % kWarp;
  const uint32_t data[] = {a, b, c, d, row};
  std::memcpy(lane_data(self), data, sizeof data);
  meet_warp();
  uint32_t words[4];  // this lane writes the row it gave the address of
  for (int i = 0; i < 4; ++i) words[i] = lane_data(self % 8 * 4 + i)[self / 8];
  write(row, words, 16);
  meet_warp();
}

inline float shuffle_xor(float value, int mask) {
  const int self = block->current->index % kWarp;
  std::memcpy(lane_data(self), &value, 4);
  meet_warp();
  std::memcpy(&value, lane_data(self ^ mask), 4);
  meet_warp();
  return value;
}

// --- Barriers and copies.

inline Barrier& barrier_at(uint32_t address) {
  require(block->barriers.count(address), "barrier not initialised");
  return block->barriers[address];
}

inline void complete_if_over(Barrier& barrier) {
  if (barrier.arrivals_left > 0 || barrier.bytes_left > 0) return;
  ++barrier.phase;
  barrier.arrivals_left = barrier.count;
}

inline void barrier_init(uint32_t barrier, int arrivals) {
  require(barrier % 8 == 0, "barrier not aligned");
  at(barrier, 8);
  block->barriers[barrier] = {arrivals, arrivals, 0, 0};
}

inline void barrier_init_fence() {}

inline void barrier_arrive_expect(uint32_t address, uint32_t bytes) {
  Barrier& barrier = barrier_at(address);
  require(barrier.arrivals_left > 0, "more arrivals than the barrier counts");
  --barrier.arrivals_left;
  barrier.bytes_left += bytes;
  complete_if_over(barrier);
}

inline void barrier_arrive(uint32_t address) { barrier_arrive_expect(address, 0); }

inline void barrier_wait(uint32_t address, uint32_t parity) {
  const Barrier& barrier = barrier_at(address);
  wait_until([&barrier, parity] { return barrier.phase % 2 != parity; });
}

inline void bulk_copy(uint32_t to, const void* from, uint32_t bytes, uint32_t barrier) {
  require(to % 16 == 0 && bytes % 16 == 0 && reinterpret_cast<uintptr_t>(from) % 16 == 0,
          "bulk copy not aligned");
  barrier_at(barrier);
  block->copies.push_back({to, from, bytes, barrier});
}

inline void bulk_prefetch(const void* from, uint32_t bytes) {
  require(bytes % 16 == 0 && reinterpret_cast<uintptr_t>(from) % 16 == 0, "prefetch not aligned");
  volatile char sum = 0;  // a sanitizer sees whether it is inside of the rows
  for (uint32_t i = 0; i < bytes; i += 16) sum = sum + static_cast<const char*>(from)[i];
}

inline void land_a_copy() {
  auto& copies = block->copies;
  std::swap(copies[block->random() % copies.size()], copies.back());
  const Copy copy = copies.back();
  copies.pop_back();
  require_unread(copy.to, copy.bytes);
  std::memcpy(at(copy.to, copy.bytes), copy.from, copy.bytes);
  Barrier& barrier = barrier_at(copy.barrier);
  barrier.bytes_left -= copy.bytes;
  complete_if_over(barrier);
}

inline void warpgroup_sync(int id) {
  require(id > 0 && id < 16, "no such named barrier");
  meet(id, kWarpgroup);
}

template <int registers>
void release_registers() {}

template <int registers>
void claim_registers() {}

// --- Arithmetic.

inline uint32_t halves_of(float low, float high) {
  const _Float16 pair[] = {static_cast<_Float16>(low), static_cast<_Float16>(high)};
  uint32_t word;
  std::memcpy(&word, pair, 4);
  return word;
}

inline float exp2_approx(float x) { return exp2f(x); }
inline float reciprocal_approx(float x) { return 1 / x; }

// --- Products, computed when they are waited for: as late as the hardware may.

// Element (row, k) of an operand whose rows are 128 bytes, swizzled: bits 4-6 of the address are
// exchanged according to bits 7-9.
inline float element(uint64_t descriptor, int row, int k) {
  const uint32_t eight_rows = (descriptor >> 32 & 0x3fff) << 4;
  uint32_t address = start_of(descriptor) + row / 8 * eight_rows + row % 8 * 128 + 2 * k;
  address ^= (address >> 7 & 7) << 4;
  _Float16 value;
  std::memcpy(&value, at(address, 2), 2);
  return static_cast<float>(value);
}

inline void compute(const Product& product) {
  const int thread = block->current->index % kWarpgroup, lane = thread % kWarp;
  float a[2][16];
  for (int i = 0; i < 2; ++i)
    for (int k = 0; k < 16; ++k)
      a[i][k] = element(product.a, thread / kWarp * 16 + lane / 4 + 8 * i, k);
  for (int j = 0; j < product.n / 8; ++j)
    for (int column = 0; column < 2; ++column)
      for (int k = 0; k < 16; ++k) {
        const float b = element(product.b, 8 * j + lane % 4 * 2 + column, k);
        for (int i = 0; i < 2; ++i) product.sums[4 * j + 2 * i + column] += a[i][k] * b;
      }
}

inline void require_fenced(uint64_t descriptor, int rows) {
  const uint32_t first = start_of(descriptor) / 128 * 128;
  const auto next = block->unfenced.lower_bound(first);
  require(next == block->unfenced.end() || *next >= first + rows * 128,
          "a product reads what no fence has made visible");
}

template <int n>
void product(float* sums, uint64_t a, uint64_t b) {
  for (uint64_t descriptor : {a, b}) {
    require(descriptor >> 62 == 1, "not the 128-byte swizzle");
    require((descriptor >> 49 & 7) == 0 && start_of(descriptor) / 128 % 8 == 0,
            "operand does not start where the swizzle does");
  }
  require_fenced(a, 64);
  require_fenced(b, n);
  auto& groups = block->current->groups;
  if (groups.empty()) groups.emplace_back();
  groups.back().push_back({sums, n, a, b});
}

inline void product_fence() {}
inline void product_commit() { block->current->groups.emplace_back(); }

template <int pending>
void product_wait() {
  auto& groups = block->current->groups;
  while (groups.size() > pending + 1) {  // one more, the open group
    for (const Product& product : groups.front()) compute(product);
    groups.pop_front();
  }
  if (pending == 0) require(groups.size() <= 1 && groups.back().empty(), "products not committed");
  meet_warp();  // the instruction is one of whole warps
}

template <int n>
void pin(float (&)[n]) {}

// --- The scheduler.

inline std::function<void()> block_body;

inline void run_thread() {
  block_body();
  block->current->done = true;
  swapcontext(&block->current->context, &block->scheduler);
}

inline Thread* choose() {
  const size_t n = block->threads.size(), start = block->random() % n;
  for (size_t i = 0; i < n; ++i) {
    Thread* thread = block->threads[(start + i) % n].get();
    if (!thread->done && thread->ready()) return thread;
  }
  return nullptr;
}

inline bool all_done() {
  for (const auto& thread : block->threads)
    if (!thread->done) return false;
  return true;
}

// Runs one block; `body` is what each thread executes, given the start of shared memory.
inline void run_block_of(int n_threads, int shared_bytes, unsigned seed,
                         std::function<void(const void*)> body) {
  Block here;
  block = &here;
  here.random.seed(seed);
  here.shared.assign(kSharedStart + shared_bytes, 0xff);  // NaN
  block_body = [&] { body(here.shared.data() + kSharedStart); };
  const unsigned eagerness = seed % 2 ? 2 : 200;  // of copies: they land early, or late
  for (int i = 0; i < n_threads; ++i) {
    here.threads.push_back(std::make_unique<Thread>());
    Thread& thread = *here.threads.back();
    thread.index = i;
    getcontext(&thread.context);
    thread.context.uc_stack = {thread.stack.data(), 0, thread.stack.size()};
    thread.context.uc_link = nullptr;
    makecontext(&thread.context, run_thread, 0);
  }
  while (!all_done()) {
    if (!here.copies.empty() && here.random() % eagerness == 0) land_a_copy();
    here.current = choose();
    if (here.current) {
      swapcontext(&here.scheduler, &here.current->context);
    } else {
      require(!here.copies.empty(), "deadlock: every thread waits and no copy is under way");
      land_a_copy();
    }
  }
  require(here.copies.empty(), "a copy is under way when the block ends");
}

}  // namespace sm90
}  // namespace fastinn

inline void __syncthreads() {
  using namespace fastinn::sm90;
  meet(0, static_cast<int>(block->threads.size()));
}
