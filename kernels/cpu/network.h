// Sorting networks in registers: up to kMostVectors vectors of keys, by bitonic merges of which every step puts the
// smaller key in front. Keys are signed integers, and so differ only where that matters: a position in the upper half of
// an int64, which thing it belongs to in the lower one.
#pragma once
#include "simd.h"

namespace otcore {
namespace OTCORE_ISA {
namespace {

constexpr int kMostVectors = 16;

template <class E>
struct Keys;
template <>
struct Keys<int32_t> {
  typedef int32_t Vec __attribute__((vector_size(kVectorBytes)));
  static constexpr int lanes = kVectorBytes / 4;
  static constexpr int32_t last = INT32_MAX;
};
template <>
struct Keys<int64_t> {
  typedef int64_t Vec __attribute__((vector_size(kVectorBytes)));
  static constexpr int lanes = kVectorBytes / 8;
  static constexpr int64_t last = INT64_MAX;
};

template <class E>
using KeyVec = typename Keys<E>::Vec;

template <class E>
constexpr int kNetwork = kMostVectors * Keys<E>::lanes;

// Lane l meets lane l ^ flip, and keeps the larger of both where l has the bit `upper`.
template <class E, int flip, int upper>
struct Exchange {
  alignas(kVectorBytes) E partner[Keys<E>::lanes], larger[Keys<E>::lanes];
  constexpr Exchange() : partner(), larger() {
    for (int l = 0; l < Keys<E>::lanes; l++) partner[l] = l ^ flip, larger[l] = l & upper ? -1 : 0;
  }
};

template <class E, int flip, int upper>
OTCORE_INLINE KeyVec<E> exchange(KeyVec<E> v) {
  static constexpr Exchange<E, flip, upper> lanes;
  KeyVec<E> partner, larger;
  std::memcpy(&partner, lanes.partner, sizeof partner);
  std::memcpy(&larger, lanes.larger, sizeof larger);
  const KeyVec<E> w = __builtin_shuffle(v, partner);
  const KeyVec<E> low = v < w ? v : w, high = v < w ? w : v;
  return larger ? high : low;
}

// The steps within a vector of a merge of runs: strides `half`, half / 2, ... 1.
template <class E, int half>
OTCORE_INLINE KeyVec<E> settle(KeyVec<E> v) {
  if constexpr (half >= 1) v = settle<E, half / 2>(exchange<E, half, half>(v));
  return v;
}

// Runs of `size` lanes are made from sorted ones of half the size, from `size` up to a whole vector.
template <class E, int size>
OTCORE_INLINE KeyVec<E> sort_lanes(KeyVec<E> v) {
  if constexpr (size <= Keys<E>::lanes) {
    v = settle<E, size / 4>(exchange<E, size - 1, size / 2>(v));
    v = sort_lanes<E, size * 2>(v);
  }
  return v;
}

template <class E, int count>
OTCORE_INLINE void sort_vectors(KeyVec<E>* v) {
  constexpr int L = Keys<E>::lanes;
#pragma GCC unroll 16
  for (int i = 0; i < count; i++) v[i] = sort_lanes<E, 2>(v[i]);
  static constexpr Exchange<E, L - 1, 0> mirror;
  KeyVec<E> reverse;
  std::memcpy(&reverse, mirror.partner, sizeof reverse);
#pragma GCC unroll 4
  for (int size = 2; size <= count; size *= 2) {
    // The second run of each pair is met from its end.
#pragma GCC unroll 16
    for (int i = 0; i < count; i++) {
      const int j = i ^ (size - 1);
      if (j < i) continue;
      const KeyVec<E> w = __builtin_shuffle(v[j], reverse);
      const KeyVec<E> low = v[i] < w ? v[i] : w, high = v[i] < w ? w : v[i];
      v[i] = low, v[j] = __builtin_shuffle(high, reverse);
    }
#pragma GCC unroll 4
    for (int stride = size / 4; stride >= 1; stride /= 2) {
#pragma GCC unroll 16
      for (int i = 0; i < count; i++) {
        if (i & stride) continue;
        const KeyVec<E> a = v[i], b = v[i + stride];
        v[i] = a < b ? a : b, v[i + stride] = a < b ? b : a;
      }
    }
#pragma GCC unroll 16
    for (int i = 0; i < count; i++) v[i] = settle<E, L / 2>(v[i]);
  }
}

// Sorts n keys, (count - 1) / 2 vectors < n <= count vectors, in place. What follows them, up to a whole number of
// vectors, is read, and written as it was.
template <class E, int count>
void sort_padded(E* keys, long n) {
  constexpr int L = Keys<E>::lanes;
  typedef KeyVec<E> V;
  V v[count], lane, tail = {};
  for (int l = 0; l < L; l++) lane[l] = l;
  const V last = Keys<E>::last - V{};
#pragma GCC unroll 16
  for (int i = 0; i < count; i++) {
    v[i] = last;
    if (i * L < n) {
      std::memcpy(&v[i], keys + i * L, sizeof(V));
      if ((i + 1) * L > n) {
        tail = v[i];
        v[i] = lane < (E)(n - i * L) ? v[i] : last;
      }
    }
  }
  sort_vectors<E, count>(v);
#pragma GCC unroll 16
  for (int i = 0; i < count; i++) {
    if (i * L >= n) break;
    if ((i + 1) * L > n) v[i] = lane < (E)(n - i * L) ? v[i] : tail;
    std::memcpy(keys + i * L, &v[i], sizeof(V));
  }
}

// Sorts n <= kNetwork<E> keys in place.
template <class E>
OTCORE_INLINE void sort_few(E* keys, long n) {
  constexpr int L = Keys<E>::lanes;
  if (n < 2) return;
  if (n <= L) sort_padded<E, 1>(keys, n);
  else if (n <= 2 * L) sort_padded<E, 2>(keys, n);
  else if (n <= 4 * L) sort_padded<E, 4>(keys, n);
  else if (n <= 8 * L) sort_padded<E, 8>(keys, n);
  else sort_padded<E, 16>(keys, n);
}

}  // namespace
}  // namespace OTCORE_ISA
}  // namespace otcore
