// apply: the plan times a matrix.
#include "gather.h"
#include "verbs.h"

namespace otcore {
namespace OTCORE_ISA {

void apply(const Pair<float>& pair, long tile0, long tile1, const float* v, int width, double* rows, double* out) {
  gather_rows<Gather::values>(pair, tile0, tile1, v, width, rows, out);
}

void apply(const Pair<double>& pair, long tile0, long tile1, const double* v, int width, double* rows, double* out) {
  gather_rows<Gather::values>(pair, tile0, tile1, v, width, rows, out);
}

}  // namespace OTCORE_ISA
}  // namespace otcore
