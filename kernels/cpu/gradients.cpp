#include "gradients.h"

#include <cmath>
#include <memory>

namespace otcore {
namespace {

using Vector = std::vector<double>;

constexpr double kBitsOfSlopes = 18;  // of a gradient that expansions leave right, in float32

// out[i] += weight[i] G[i] for one pair of clouds.
template <class T>
void add_term(const Cloud& x, const Cloud& y, bool same, const double* f, const double* g, const double* weight, T* out,
              Cost cost, double eps, bool normalise, int threads) {
  if (!weight) return;
  Term<T> term(x, y, cost, same, true);
  term.temperature(eps, sizeof(T) == 4 ? kBitsOfSlopes : -1);
  term.f = x.place(f);
  if (!same) term.g = y.place(g);
  Vector slope;
  term.grad(normalise, threads, slope);
  for (long i = 0; i < x.n; i++) {
    const long place = x.order[i];
    for (int k = 0; k < x.d; k++) out[place * x.d + k] += static_cast<T>(weight[place] * slope[i * x.d + k]);
  }
}

}  // namespace

template <class T>
void gradients(const Item<T>* items, const Slopes<T>* slopes, long count, int d, Cost cost, double eps, bool normalise,
               int threads) {
  spread(items, count, d, threads, [&](long i, int inner) {
    const Item<T>& q = items[i];
    const Slopes<T>& s = slopes[i];
    const Clouds clouds = clouds_for(q, d, cost, eps, inner);
    const Cloud &x = *clouds.x, &y = *clouds.y;
    if (s.out_x) {
      std::fill(s.out_x, s.out_x + q.n * d, T(0));
      add_term(x, y, false, q.f, q.g, s.w_x, s.out_x, cost, eps, normalise, inner);
      add_term(x, x, true, q.f_xx, q.f_xx, s.w_xx, s.out_x, cost, eps, normalise, inner);
    }
    if (s.out_y) {
      std::fill(s.out_y, s.out_y + q.m * d, T(0));
      add_term(y, x, false, q.g, q.f, s.w_y, s.out_y, cost, eps, normalise, inner);
      const std::unique_ptr<Cloud> own = cost.p == 1 ? std::make_unique<Cloud>(y.centred()) : nullptr;
      const Cloud& z = own ? *own : y;
      add_term(z, z, true, q.g_yy, q.g_yy, s.w_yy, s.out_y, cost, eps, normalise, inner);
    }
  });
}

template void gradients(const Item<float>*, const Slopes<float>*, long, int, Cost, double, bool, int);
template void gradients(const Item<double>*, const Slopes<double>*, long, int, Cost, double, bool, int);

}  // namespace otcore
