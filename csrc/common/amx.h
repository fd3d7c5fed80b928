// The matrix tiles of AMX. Only for kernels compiled for Isa::amx; internal linkage: see
// vector_math.h.
#pragma once

#if defined(__AMX_BF16__)

#include "common/bfloat16_tiles.h"

namespace fastinn {
namespace {

// Keeps stores of what tiles are to be loaded from before the load: GCC takes these instructions to
// read less memory than they do, or none (GCC bug 114098).
inline void finish_stores() { asm volatile("" ::: "memory"); }

// Lets this thread use eight whole tiles, and leaves them as others had configured them.
class WholeTiles {
 public:
  WholeTiles() {
    _tile_storeconfig(&before_);
    finish_stores();
    Configuration whole{};
    whole.palette = 1;
    for (int i = 0; i < 8; ++i) {
      whole.rows[i] = kTileRows;
      whole.row_bytes[i] = 64;
    }
    finish_stores();
    _tile_loadconfig(&whole);
  }
  ~WholeTiles() {
    finish_stores();
    _tile_loadconfig(&before_);
  }
  WholeTiles(const WholeTiles&) = delete;
  WholeTiles& operator=(const WholeTiles&) = delete;

 private:
  struct alignas(64) Configuration {
    uint8_t palette;
    uint8_t start_row;
    uint8_t reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
  };
  Configuration before_;
};

}  // namespace
}  // namespace fastinn

#endif
