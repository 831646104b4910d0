// Sums over the columns of each row that keep a running maximum, so that nothing leaves the range: softmin, apply and
// grad differ in what they add up.
//
// A block takes kRowsOfBlock rows; its warps share the columns out and their results are merged at the end.
#pragma once
#include "pair.h"

namespace otcore::cuda {

constexpr int kRowWarps = 8, kRowThreads = kRowWarps * kWarp;
constexpr int kRowColumns = 256;  // of which points are in shared memory at a time
// Columns whose logits are computed before their exponentials; their differences stay in registers.
template <class T, int D>
constexpr int kRowGroup = sizeof(T) == 8 && D > 8 ? 2 : 8;

// With s_ij the logit and e_ij = 2^(s_ij - top_i): the sum of b_j e_ij and of b_j e_ij times what `Sum` takes of the pair.
template <class T, int K>
struct RowSum {
  T top, total, parts[K > 0 ? K : 1];
};

template <class T, int D, int K>
struct RowMemory {
  T v[D][kRowColumns], h[kRowColumns], w[kRowColumns], values[K > 0 ? K : 1][kRowColumns];
};

template <class T, int K>
struct RowMerge {
  RowSum<T, K> sums[kRowWarps][kWarp];
};

// The softmin takes nothing of a pair.
struct NoParts {
  static constexpr int kParts = 0, kValues = 0;
  template <class T, int D, int P>
  __device__ static void add(T*, T, const T (&)[D], const T (&)[D], const T*, T) {}
};

// dC(x_i, y_j) / dx_i.
template <int D>
struct SlopeParts {
  static constexpr int kParts = D, kValues = 0;
  template <class T, int, int P>
  __device__ static void add(T* parts, T e, const T (&u)[D], const T (&v)[D], const T*, T floor) {
    T factor = e;
    if (P == 1) {
      const T square = squared_distance<T, D>(u, v);
      factor = square > floor ? e / sqrt_of(square) : T(0);
    }
#pragma unroll
    for (int k = 0; k < D; k++) parts[k] += factor * (u[k] - v[k]);
  }
};

// K numbers that come with column j.
template <int K>
struct ValueParts {
  static constexpr int kParts = K, kValues = K;
  template <class T, int D, int P>
  __device__ static void add(T* parts, T e, const T (&)[D], const T (&)[D], const T* values, T) {
#pragma unroll
    for (int k = 0; k < K; k++) parts[k] += e * values[k];
  }
};

template <class T, int K>
__device__ void rescale(RowSum<T, K>& sum, T top) {
  if (!(top > sum.top)) return;
  const T factor = sum.top > kNever<T> ? exp2_of(sum.top - top) : T(0);
  sum.total *= factor;
  for (int k = 0; k < K; k++) sum.parts[k] *= factor;
  sum.top = top;
}

// The sums of row (block's first + lane), complete in the lanes of warp 0. `values` is [m][stride] (ValueParts only).
template <class T, int D, int P, class Parts>
__device__ RowSum<T, Parts::kParts> row_sums(const Term<T>& q, int d, const Scale<T>& scale, const double* f, const double* g,
                                             const double* values, int stride, int width) {
  constexpr int K = Parts::kParts, kGroup = kRowGroup<T, D>;
  using Memory = RowMemory<T, D, Parts::kValues>;
  Memory& memory = *reinterpret_cast<Memory*>(shared_memory());
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int row = blockIdx.x * kWarp + lane;
  T u[D];
  load_point<T, D>(q.x, row < q.n ? row : 0, d, u);
  const Rounded<T> own = rounded<T>(level(scale, f, q.shift_x, row < q.n ? row : 0));
  const T h = own.level;
  RowSum<T, K> sum = {kNever<T>, 0, {}};
  for (int first = 0; first < q.m; first += kRowColumns) {
    block_barrier();
    const int column = first + threadIdx.x;  // a thread loads one
    const bool inside = column < q.m && q.weight_y(column) > 0;
    T v[D];
    load_point<T, D>(q.y, column < q.m ? column : 0, d, v);
    for (int k = 0; k < D; k++) memory.v[k][threadIdx.x] = v[k];
    const Rounded<T> other = inside ? rounded<T>(level(scale, g, q.shift_y, column)) : Rounded<T>{kNever<T>, 0};
    memory.h[threadIdx.x] = other.level;
    memory.w[threadIdx.x] = inside ? q.weight_y(column) * other.factor : T(0);
    for (int k = 0; k < Parts::kValues; k++)
      memory.values[k][threadIdx.x] =
          inside && k < width ? static_cast<T>(values[static_cast<long>(column) * stride + k]) : T(0);
    block_barrier();
    const int mine = warp * (kRowColumns / kRowWarps);
    for (int group = mine; group < mine + kRowColumns / kRowWarps; group += kGroup) {
      T s[kGroup], top = kNever<T>;
#pragma unroll
      for (int c = 0; c < kGroup; c++) {
        T v[D];
#pragma unroll
        for (int k = 0; k < D; k++) v[k] = memory.v[k][group + c];
        s[c] = logit<T, P>(h + memory.h[group + c], squared_distance<T, D>(u, v), scale);
        top = s[c] > top ? s[c] : top;
      }
      rescale(sum, top);
      if (!(sum.top > kNever<T>)) continue;
#pragma unroll
      for (int c = 0; c < kGroup; c++) {
        T v[D], taken[Parts::kValues > 0 ? Parts::kValues : 1];
#pragma unroll
        for (int k = 0; k < D; k++) v[k] = memory.v[k][group + c];
        for (int k = 0; k < Parts::kValues; k++) taken[k] = memory.values[k][group + c];
        const T e = memory.w[group + c] * exp2_of(s[c] - sum.top);
        sum.total += e;
        Parts::template add<T, D, P>(sum.parts, e, u, v, taken, scale.floor);
      }
    }
  }
  block_barrier();
  RowMerge<T, K>& merge = *reinterpret_cast<RowMerge<T, K>*>(shared_memory());
  merge.sums[warp][lane] = sum;
  block_barrier();
  if (warp == 0)
    for (int other = 1; other < kRowWarps; other++) {
      RowSum<T, K> next = merge.sums[other][lane];
      rescale(sum, next.top);
      rescale(next, sum.top);
      sum.total += next.total;
      for (int k = 0; k < K; k++) sum.parts[k] += next.parts[k];
    }
  sum.total *= own.factor;
  for (int k = 0; k < K; k++) sum.parts[k] *= own.factor;
  return sum;
}

// 2^top, as a factor that may be out of T's range.
template <class T, int K>
__device__ double factor_of(const RowSum<T, K>& sum) {
  return exp2(static_cast<double>(sum.top));
}

template <class T, int D, class Parts>
constexpr std::size_t kRowShared = sizeof(RowMemory<T, D, Parts::kValues>) > sizeof(RowMerge<T, Parts::kParts>)
                                       ? sizeof(RowMemory<T, D, Parts::kValues>)
                                       : sizeof(RowMerge<T, Parts::kParts>);

template <class T>
dim3 row_grid(const Batch<T>& q, bool turned = false) {
  const int rows = turned ? q.m : q.kinds == 1 || q.n > q.m ? q.n : q.m;
  return dim3((rows + kWarp - 1) / kWarp, 1, q.terms());
}

}  // namespace otcore::cuda
