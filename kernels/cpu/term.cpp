#include "term.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "dispatch.h"
#include "pool.h"

namespace otcore {
namespace {

constexpr double kLog2e = 1.4426950408889634074;
constexpr double kLn2 = 0.69314718055994530942;
constexpr double kSerial = 1.5e6;  // multiply-adds (some 50 us) below which waking threads costs more than it saves
constexpr int kExponential = 12;  // multiply-adds that cost as much as an exponential
constexpr int kFramedDimension = 8;
constexpr double kHarmless = 2e4;  // range of the logits whose rounding in float32 is about 1e-3 of a bit
constexpr long kFewPoints = 2000;  // clouds ordered by one thread
constexpr double kManyPairs = 0x1p23;  // whose logarithms of sums are taken in T
constexpr long kBlock = 64;        // tiles prepared by one task
constexpr double kSmall = 16, kSmallUnbalanced = 40;  // -log2 of the least sums that are not computed again
template <class T>
constexpr double kExpansionBits = sizeof(T) == 4 ? 24 : 40;  // certain; errors are a good deal smaller
template <class T>
constexpr double kPrecision = sizeof(T) == 4 ? 24 : 52;  // bits of a sum that skipping leaves right

}  // namespace

template <class T>
Clouds::Clouds(const T* x_points, const T* a, long n, const T* y_points, const T* b, long m, int d, int p, bool sort,
               int threads) {
  if (sort) {
    // By all threads, one cloud after the other; the constructors then find them.
    if (n >= kManyPoints) kd_order(x_points, n, d, threads);
    if (m >= kManyPoints) kd_order(y_points, m, d, threads);
  }
  if (p == 1) {
    x = std::make_unique<Cloud>(x_points, a, n, d, sort);
    y = std::make_unique<Cloud>(y_points, b, m, d, sort, x->centre.data());
    return;
  }
  parallel_for(n + m < kFewPoints ? 1 : threads, 2, [&](long side) {
    if (side == 0) x = std::make_unique<Cloud>(x_points, a, n, d, sort);
    else y = std::make_unique<Cloud>(y_points, b, m, d, sort);
  });
}

template Clouds::Clouds(const float*, const float*, long, const float*, const float*, long, int, int, bool, int);
template Clouds::Clouds(const double*, const double*, long, const double*, const double*, long, int, int, bool, int);

template <class T>
bool wants_tiles(const Cloud& x, const Cloud& y, Cost cost, double eps) {
  const double range = cost.p == 2 ? x.extent * y.extent : x.extent + y.extent;
  return kLog2e / eps * range > (sizeof(T) == 4 ? 40 : 300);
}

// Whether tiles get frames of their own: where that makes most tile pairs compact (each halving of a cloud shrinks
// its tiles by 2^(1/d)), or where rounding would show without.
template <class T>
bool frames_pay(const Cloud& x, const Cloud& y, Cost cost, double eps) {
  if (x.d > kFramedDimension || !wants_tiles<T>(x, y, cost, eps)) return false;
  const double range = kLog2e / eps * x.extent * y.extent;
  const double shrunk = range * std::pow(static_cast<double>(x.tiles) * static_cast<double>(y.tiles), -1.0 / x.d);
  return shrunk < (sizeof(T) == 4 ? 80 : 600) || (sizeof(T) == 4 && range > kHarmless);
}

template bool wants_tiles<float>(const Cloud&, const Cloud&, Cost, double);
template bool wants_tiles<double>(const Cloud&, const Cloud&, Cost, double);

// sign <delta, x_i> + constant, in place order.
static std::vector<double> along(const Cloud& x, const std::vector<double>& delta, double sign, double constant) {
  std::vector<double> out(x.tiles * kTile, constant);
  for (long t = 0; t < x.tiles; t++)
    for (int k = 0; k < x.d; k++) {
      const double *point = &x.points[(t * x.d + k) * kTile], slope = sign * delta[k];
      double* place = &out[t * kTile];
      for (int r = 0; r < kTile; r++) place[r] += slope * point[r];
    }
  out.resize(x.n);
  return out;
}

// A row's sum loses at most 2^-cutoff of the mass to skipped tiles. At the optimum, where balanced sums are 1, that is
// under the rounding of T; far from it sums as small as 2^-kSmall still keep 12 bits, and smaller ones are redone.
// Unbalanced sums may be small for good reason.
template <class T>
Term<T>::Term(const Cloud& x, const Cloud& y, Cost cost, bool same, bool balanced)
    : x_(&x),
      y_(&y),
      cost_(cost),
      same_(same),
      cutoff_(kPrecision<T> + (balanced ? 4 : kSmallUnbalanced)),
      least_(std::exp2(-(balanced ? kSmall : kSmallUnbalanced))),
      skipped_(std::exp2(-cutoff_) * x.mass * y.mass * 2),
      field_(x, y, cost.p, same, cutoff_) {
  seats_.push_back(std::unique_ptr<Seat>(new Seat{Scaled<T>(x), Scaled<T>(y)}));
  f.assign(x.n, 0);
  if (!same) g.assign(y.n, 0);
  if (cost.p != 2 || same) return;
  double square = 0;
  std::vector<double> delta(x.d);
  for (int k = 0; k < x.d; k++) delta[k] = x.centre[k] - y.centre[k], square += delta[k] * delta[k];
  if (!(square > 0)) return;
  linear_x_ = along(x, delta, 1, 0.5 * square);
  linear_y_ = along(y, delta, -1, 0);
}

template <class T>
double Term<T>::work() const {
  return static_cast<double>(x_->n) * static_cast<double>(y_->n) * (x_->d + kExponential) * (same_ ? 0.5 : 1);
}

template <class T>
void Term<T>::zero() {
  if (linear_x_.empty()) f.assign(x_->n, 0), g.assign(same_ ? 0 : y_->n, 0);
  else f = linear_x_, g = linear_y_;
}

template <class T>
void Term<T>::temperature(double eps, double bits) {
  if (bits < 0) bits = kExpansionBits<T>;
  if (eps == eps_ && bits == bits_) return;
  eps_ = eps, bits_ = bits;
  const double k = kLog2e / eps;
  field_.choose(cost_.p == 2 ? std::sqrt(k) : k, wants_tiles<T>(*x_, *y_, cost_, eps), bits);
}

template <class T>
Pair<T> Term<T>::pair(int seat) const {
  const double k = kLog2e / eps_;
  const Seat& own = *seats_[seat];
  const Side<T>& x = own.x.side();
  Pair<T> pair{};
  pair.x = &x, pair.y = same_ ? &x : &own.y.side();
  pair.p = cost_.p, pair.framed = own.x.framed(), pair.same = same_;
  pair.floor = static_cast<T>(cost_.floor * k * k), pair.cutoff = cutoff_;
  field_.attach(pair);
  return pair;
}

// Fixed by the size alone, so that every number of threads adds in the same order.
template <class T>
long Term<T>::chunks() const {
  return std::clamp<long>(x_->tiles / 4, 1, std::clamp<long>(x_->tiles / 64, 16, 48));
}

// Later chunks are less work, so that threads which share them out finish together. Of a self-term each row meets
// only those after it.
template <class T>
long Term<T>::first_tile(long chunk) const {
  const double left = 1 - static_cast<double>(chunk) / static_cast<double>(chunks());
  const double work = left * std::sqrt(left);
  return x_->tiles - std::lround(static_cast<double>(x_->tiles) * (same_ ? std::sqrt(work) : work));
}

// A constant that f and g hold with opposite signs adds nothing, and would be rounded away with what it hides.
template <class T>
double Term<T>::common() const {
  if (same_) return 0;
  return 0.5 * (f[0] - (linear_x_.empty() ? 0 : linear_x_[0]) - g[0] + (linear_y_.empty() ? 0 : linear_y_[0]));
}

// One side as the kernels read it, at the current temperature and potential.
template <class T>
void Term<T>::prepare(bool transpose, int seat) {
  const bool framed = cost_.p == 2 && frames_pay<T>(*x_, *y_, cost_, eps_);
  const std::vector<double>& linear = transpose ? linear_y_ : linear_x_;
  Scaled<T>& side = transpose ? seats_[seat]->y : seats_[seat]->x;
  const bool shared = cross_ && small() && seat < static_cast<int>(cross_->seats_.size());
  const Seat* twin = shared ? cross_->seats_[seat].get() : nullptr;
  side.scale(kLog2e / eps_, cost_.p, framed, !twin ? nullptr : x_ == cross_->x_ ? &twin->x : &twin->y);
  side.potential((transpose ? g : f).data(), linear.empty() ? nullptr : linear.data(), transpose ? -common() : common());
}

// Both sides as this thread reads them.
template <class T>
void Term<T>::sit(int seat) {
  if (!seats_[seat]) seats_[seat].reset(new Seat{Scaled<T>(*x_), Scaled<T>(*y_)});
  if (std::exchange(seats_[seat]->sweep, sweep_) == sweep_) return;
  for (int transpose = 0; transpose < sides(); transpose++) prepare(transpose, seat);
}

template <class T>
void Term<T>::sweep_chunk(long chunk, int seat) {
  const long columns = y_->tiles * kTile, first = first_tile(chunk), last = first_tile(chunk + 1);
  verbs(T()).sweep(pair(seat), first, last, r.data() + first * kTile, &partial_[chunk * columns], &touched_[chunk * y_->tiles]);
}

// Adds what the chunks of rows gave the sums [first, last) of whole tiles, and takes logarithms.
template <class T>
void Term<T>::finish(bool transpose, long first, long last) {
  std::vector<double>&sums = transpose ? c : r, &logs = transpose ? log_c : log_r;
  const long tile = first / kTile, tiles = (last - first + kTile - 1) / kTile;
  if (transpose && field_.plan() != Field<T>::Plan::expansions) std::fill(&sums[first], &sums[first] + tiles * kTile, 0.0);
  const double unit = transpose ? x_->heaviest : y_->heaviest;
  const long parts = transpose || same_ ? chunks() : 0;
  verbs(T()).reduce(partial_.data() + first, touched_.get() + tile, parts, y_->tiles, tiles, unit, &sums[first]);
  field_.note(transpose, tile, tile + tiles, &sums[first]);
  isa().log2(&sums[first], last - first, &logs[first]);
  for (long j = first; j < last; j++) logs[j] *= kLn2;
}

template <class T>
void Term<T>::make_room() {
  if (partial_.empty()) {
    partial_.resize(chunks() * y_->tiles * kTile);
    touched_.reset(new bool[chunks() * y_->tiles]);
  }
  r.resize(x_->tiles * kTile), log_r.resize(x_->n);
  if (!same_) c.resize(y_->tiles * kTile), log_c.resize(y_->n);
}

template <class T>
void Term<T>::sums(Term* const* terms, int count, int threads, bool repaired) {
  sums_as_they_are(terms, count, threads);
  for (int q = 0; q < count && repaired; q++) terms[q]->repair(threads);
}

template <class T>
void Term<T>::repair(int threads) {
  for (int transpose = 0; transpose < sides(); transpose++) repair(transpose != 0, threads);
}

template <class T>
void Term<T>::sums_as_they_are(Term* const* terms, int count, int threads) {
  struct Task {
    Term* term;
    bool transpose;
    long first, last;
  };
  double work = 0;
  Term* plain[3];
  int plains = 0;
  for (int q = 0; q < count; q++) {
    Term& t = *terms[q];
    t.make_room();
    t.sweep_++;
    if (t.small()) t.seats_.resize(std::max<size_t>(t.seats_.size(), threads));
    if (t.field_.plan() == Field<T>::Plan::all) plain[plains++] = &t, work += t.work();
    else t.sums_found(threads);
  }
  for (int q = 0; q < plains; q++) plain[q]->pairs += plain[q]->work() / (plain[q]->x_->d + kExponential);
  if (threads == 1 || work < kSerial) {
    for (int q = 0; q < plains; q++) plain[q]->sums_alone();
    return;
  }
  std::vector<Task> shared, chunks, parts;
  for (int q = 0; q < plains; q++) {
    Term& t = *plain[q];
    for (long chunk = 0; chunk < t.chunks(); chunk++) chunks.push_back({&t, false, chunk, 0});
    for (int transpose = 0; transpose < t.sides(); transpose++) {
      if (!t.small()) shared.push_back({&t, transpose != 0, 0, 0});
      const long n = transpose ? t.y_->n : t.x_->n;
      for (long i = 0; i < n; i += kPart) parts.push_back({&t, transpose != 0, i, std::min(n, i + kPart)});
    }
  }
  parallel_for(threads, static_cast<long>(shared.size()), [&](long i) { shared[i].term->prepare(shared[i].transpose, 0); });
  parallel_for(threads, static_cast<long>(chunks.size()), [&](long i) {
    Term& t = *chunks[i].term;
    const int own = t.small() ? seat() : 0;
    if (t.small()) t.sit(own);
    t.sweep_chunk(chunks[i].first, own);
  });
  parallel_for(threads, static_cast<long>(parts.size()),
               [&](long i) { parts[i].term->finish(parts[i].transpose, parts[i].first, parts[i].last); });
}

// The same where tiles are found by trees or left to expansions: one term by all threads.
template <class T>
void Term<T>::sums_found(int threads) {
  prepare_found(same_, threads);
  pairs += field_.near_pairs(), far_pairs += field_.far_pairs();
  const bool expand = field_.plan() == Field<T>::Plan::expansions;
  if (expand) field_.collect(same_, Sums::weights, nullptr, 0, threads);
  const long translations = field_.translations();
  parallel_for(threads, chunks() + translations, [&](long i) {
    if (i < chunks()) sweep_chunk(i, 0);
    else field_.translate(i - chunks());
  });
  if (expand) {
    field_.evaluate(false, r.data(), nullptr, threads);
    if (!same_) std::fill(c.begin(), c.end(), 0.0), field_.evaluate(true, c.data(), nullptr, threads);
  }
  for (int transpose = 0; transpose < sides(); transpose++) {
    const long n = transpose ? y_->n : x_->n;
    parallel_for(threads, (n + kPart - 1) / kPart, [&](long i) { finish(transpose != 0, i * kPart, std::min(n, (i + 1) * kPart)); });
  }
}

// One side as the kernels read it, by all threads.
template <class T>
void Term<T>::prepare_parts(bool transpose, int threads) {
  const std::vector<double>&linear = transpose ? linear_y_ : linear_x_, &potential = transpose ? g : f;
  const Cloud& cloud = transpose ? *y_ : *x_;
  Scaled<T>& side = transpose ? seats_[0]->y : seats_[0]->x;
  const double constant = transpose ? -common() : common();
  side.scale(kLog2e / eps_, cost_.p, cost_.p == 2 && frames_pay<T>(*x_, *y_, cost_, eps_));
  parallel_for(threads, (cloud.tiles + kBlock - 1) / kBlock, [&](long h) {
    const long last = std::min(cloud.tiles, (h + 1) * kBlock);
    side.potential(potential.data(), linear.empty() ? nullptr : linear.data(), constant, false, h * kBlock, last);
  });
}

// Both sides, and which tiles and boxes of y those of x need.
template <class T>
void Term<T>::prepare_found(bool upper, int threads) {
  for (int transpose = 0; transpose < sides(); transpose++) prepare_parts(transpose != 0, threads);
  if (field_.plan() != Field<T>::Plan::all) field_.search(*pair().x, *pair().y, upper, threads);
}

// The same, in the same order of additions, on the calling thread.
template <class T>
void Term<T>::sums_alone() {
  sit(0);
  for (long chunk = 0; chunk < chunks(); chunk++) sweep_chunk(chunk, 0);
  for (int transpose = 0; transpose < sides(); transpose++) finish(transpose != 0, 0, transpose ? y_->n : x_->n);
}

template <class T>
std::vector<long> Term<T>::out_of_range(bool transpose, const std::vector<double>& sums) const {
  const double most = sizeof(T) == 4 ? 0x1p80 : 0x1p800;
  std::vector<long> bad;
  const bool expanded = field_.plan() == Field<T>::Plan::expansions;
  bool any = expanded;
  for (const double sum : sums) any |= !(sum >= least_ && sum <= most);
  if (!any) return bad;
  for (long i = 0; i < static_cast<long>(sums.size()); i++)
    if (!(sums[i] >= least_ && sums[i] <= most) || (expanded && field_.doubtful(transpose, i, sums[i]))) bad.push_back(i);
  return bad;
}

// What the potential at these places would be after a half-step, less its linear part.
template <class T>
std::vector<double> Term<T>::softmin_at(const std::vector<long>& places, bool transpose, int threads) const {
  const Cloud& cloud = transpose ? *y_ : *x_;
  std::vector<double> points(places.size() * cloud.d), out(places.size());
  for (size_t q = 0; q < places.size(); q++)
    for (int k = 0; k < cloud.d; k++) points[q * cloud.d + k] = cloud.at(places[q], k);
  log_sums_at(points.data(), static_cast<long>(places.size()), transpose, threads, out.data());
  for (double& v : out) v *= -eps_;
  return out;
}

// Many rows start from what the middle of their tile has: the sums then are mostly in range, and cost much less.
template <class T>
std::vector<double> Term<T>::softmin(int threads) {
  const bool many = !x_->tree.empty() && !y_->tree.empty() &&
                    static_cast<double>(x_->n) * static_cast<double>(y_->n) >= kManyPairs;
  std::vector<long> places(many ? x_->tiles : x_->n);
  for (size_t q = 0; q < places.size(); q++)
    places[q] = many ? std::min<long>(q * kTile + kTile / 2, x_->n - 1) : static_cast<long>(q);
  const std::vector<double> found = softmin_at(places, false, threads);
  std::vector<double> out(x_->n);
  for (long i = 0; i < x_->n; i++) out[i] = found[many ? i / kTile : i] + (linear_x_.empty() ? 0 : linear_x_[i]);
  if (!many) return out;
  f = out;
  std::vector<double> nothing;
  apply(nullptr, 0, threads, nothing);
  for (long i = 0; i < x_->n; i++) out[i] -= eps_ * std::log(r[i]);
  const std::vector<long> bad = out_of_range(false, r);
  const std::vector<double> exact = softmin_at(bad, false, threads);
  for (size_t q = 0; q < bad.size(); q++) out[bad[q]] = exact[q] + (linear_x_.empty() ? 0 : linear_x_[bad[q]]);
  return out;
}

// Sums out of range are recomputed by softmin.
template <class T>
void Term<T>::repair(bool transpose, int threads) {
  std::vector<double>&sums = transpose ? c : r, &logs = transpose ? log_c : log_r;
  sums.resize(transpose ? y_->n : x_->n);
  const std::vector<long> bad = out_of_range(transpose, sums);
  if (bad.empty()) return;
  const std::vector<double> target = softmin_at(bad, transpose, threads);
  const std::vector<double>& own = transpose ? g : f;
  const std::vector<double>& linear = transpose ? linear_y_ : linear_x_;
  for (size_t q = 0; q < bad.size(); q++) {
    const long i = bad[q];
    logs[i] = (own[i] - (linear.empty() ? 0 : linear[i]) - target[q]) / eps_;
    sums[i] = std::exp(std::clamp(logs[i], -700.0, 700.0));
  }
}

template <class T>
void Term<T>::log_sums_at(const double* points, long count, bool transpose, int threads, double* out) const {
  const Cloud& other = transpose ? *x_ : *y_;
  const std::vector<double>& potential = same_ || transpose ? f : g;
  const std::vector<double>& linear = same_ || transpose ? linear_x_ : linear_y_;
  const double k = kLog2e / eps_;
  Scaled<double> scaled(other);
  scaled.scale(k, cost_.p, false);
  scaled.potential(potential.data(), linear.empty() ? nullptr : linear.data(), 0, true);
  Pair<double> pair{};
  pair.y = &scaled.side(), pair.p = cost_.p, pair.floor = cost_.floor * k * k;
  pair.cutoff = kPrecision<T> + 4 + std::log2(static_cast<double>(other.n));
  const double factor = cost_.p == 2 ? std::sqrt(k) : k;
  constexpr long kRowsPerTask = kTile;
  const double pairs = static_cast<double>(count) * static_cast<double>(other.n) * (other.d + 24);
  parallel_for(pairs < kSerial ? 1 : threads, (count + kRowsPerTask - 1) / kRowsPerTask, [&](long task) {
    const long first = task * kRowsPerTask, rows = std::min(kRowsPerTask, count - first);
    std::vector<double> u(rows * other.d);
    for (long i = 0; i < rows; i++)
      for (int a = 0; a < other.d; a++) u[a * rows + i] = factor * points[(first + i) * other.d + a];
    isa().softmin(pair, u.data(), rows, out + first);
    for (long i = 0; i < rows; i++) out[first + i] = out[first + i] * kLn2 + std::log(other.heaviest);
  });
}

// value(point, k) as [tiles][kTile][gather_stride].
template <class T>
template <class F>
Aligned<T> Term<T>::pack(long tiles, int width, F&& value) {
  const int stride = gather_stride(width, isa().vector_bits / 8 / static_cast<int>(sizeof(T)));
  Aligned<T> out(tiles * kTile * stride, T(0));
  for (long j = 0; j < tiles * kTile; j++)
    for (int k = 0; k < width; k++) out[j * stride + k] = value(j, k);
  return out;
}

template <class T>
void Term<T>::grad_pass(int threads, std::vector<double>& out) {
  const long tiles = x_->tiles, blocks = std::min<long>(tiles, 256);
  prepare_found(false, 2 * work() < kSerial ? 1 : threads);
  const Side<T>& other = *pair().y;
  const int d = x_->d;
  Aligned<T> packed;
  const T* values = other.u;
  if (!gathers_narrow(d, true, cost_.p)) {
    packed = pack(other.tiles, d, [&](long j, int k) { return other.u[(j / kTile * d + k) * kTile + j % kTile]; });
    values = packed.data();
  }
  r.resize(tiles * kTile);
  out.resize(tiles * kTile * d);
  parallel_for(2 * work() < kSerial ? 1 : threads, blocks, [&](long h) {
    const long first = tiles * h / blocks, last = tiles * (h + 1) / blocks;
    verbs(T()).grad(pair(), first, last, values, r.data() + first * kTile, out.data() + first * kTile * d);
  });
  add_expansions(Sums::gradient, nullptr, d, threads, out);
  in_unit_mass(out, x_->d);
}

template <class T>
void Term<T>::grad(bool normalise, int threads, std::vector<double>& out) {
  grad_pass(threads, out);
  if (normalise) {
    const std::vector<long> bad = out_of_range(false, r);
    if (!bad.empty()) {
      const std::vector<double> target = softmin_at(bad, false, threads);
      for (size_t q = 0; q < bad.size(); q++)
        f[bad[q]] = target[q] + (linear_x_.empty() ? 0 : linear_x_[bad[q]]);
      grad_pass(threads, out);
    }
  }
  const double factor = cost_.p == 2 ? -std::sqrt(eps_ * kLn2) : -1;  // d(logit)/du -> dC/dx
  for (long i = 0; i < x_->n; i++) {
    const double scale = normalise ? factor / r[i] : factor, weight = normalise ? 1 : r[i];
    for (int k = 0; k < x_->d; k++) {
      double& v = out[i * x_->d + k];
      v *= scale;
      if (cost_.p == 2 && !same_) v += weight * (x_->centre[k] - y_->centre[k]);
    }
  }
}

template <class T>
void Term<T>::apply(const double* v, int width, int threads, std::vector<double>& out) {
  const Cloud& other = *y_;
  const long tiles = x_->tiles, blocks = std::min<long>(tiles, 256);
  auto value = [&](long j, int k) { return j < other.n ? static_cast<T>(v[j * width + k]) : T(0); };
  Aligned<T> packed;
  if (gathers_narrow(width, false, cost_.p)) {
    packed.resize(other.tiles * kTile * width);
    for (long t = 0; t < other.tiles; t++)
      for (int k = 0; k < width; k++)
        for (int c = 0; c < kTile; c++) packed[(t * width + k) * kTile + c] = value(t * kTile + c, k);
  } else {
    packed = pack(other.tiles, width, value);
  }
  prepare_found(false, 2 * work() < kSerial ? 1 : threads);
  r.resize(tiles * kTile);
  out.resize(tiles * kTile * width);
  parallel_for(2 * work() < kSerial ? 1 : threads, blocks, [&](long h) {
    const long first = tiles * h / blocks, last = tiles * (h + 1) / blocks;
    verbs(T()).apply(pair(), first, last, packed.data(), width, r.data() + first * kTile,
                     out.data() + first * kTile * width);
  });
  add_expansions(Sums::values, v, width, threads, out);
  in_unit_mass(out, width);
}

// The part of rows and values that expansions serve, where they do.
template <class T>
void Term<T>::add_expansions(Sums kind, const double* values, int width, int threads, std::vector<double>& out) {
  if (field_.plan() != Field<T>::Plan::expansions) return;
  field_.collect(true, kind, values, width, threads);
  parallel_for(threads, field_.translations(), [&](long i) { field_.translate(i); });
  field_.evaluate(false, r.data(), out.data(), threads);
}

// Row sums as the kernels left them, padding dropped, in the caller's unit of mass.
template <class T>
void Term<T>::in_unit_mass(std::vector<double>& out, int width) {
  r.resize(x_->n), out.resize(x_->n * width);
  for (double& v : r) v *= y_->heaviest;
  for (double& v : out) v *= y_->heaviest;
}

template class Term<float>;
template class Term<double>;

}  // namespace otcore
