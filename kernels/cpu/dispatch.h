#pragma once
#include "side.h"

namespace otcore {

// The kernels for this machine, chosen at the first call by CPUID; the environment variable OTCORE_ISA
// (x86_64_v2, x86_64_v3) asks for a narrower set.
const Isa& isa();

// Whether points are left in the caller's order (the environment variable OTCORE_PLAIN is set), without tiles to skip,
// expansions or levels: what benchmarks compare those with.
bool plain();

inline const Verbs<float>& verbs(float) { return isa().f32; }
inline const Verbs<double>& verbs(double) { return isa().f64; }

}  // namespace otcore
