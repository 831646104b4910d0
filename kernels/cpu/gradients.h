// Gradients of whole problems in their points, from potentials.
#pragma once
#include "solve.h"

namespace otcore {

// What the gradient of one item is made of: out_x[i] = w_x[i] G_xy[i] + w_xx[i] G_xx[i], and likewise y, where
// G_xy[i] = sum_j b_j e_ij dC(x_i, y_j)/dx_i (divided by sum_j b_j e_ij when normalised). A null weight leaves its
// term out, a null output its side. All in the caller's order.
template <class T>
struct Slopes {
  const double *w_x, *w_y, *w_xx, *w_yy;
  T *out_x, *out_y;
};

// The items' potentials f, g, f_xx and g_yy are read.
template <class T>
void gradients(const Item<T>* items, const Slopes<T>* slopes, long count, int d, Cost cost, double eps, bool normalise,
               int threads);

}  // namespace otcore
