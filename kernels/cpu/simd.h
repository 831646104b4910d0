// Vectors, exp2 and log2 for one instruction set. Each kernel file is compiled once per instruction set,
// with OTCORE_ISA naming the namespace; the vector width follows from the flags. No intrinsics: GCC and
// Clang vector extensions only. No std templates here or in any kernel file: an instantiation shared
// between translation units would let the linker put wide instructions into baseline code.
#pragma once
#include <cstdint>
#include <cstring>

#ifndef OTCORE_ISA
#define OTCORE_ISA portable
#endif

#define OTCORE_INLINE static inline __attribute__((always_inline))

namespace otcore {
namespace OTCORE_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
constexpr int kRows = 8;  // rows of the register tile
#elif defined(__AVX__)
constexpr int kVectorBytes = 32;
constexpr int kRows = 4;
#else
constexpr int kVectorBytes = 16;
constexpr int kRows = 4;
#endif

template <class T>
struct Simd;
template <>
struct Simd<float> {
  typedef float Vec __attribute__((vector_size(kVectorBytes)));
  typedef int32_t Int __attribute__((vector_size(kVectorBytes)));
  static constexpr int lanes = kVectorBytes / 4;
};
template <>
struct Simd<double> {
  typedef double Vec __attribute__((vector_size(kVectorBytes)));
  typedef int64_t Int __attribute__((vector_size(kVectorBytes)));
  static constexpr int lanes = kVectorBytes / 8;
};

template <class T>
using Vec = typename Simd<T>::Vec;

template <class T>
OTCORE_INLINE Vec<T> load(const T* p) {
  Vec<T> v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

template <class T>
OTCORE_INLINE void store(T* p, Vec<T> v) {
  std::memcpy(p, &v, sizeof v);
}

template <class T>
OTCORE_INLINE Vec<T> splat(T s) {
  return s - Vec<T>{};
}

// As many doubles as lanes.
template <class T>
OTCORE_INLINE void store_wide(double* p, Vec<T> v) {
  if constexpr (sizeof(T) == 8) {
    store(p, v);
  } else {
    typedef T Half __attribute__((vector_size(kVectorBytes / 2)));
    Half halves[2];
    std::memcpy(halves, &v, sizeof v);
    store(p, __builtin_convertvector(halves[0], Vec<double>));
    store(p + Simd<double>::lanes, __builtin_convertvector(halves[1], Vec<double>));
  }
}

template <class V>
OTCORE_INLINE V vmax(V a, V b) {
  return a > b ? a : b;
}

template <class V>
OTCORE_INLINE V vmin(V a, V b) {
  return a < b ? a : b;
}

// Sums over the lanes, by halves.
template <class T, class V>
OTCORE_INLINE T sum_halves(V v) {
  constexpr int n = sizeof(V) / sizeof(T);
  if constexpr (n == 2) {
    return v[0] + v[1];
  } else {
    typedef T Half __attribute__((vector_size(sizeof(V) / 2)));
    Half halves[2];
    std::memcpy(halves, &v, sizeof v);
    return sum_halves<T>(halves[0] + halves[1]);
  }
}

template <class T>
OTCORE_INLINE T lane_sum(Vec<T> v) {
  return sum_halves<T>(v);
}

// Which lanes of two rows (a, b) meet in `lane_sums`: where a lane's number has the bit `half` they are b's, else
// a's; with it and without it.
template <class T, int half>
struct Meeting {
  static constexpr int lanes = Simd<T>::lanes;
  typedef __typeof__(typename Simd<T>::Int{}[0] + 0) Index;
  alignas(kVectorBytes) Index own[lanes], other[lanes];
  constexpr Meeting() : own(), other() {
    for (int l = 0; l < lanes; l++) {
      own[l] = l & half ? lanes + l : l;
      other[l] = l & half ? lanes + (l ^ half) : l ^ half;
    }
  }
};

// rows[r] for r < half: rows r and r + half folded together.
template <class T, int half>
OTCORE_INLINE void fold(Vec<T>* rows) {
  static constexpr Meeting<T, half> meeting;
  typename Simd<T>::Int own, other;
  std::memcpy(&own, meeting.own, sizeof own);
  std::memcpy(&other, meeting.other, sizeof other);
#pragma GCC unroll 8
  for (int r = 0; r < half; r++)
    rows[r] = __builtin_shuffle(rows[r], rows[r + half], own) + __builtin_shuffle(rows[r], rows[r + half], other);
  if constexpr (half > 1) fold<T, half / 2>(rows);
}

// Lane r is the sum over the lanes of rows[r], for as many rows as lanes; overwrites them. A third of the
// operations of lane_sum row by row.
template <class T>
OTCORE_INLINE Vec<T> lane_sums(Vec<T> (&rows)[Simd<T>::lanes]) {
  fold<T, Simd<T>::lanes / 2>(rows);
  return rows[0];
}

template <class T, class V>
OTCORE_INLINE T max_halves(V v) {
  constexpr int n = sizeof(V) / sizeof(T);
  if constexpr (n == 2) {
    return v[0] > v[1] ? v[0] : v[1];
  } else {
    typedef T Half __attribute__((vector_size(sizeof(V) / 2)));
    Half halves[2];
    std::memcpy(halves, &v, sizeof v);
    return max_halves<T>(vmax(halves[0], halves[1]));
  }
}

template <class T>
OTCORE_INLINE T lane_max(Vec<T> v) {
  return max_halves<T>(v);
}

// 2^x for -126 <= x <= 126 (float) or -1022 <= x <= 1022 (double): the caller clamps.
// Adding 1.5 * 2^mantissa rounds to the nearest integer and leaves it in the low bits; the polynomial on
// [-1/2, 1/2] is minimax in relative error (Remez): 7.5e-8 for float, 3e-18 for double.
OTCORE_INLINE Vec<float> exp2v(Vec<float> x) {
  const Vec<float> magic = splat(12582912.0f);
  const Vec<float> shifted = x + magic;
  const Vec<float> f = x - (shifted - magic);
  Vec<float> p = f * 1.3276472631950876e-3f + 9.6755413431213274e-3f;
  p = p * f + 5.5507132718556442e-2f;
  p = p * f + 2.4022119723710720e-1f;
  p = p * f + 6.9314696706503521e-1f;
  p = p * f + 1.0000000716547141f;
  typedef Simd<float>::Int Int;
  return (Vec<float>)((Int)p + ((Int)shifted << 23));
}

OTCORE_INLINE Vec<double> exp2v(Vec<double> x) {
  const Vec<double> magic = splat(6755399441055744.0);
  const Vec<double> shifted = x + magic;
  const Vec<double> f = x - (shifted - magic);
  Vec<double> p = f * 4.4352827069572771511e-10 + 7.0741056135081427963e-9;
  p = p * f + 1.0178198021671930844e-7;
  p = p * f + 1.321543308967639918e-6;
  p = p * f + 1.5252733489988525649e-5;
  p = p * f + 1.5403530462514432062e-4;
  p = p * f + 1.3333558146789921722e-3;
  p = p * f + 9.6181291075883352443e-3;
  p = p * f + 5.5504108664819921605e-2;
  p = p * f + 2.4022650695910156204e-1;
  p = p * f + 6.9314718055994533046e-1;
  p = p * f + 9.999999999999999971e-1;
  typedef Simd<double>::Int Int;
  return (Vec<double>)((Int)p + ((Int)shifted << 52));
}

// Exponents a sum of exponentials may hold without overflow or slow denormals.
template <class T>
constexpr T kLowest = sizeof(T) == 4 ? T(-100) : T(-900);
template <class T>
constexpr T kHighest = sizeof(T) == 4 ? T(120) : T(1000);

// What is certain of the exponents of a tile pair: how much of clamping them is needed.
enum class Clamp { none, below, both };

template <Clamp C, class V>
OTCORE_INLINE V exp2_clamped(V x) {
  typedef __typeof__(x[0] + x[0]) T;
  if (C != Clamp::none) x = vmax(x, splat(kLowest<T>));
  if (C == Clamp::both) x = vmin(x, splat(kHighest<T>));
  return exp2v(x);
}

// log2 of positive normal doubles: exponent, then the atanh series on [sqrt(1/2), sqrt(2)].
OTCORE_INLINE Vec<double> log2v(Vec<double> x) {
  typedef Simd<double>::Int Int;
  const Int bits = (Int)x;
  const Int exponent = (bits - 0x3fe6a09e667f3bcdLL) >> 52;
  const Vec<double> m = (Vec<double>)(bits - (exponent << 52));
  // int64 -> double through the magic constant: |exponent| < 2^11
  const Vec<double> e = (Vec<double>)(exponent + 0x4338000000000000LL) - 6755399441055744.0;
  const Vec<double> s = (m - 1.0) / (m + 1.0);
  const Vec<double> t = s * s;
  Vec<double> p = t * (1.0 / 21) + (1.0 / 19);
  p = p * t + (1.0 / 17);
  p = p * t + (1.0 / 15);
  p = p * t + (1.0 / 13);
  p = p * t + (1.0 / 11);
  p = p * t + (1.0 / 9);
  p = p * t + (1.0 / 7);
  p = p * t + (1.0 / 5);
  p = p * t + (1.0 / 3);
  const Vec<double> r = s * t * p + s;
  return e + r * 2.8853900817779268147;  // 2 / ln 2
}

}  // namespace
}  // namespace OTCORE_ISA
}  // namespace otcore
