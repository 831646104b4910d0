// Sums over the columns of each row that keep a running maximum, so that nothing leaves the range: softmin, apply and
// grad differ in what they add up.
//
// A block takes the rows of a warp; its warps share the tiles of columns out, each looks at its own alone, and their
// results are merged at the end. Where boxes are given, the tile with the highest bound goes first, and those that
// stay far below what it gives are skipped.
#pragma once
#include "box.h"

namespace otcore::cuda {

constexpr int kRowWarps = 8, kRowThreads = kRowWarps * kWarp;
// Columns whose logits are computed before their exponentials; their differences stay in registers.
template <class T, int D, int P>
constexpr int kRowGroup = D <= 8 ? 8 : sizeof(T) == 8 ? 1 : P == 1 ? 4 : 8;

// With s_ij the logit and e_ij = 2^(s_ij - top_i): the sum of b_j e_ij, and of b_j e_ij times what `Parts` take of the pair.
template <class T, int K>
struct RowSum {
  T top, total, parts[K > 0 ? K : 1];
};

// The tile of columns that a warp looks at: coordinates, level, weight and values.
template <class T, int D, int K>
using RowTile = Columns<T, D + 2 + K, kWarp>;

template <class T, int D, class Parts>
struct RowMemory {
  union {
    RowTile<T, D, Parts::kValues> tiles[kRowWarps];
    RowSum<T, Parts::kParts> sums[kRowWarps][kWarp];
  };
  T tops[kRowWarps][kWarp];
};

// The box of a tile of columns, of whatever dimension.
template <class T>
constexpr int kBoxNumbers = sizeof(Box<T, 4>) / sizeof(T);

// The softmin takes nothing of a pair.
struct NoParts {
  static constexpr int kParts = 0, kValues = 0;
  template <class T, int D, int P, int V>
  __device__ static void add(T*, T, const T (&)[D], const T (&)[V], T) {}
};

// dC(x_i, y_j) / dx_i.
template <int D>
struct SlopeParts {
  static constexpr int kParts = D, kValues = 0;
  template <class T, int, int P, int V>
  __device__ static void add(T* parts, T e, const T (&u)[D], const T (&v)[V], T floor) {
    T factor = e;
    if (P == 1) {
      const T square = squared_distance<T, D>(u, v);
      const T root = sqrt_of(square);  // 0 where the hardware takes a tiny square for 0
      factor = square > floor && root > 0 ? e / root : T(0);
    }
#pragma unroll
    for (int k = 0; k < D; k++) parts[k] += factor * (u[k] - v[k]);
  }
};

// K numbers that come with column j.
template <int K>
struct ValueParts {
  static constexpr int kParts = K, kValues = K;
  template <class T, int D, int P, int V>
  __device__ static void add(T* parts, T e, const T (&)[D], const T (&numbers)[V], T) {
#pragma unroll
    for (int k = 0; k < K; k++) parts[k] += e * numbers[D + 2 + k];
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

// The sums of row `block` * 32 + lane, complete in the lanes of warp 0. `values` is [m][stride] (ValueParts only),
// `boxes` those of the tiles of columns, or null.
template <class T, int D, int P, class Parts>
__device__ RowSum<T, Parts::kParts> row_sums(const Term<T>& q, int d, int block, const Scale<T>& scale, const double* f,
                                             const double* g, const double* values, int stride, int width, const T* boxes) {
  constexpr int K = Parts::kParts, kGroup = kRowGroup<T, D, P>, kNumbers = D + 2 + Parts::kValues;
  RowMemory<T, D, Parts>& memory = *reinterpret_cast<RowMemory<T, D, Parts>*>(shared_memory());
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int row = block * kWarp + lane, near = row < q.n ? row : q.n - 1;
  RowTile<T, D, Parts::kValues>& tile = memory.tiles[warp];
  T u[1][D];
  load_point<T, D>(q.x, near, d, u[0]);
  const Rounded<T> own = rounded<T>(level(scale, f, q.shift_x, near));
  const T h[1] = {own.level};
  RowSum<T, K> sum = {kNever<T>, 0, {}};

  const auto visit = [&](int t) {
    const int column = t * kWarp + lane;
    const bool inside = column < q.m && q.weight_y(column) > 0;
    T v[D], given[kNumbers];
    load_point<T, D>(q.y, column < q.m ? column : 0, d, v);
    const Rounded<T> other =
        inside ? rounded_column<T, P>(level(scale, g, q.shift_y, column), scale) : Rounded<T>{kNoColumn<T, P>, 0};
    for (int k = 0; k < D; k++) given[k] = v[k];
    given[D] = other.level;
    given[D + 1] = inside ? q.weight_y(column) * other.factor : T(0);
    for (int k = 0; k < Parts::kValues; k++)
      given[D + 2 + k] = inside && k < width ? static_cast<T>(values[static_cast<long>(column) * stride + k]) : T(0);
    warp_barrier();
    tile.store(lane, given);
    warp_barrier();
    for (int group = 0; group < kWarp; group += kGroup) {
      T s[kGroup], top = kNever<T>;
#pragma unroll
      for (int c = 0; c < kGroup; c++) {
        T numbers[kNumbers];
        tile.load(group + c, numbers);
        s[c] = pair_logit<T, D, P>(u[0], h[0], numbers, scale);
        top = s[c] > top ? s[c] : top;
      }
      rescale(sum, top);
      if (!(sum.top > kNever<T>)) continue;
#pragma unroll
      for (int c = 0; c < kGroup; c++) {
        T numbers[kNumbers];
        tile.load(group + c, numbers);
        const T e = numbers[D + 1] * exp2_of(s[c] - sum.top);
        sum.total += e;
        Parts::template add<T, D, P>(sum.parts, e, u[0], numbers, scale.floor);
      }
    }
  };

  const int tiles = (q.m + kWarp - 1) / kWarp;
  int first = -1;
  T limit = kNever<T>;
  Box<T, D> box;
  const auto bound = [&](int t) {
    return highest_logit<T, D, P>(box, *reinterpret_cast<const Box<T, D>*>(boxes + static_cast<long>(t) * kBoxNumbers<T>), scale);
  };
  if (boxes) {
    box = box_of<T, D, 1>(u, h);
    T best = kNever<T>;
    for (int t = warp * kWarp + lane; t < tiles; t += kRowThreads) {
      const T here = bound(t);
      if (here > best) best = here, first = t;
    }
    const T highest = warp_max(best);
    const unsigned owners = ballot(first >= 0 && best == highest);
    first = owners ? shuffle(first, first_bit(owners)) : -1;
    if (first >= 0) visit(first);
    memory.tops[warp][lane] = sum.top;
    block_barrier();
    T known = kNever<T>;
    for (int other = 0; other < kRowWarps; other++) known = memory.tops[other][lane] > known ? memory.tops[other][lane] : known;
    limit = -warp_max(-known) + kCutoff<T>;
  }
  for (int group = warp * kWarp; group < tiles; group += kRowThreads) {
    const int t = group + lane;
    unsigned wanted = ballot(t < tiles && t != first && !(boxes && bound(t) < limit));
    while (wanted) {
      visit(group + first_bit(wanted));
      wanted &= wanted - 1;
    }
  }

  block_barrier();
  memory.sums[warp][lane] = sum;
  block_barrier();
  if (warp == 0)
    for (int other = 1; other < kRowWarps; other++) {
      RowSum<T, K> next = memory.sums[other][lane];
      rescale(sum, next.top);
      rescale(next, sum.top);
      sum.total += next.total;
      for (int k = 0; k < K; k++) sum.parts[k] += next.parts[k];
    }
  sum.total *= own.factor;
  for (int k = 0; k < K; k++) sum.parts[k] *= own.factor;
  return sum;
}

// Whose columns pull at whose rows: x at y's points and so on; those of x to x and y to y only where a batch has them.
enum Pull { kCrossX, kCrossY, kSelfX, kSelfY, kPulls };

// The transport of an item with the rows that are pulled at as its rows.
template <class T>
__device__ Term<T> term_of(const Batch<T>& q, int item, int pull) {
  if (pull >= kSelfX) return term_at(q, (pull - kSelfX + 1) * q.items + item);
  const Term<T> cross = term_at(q, item);
  return pull == kCrossX ? cross : cross.turned();
}

// The boxes of the tiles of columns, a warp each: [pull][items][tiles][kBoxNumbers]. The potentials of y are `before`
// numbers before their place among those of all terms.
template <class T, int D>
__global__ void box_tiles(Batch<T> batch, const double* potentials, long before, const double* eps, int tiles, T* boxes) {
  const int z = blockIdx.x / tiles, t = blockIdx.x % tiles, column = t * kWarp + threadIdx.x;
  const Term<T> q = term_of(batch, z % batch.items, z / batch.items);
  if (t * kWarp >= q.m) return;
  const Scale<T> scale = scale_at<T>(batch.cost, eps[z % batch.items]);
  const bool inside = column < q.m && q.weight_y(column) > 0;
  T v[1][D], h[1];
  load_point<T, D>(q.y, column < q.m ? column : 0, batch.d, v[0]);
  const double* potential = potentials ? potentials + (q.column - before) : nullptr;
  h[0] = inside ? static_cast<T>(level(scale, potential, q.shift_y, column)) : kNever<T>;
  const Box<T, D> box = box_of<T, D, 1>(v, h);
  if (threadIdx.x == 0)
    *reinterpret_cast<Box<T, D>*>(boxes + (static_cast<long>(z) * tiles + t) * kBoxNumbers<T>) = box;
}

// Tiles of the largest cloud whose columns pull.
template <class T>
int box_count(const Batch<T>& q, int pulls) {
  return ((pulls > 1 && q.n > q.m ? q.n : q.m) + kWarp - 1) / kWarp;
}

// Fills `boxes` of the first so many pulls where there are any, and the dimension is one in which they pay; returns
// them, else null.
template <class T, int D>
T* boxes_for(const Batch<T>& q, int pulls, const double* potentials, long before, const double* eps, T* boxes, Stream stream) {
  if (!boxes || !kPruned<D>) return nullptr;
  const int tiles = box_count(q, pulls);
  launch(box_tiles<T, D>, dim3(tiles * q.items * pulls), kWarp, 0, stream, q, potentials, before, eps, tiles, boxes);
  return boxes;
}

// Those of one of the transports.
template <class T>
__device__ const T* boxes_of(const T* boxes, int tiles, int z) {
  return boxes ? boxes + static_cast<long>(z) * tiles * kBoxNumbers<T> : nullptr;
}

// 2^top, as a factor that may be out of T's range.
template <class T, int K>
__device__ double factor_of(const RowSum<T, K>& sum) {
  return exp2(static_cast<double>(sum.top));
}

// Blocks a term: term z takes those from z times this.
template <class T>
int row_blocks(const Batch<T>& q, bool turned = false) {
  const int rows = turned ? q.m : q.kinds == 1 || q.n > q.m ? q.n : q.m;
  return (rows + kWarp - 1) / kWarp;
}

}  // namespace otcore::cuda
