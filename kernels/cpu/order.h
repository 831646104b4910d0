// Sorting positions on the line. Positions are dealt out, in one pass, to buckets that cover them evenly within a few
// standard deviations, and every bucket is sorted by a network; a bucket that got too many is dealt out again by its
// own extremes, and where that does not help either, a radix sort ends it: linear time whatever the positions are.
#pragma once
#include "network.h"
#include "slice.h"

namespace otcore {
namespace OTCORE_ISA {
namespace {

// A float's bits as a signed integer of the same order, and back.
OTCORE_INLINE int32_t ordered(int32_t bits) { return bits ^ ((bits >> 31) & 0x7fffffff); }

OTCORE_INLINE int32_t bits_of(float v) {
  int32_t bits;
  std::memcpy(&bits, &v, sizeof bits);
  return bits;
}

OTCORE_INLINE float position(int32_t key) {
  const int32_t bits = ordered(key);
  float v;
  std::memcpy(&v, &bits, sizeof v);
  return v;
}
OTCORE_INLINE float position(int64_t key) { return position((int32_t)(key >> 32)); }

OTCORE_INLINE uint32_t index_of(int64_t key) { return (uint32_t)key; }

// By bits: these files are compiled with -ffinite-math-only.
OTCORE_INLINE bool is_finite(float v) { return (bits_of(v) & 0x7f800000) != 0x7f800000; }
OTCORE_INLINE bool is_finite(double v) {
  int64_t bits;
  std::memcpy(&bits, &v, sizeof bits);
  return (bits & 0x7ff0000000000000) != 0x7ff0000000000000;
}

// What the radix sort looks at: a stable sort by the position leaves equal ones in the order of their indices.
OTCORE_INLINE uint32_t digits(int32_t key) { return (uint32_t)key ^ 0x80000000u; }
OTCORE_INLINE uint32_t digits(int64_t key) { return digits((int32_t)(key >> 32)); }

template <class E>
void radix_sort(E* keys, long n, E* other) {
  uint32_t counts[4][256] = {};
  for (long i = 0; i < n; i++) {
    const uint32_t d = digits(keys[i]);
    for (int k = 0; k < 4; k++) counts[k][d >> (8 * k) & 255]++;
  }
  E *from = keys, *to = other;
  for (int k = 0; k < 4; k++) {
    uint32_t* count = counts[k];
    if (count[digits(from[0]) >> (8 * k) & 255] == n) continue;
    uint32_t sum = 0;
    for (int v = 0; v < 256; v++) {
      const uint32_t own = count[v];
      count[v] = sum, sum += own;
    }
    for (long i = 0; i < n; i++) to[count[digits(from[i]) >> (8 * k) & 255]++] = from[i];
    E* swap = from;
    from = to, to = swap;
  }
  if (from != keys) std::memcpy(keys, from, n * sizeof(E));
}

// Counters of the points in each bucket, for each level of sorting.
struct Counts {
  uint32_t* first;
  long stride;
};

// Where buckets begin and how many there are to a unit of length.
struct Grid {
  float lo, scale;
  long buckets;
  bool usable;
};

constexpr float kDeviations = 3.2f;  // the normal distribution has one in 700 beyond

template <class E>
Grid make_grid(float lo, float hi, double sum, double square, long n) {
  const double mean = sum / n, deviation = __builtin_sqrt(__builtin_fmax(square / n - mean * mean, 0.0));
  const double low = mean - kDeviations * deviation, high = mean + kDeviations * deviation;
  Grid g{lo, 0, n / (kNetwork<E> / 8), false};
  if (g.buckets > kMostBuckets) g.buckets = kMostBuckets;
  if (!is_finite(low) || !is_finite(high)) return g;
  if (low > lo) g.lo = (float)low;
  const float end = high < hi ? (float)high : hi;
  g.scale = g.buckets / (end - g.lo);
  g.usable = end > g.lo && is_finite(end) && is_finite(g.lo) && is_finite(g.scale) && is_finite(end - g.lo);
  return g;
}

// Rounding keeps the order in every step here, so that a smaller position never gets a later bucket.
OTCORE_INLINE uint16_t bucket_of(float v, const Grid& g) {
  float z = (v - g.lo) * g.scale;
  const float most = (float)(g.buckets - 1);
  z = z > 0.0f ? z : 0.0f;
  z = z < most ? z : most;
  return (uint16_t)(int32_t)z;
}

template <class E>
void sort_keys(E* keys, long n, E* other, uint16_t* bucket, Counts counts, int level);

// Keys dealt out to their buckets, in the order they had; count[v] is the end of bucket v after it. With few buckets
// neighbours often share one, and a counter takes cycles to come back from memory: kStreams quarters of the keys are
// then dealt out side by side, with counters of their own.
template <class E, int streams>
OTCORE_INLINE void scatter(const E* keys, long n, E* to, long buckets, const uint16_t* bucket, uint32_t* count) {
  const long part = n / streams;
  for (long v = 0; v < streams * buckets; v++) count[v] = 0;
  for (long i = 0; i < part; i++)
#pragma GCC unroll 4
    for (int s = 0; s < streams; s++) count[streams * bucket[s * part + i] + s]++;
  for (long i = streams * part; i < n; i++) count[streams * bucket[i] + streams - 1]++;
  uint32_t sum = 0;
  for (long v = 0; v < streams * buckets; v++) {
    const uint32_t own = count[v];
    count[v] = sum, sum += own;
  }
  for (long i = 0; i < part; i++)
#pragma GCC unroll 4
    for (int s = 0; s < streams; s++) to[count[streams * bucket[s * part + i] + s]++] = keys[s * part + i];
  for (long i = streams * part; i < n; i++) to[count[streams * bucket[i] + streams - 1]++] = keys[i];
  for (long v = 0; v < buckets && streams > 1; v++) count[v] = count[streams * v + streams - 1];
}

constexpr int kStreams = 4;
constexpr long kFewBuckets = 512;

// From keys to `to`, sorted.
template <class E>
void deal_out(E* keys, long n, E* to, const Grid& g, uint16_t* bucket, Counts counts, int level) {
  uint32_t* count = counts.first + level * counts.stride;
  if (g.buckets <= kFewBuckets) scatter<E, kStreams>(keys, n, to, g.buckets, bucket, count);
  else scatter<E, 1>(keys, n, to, g.buckets, bucket, count);
  long first = 0;
  for (long v = 0; v < g.buckets; v++) {
    const long last = count[v], size = last - first;
    if (size <= kNetwork<E>) sort_few(to + first, size);
    else if (2 * size > n) radix_sort(to + first, size, keys + first);
    else sort_keys(to + first, size, keys + first, bucket, counts, level + 1);
    first = last;
  }
}

template <class E>
void sort_keys(E* keys, long n, E* other, uint16_t* bucket, Counts counts, int level) {
  if (n <= kNetwork<E>) {
    sort_few(keys, n);
    return;
  }
  float lo = position(keys[0]), hi = lo;
  double sum = 0, square = 0;
  for (long i = 0; i < n; i++) {
    const float v = position(keys[i]);
    lo = v < lo ? v : lo, hi = v > hi ? v : hi;
    sum += v, square += (double)v * v;
  }
  const Grid g = make_grid<E>(lo, hi, sum, square, n);
  if (level >= kSortLevels || !g.usable) {
    radix_sort(keys, n, other);
    return;
  }
  for (long i = 0; i < n; i++) bucket[i] = bucket_of(position(keys[i]), g);
  deal_out(keys, n, other, g, bucket, counts, level);
  std::memcpy(keys, other, n * sizeof(E));
}

}  // namespace
}  // namespace OTCORE_ISA
}  // namespace otcore
