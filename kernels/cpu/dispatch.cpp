// Picks the widest instruction set that this machine runs and this build holds.
#include "dispatch.h"

#include <cstdlib>
#include <cstring>

namespace otcore {

#ifdef OTCORE_X86
namespace x86_64_v2 { extern const Isa table; }
namespace x86_64_v3 { extern const Isa table; }
namespace x86_64_v4 { extern const Isa table; }

static const Isa* pick() {
  __builtin_cpu_init();
  const Isa* best = &x86_64_v2::table;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) best = &x86_64_v3::table;
  if (best == &x86_64_v3::table && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512cd"))
    best = &x86_64_v4::table;
  // A narrower set may be asked for, to test it; a wider one is refused in silence.
  if (const char* wanted = std::getenv("OTCORE_ISA")) {
    if (!std::strcmp(wanted, "x86_64_v2")) return &x86_64_v2::table;
    if (!std::strcmp(wanted, "x86_64_v3") && best == &x86_64_v4::table) return &x86_64_v3::table;
  }
  return best;
}
#else
namespace portable { extern const Isa table; }
static const Isa* pick() { return &portable::table; }
#endif

const Isa& isa() {
  static const Isa* chosen = pick();
  return *chosen;
}

bool plain() {
  static const bool asked = std::getenv("OTCORE_PLAIN") != nullptr;
  return asked;
}

}  // namespace otcore
