#include "sweep.h"

#include "verbs.h"

namespace otcore::cuda {
namespace {

constexpr int kFewestSlots = 8, kMostSlots = 32;
constexpr long kSlotNumbers = 1L << 27;  // of all slots together, about
constexpr int kTotalThreads = 128;

// One block a (term, slot of column segments, slot of row blocks).
template <class T, int D, int P>
__global__ void __launch_bounds__(kSweepThreads, 1)
    sweep_spans(Batch<T> batch, const double* potentials, const double* eps, const int* finished, Partials<T> out,
                unsigned long long* pairs) {
  if (finished && finished[blockIdx.x]) return;
  const Term<T> q = term_at(batch, blockIdx.x);
  constexpr int R = kLaneRows<T, D>;
  constexpr int kBlock = SweepMemory<T, D, R>::kBlock;
  const int blocks = (q.n + kBlock - 1) / kBlock, segments = (q.m + kBlock - 1) / kBlock;
  const Stride own_blocks = {static_cast<int>(blockIdx.z), static_cast<int>(gridDim.z), blocks};
  const Stride own_segments = {static_cast<int>(blockIdx.y), static_cast<int>(gridDim.y), segments};
  sweep_blocks<T, D, P, R>(q, batch.d, scale_at<T>(batch.cost, eps[blockIdx.x]), potentials + q.row, potentials + q.column,
                           own_blocks, own_segments, out.rows + blockIdx.y * out.length + q.row,
                           out.columns + blockIdx.z * out.length + q.column, pairs + blockIdx.x);
}

template <class T, int D, int P>
__global__ void __launch_bounds__(kTotalThreads, 1)
    log_sums_of(Batch<T> batch, const double* potentials, const double* eps, const int* finished, Partials<T> partials,
                Slots slots, int blocks, double* log_sums) {
  const int z = blockIdx.x / blocks;
  if (finished && finished[z]) return;
  const Term<T> q = term_at(batch, z);
  const int e = blockIdx.x % blocks * kTotalThreads + threadIdx.x;
  if (e / kWarp * kWarp >= q.size()) return;
  const double value = log_sum<T, D, P>(q, batch.d, scale_at<T>(batch.cost, eps[z]), potentials + q.row,
                                        potentials + q.column, partials, slots.rows, slots.columns, e);
  if (e < q.size()) log_sums[q.place(e)] = value;
}

int spans(int blocks, long length) {
  long most = kSlotNumbers / length;
  most = most < kFewestSlots ? kFewestSlots : most > kMostSlots ? kMostSlots : most;
  return blocks < most ? blocks : static_cast<int>(most);
}

template <class T>
int blocks_of(const Batch<T>& q, int count) {
  const int rows = kSweepThreads * (q.d <= 4 ? kLaneRows<T, 4> : kLaneRows<T, 16>);
  return (count + rows - 1) / rows;
}

// Rows and columns of the largest term.
template <class T>
dim3 largest(const Batch<T>& q) {
  const int n = q.kinds > 1 && q.m > q.n ? q.m : q.n;
  return dim3(n, q.kinds > 1 || q.first_kind == 1 ? n : q.m);
}

}  // namespace

template <class T>
Slots slots_of(const Batch<T>& q) {
  const dim3 most = largest(q);
  return {spans(blocks_of(q, most.y), q.length()), spans(blocks_of(q, most.x), q.length())};
}

template <class T>
void sweep(const Batch<T>& q, const double* potentials, const double* eps, const int* finished, T* scratch, double* log_sums,
           unsigned long long* pairs, Stream stream) {
  const Slots slots = slots_of(q);
  const Partials<T> partials = {scratch, scratch + slots.rows * q.length(), q.length()};
  const int blocks = (q.n + q.m + kTotalThreads - 1) / kTotalThreads;
  dispatch<T>(q.d, q.cost.p, [&](auto d, auto p) {
    constexpr int D = decltype(d)::value, P = decltype(p)::value;
    launch(sweep_spans<T, D, P>, dim3(q.terms(), slots.rows, slots.columns), kSweepThreads,
           sizeof(SweepMemory<T, D, kLaneRows<T, D>>), stream, q, potentials, eps, finished, partials, pairs);
    launch(log_sums_of<T, D, P>, dim3(blocks * q.terms()), kTotalThreads, 0, stream, q,
           potentials, eps, finished, partials, slots, blocks, log_sums);
  });
}

#define OTCORE_FOR(T)                                                                                                       \
  template Slots slots_of(const Batch<T>&);                                                                                 \
  template void sweep(const Batch<T>&, const double*, const double*, const int*, T*, double*, unsigned long long*, Stream);
OTCORE_FOR(float)
OTCORE_FOR(double)
#undef OTCORE_FOR

}  // namespace otcore::cuda
