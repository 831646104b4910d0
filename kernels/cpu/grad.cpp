// grad: the plan's sums of the logits' derivative in the points of x.
#include "gather.h"
#include "verbs.h"

namespace otcore {
namespace OTCORE_ISA {

void grad(const Pair<float>& pair, long tile0, long tile1, const float* v, double* rows, double* out) {
  gather_rows<Gather::gradient, float>(pair, tile0, tile1, v, pair.x->d, rows, out);
}

void grad(const Pair<double>& pair, long tile0, long tile1, const double* v, double* rows, double* out) {
  gather_rows<Gather::gradient, double>(pair, tile0, tile1, v, pair.x->d, rows, out);
}

}  // namespace OTCORE_ISA
}  // namespace otcore
