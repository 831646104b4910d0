// What a launch works on: a batch of pairs of clouds, and the transport problems ("terms") that it makes.
#pragma once
#include "device.h"

namespace otcore::cuda {

struct Cost {
  int p;         // 1: |x - y|, 2: |x - y|^2 / 2
  double floor;  // p = 1: sqrt(max(|x - y|^2, floor))
};

// Item i has the rows [n_start[i], n_start[i + 1]) of x, or n rows each where n_start is null. Terms are numbered
// kind * items + item: kind 0 is x to y, 1 is x to x, 2 is y to y. Whatever belongs to points of terms lies in this
// order: f of all items, g of all items, f_xx, g_yy: `length` numbers.
template <class T>
struct Batch {
  const T *x, *y, *a, *b;           // points [row][d] as `prepare` leaves them; weights, null where uniform of mass 1
  const double* shift;              // [rows_x + rows_y]: of x to y, what the frames of the clouds take off f and g
  const double* offset;             // [items][d]: by how much the frame of x is ahead of that of y
  const double* flat;               // [items]: above these temperatures sums are taken in float64, null: above none
  const long *n_start, *m_start;
  int n, m;                         // of the largest item
  long rows_x, rows_y;
  int items, d;
  int first_kind, kinds;
  Cost cost;

  __host__ __device__ long length() const { return kinds > 1 ? 2 * (rows_x + rows_y) : rows_x + rows_y; }
  __host__ __device__ int terms() const { return kinds * items; }
};

template <class T>
struct Term {
  const T *x, *y, *a, *b;
  const double *shift_x, *shift_y;  // null: none
  double each_a, each_b;            // uniform weights
  double flat;
  int n, m;
  long row, column;                 // where its f and g lie; the same place for a self-term
  bool same;

  template <class U = T>
  __device__ U weight_x(int i) const { return a ? static_cast<U>(a[i]) : static_cast<U>(each_a); }
  template <class U = T>
  __device__ U weight_y(int j) const { return b ? static_cast<U>(b[j]) : static_cast<U>(each_b); }
  // How many potentials it has.
  __device__ int size() const { return same ? n : n + m; }
  __device__ long place(int e) const { return e < n ? row + e : column + (e - n); }
  __device__ double weight(int e) const { return e < n ? weight_x<double>(e) : weight_y<double>(e - n); }
  // x and y exchanged.
  __device__ Term turned() const {
    return {y, x, b, a, shift_y, shift_x, each_b, each_a, flat, m, n, column, row, same};
  }
};

template <class T>
__device__ int kind_of(const Batch<T>& q, int t) { return q.first_kind + t / q.items; }

// Term `t` of those launched.
template <class T>
__device__ Term<T> term_at(const Batch<T>& q, int t) {
  const int kind = kind_of(q, t), item = t % q.items;
  const long first_x = q.n_start ? q.n_start[item] : static_cast<long>(item) * q.n;
  const long first_y = q.m_start ? q.m_start[item] : static_cast<long>(item) * q.m;
  const int n = q.n_start ? static_cast<int>(q.n_start[item + 1] - first_x) : q.n;
  const int m = q.m_start ? static_cast<int>(q.m_start[item + 1] - first_y) : q.m;
  const T *x = q.x + first_x * q.d, *y = q.y + first_y * q.d;
  const T *a = q.a ? q.a + first_x : nullptr, *b = q.b ? q.b + first_y : nullptr;
  const double each_a = 1.0 / n, each_b = 1.0 / m;
  const double flat = q.flat ? q.flat[item] : HUGE_VAL;
  const double* none = nullptr;
  // A lone self-term has its potentials where those of x to y would be.
  const long own = q.kinds > 1 ? q.rows_x + q.rows_y : 0;
  if (kind == 1) return {x, x, a, a, none, none, each_a, each_a, flat, n, n, own + first_x, own + first_x, true};
  if (kind == 2) {
    const long row = own + q.rows_x + first_y;
    return {y, y, b, b, none, none, each_b, each_b, flat, m, m, row, row, true};
  }
  return {x, y, a, b, q.shift ? q.shift + first_x : none, q.shift ? q.shift + q.rows_x + first_y : none,
          each_a, each_b, flat, n, m, first_x, q.rows_x + first_y, false};
}

}  // namespace otcore::cuda
