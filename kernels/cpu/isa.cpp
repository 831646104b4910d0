// The table of verbs of one instruction set.
#include "simd.h"
#include "verbs.h"

#define OTCORE_TEXT_(s) #s
#define OTCORE_TEXT(s) OTCORE_TEXT_(s)

namespace otcore {
namespace OTCORE_ISA {

extern const Isa table;
const Isa table = {
    OTCORE_TEXT(OTCORE_ISA),
    8 * kVectorBytes,
    {sweep, apply, grad, reduce, scale, radial, fit, collect, translate, evaluate, product, transpose, slice},
    {sweep, apply, grad, reduce, scale, radial, fit, collect, translate, evaluate, product, transpose, slice},
    softmin,
    log2_array,
    dots,
    combine,
};

}  // namespace OTCORE_ISA
}  // namespace otcore
