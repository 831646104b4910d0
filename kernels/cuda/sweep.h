// The sums of a sweep: one exponential a pair serves r_i = sum_j b_j e_ij and c_j = sum_i a_i e_ij.
//
// A lane holds R rows. A warp takes 32 columns at a time, each lane another one in each of 32 steps; the sums of the
// columns travel from lane to lane with them. Partial sums go to memory and are added in a fixed order by
// `log_sum` below: the same call gives the same bits.
#pragma once
#include "box.h"
#include "exact.h"

namespace otcore::cuda {

constexpr int kSweepWarps = 4, kSweepThreads = kSweepWarps * kWarp;
// Sums outside are computed again, exactly: below, what was skipped or rounded to zero might show; above, they
// overflow.
template <int D>
constexpr double kSmallest = kPruned<D> ? 0x1p-16 : 0x1p-80;
constexpr double kLargest = 0x1p80;

// How many rows a lane holds: as many as registers allow where clouds are large.
template <class T, int D>
constexpr int kLaneRows = sizeof(T) == 4 ? (D <= 4 ? 4 : 2) : D <= 4 ? 2 : 1;

// Partial sums of rows and of columns, [slots][length of the batch] each.
template <class T>
struct Partials {
  T *rows, *columns;
  long length;
};

template <class T, int D, int R>
struct SweepMemory {
  static constexpr int kBlock = kSweepThreads * R;  // rows of a block, and columns of a segment
  static constexpr int kTiles = kBlock / kWarp;
  Columns<T, D + 2, kBlock> columns;  // coordinates, level and weight
  T factor[kBlock];
  T sums[kSweepWarps][kBlock];
  Box<T, D> boxes[kTiles];
};

// first, first + step, ... below end: near and far pairs of blocks then fall to the same.
struct Stride {
  int first, step, end;
};

// These row blocks of the term against these column segments, into one slot of the partial sums each way; of a
// self-term, only those at or above the diagonal. Called by a whole block.
template <class T, int D, int P, int R>
__device__ void sweep_blocks(const Term<T>& q, int d, const Scale<T>& scale, const double* f, const double* g, Stride blocks,
                             Stride segments, T* row_slot, T* column_slot, unsigned long long* pairs) {
  using Memory = SweepMemory<T, D, R>;
  constexpr int kBlock = Memory::kBlock;
  constexpr bool kPrune = kPruned<D>;
  Memory& memory = *reinterpret_cast<Memory*>(shared_memory());
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  unsigned long long visited = 0;
  for (int j = segments.first; j < segments.end; j += segments.step)
    for (int c = threadIdx.x; c < kBlock && j * kBlock + c < q.m; c += kSweepThreads) column_slot[j * kBlock + c] = 0;
  for (int i = blocks.first; i < blocks.end; i += blocks.step) {
    const int first = i * kBlock + warp * kWarp * R + lane;
    T u[R][D], h[R], w[R], sum[R], factor[R];
#pragma unroll
    for (int r = 0; r < R; r++) {
      const int row = first + r * kWarp;
      const bool inside = row < q.n;
      load_point<T, D>(q.x, inside ? row : 0, d, u[r]);
      const Rounded<T> own = inside ? rounded<T>(level(scale, f, q.shift_x, row)) : Rounded<T>{kNever<T>, 0};
      h[r] = own.level, factor[r] = own.factor;
      w[r] = inside ? q.weight_x(row) * own.factor : T(0);
      sum[r] = 0;
    }
    Box<T, D> box;
    if (kPrune) box = box_of<T, D, R>(u, h);
    const int rows_inside = q.n - (first - lane) < 0 ? 0 : q.n - (first - lane) < kWarp * R ? q.n - (first - lane) : kWarp * R;
    for (int j = segments.first; j < segments.end; j += segments.step) {
      if (q.same && j < i) continue;
      block_barrier();
      for (int c = threadIdx.x; c < kBlock; c += kSweepThreads) {
        const int column = j * kBlock + c;
        const bool inside = column < q.m;
        T v[1][D], values[D + 2];
        load_point<T, D>(q.y, inside ? column : 0, d, v[0]);
        const double exact = inside ? level(scale, g, q.shift_y, column) : 0;
        const Rounded<T> own = inside ? rounded_column<T, P>(exact, scale) : Rounded<T>{kNoColumn<T, P>, 0};
        for (int s = 0; s < D; s++) values[s] = v[0][s];
        values[D] = own.level;
        values[D + 1] = inside ? q.weight_y(column) * own.factor : T(0);
        memory.columns.store(c, values);
        memory.factor[c] = own.factor;
        for (int other = 0; other < kSweepWarps; other++) memory.sums[other][c] = 0;
        if (kPrune) {
          const T top[1] = {inside ? static_cast<T>(exact) : kNever<T>};
          const Box<T, D> tile = box_of<T, D, 1>(v, top);
          if (lane == 0) memory.boxes[c / kWarp] = tile;
        }
      }
      block_barrier();
      for (int group = 0; group < Memory::kTiles; group += kWarp) {
        // The tiles of this group that matter to the rows of the warp, one bit each.
        const int mine = group + lane;
        bool wanted = mine < Memory::kTiles && j * kBlock + mine * kWarp < q.m && rows_inside > 0;
        // Not "at least the cutoff": NaN potentials must be seen.
        if (kPrune && wanted) wanted = !(highest_logit<T, D, P>(box, memory.boxes[mine], scale) < kCutoff<T>);
        unsigned tiles = ballot(wanted);
        visited += static_cast<unsigned long long>(bit_count(tiles)) * kWarp * rows_inside;
        while (tiles) {
          const int t = group + first_bit(tiles);
          tiles &= tiles - 1;
          T inner[R], travelling = 0;
          for (int r = 0; r < R; r++) inner[r] = 0;
#pragma unroll 4
          for (int step = 0; step < kWarp; step++) {
            const int c = t * kWarp + (lane + step) % kWarp;
            T values[D + 2];
            memory.columns.load(c, values);
#pragma unroll
            for (int r = 0; r < R; r++) {
              const T e = exp2_of(pair_logit<T, D, P>(u[r], h[r], values, scale));
              inner[r] += values[D + 1] * e;
              travelling += w[r] * e;
            }
            travelling = shuffle(travelling, (lane + 1) % kWarp);
          }
          for (int r = 0; r < R; r++) sum[r] += inner[r];
          memory.sums[warp][t * kWarp + lane] = travelling;
        }
      }
      block_barrier();
      if (!(q.same && i == j))
        for (int c = threadIdx.x; c < kBlock && j * kBlock + c < q.m; c += kSweepThreads) {
          T total = 0;
          for (int other = 0; other < kSweepWarps; other++) total += memory.sums[other][c];
          column_slot[j * kBlock + c] += total * memory.factor[c];
        }
    }
#pragma unroll
    for (int r = 0; r < R; r++)
      if (first + r * kWarp < q.n) row_slot[first + r * kWarp] = sum[r] * factor[r];
  }
  if (lane == 0 && visited) add_atomically(pairs, visited);
}

// The natural logarithms of the sums of potential `e` of a term, from the partial sums; called by whole warps, whose
// lanes have different `e`, of which those past the end of the term are idle.
template <class T, int D, int P>
__device__ double log_sum(const Term<T>& q, int d, const Scale<T>& scale, const double* f, const double* g,
                          const Partials<T>& partials, int row_slots, int column_slots, int e) {
  const bool inside = e < q.size();
  double sum = 1;
  if (inside) {
    const long place = q.place(e);
    sum = 0;
    if (e < q.n)
      for (int s = 0; s < row_slots; s++) sum += static_cast<double>(partials.rows[s * partials.length + place]);
    if (e >= q.n || q.same)
      for (int s = 0; s < column_slots; s++) sum += static_cast<double>(partials.columns[s * partials.length + place]);
  }
  double result = log(sum);
  const bool flat = is_flat(q, scale);
  unsigned again = ballot(inside && (flat || !(sum >= kSmallest<D> && sum <= kLargest)));
  while (again) {
    const int lane = first_bit(again);
    again &= again - 1;
    const int which = e - static_cast<int>(threadIdx.x % kWarp) + lane;
    const double exact = which < q.n ? exact_log_sum<T, D, P>(q, d, scale, f, g, which, flat)
                                     : exact_log_sum<T, D, P>(q.turned(), d, scale, g, f, which - q.n, flat);
    if (static_cast<int>(threadIdx.x % kWarp) == lane) result = exact;
  }
  return result;
}

}  // namespace otcore::cuda
