#include "cloud.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <numeric>
#include <tuple>
#include <utility>

#include "dispatch.h"
#include "pool.h"

namespace otcore {
namespace {

constexpr double kAbsent = -1e30;  // log2 potential of points that are kept out of a sum

template <class T>
struct Keyed {
  T key;
  long index;
};

// Median splits along the axis of largest spread, at multiples of the tile and then within tiles, so that both are
// compact.
template <class T>
void split(const T* x, int d, long* order, long n, Keyed<T>* scratch) {
  if (n <= kFewest) return;
  int axis = 0;
  double widest = -1;
  for (int k = 0; k < d; k++) {
    double sum = 0, squares = 0;
    const double origin = static_cast<double>(x[order[0] * d + k]);
    for (long i = 0; i < n; i++) {
      const double v = static_cast<double>(x[order[i] * d + k]) - origin;
      sum += v, squares += v * v;
    }
    const double spread = squares - sum * sum / static_cast<double>(n);
    if (spread > widest) widest = spread, axis = k;
  }
  for (long i = 0; i < n; i++) scratch[i] = {x[order[i] * d + axis], order[i]};
  const long left = halves(n);
  std::nth_element(scratch, scratch + left, scratch + n, [](const Keyed<T>& u, const Keyed<T>& v) {
    return u.key < v.key || (u.key == v.key && u.index < v.index);
  });
  for (long i = 0; i < n; i++) order[i] = scratch[i].index;
  split(x, d, order, left, scratch);
  split(x, d, order + left, n - left, scratch);
}

// The same for few dimensions, on points that move along with their indices: several times faster.
template <class T, int D>
struct Packed {
  T at[D];
  int index;
};

template <class T, int D>
long halve(Packed<T, D>* p, long n) {
  double sum[D] = {}, squares[D] = {};
  for (long i = 0; i < n; i++)
    for (int k = 0; k < D; k++) {
      const double v = static_cast<double>(p[i].at[k]) - static_cast<double>(p[0].at[k]);
      sum[k] += v, squares[k] += v * v;
    }
  int axis = 0;
  double widest = -1;
  for (int k = 0; k < D; k++) {
    const double spread = squares[k] - sum[k] * sum[k] / static_cast<double>(n);
    if (spread > widest) widest = spread, axis = k;
  }
  const long left = halves(n);
  std::nth_element(p, p + left, p + n, [axis](const Packed<T, D>& u, const Packed<T, D>& v) {
    return u.at[axis] < v.at[axis] || (u.at[axis] == v.at[axis] && u.index < v.index);
  });
  return left;
}

template <class T, int D>
void split(Packed<T, D>* p, long n) {
  if (n <= kFewest) return;
  const long left = halve(p, n);
  split(p, left), split(p + left, n - left);
}

template <class T, int D>
void split_packed(const T* x, long* order, long n, int threads) {
  std::vector<Packed<T, D>> p(n);
  for (long i = 0; i < n; i++) {
    for (int k = 0; k < D; k++) p[i].at[k] = x[i * D + k];
    p[i].index = static_cast<int>(i);
  }
  if (n < kManyPoints || threads == 1) {
    split(p.data(), n);
  } else {
    long cuts[5] = {0, 0, halve(p.data(), n), 0, n};
    cuts[1] = halve(p.data(), cuts[2]), cuts[3] = cuts[2] + halve(&p[cuts[2]], n - cuts[2]);
    parallel_for(threads, 4, [&](long q) { split(&p[cuts[q]], cuts[q + 1] - cuts[q]); });
  }
  for (long i = 0; i < n; i++) order[i] = p[i].index;
}

// Two sums over the bits of points, which differ where these do.
template <class T>
std::pair<uint64_t, uint64_t> digest(const T* x, long count) {
  uint64_t a = 0x243f6a8885a308d3, b = 0x13198a2e03707344;
  for (long i = 0; i < count; i++) {
    uint64_t bits = 0;
    std::memcpy(&bits, x + i, sizeof(T));
    a = (a ^ bits) * 0x9e3779b97f4a7c15, a ^= a >> 29;
    b = (b + bits) * 0xbf58476d1ce4e5b9, b ^= b >> 31;
  }
  return {a, b};
}

// The last orders of large clouds: a backward pass and a repeated target find theirs again. Only of the very same
// points, so that results do not depend on what was solved before.
class Orders {
 public:
  using Key = std::tuple<uint64_t, uint64_t, long, int>;

  bool find(const Key& key, std::vector<long>& order) {
    const std::lock_guard<std::mutex> lock(use_);
    for (const auto& kept : kept_)
      if (kept.first == key) return order = kept.second, true;
    return false;
  }

  void keep(const Key& key, const std::vector<long>& order) {
    const std::lock_guard<std::mutex> lock(use_);
    if (kept_.size() == kKept) kept_.erase(kept_.begin());
    kept_.emplace_back(key, order);
  }

 private:
  static constexpr size_t kKept = 4;
  std::mutex use_;
  std::vector<std::pair<Key, std::vector<long>>> kept_;
};

}  // namespace

template <class T>
std::vector<long> kd_order(const T* x, long n, int d, int threads) {
  static Orders orders;
  Orders::Key key;
  std::vector<long> order;
  if (n >= kManyPoints) {
    const auto [a, b] = digest(x, n * d);
    key = {a, b, n, d};
    if (orders.find(key, order)) return order;
  }
  order.resize(n);
  std::iota(order.begin(), order.end(), 0L);
  if (d == 2) {
    split_packed<T, 2>(x, order.data(), n, threads);
  } else if (d == 3) {
    split_packed<T, 3>(x, order.data(), n, threads);
  } else {
    std::vector<Keyed<T>> scratch(n);
    split(x, d, order.data(), n, scratch.data());
  }
  if (n >= kManyPoints) orders.keep(key, order);
  return order;
}

template std::vector<long> kd_order(const float*, long, int, int);
template std::vector<long> kd_order(const double*, long, int, int);

template <class T>
Cloud::Cloud(const T* x, const T* a, long n, int d, bool sort, const double* origin)
    : n(n), tiles((n + kTile - 1) / kTile), d(d) {
  if (sort) {
    order = kd_order(x, n, d, 1);
  } else {
    order.resize(n);
    std::iota(order.begin(), order.end(), 0L);
  }
  gather(x, a);
  double largest = 0, total = 0;
  const double* w = weights.data();
#pragma omp simd reduction(max : largest) reduction(+ : total)
  for (long i = 0; i < n; i++) {
    total += w[i];
    largest = w[i] > largest ? w[i] : largest;
  }
  heaviest = largest > 0 ? largest : 1;
  mass = total;
  if (origin) centre.assign(origin, origin + d);
  else take_mean();
  subtract_centre();
  if (sort) plant();
}

void Cloud::plant() {
  tree.clear(), node_lo.clear(), node_hi.clear();
  tree.reserve(2 * tiles), node_lo.reserve(2 * tiles * d), node_hi.reserve(2 * tiles * d);
  grow_tree(0, tiles);
}

Cloud Cloud::centred() const {
  Cloud out = *this;
  for (long t = 0; t < tiles; t++)
    for (int k = 0; k < d; k++)
      for (int r = 0; r < kTile; r++) out.points[(t * d + k) * kTile + r] += centre[k];
  out.take_mean();
  out.subtract_centre();
  if (!tree.empty()) out.plant();
  return out;
}

template Cloud::Cloud(const float*, const float*, long, int, bool, const double*);
template Cloud::Cloud(const double*, const double*, long, int, bool, const double*);

// Points and weights into their places, one tile after another.
template <class T>
void Cloud::gather(const T* x, const T* a) {
  points.resize(tiles * kTile * d);
  weights.resize(n);
  if (a)
    for (long i = 0; i < n; i++) weights[i] = static_cast<double>(a[order[i]]);
  else
    std::fill(weights.begin(), weights.end(), 1.0 / static_cast<double>(n));
  long last[kTile];
  for (long t = 0; t < tiles; t++) {
    const long first = t * kTile, count = std::min<long>(kTile, n - first);
    const long* source = &order[first];
    if (count < kTile) {
      for (long r = 0; r < kTile; r++) last[r] = source[std::min(r, count - 1)];
      source = last;
    }
    for (int k = 0; k < d; k++) {
      double* place = &points[(t * d + k) * kTile];
      for (int r = 0; r < kTile; r++) place[r] = static_cast<double>(x[source[r] * d + k]);
    }
  }
}

// The weighted mean, or the plain one where weighted sums could overflow or vanish: any origin is right.
void Cloud::take_mean() {
  const bool weighted = mass > 1e-100 && mass < 1e100;
  centre.assign(d, 0);
  for (int k = 0; k < d; k++) {
    double sum = 0;
    for (long t = 0; t < tiles; t++) {
      const long first = t * kTile, count = std::min<long>(kTile, n - first);
      const double *place = &points[(t * d + k) * kTile], *w = &weights[first];
      if (weighted) {
#pragma omp simd reduction(+ : sum)
        for (long r = 0; r < count; r++) sum += w[r] * place[r];
      } else {
#pragma omp simd reduction(+ : sum)
        for (long r = 0; r < count; r++) sum += place[r];
      }
    }
    centre[k] = sum / (weighted ? mass : static_cast<double>(n));
  }
}

void Cloud::subtract_centre() {
  lo.resize(tiles * d), hi.resize(tiles * d);
  double furthest = 0;
  for (long t = 0; t < tiles; t++) {
    double square[kTile] = {};
    for (int k = 0; k < d; k++) {
      double *place = &points[(t * d + k) * kTile], least = 1e300, most = -1e300;
      const double shift = centre[k];
#pragma omp simd reduction(min : least) reduction(max : most)
      for (int r = 0; r < kTile; r++) {
        const double v = place[r] - shift;
        place[r] = v;
        square[r] += v * v;
        least = v < least ? v : least;
        most = v > most ? v : most;
      }
      lo[k * tiles + t] = least, hi[k * tiles + t] = most;
    }
#pragma omp simd reduction(max : furthest)
    for (int r = 0; r < kTile; r++) furthest = square[r] > furthest ? square[r] : furthest;
  }
  extent = std::sqrt(furthest);
}

// The node of these tiles, which `split` made one after another, and those below it.
long Cloud::grow_tree(long first, long last) {
  const long own = static_cast<long>(tree.size());
  tree.push_back({first, last, 0});
  node_lo.resize((own + 1) * d), node_hi.resize((own + 1) * d);
  if (last - first == 1) {
    for (int k = 0; k < d; k++) node_lo[own * d + k] = lo[k * tiles + first], node_hi[own * d + k] = hi[k * tiles + first];
    return own;
  }
  const long count = last == tiles ? n - first * kTile : (last - first) * kTile;
  const long left = grow_tree(first, first + halves(count) / kTile), right = grow_tree(first + halves(count) / kTile, last);
  tree[own].right = right;
  for (int k = 0; k < d; k++) {
    node_lo[own * d + k] = std::min(node_lo[left * d + k], node_lo[right * d + k]);
    node_hi[own * d + k] = std::max(node_hi[left * d + k], node_hi[right * d + k]);
  }
  return own;
}

template <class T>
std::vector<double> Cloud::place(const T* values) const {
  std::vector<double> out(n);
  for (long i = 0; i < n; i++) out[i] = static_cast<double>(values[order[i]]);
  return out;
}

template std::vector<double> Cloud::place(const float*) const;
template std::vector<double> Cloud::place(const double*) const;

void Cloud::unplace(const double* values, double* out) const {
  for (long i = 0; i < n; i++) out[order[i]] = values[i];
}

template <class T>
void Scaled<T>::scale(double k, int p, bool framed, const Scaled* twin) {
  const Cloud& c = *cloud_;
  const long padded = c.tiles * kTile;
  const double factor = p == 2 ? std::sqrt(k) : k;
  if (k == k_ && framed == framed_) return;
  k_ = k, framed_ = framed;
  if (h_.empty()) {
    h_.resize(padded), flat_.resize(padded);
    top_.resize(c.tiles), low_.resize(c.tiles);
  }
  if (twin && twin->k_ == k && twin->framed_ == framed) {
    side_ = twin->side_;
    side_.h = h_.data(), side_.flat = flat_.data(), side_.top = top_.data(), side_.low = low_.data();
    return;
  }
  if (weight_.empty()) {
    weight_.resize(padded);
    for (long i = 0; i < c.n; i++) weight_[i] = static_cast<T>(c.weights[i] / c.heaviest);
    std::fill(weight_.begin() + c.n, weight_.end(), T(0));
    u_.resize(padded * c.d), half_.resize(padded);
    frame_.resize(c.tiles * c.d), lo_.resize(c.tiles * c.d), hi_.resize(c.tiles * c.d);
    radius_.resize(c.tiles);
    unit_ = std::make_unique<bool[]>(c.tiles);
    for (long t = 0; t < c.tiles; t++) {
      const T* w = &weight_[t * kTile];
      unit_[t] = std::all_of(w, w + kTile, [](T v) { return v == T(1); });
    }
  }
  exact_.resize(framed ? padded * c.d : 0);
  for (long q = 0; q < c.tiles * c.d; q++) {
    lo_[q] = factor * c.lo[q], hi_[q] = factor * c.hi[q];
    frame_[q] = framed ? 0.5 * (lo_[q] + hi_[q]) : 0;
  }
  verbs(T()).scale(c.points.data(), c.tiles, c.d, factor, framed ? frame_.data() : nullptr, u_.data(),
                   framed ? exact_.data() : nullptr, half_.data(), radius_.data());
  if (p == 1) std::fill(half_.begin(), half_.end(), 0.0);
  side_ = Side<T>{c.n,       c.tiles,      c.d,         u_.data(),  framed ? exact_.data() : nullptr,
                  weight_.data(), h_.data(), half_.data(), flat_.data(), frame_.data(),
                  lo_.data(), hi_.data(), radius_.data(), top_.data(), low_.data(), unit_.get()};
}

template <class T>
void Scaled<T>::potential(const double* f, const double* linear, double constant, bool skip_massless) {
  potential(f, linear, constant, skip_massless, 0, cloud_->tiles);
}

template <class T>
void Scaled<T>::potential(const double* f, const double* linear, double constant, bool skip_massless, long from, long to) {
  const Cloud& c = *cloud_;
  for (long t = from; t < to; t++) {
    const long first = t * kTile, count = std::min<long>(kTile, c.n - first);
    double *h = &h_[first], top = -1e300, low = 1e300;
    for (long r = 0; r < count; r++) h[r] = k_ * ((linear ? f[first + r] - linear[first + r] : f[first + r]) - constant);
    // Padding has no weight; at the level of a point it keeps the tile's range as it is.
    for (long r = count; r < kTile; r++) h[r] = skip_massless ? kAbsent : h[count - 1];
    for (long r = 0; skip_massless && r < count; r++)
      if (!(c.weights[first + r] > 0)) h[r] = kAbsent;
    const double* half = side_.half + first;
    T* flats = &flat_[first];
#pragma omp simd reduction(max : top) reduction(min : low)
    for (int r = 0; r < kTile; r++) {
      top = h[r] > top ? h[r] : top;
      const double flat = h[r] - half[r];
      low = flat < low ? flat : low;
      flats[r] = static_cast<T>(flat);
    }
    top_[t] = top, low_[t] = low;
  }
}

template class Scaled<float>;
template class Scaled<double>;

}  // namespace otcore
