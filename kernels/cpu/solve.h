// Whole solves: the same loops as otcore/solver.py, which is their reference, in one call.
#pragma once
#include <vector>

#include "term.h"

namespace otcore {

struct Settings {
  Cost cost;
  double eps;             // final temperature
  double rho_x, rho_y;    // infinite: balanced
  double scaling;         // ratio of successive blurs while annealing
  double diameter;        // first blur; negative: the diagonal of the item's bounding box
  bool debias;
  double tol;
  long max_iter;          // sweeps at the final temperature
  bool warm;              // potentials hold the start
  std::vector<double> schedule;  // follow: the temperatures
  int threads;
  bool (*interrupted)();  // asked between sweeps by the calling thread; true stops the solve
};

enum Status { kConverged = 0, kMaxIter = 1, kNotFinite = 2, kInterrupted = 3 };

// One problem of a batch. Potentials in the caller's order, null where not wanted.
template <class T>
struct Item {
  const T *x, *y, *a, *b;  // weights null: uniform, of mass 1
  long n, m;
  double *f, *g, *f_xx, *g_yy;
  double *f_after, *g_after, *f_xx_after, *g_yy_after;  // follow
  double value, marginal_error;
  long n_iter;
  int status;
};

// Converged solves (DESIGN of the solver: accelerated, annealed), item by item.
template <class T>
void anneal(Item<T>* items, long count, int d, const Settings& settings);

// The fixed schedule of GeomLoss: before and after the final extrapolation.
template <class T>
void follow(Item<T>* items, long count, int d, const Settings& settings);

}  // namespace otcore
