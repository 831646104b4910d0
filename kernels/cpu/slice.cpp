// slice: the transport of two clouds along one direction and its slopes. product: projections of a tile of points on
// some directions, and the slopes along these directions brought back to points. transpose: points to tiles and back.
#include "slice.h"

#include "order.h"
#include "verbs.h"

namespace otcore {
namespace OTCORE_ISA {
namespace {

constexpr int kColumns = 2;  // vectors of columns of the register tile
constexpr long kBlock = 256;  // terms added up in T before they are added in double

template <class T, int rows>
OTCORE_INLINE void product_block(const TileProduct<T>& q, long r0, long c) {
  constexpr int L = Simd<T>::lanes;
  Vec<T> sum[rows][kColumns];
#pragma GCC unroll 8
  for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
    for (int v = 0; v < kColumns; v++)
      sum[r][v] = q.add ? load(q.out + (r0 + r) * q.out_stride + c + v * L) : Vec<T>{};
  for (long k = 0; k < q.inner; k++) {
    Vec<T> in[kColumns];
#pragma GCC unroll 2
    for (int v = 0; v < kColumns; v++) in[v] = load(q.in + k * q.in_stride + c + v * L);
    const T* factors = q.factors + k * q.factors_stride + r0;
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
      for (int v = 0; v < kColumns; v++) sum[r][v] += in[v] * factors[r];
  }
#pragma GCC unroll 8
  for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
    for (int v = 0; v < kColumns; v++) store(q.out + (r0 + r) * q.out_stride + c + v * L, sum[r][v]);
}

template <class T>
void product_any(const TileProduct<T>& q) {
  constexpr int width = kColumns * Simd<T>::lanes;
  static_assert(kTile % width == 0, "a tile is a whole number of blocks");
  for (long c = 0; c < kTile; c += width) {
    long r = 0;
    for (; r + kRows <= q.rows; r += kRows) product_block<T, kRows>(q, r, c);
    for (; r + 2 <= q.rows; r += 2) product_block<T, 2>(q, r, c);
    for (; r < q.rows; r++) product_block<T, 1>(q, r, c);
  }
}

// Which lanes make up the rows r and r + half of a square whose blocks of that size are exchanged.
template <class T, int half>
struct Swap {
  static constexpr int lanes = Simd<T>::lanes;
  typedef __typeof__(typename Simd<T>::Int{}[0] + 0) Index;
  alignas(kVectorBytes) Index upper[lanes], lower[lanes];
  constexpr Swap() : upper(), lower() {
    for (int l = 0; l < lanes; l++) {
      upper[l] = l & half ? lanes + l - half : l;
      lower[l] = l & half ? lanes + l : l + half;
    }
  }
};

template <class T, int half>
OTCORE_INLINE void swap_blocks(Vec<T>* v) {
  static constexpr Swap<T, half> swap;
  typename Simd<T>::Int upper, lower;
  std::memcpy(&upper, swap.upper, sizeof upper);
  std::memcpy(&lower, swap.lower, sizeof lower);
#pragma GCC unroll 16
  for (int r = 0; r < Simd<T>::lanes; r++) {
    if (r & half) continue;
    const Vec<T> a = v[r], b = v[r + half];
    v[r] = __builtin_shuffle(a, b, upper), v[r + half] = __builtin_shuffle(a, b, lower);
  }
  if constexpr (half > 1) swap_blocks<T, half / 2>(v);
}

template <class T>
void transpose_any(const Transposition<T>& q) {
  constexpr int L = Simd<T>::lanes;
  const Vec<T> factor = splat(q.factor);
  long r = 0;
  for (; r + L <= q.rows; r += L) {
    long c = 0;
    for (; c + L <= q.columns; c += L) {
      Vec<T> v[L];
#pragma GCC unroll 16
      for (int i = 0; i < L; i++) v[i] = load(q.in + (r + i) * q.in_stride + c) * factor;
      swap_blocks<T, L / 2>(v);
#pragma GCC unroll 16
      for (int i = 0; i < L; i++) store(q.out + (c + i) * q.out_stride + r, v[i]);
    }
    for (; c < q.columns; c++)
      for (int i = 0; i < L; i++) q.out[c * q.out_stride + r + i] = q.factor * q.in[(r + i) * q.in_stride + c];
  }
  for (; r < q.rows; r++)
    for (long c = 0; c < q.columns; c++) q.out[c * q.out_stride + r] = q.factor * q.in[r * q.in_stride + c];
}

// The extremes, and sums for a guess at the spread.
struct Spread {
  float lo, hi;
  double sum, square;
  bool finite;
};

Spread spread_of(const float* v, long n) {
  constexpr int L = Simd<float>::lanes;
  typedef Simd<float>::Int Int;
  Vec<float> lo = splat(v[0]), hi = lo, sum = {}, square = {};
  Int largest = {};
  long i = 0;
  for (; i + L <= n; i += L) {
    const Vec<float> own = load(v + i);
    const Int size = (Int)own & 0x7fffffff;
    largest = size > largest ? size : largest;
    lo = vmin(lo, own), hi = vmax(hi, own);
    sum += own, square += own * own;
  }
  Spread s{v[0], v[0], lane_sum<float>(sum), lane_sum<float>(square), true};
  int32_t most = 0;
  for (int l = 0; l < L; l++) {
    s.lo = lo[l] < s.lo ? lo[l] : s.lo, s.hi = hi[l] > s.hi ? hi[l] : s.hi;
    most = largest[l] > most ? largest[l] : most;
  }
  for (; i < n; i++) {
    const int32_t size = bits_of(v[i]) & 0x7fffffff;
    most = size > most ? size : most;
    s.lo = v[i] < s.lo ? v[i] : s.lo, s.hi = v[i] > s.hi ? v[i] : s.hi;
    s.sum += v[i], s.square += (double)v[i] * v[i];
  }
  s.finite = most < 0x7f800000;
  return s;
}

// Both zeros are the same position.
OTCORE_INLINE int32_t key_of(int32_t bits) { return bits == INT32_MIN ? 0 : ordered(bits); }
OTCORE_INLINE void make_key(int32_t bits, long, int32_t& key) { key = key_of(bits); }
OTCORE_INLINE void make_key(int32_t bits, long i, int64_t& key) {
  key = (int64_t)((uint64_t)(uint32_t)key_of(bits) << 32 | (uint64_t)i);
}

// Sorted keys of v in `keys`; false where a position is not finite.
template <class E>
bool order(const float* v, long n, E* keys, E* other, uint16_t* bucket, Counts counts) {
  const Spread s = spread_of(v, n);
  if (!s.finite) return false;
  const Grid g = make_grid<E>(s.lo, s.hi, s.sum, s.square, n);
  E* to = n <= kNetwork<E> || !g.usable ? keys : other;
  for (long i = 0; i < n; i++) make_key(bits_of(v[i]), i, to[i]);
  if (to == keys) {
    sort_keys(keys, n, other, bucket, counts, 0);
    return true;
  }
  for (long i = 0; i < n; i++) bucket[i] = bucket_of(v[i], g);
  deal_out(other, n, keys, g, bucket, counts, 0);
  return true;
}

bool sort_side(const float* v, long n, bool index, const SliceScratch<float>& s, int side) {
  float* sorted = s.sorted[side];
  if (index) {
    int64_t* keys = s.keys[side];
    if (!order(v, n, keys, s.keys[2], s.bucket, {s.counts, s.stride})) return false;
    for (long i = 0; i < n; i++) sorted[i] = position(keys[i]);
  } else {
    int32_t* keys = reinterpret_cast<int32_t*>(s.keys[side]);
    if (!order(v, n, keys, reinterpret_cast<int32_t*>(s.keys[2]), s.bucket, {s.counts, s.stride})) return false;
    for (long i = 0; i < n; i++) sorted[i] = position(keys[i]);
  }
  return true;
}

// The doubles v[index_of(keys[i])], of which the indices ascend, sorted by way of floats: what rounds to the same
// float is sorted again, relative to its own extremes.
bool order_wide(const double* v, int64_t* keys, long n, const SliceScratch<double>& s) {
  constexpr long kFew = 16;
  double lo = v[index_of(keys[0])], hi = lo;
  bool finite = true;
  for (long i = 0; i < n; i++) {
    const double own = v[index_of(keys[i])];
    lo = own < lo ? own : lo, hi = own > hi ? own : hi;
    finite = finite & is_finite(own);
  }
  if (!finite || !is_finite(hi - lo)) return false;
  if (!(hi > lo)) return true;
  int exponent;
  __builtin_frexp(hi - lo, &exponent);
  const double scale = __builtin_ldexp(1.0, exponent > -1000 ? -exponent : 1000);
  for (long i = 0; i < n; i++) {
    const uint32_t index = index_of(keys[i]);
    make_key(bits_of((float)((v[index] - lo) * scale)), index, keys[i]);
  }
  sort_keys(keys, n, s.keys[2], s.bucket, {s.counts, s.stride}, 0);
  for (long first = 0, last; first < n; first = last) {
    const int32_t own = (int32_t)(keys[first] >> 32);
    bool ascending = true;
    for (last = first + 1; last < n && (int32_t)(keys[last] >> 32) == own; last++)
      ascending = ascending && v[index_of(keys[last - 1])] <= v[index_of(keys[last])];
    if (ascending) continue;
    if (last - first > kFew) {
      order_wide(v, keys + first, last - first, s);
      continue;
    }
    for (long i = first + 1; i < last; i++) {
      const int64_t key = keys[i];
      long to = i;
      for (; to > first && v[index_of(keys[to - 1])] > v[index_of(key)]; to--) keys[to] = keys[to - 1];
      keys[to] = key;
    }
  }
  return true;
}

bool sort_side(const double* v, long n, bool, const SliceScratch<double>& s, int side) {
  int64_t* keys = s.keys[side];
  for (long i = 0; i < n; i++) keys[i] = i;
  if (!order_wide(v, keys, n, s)) return false;
  for (long i = 0; i < n; i++) s.sorted[side][i] = v[index_of(keys[i])];
  return true;
}

enum class Power { one, two, any };

// |d|^p, and its derivative in d.
template <class T, Power P>
OTCORE_INLINE T cost_of(T d, T p, T& slope) {
  if constexpr (P == Power::two) {
    slope = d + d;
    return d * d;
  } else {
    const T size = d < 0 ? -d : d;
    if constexpr (P == Power::one) {
      slope = d > 0 ? T(1) : d < 0 ? T(-1) : T(0);
      return size;
    } else {
      const T power = (T)__builtin_pow(size, p - 1);
      slope = d < 0 ? -p * power : p * power;
      return power * size;
    }
  }
}

// Clouds of as many points of the same weight: point i goes to point i.
template <class T, Power P>
double even(const Line<T>& q, const SliceScratch<T>& s) {
  const T *x = s.sorted[0], *y = s.sorted[1], p = (T)q.p, each = T(1) / (T)q.n;
  T* slopes = s.slopes[0];
  double total = 0;
  for (long first = 0; first < q.n; first += kBlock) {
    const long last = first + kBlock < q.n ? first + kBlock : q.n;
    T sum = 0;
#pragma omp simd reduction(+ : sum)
    for (long i = first; i < last; i++) {
      T slope;
      sum += cost_of<T, P>(x[i] - y[i], p, slope);
      slopes[i] = each * slope;
    }
    total += (double)sum;
  }
  if (q.slope_x)
    for (long i = 0; i < q.n; i++) q.x[index_of(s.keys[0][i])] = slopes[i];
  if (q.slope_y)
    for (long i = 0; i < q.n; i++) q.y[index_of(s.keys[1][i])] = -slopes[i];
  return total / (double)q.n;
}

// The levels at which a quantile function jumps, the last of them 1: the sums of the sorted weights.
const double* levels_of(const double* weights, const double* uniform, const int64_t* keys, long n, double* own) {
  if (!weights) return uniform;
  double sum = 0;
  for (long i = 0; i < n; i++) {
    sum += weights[index_of(keys[i])];
    own[i] = sum < 1 ? sum : 1;
  }
  own[n - 1] = 1;
  return own;
}

// The integral of |Q_x - Q_y|^p, both quantile functions being constant between merged levels.
template <class T, Power P>
double merged(const Line<T>& q, const SliceScratch<T>& s) {
  const double* level_x = levels_of(q.a, q.level_x, s.keys[0], q.n, s.levels[0]);
  const double* level_y = levels_of(q.b, q.level_y, s.keys[1], q.m, s.levels[1]);
  T *slope_x = s.slopes[0], *slope_y = s.slopes[1];
  for (long i = 0; i < q.n; i++) slope_x[i] = 0;
  for (long j = 0; j < q.m; j++) slope_y[j] = 0;
  double total = 0, at = 0, own_x = 0, own_y = 0;
  // Without branches: which of the two comes next cannot be foreseen.
  for (long i = 0, j = 0; i < q.n && j < q.m;) {
    const double to_x = level_x[i], to_y = level_y[j], to = to_x < to_y ? to_x : to_y, width = to - at;
    double slope;
    total += width * cost_of<double, P>((double)s.sorted[0][i] - (double)s.sorted[1][j], q.p, slope);
    own_x += width * slope, own_y -= width * slope;
    slope_x[i] = (T)own_x, slope_y[j] = (T)own_y;
    const bool next_x = to_x <= to, next_y = to_y <= to;
    own_x = next_x ? 0 : own_x, own_y = next_y ? 0 : own_y;
    i += next_x, j += next_y;
    at = to;
  }
  if (q.slope_x)
    for (long i = 0; i < q.n; i++) q.x[index_of(s.keys[0][i])] = slope_x[i];
  if (q.slope_y)
    for (long j = 0; j < q.m; j++) q.y[index_of(s.keys[1][j])] = slope_y[j];
  return total;
}

template <class T>
bool slice_any(const Line<T>& q, const SliceScratch<T>& s, double* cost) {
  if (!sort_side(q.x, q.n, q.slope_x || q.a, s, 0)) return false;
  if (!sort_side(q.y, q.m, q.slope_y || q.b, s, 1)) return false;
  const bool same = q.n == q.m && !q.a && !q.b;
  if (q.p == 2) *cost = same ? even<T, Power::two>(q, s) : merged<T, Power::two>(q, s);
  else if (q.p == 1) *cost = same ? even<T, Power::one>(q, s) : merged<T, Power::one>(q, s);
  else *cost = same ? even<T, Power::any>(q, s) : merged<T, Power::any>(q, s);
  return true;
}

}  // namespace

void product(const TileProduct<float>& q) { product_any(q); }
void product(const TileProduct<double>& q) { product_any(q); }
void transpose(const Transposition<float>& q) { transpose_any(q); }
void transpose(const Transposition<double>& q) { transpose_any(q); }
bool slice(const Line<float>& q, const SliceScratch<float>& s, double* cost) { return slice_any(q, s, cost); }
bool slice(const Line<double>& q, const SliceScratch<double>& s, double* cost) { return slice_any(q, s, cost); }

}  // namespace OTCORE_ISA
}  // namespace otcore
