#include "solve.h"

#include <algorithm>
#include <cmath>
#include <memory>

#include "anderson.h"
#include "pool.h"

namespace otcore {
namespace {

constexpr int kWindow = 10;
constexpr double kBetween = 0.01;   // marginal error at which annealing moves on
constexpr long kBetweenSweeps = 60; // and the sweeps after which it does so anyway
constexpr long kPatience = 60;      // sweeps without a tenth of progress after which acceleration rests
constexpr long kRest = 10;          // for this many plain updates at first, twice as many every further time
constexpr double kLargest = 300;    // exponent beyond which a marginal is so wrong that its size no longer matters

using Vector = std::vector<double>;

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
    yy = std::make_unique<Term<T>>(*y, *y, s.cost, true, std::isinf(s.rho_y));
    xx->share(*xy), yy->share(*xy);
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

double damping(double eps, double rho) { return std::isinf(rho) ? 1 : rho / (rho + eps); }

double dot(const Vector& w, const Vector& v) {
  double s = 0;
  for (size_t i = 0; i < w.size(); i++) s += w[i] * v[i];
  return s;
}

// log (<a, e^{-f/rho}> / m_a), in any range and without cancellation where rho is large; the potentials of points
// without weight do not matter.
double log_share_left(const Vector& w, double mass, const Vector& f, double rho) {
  if (std::isinf(rho)) return 0;
  double top = -INFINITY, low = INFINITY, s = 0;
  for (size_t i = 0; i < w.size(); i++)
    if (w[i] > 0) top = std::max(top, -f[i] / rho), low = std::min(low, -f[i] / rho);
  const bool small = top < 1 && low > -1;
  for (size_t i = 0; i < w.size(); i++)
    if (w[i] > 0) s += w[i] / mass * (small ? std::expm1(-f[i] / rho) : std::exp(-f[i] / rho - top));
  return small ? std::log1p(s) : top + std::log(s);
}

double side_error(const Vector& w, const Vector& sums, const Vector& f, double rho) {
  const double most = std::exp(kLargest);
  double s = 0;
  for (size_t i = 0; i < w.size(); i++) {
    const double target = std::isinf(rho) ? 1 : std::exp(std::min(-f[i] / rho, kLargest));
    s += w[i] * std::abs(std::min(sums[i], most) - target);
  }
  return s;
}

// <a, f>, or rho (m_a - <a, e^{-f/rho}>)
double side_value(const Vector& w, const Vector& f, double rho) {
  if (std::isinf(rho)) return dot(w, f);
  double s = 0;
  for (size_t i = 0; i < w.size(); i++) s -= w[i] * std::expm1(-f[i] / rho);
  return rho * s;
}

// An accelerated solve of one term.
template <class T>
class Solver {
 public:
  Solver(Term<T>& term, double rho_x, double rho_y, const Settings& s)
      : t_(term), s_(s), rho_x_(rho_x), rho_y_(rho_y), anderson_(weights(term), window(term)) {}

  double error = INFINITY;
  long n_iter = 0;
  int status = kMaxIter;

  void run(const Vector& temperatures, bool warm, int threads) {
    threads_ = threads;
    t_.temperature(temperatures[0]);
    if (!warm) start();
    for (size_t k = 0; k < temperatures.size(); k++) {
      const bool last = k + 1 == temperatures.size();
      if (!stay(temperatures[k], last)) return;
      if (!last) extrapolate(temperatures, k);
    }
  }

  double value() const {
    const Vector &a = t_.x().weights, &b = t_.y().weights;
    const double fx = side_value(a, t_.f, rho_x_);
    const double gy = t_.same() ? fx : side_value(b, t_.g, rho_y_);
    return fx + gy - t_.eps() * (dot(a, t_.r) - t_.x().mass * t_.y().mass);
  }

  // A balanced problem fixes f and g up to a constant: <a,f> = <b,g>.
  void gauge() {
    if (t_.same() || !std::isinf(rho_x_) || !std::isinf(rho_y_) || !(t_.x().mass > 0)) return;
    const double shift = 0.5 * (dot(t_.x().weights, t_.f) - dot(t_.y().weights, t_.g)) / t_.x().mass;
    for (double& v : t_.f) v -= shift;
    for (double& v : t_.g) v += shift;
  }

 private:
  // As many steps as there are unknowns would fit them all, and then extrapolate wildly.
  static int window(const Term<T>& t) {
    return static_cast<int>(std::clamp<long>((t.x().n + t.y().n) / 3, 2, kWindow));
  }

  static Vector weights(const Term<T>& t) {
    Vector w = t.x().weights;
    if (!t.same()) w.insert(w.end(), t.y().weights.begin(), t.y().weights.end());
    return w;
  }

  void sums() {
    Term<T>* term = &t_;
    Term<T>::sums(&term, 1, threads_);
  }

  // Both half-steps from potentials that are zero between the centred clouds.
  void start() {
    t_.zero();
    sums();
    const double eps = t_.eps();
    for (size_t i = 0; i < t_.f.size(); i++) t_.f[i] = damping(eps, rho_x_) * (t_.f[i] - eps * t_.log_r[i]);
    for (size_t j = 0; j < t_.g.size(); j++) t_.g[j] = damping(eps, rho_y_) * (t_.g[j] - eps * t_.log_c[j]);
  }

  double measure() const {
    const double rows = side_error(t_.x().weights, t_.r, t_.f, rho_x_);
    const double columns = t_.same() ? rows : side_error(t_.y().weights, t_.c, t_.g, rho_y_);
    return (t_.skipped + rows + columns) * 2 / (t_.x().mass + t_.y().mass);
  }

  // Sweeps at one temperature, at most max_iter at the last; false when the whole solve is over. Plain updates
  // always converge, accelerated ones nearly always: where they get no further, the best potentials so far are
  // taken up again by plain ones for a while.
  bool stay(double eps, bool last) {
    t_.temperature(eps);
    anderson_.reset();
    double before = INFINITY, best = INFINITY, mark = INFINITY;
    long since = 0, rest = 0, span = kRest;
    Vector best_f, best_g;
    for (long sweeps = 1;; sweeps++) {
      sums();
      n_iter++;
      error = measure();
      if (!std::isfinite(error) && std::isinf(best)) return status = kNotFinite, false;
      if (last && error <= s_.tol) return status = kConverged, false;
      if (error < best) best = error, best_f = t_.f, best_g = t_.g;
      since = error < 0.9 * mark ? 0 : since + 1;
      if (since == 0) mark = error;
      if (s_.interrupted && s_.interrupted()) return status = kInterrupted, false;
      const bool over = sweeps >= (last ? s_.max_iter : kBetweenSweeps);
      if (!std::isfinite(error) || (error > best && over) || (rest == 0 && since >= kPatience)) {
        t_.f = best_f, t_.g = best_g;
        anderson_.reset();
        before = INFINITY, since = 0, rest = span, span *= 2;
        if (over && !last) return true;
        if (!over) continue;
        sums();
        error = measure();
      }
      if (over && last) return false;
      const bool leave = !last && (error < std::max(s_.tol, kBetween) || over);
      update(rest > 0 || error > 2 * before);
      if (leave) return true;
      if (rest > 0 && --rest == 0) since = 0;
      before = error;
    }
  }

  // The averaged update, accelerated unless `plain`.
  void update(bool plain) {
    const double eps = t_.eps(), lx = damping(eps, rho_x_), ly = damping(eps, rho_y_);
    Vector f(t_.f.size()), g(t_.g.size());
    for (size_t i = 0; i < f.size(); i++) f[i] = 0.5 * ((1 + lx) * t_.f[i] - lx * eps * t_.log_r[i]);
    for (size_t j = 0; j < g.size(); j++) g[j] = 0.5 * ((1 + ly) * t_.g[j] - ly * eps * t_.log_c[j]);
    translate(f, g);
    if (plain) {
      anderson_.reset();
      t_.f = f, t_.g = g;
      return;
    }
    Vector z = t_.f, image = f;
    z.insert(z.end(), t_.g.begin(), t_.g.end());
    image.insert(image.end(), g.begin(), g.end());
    anderson_.step(z, image);
    std::copy_n(z.begin(), f.size(), t_.f.begin());
    std::copy(z.begin() + static_cast<long>(f.size()), z.end(), t_.g.begin());
  }

  // Unbalanced: the best constant to move from g to f, in closed form.
  void translate(Vector& f, Vector& g) const {
    if (t_.same() || (std::isinf(rho_x_) && std::isinf(rho_y_))) return;
    const double share = std::isinf(rho_x_) ? rho_y_ : std::isinf(rho_y_) ? rho_x_ : rho_x_ * rho_y_ / (rho_x_ + rho_y_);
    const Cloud &x = t_.x(), &y = t_.y();
    const double left = log_share_left(x.weights, x.mass, f, rho_x_), right = log_share_left(y.weights, y.mass, g, rho_y_);
    const double shift = share * (std::log(x.mass / y.mass) + left - right);
    if (!std::isfinite(shift)) return;
    for (double& v : f) v += shift;
    for (double& v : g) v -= shift;
  }

  // Linear in eps, from the two last temperatures to the next.
  void extrapolate(const Vector& temperatures, size_t k) {
    const Vector f = t_.f, g = t_.g;
    if (k > 0) {
      const double ahead = (temperatures[k + 1] - temperatures[k]) / (temperatures[k] - temperatures[k - 1]);
      for (size_t i = 0; i < f.size(); i++) t_.f[i] += ahead * (f[i] - f_before_[i]);
      for (size_t j = 0; j < g.size(); j++) t_.g[j] += ahead * (g[j] - g_before_[j]);
    }
    f_before_ = f, g_before_ = g;
  }

  Term<T>& t_;
  const Settings& s_;
  double rho_x_, rho_y_;
  Anderson anderson_;
  Vector f_before_, g_before_;
  int threads_ = 1;
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
  item.value = item.marginal_error = 0, item.n_iter = 0, item.status = kConverged;
  for (const Part& part : parts) {
    if (!part.term) continue;
    Term<T>& t = *part.term;
    const bool cross = part.term == problem.xy.get();
    if (s.warm) {
      t.f = t.x().place(part.f);
      if (cross) t.g = t.y().place(part.g);
    }
    Solver<T> solver(t, part.rho_x, part.rho_y, s);
    const bool direct = s.warm || !cross;
    solver.run(direct ? Vector{s.eps} : annealing(s.diameter < 0 ? problem.diameter(s.cost.p) : s.diameter, s), s.warm, threads);
    item.value += (cross ? 1 : -0.5) * solver.value();
    solver.gauge();
    t.x().unplace(t.f.data(), part.f);
    if (cross) t.y().unplace(t.g.data(), part.g), item.n_iter = solver.n_iter;
    item.marginal_error = std::max(item.marginal_error, solver.error);
    item.status = std::max(item.status, solver.status);
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
  Term<T>* terms[] = {problem.xy.get(), problem.xx.get(), problem.yy.get()};
  const double rho_x[] = {s.rho_x, s.rho_x, s.rho_y}, rho_y[] = {s.rho_y, s.rho_x, s.rho_y};
  const int count = s.debias ? 3 : 1;
  // f <- keep f + (1 - keep) lam softmin(g), every potential from the old ones
  auto update = [&](double eps, double keep) {
    for (int q = 0; q < count; q++) terms[q]->temperature(eps);
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
  update(s.schedule[0], 0);
  for (double eps : s.schedule) {
    update(eps, 0.5);
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
    if (needs_double(item, d, s)) solve_item<double>(item, d, s, threads);
    else solve_item<T>(item, d, s, threads);
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
