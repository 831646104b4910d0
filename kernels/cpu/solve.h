// Whole solves: the same loops as otcore/solver.py, which is their reference, in one call.
#pragma once
#include <algorithm>
#include <vector>

#include "dispatch.h"
#include "pool.h"
#include "term.h"

namespace otcore {

// Where a solve is, told at every sweep.
struct Progress {
  bool same;  // a self-term
  double eps;
  long n, m;  // points, or clusters of them
  long sweep; // at this temperature
  double error;
};

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
  bool cluster;           // follow: gather points into clusters where the temperature allows
  int threads;
  bool (*interrupted)();  // asked between sweeps by the calling thread; true stops the solve
  void (*report)(const Progress&);  // null: nobody listens
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
  double pairs;  // of points (or clusters) whose exponential was taken
  long n_iter;
  int status;
  bool stalled;  // in float32
};

// Whether ordered points can make compact tiles: not in high dimension, nor where a few points would have to.
inline bool worth_ordering(long points, int d) {
  return !plain() && points > 4 * kTile && (d <= 8 || (d <= 32 && points >= 4096));
}

constexpr long kSurelyOrdered = 65536;  // points from which a look at unordered clouds costs more than it saves

// The clouds of one item for a single pass at one temperature: ordered only where tiles are worth it.
template <class T>
Clouds clouds_for(const Item<T>& item, int d, Cost cost, double eps, int threads) {
  auto build = [&](bool sort) {
    return Clouds(item.x, item.a, item.n, item.y, item.b, item.m, d, cost.p, sort, threads);
  };
  if (item.n + item.m >= kSurelyOrdered && worth_ordering(item.n + item.m, d)) return build(true);
  Clouds clouds = build(false);
  const bool order = worth_ordering(item.n + item.m, d) && wants_tiles<T>(*clouds.x, *clouds.y, cost, eps);
  return order ? build(true) : std::move(clouds);
}

// Calls f(item, threads) for each: small items spread over threads, one each; large ones in turn, by all threads.
template <class T, class F>
void spread(const Item<T>* items, long count, int d, int threads, const F& f) {
  constexpr double kMany = 2e6;  // multiply-adds of a sweep below which items are spread
  double work = 0;
  for (long i = 0; i < count; i++)
    work = std::max(work, static_cast<double>(items[i].n) * static_cast<double>(items[i].m) * (d + 12));
  if (count > 1 && (work < kMany || count >= 4 * threads)) {
    parallel_for(threads, count, [&](long i) { f(i, 1); });
  } else {
    for (long i = 0; i < count; i++) f(i, threads);
  }
}

// Converged solves, accelerated and annealed, item by item.
template <class T>
void anneal(Item<T>* items, long count, int d, const Settings& settings);

// The fixed schedule of GeomLoss: potentials before and after the final extrapolation, and its value.
template <class T>
void follow(Item<T>* items, long count, int d, const Settings& settings);

}  // namespace otcore
