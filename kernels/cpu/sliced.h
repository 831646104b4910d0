// Sliced transport: the mean over directions of the transport between the projections of two clouds, with its slopes.
#pragma once

namespace otcore {

template <class T>
struct SlicedItem {
  const T *x, *y;      // [n][d], [m][d]
  const T *a, *b;      // [n], [m], null where uniform of mass 1
  const T* directions;  // [d][count]
  long n, m;
  T* value;
  T* costs;   // [count]: W_p^p along each direction
  T* slope_x;  // [n][d]: the derivative of the value, null where not wanted
  T* slope_y;  // [m][d]
};

struct SlicedSettings {
  int d;
  long directions;
  double p;
  bool root;  // whether the value is the mean to the power 1 / p; its slope is then 0 where it is 0
  int threads;
};

// The same bits for every number of threads, in memory linear in the number of points. False where a projection is not
// finite; results are then of no use.
template <class T>
bool sliced(const SlicedItem<T>* items, long count, const SlicedSettings& settings);

// to = factors[i] * from over the `size` numbers of item i. Not by torch, whose own threads would wake for it and then
// spin beside those of the next call.
template <class T>
void scale_items(const T* from, const T* factors, const long* sizes, long count, int threads, T* to);

}  // namespace otcore
