#include "solve.h"

#include <algorithm>
#include <cmath>
#include <memory>

#include "descent.h"
#include "pool.h"
#include "solver.h"

namespace otcore {
namespace {

constexpr long kPointsForLevels = 1000;  // of both clouds, from which clusters of them pay
constexpr double kRadius = 0.5;           // of clusters, in blurs
constexpr double kFineRadius = 0.025;      // the same where nothing corrects what clusters get wrong
constexpr double kLeaveLevel = 0.7;       // of tol, at which the last level of clusters makes way for the points
constexpr long kLevelSweeps = 400;        // and the sweeps after which it does so anyway
constexpr double kNear = 4;               // of tol, from which a warm start goes by way of clusters

// Half the diagonal of the bounding box of a cloud.
template <class T>
double half_diagonal(const T* points, long n, int d) {
  double square = 0;
  for (int k = 0; k < d; k++) {
    T lo = points[k], hi = lo;
    for (long i = 1; i < n; i++) lo = std::min(lo, points[i * d + k]), hi = std::max(hi, points[i * d + k]);
    square += (static_cast<double>(hi) - lo) * (static_cast<double>(hi) - lo);
  }
  return 0.5 * std::sqrt(square);
}

// Whether the sums need float64: a value holds eps times the rounding of its sums, which float32 shows where eps is far
// above the costs within the clouds.
template <class T>
bool needs_double(const Item<T>& item, int d, const Settings& s) {
  if (sizeof(T) == 8) return false;
  const double x = half_diagonal(item.x, item.n, d), y = half_diagonal(item.y, item.m, d);
  return s.eps > 30 * (s.cost.p == 2 ? x * y : x + y);
}

// The clouds and terms of one item, summed in T.
template <class T>
struct Problem {
  Clouds clouds;
  const Cloud *x, *y;
  std::unique_ptr<Cloud> own_y;  // p = 1: y about its own centre, for its self-term
  std::unique_ptr<Term<T>> xy, xx, yy;

  template <class Given>
  Problem(const Item<Given>& item, int d, const Settings& s, int threads)
      : clouds(item.x, item.a, item.n, item.y, item.b, item.m, d, s.cost.p, worth_ordering(item.n + item.m, d), threads),
        x(clouds.x.get()),
        y(clouds.y.get()) {
    const bool balanced = std::isinf(s.rho_x) && std::isinf(s.rho_y);
    xy = std::make_unique<Term<T>>(*x, *y, s.cost, false, balanced);
    if (!s.debias) return;
    xx = std::make_unique<Term<T>>(*x, *x, s.cost, true, std::isinf(s.rho_x));
    if (s.cost.p == 1) own_y = std::make_unique<Cloud>(y->centred());
    const Cloud& z = own_y ? *own_y : *y;
    yy = std::make_unique<Term<T>>(z, z, s.cost, true, std::isinf(s.rho_y));
    xx->share(*xy);
    if (!own_y) yy->share(*xy);
  }

  // The diagonal of the joint bounding box; where centring is exact (p = 2), of the centred clouds.
  double diameter(int p) const {
    double square = 0;
    for (int k = 0; k < x->d; k++) {
      double lo = 1e300, hi = -1e300;
      for (const Cloud* c : {x, y})
        for (long t = 0; t < c->tiles; t++) {
          const double shift = p == 2 ? 0 : c->centre[k];
          lo = std::min(lo, c->lo[k * c->tiles + t] + shift), hi = std::max(hi, c->hi[k * c->tiles + t] + shift);
        }
      square += (hi - lo) * (hi - lo);
    }
    return std::sqrt(square);
  }
};

// Blurs from the diameter down, each `scaling` times the one before, then the final one. A diameter that overflows
// makes no schedule; of a given one, lengths whose temperature does are left out.
Vector annealing(double diameter, const Settings& s) {
  const double p = s.cost.p, blur = std::pow(s.eps, 1 / p), longest = std::pow(1e300, 1 / p);
  Vector out;
  const double first = std::isinf(diameter) ? 0 : std::min(diameter, longest);
  for (double length = first; length > blur * 1.0000001; length *= s.scaling) out.push_back(std::pow(length, p));
  out.push_back(s.eps);
  return out;
}

struct Stage {
  double eps, radius;  // clusters no wider than this; 0: points
};

// The temperatures, of large clouds on clusters that their blurs cannot tell apart, the last of them once more.
std::vector<Stage> stages(const Vector& temperatures, bool large, int p) {
  std::vector<Stage> out;
  for (const double eps : temperatures) out.push_back({eps, large ? kRadius * std::pow(eps, 1.0 / p) : 0});
  if (large) out.push_back({temperatures.back(), 0});
  return out;
}

// Whether there are clusters of points to solve first.
template <class T>
bool large(const Term<T>& t) {
  return !t.x().tree.empty() && !t.y().tree.empty() && t.x().n + t.y().n >= kPointsForLevels;
}

// A solve of x-y, annealed, coarse to fine. `fine` is the solver of the points themselves, and holds a warm start.
// False where that is of no use.
template <class T>
bool descend(Solver<T>& fine, const Settings& s, const Vector& temperatures, int threads, double& pairs) {
  Term<T>& points = fine.term();
  const bool balanced = std::isinf(s.rho_x) && std::isinf(s.rho_y);
  const bool clustered = large(points);
  const std::vector<Stage> way = stages(temperatures, clustered, s.cost.p);
  Descent<T> descent(points, s.cost, balanced);
  std::unique_ptr<Solver<T>> level;  // of the clusters
  double eps = 0;                    // the last temperature
  for (size_t k = 0; k < way.size(); k++) {
    const bool last = k + 1 == way.size(), settling = clustered && k + 2 == way.size();
    if (descent.to(way[k].radius, damping(eps, s.rho_x), damping(eps, s.rho_y), threads)) {
      if (level) fine.n_iter += level->n_iter;
      level.reset();
      if (&descent.term() != &points) level = std::make_unique<Solver<T>>(descent.term(), s.rho_x, s.rho_y, s, threads);
    }
    if (settling && !level) continue;  // the points have a stage of their own
    Term<T>& t = descent.term();
    Solver<T>& solver = level ? *level : fine;
    if (eps == 0 && s.warm) {
      descent.restrict();
      const double error = solver.look(s.eps);
      if (std::isinf(error)) return false;
      // Clusters that are nearly solved would only lose what the points know.
      if (level && error < kNear * s.tol) break;
    } else if (eps == 0) {
      solver.start(way[k].eps, last);
    }
    const double paired = t.pairs;
    const bool go_on = last       ? solver.settle(way[k].eps)
                       : settling ? solver.stay(way[k].eps, false, kLeaveLevel * s.tol, kLevelSweeps)
                                  : solver.pass(way[k].eps);
    if (level) pairs += t.pairs - paired;
    if (!go_on) {
      if (level) fine.status = level->status, fine.error = level->error, fine.n_iter += level->n_iter;
      return true;
    }
    // Linear in eps, from the two last temperatures to the next.
    const Vector f = t.f, g = t.g;
    if (eps > 0) {
      const double ahead = (way[k + 1].eps - way[k].eps) / (way[k].eps - eps);
      for (size_t i = 0; i < f.size(); i++) t.f[i] += ahead * (f[i] - descent.f_before[i]);
      for (size_t j = 0; j < g.size(); j++) t.g[j] += ahead * (g[j] - descent.g_before[j]);
    }
    descent.f_before = f, descent.g_before = g;
    eps = way[k].eps;
  }
  fine.n_iter += level->n_iter;
  fine.settle(s.eps);
  return true;
}

template <class T, class Given>
void solve_item(Item<Given>& item, int d, const Settings& s, int threads) {
  Problem<T> problem(item, d, s, threads);
  struct Part {
    Term<T>* term;
    double rho_x, rho_y, *f, *g;
  };
  const Part parts[] = {{problem.xy.get(), s.rho_x, s.rho_y, item.f, item.g},
                        {problem.xx.get(), s.rho_x, s.rho_x, item.f_xx, nullptr},
                        {problem.yy.get(), s.rho_y, s.rho_y, item.g_yy, nullptr}};
  item.value = item.marginal_error = item.pairs = 0, item.n_iter = 0, item.status = kConverged, item.stalled = false;
  for (const Part& part : parts) {
    if (!part.term) continue;
    Term<T>& t = *part.term;
    const bool cross = part.term == problem.xy.get();
    if (s.warm) {
      t.f = t.x().place(part.f);
      if (cross) t.g = t.y().place(part.g);
    }
    Solver<T> solver(t, part.rho_x, part.rho_y, s, threads);
    bool warm = s.warm;
    if (warm && cross && large(t)) warm = descend(solver, s, {s.eps}, threads, item.pairs);
    else if (warm && (warm = std::isfinite(solver.look(s.eps)))) solver.settle(s.eps);
    if (!warm && cross) {
      Settings cold = s;
      cold.warm = false;
      const double diameter = s.diameter < 0 ? problem.diameter(s.cost.p) : s.diameter;
      descend(solver, cold, annealing(diameter, s), threads, item.pairs);
    } else if (!warm) {
      solver.start(s.eps, true);
      solver.settle(s.eps);
    }
    item.pairs += t.pairs;
    item.value += (cross ? 1 : -0.5) * solver.value();
    solver.place_massless();
    solver.gauge();
    t.x().unplace(t.f.data(), part.f);
    if (cross) t.y().unplace(t.g.data(), part.g), item.n_iter = solver.n_iter;
    item.marginal_error = std::max(item.marginal_error, solver.error);
    item.status = std::max(item.status, solver.status);
    item.stalled = item.stalled || solver.stalled;
  }
  if (s.debias) item.value += 0.5 * s.eps * std::pow(problem.x->mass - problem.y->mass, 2);
  // The caller gets it as what the points are.
  if (!std::isfinite(static_cast<Given>(item.value))) item.status = kNotFinite;
}

// GeomLoss's value of one side: <a, f - f_xx>, or (rho + eps/2) <a, e^{-f_xx/rho} - e^{-f/rho}>.
double geomloss_side(const Vector& a, const Vector& f, const Vector* f_xx, double rho, double eps) {
  double s = 0;
  for (size_t i = 0; i < a.size(); i++) {
    const double own = f_xx ? (*f_xx)[i] : 0;
    s += a[i] * (std::isinf(rho) ? f[i] - own : std::expm1(-own / rho) - std::expm1(-f[i] / rho));
  }
  return std::isinf(rho) ? s : (rho + eps / 2) * s;
}

// f <- keep f + share softmin(g), from the logarithms of the row sums.
void mix(Vector& potential, const Vector& log_sums, double eps, double keep, double share) {
  double* f = potential.data();
  const double* log_r = log_sums.data();
  for (size_t i = 0; i < potential.size(); i++) f[i] = keep * f[i] + share * (f[i] - eps * log_r[i]);
}

template <class T, class Given>
void follow_item(Item<Given>& item, int d, const Settings& s, int threads) {
  Problem<T> problem(item, d, s, threads);
  Term<T>* const points[] = {problem.xy.get(), problem.xx.get(), problem.yy.get()};
  Term<T>* terms[] = {points[0], points[1], points[2]};
  const double rho_x[] = {s.rho_x, s.rho_x, s.rho_y}, rho_y[] = {s.rho_y, s.rho_x, s.rho_y};
  const int count = s.debias ? 3 : 1;
  const bool clustered = s.cluster && large(*problem.xy);
  std::vector<Descent<T>> descents;
  for (int q = 0; q < count; q++) descents.emplace_back(*points[q], s.cost, std::isinf(rho_x[q]) && std::isinf(rho_y[q]));
  double before = s.schedule[0];
  auto level = [&](double radius) {
    for (int q = 0; q < count; q++) {
      descents[q].to(radius, damping(before, rho_x[q]), damping(before, rho_y[q]), threads);
      terms[q] = &descents[q].term();
    }
  };
  // f <- keep f + (1 - keep) lam softmin(g), every potential from the old ones. What is wrong with one step, the next
  // ones halve, so that one on clusters need not be right to the last bit.
  auto update = [&](double eps, double keep) {
    const bool last = eps == s.schedule.back();
    for (int q = 0; q < count; q++) terms[q]->temperature(eps, last || !s.cluster ? -1 : kFewestBits);
    Term<T>::sums(terms, count, threads);
    for (int q = 0; q < count; q++) {
      Term<T>& t = *terms[q];
      const double lx = (1 - keep) * damping(eps, rho_x[q]), ly = (1 - keep) * damping(eps, rho_y[q]);
      mix(t.f, t.log_r, eps, keep, lx);
      if (!t.same()) mix(t.g, t.log_c, eps, keep, ly);
    }
  };
  auto write = [&](double* f, double* g, double* f_xx, double* g_yy) {
    problem.x->unplace(terms[0]->f.data(), f), problem.y->unplace(terms[0]->g.data(), g);
    if (count > 1) problem.x->unplace(terms[1]->f.data(), f_xx), problem.y->unplace(terms[2]->f.data(), g_yy);
  };
  item.status = kConverged;
  if (clustered) level(kFineRadius * std::pow(before, 1.0 / s.cost.p));
  update(before, 0);
  for (double eps : s.schedule) {
    if (clustered) level(eps == s.schedule.back() ? 0 : kFineRadius * std::pow(eps, 1.0 / s.cost.p));
    update(eps, 0.5);
    before = eps;
    if (s.report) s.report({false, eps, terms[0]->x().n, terms[0]->y().n, 1, 0});
    if (s.interrupted && s.interrupted()) {
      item.status = kInterrupted;
      return;
    }
  }
  write(item.f, item.g, item.f_xx, item.g_yy);
  update(s.schedule.back(), 0);
  write(item.f_after, item.g_after, item.f_xx_after, item.g_yy_after);
  const Term<T>&xy = *problem.xy, *xx = problem.xx.get(), *yy = problem.yy.get();
  item.value = geomloss_side(problem.x->weights, xy.f, xx ? &xx->f : nullptr, s.rho_x, s.schedule.back()) +
               geomloss_side(problem.y->weights, xy.g, yy ? &yy->f : nullptr, s.rho_y, s.schedule.back());
}

// `interrupted` may be asked by the calling thread only, so not where items are spread.
template <class T, class F>
void each(Item<T>* items, long count, int d, const Settings& settings, F&& solve) {
  spread(items, count, d, settings.threads, [&](long i, int threads) {
    Settings own = settings;
    if (threads < settings.threads) own.interrupted = nullptr;
    solve(items[i], d, own, threads);
  });
}

}  // namespace

template <class T>
void anneal(Item<T>* items, long count, int d, const Settings& settings) {
  each(items, count, d, settings, [](Item<T>& item, int d, const Settings& s, int threads) {
    if (needs_double(item, d, s)) {
      solve_item<double>(item, d, s, threads);
      return;
    }
    solve_item<T>(item, d, s, threads);
    if (!item.stalled) return;
    Settings rest = s;
    rest.warm = true, rest.max_iter = std::max(1L, s.max_iter - item.n_iter);
    const long sweeps = item.n_iter;
    const double pairs = item.pairs;
    solve_item<double>(item, d, rest, threads);
    item.n_iter += sweeps, item.pairs += pairs;
  });
}

template <class T>
void follow(Item<T>* items, long count, int d, const Settings& settings) {
  each(items, count, d, settings, [](Item<T>& item, int d, const Settings& s, int threads) {
    if (needs_double(item, d, s)) follow_item<double>(item, d, s, threads);
    else follow_item<T>(item, d, s, threads);
  });
}

template void anneal(Item<float>*, long, int, const Settings&);
template void anneal(Item<double>*, long, int, const Settings&);
template void follow(Item<float>*, long, int, const Settings&);
template void follow(Item<double>*, long, int, const Settings&);

}  // namespace otcore
