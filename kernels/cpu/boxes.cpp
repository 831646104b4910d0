#include "boxes.h"

#include <algorithm>
#include <cmath>

namespace otcore {
namespace {

constexpr long kRun = 16;       // tiles tested at once where nothing is expanded
constexpr long kCrowd = 24;     // points of a box from which expansions can pay
constexpr double kWorth = 1500; // point pairs of two boxes that cost as much as an expansion

}  // namespace

// What is certain of expansions on boxes of one half-width, with kOrder nodes a dimension. The interpolation of a
// function that is analytic within the ellipse of parameter rho around an interval errs by at most
// 4 M rho^(1 - order) / (rho - 1), M its maximum there (Trefethen, Approximation Theory and Approximation Practice,
// theorem 8.2). At u = a cos t + i b sin t on that ellipse, in units of log2,
//   log |2^(slope u - (d + u - v)^2 / 2)| = -(d - v)^2 / 2 + (slope - d + v) a cos t + (b^2 - (a^2 + b^2) cos^2 t) / 2.
struct Accuracy {
  double half;   // half-width of a box
  double share;  // a^2 / (a^2 + b^2)
  double size;   // log2 of the error where slope = d - v, over 2^(-(d - v)^2 / 2)

  explicit Accuracy(double half) : half(half), share(0), size(1e300) {
    for (double rho = 1.5; rho < 40; rho *= 1.01) {
      const double a = 0.5 * half * (rho + 1 / rho), b = 0.5 * half * (rho - 1 / rho);
      const double at = std::log2(4 / (rho - 1)) - (kOrder - 1) * std::log2(rho) + 0.5 * b * b;
      if (at < size) size = at, share = a * a / (a * a + b * b);
    }
  }

  // log2 of the error of interpolating 2^(slope u - (d + u - v)^2 / 2 + other v) in u, at the worst v of a box.
  double of(double d, double slope, double other) const {
    const double v = std::clamp((d + other + share * (slope - d)) / (1 - share), -half, half), tilt = slope - d + v;
    return size - 0.5 * (d - v) * (d - v) + other * v + 0.5 * share * tilt * tilt;
  }

  template <class T>
  Chebyshev<T> chebyshev() const {
    Chebyshev<T> c;
    c.half = half;
    double angle[kOrder];
    for (int a = 0; a < kOrder; a++) {
      angle[a] = std::acos(-1.0) * (a + 0.5) / kOrder;
      c.node[a] = static_cast<T>(half * std::cos(angle[a]));
    }
    for (int a = 0; a < kOrder; a++)
      for (int k = 0; k < kOrder; k++) {
        c.to_nodes[a * kOrder + k] = static_cast<T>((k ? 2.0 : 1.0) / kOrder * std::cos(k * angle[a]));
        c.from_nodes[k * kOrder + a] = c.to_nodes[a * kOrder + k];
        c.kernel[a * kOrder + k] = static_cast<T>(std::exp2(half * half * std::cos(angle[a]) * std::cos(angle[k])));
      }
    return c;
  }
};

namespace {

constexpr double kManyBits = 26;  // from which boxes have to be smaller

const Accuracy& accuracy(double bits) {
  static const Accuracy wide(1.75), narrow(0.75);
  return bits < kManyBits ? wide : narrow;
}

template <class T>
const Chebyshev<T>& chebyshev(double bits) {
  static const Chebyshev<T> wide = accuracy(0).chebyshev<T>(), narrow = accuracy(kManyBits).chebyshev<T>();
  return bits < kManyBits ? wide : narrow;
}

// An upper bound of q u + s v - (d + u - v)^2 / 2 over |u|, |v| <= half.
double most(double d, double q, double s, double half) {
  const double tilt = 0.5 * (q - s), w = std::clamp(tilt - d, -2 * half, 2 * half);
  return tilt * w - 0.5 * (d + w) * (d + w) + std::abs(q + s) * half;
}

}  // namespace

template <class T>
long Boxes<T>::points(long box) const {
  return std::min(cloud_->n, first_[box + 1] * kTile) - first_[box] * kTile;
}

template <class T>
void Boxes<T>::cut(double factor, double bits) {
  const Cloud& c = *cloud_;
  const bool expand = bits > 0;
  factor_ = factor, bits_ = bits, accuracy_ = &accuracy(bits), chebyshev_ = &chebyshev<T>(bits);
  const double widest = 2 * accuracy_->half / factor;
  first_.clear(), node_of_.clear(), compact_.clear();
  box_of_.resize(c.tiles), box_of_node_.assign(c.tree.size(), -1), node_top_.resize(c.tree.size());
  if (need.empty()) need.assign(c.tiles, 0);
  std::vector<long> open{0};
  while (!open.empty()) {
    const long node = open.back();
    open.pop_back();
    const Node& q = c.tree[node];
    bool compact = expand;
    for (int k = 0; k < c.d; k++) compact = compact && c.node_hi[node * c.d + k] - c.node_lo[node * c.d + k] <= widest;
    if (q.right != 0 && !compact && (expand || q.last - q.first > kRun)) {
      open.push_back(q.right), open.push_back(node + 1);
      continue;
    }
    box_of_node_[node] = static_cast<int>(first_.size());
    for (long t = q.first; t < q.last; t++) box_of_[t] = box_of_node_[node];
    first_.push_back(q.first), node_of_.push_back(node), compact_.push_back(compact);
  }
  first_.push_back(c.tiles);
  centre_.resize(count() * c.d), mass_.assign(count(), 0);
  for (long b = 0; b < count(); b++) {
    const double *lo = &c.node_lo[node_of_[b] * c.d], *hi = &c.node_hi[node_of_[b] * c.d];
    for (int k = 0; k < c.d; k++) centre_[b * c.d + k] = 0.5 * factor * (lo[k] + hi[k]);
    const long first = first_[b] * kTile;
    for (long i = 0; i < points(b); i++) mass_[b] += c.weights[first + i];
  }
  if (!expand) return;
  slope_.resize(count() * c.d), top_.resize(count()), need_.resize(count()), level_.resize(c.tiles * kTile);
}

template <class T>
double Boxes<T>::crowded() const {
  double within = 0;
  for (long b = 0; b < count(); b++)
    if (compact_[b] && points(b) >= kCrowd) within += static_cast<double>(points(b));
  return within / static_cast<double>(cloud_->n);
}

template <class T>
void Boxes<T>::take_tops(const double* tile_tops) {
  const Cloud& c = *cloud_;
  for (long node = static_cast<long>(c.tree.size()) - 1; node >= 0; node--) {
    const Node& q = c.tree[node];
    node_top_[node] = q.right == 0 ? tile_tops[q.first] : std::max(node_top_[node + 1], node_top_[q.right]);
  }
  for (long b = 0; bits_ > 0 && b < count(); b++) {
    need_[b] = 0;
    for (long t = first_[b]; t < first_[b + 1]; t++) need_[b] = std::max(need_[b], need[t]);
  }
}

template <class T>
Boxed<T> Boxes<T>::view(const Side<T>& side) {
  return {chebyshev_, cloud_->n, cloud_->points.data(), factor_, side.weight, side.h, first_.data(), centre_.data(), slope_.data(),
          top_.data(), level_.data()};
}

// Whether an expansion between the boxes is accurate enough, and its error.
template <class T>
bool Boxes<T>::smooth(long box, const Boxes& other, long o, double& error) const {
  if (!compact_[box] || !other.compact_[o]) return false;
  // Of a product of two coordinates, each interpolated in both points; those of the second meet the Lebesgue constant
  // 2.8 < 2^1.5.
  double wrong[kPlane], large[kPlane];
  for (int k = 0; k < kPlane; k++) {
    const double d = centre_[box * kPlane + k] - other.centre_[o * kPlane + k];
    const double q = slope_[box * kPlane + k], s = other.slope_[o * kPlane + k];
    wrong[k] = 1 + std::max(accuracy_->of(d, q, s), 1.5 + accuracy_->of(-d, s, q));
    large[k] = most(d, q, s, accuracy_->half);
  }
  const double size = top_[box] + other.top_[o] + 1 + std::max(wrong[0] + large[1], wrong[1] + large[0]);
  error = std::exp2(std::min(size, 100.0));
  const double heavier = std::max(mass_[box], other.mass_[o]), smaller = std::exp2(-std::max(need_[box], other.need_[o]));
  return error * heavier <= smaller * std::exp2(-bits_);
}

template <class T>
void Boxes<T>::find(long box, const Boxes& other, const Search& search, Found& found) const {
  const Cloud &x = *cloud_, &y = *other.cloud_;
  const int d = x.d;
  const long node = node_of_[box];
  const double *lo = &x.node_lo[node * d], *hi = &x.node_hi[node * d], own_top = node_top_[node];
  const double own_points = static_cast<double>(points(box));
  long open[128], depth = 0;
  open[depth++] = 0;
  while (depth > 0) {
    const long at = open[--depth];
    const Node& q = y.tree[at];
    if (search.upper && q.last <= first_[box]) continue;
    double square = 0;
    for (int k = 0; k < d; k++) {
      const double gap = std::max({0.0, lo[k] - y.node_hi[at * d + k], y.node_lo[at * d + k] - hi[k]});
      square += gap * gap;
    }
    square *= factor_ * factor_;
    const double bound = own_top + other.node_top_[at] - (search.p == 2 ? 0.5 * square : std::sqrt(square));
    if (bound < -search.cutoff) continue;
    const int o = other.box_of_node_[at];
    if (o < 0) {
      open[depth++] = q.right, open[depth++] = at + 1;
      continue;
    }
    double error;
    const double pairs = own_points * static_cast<double>(other.points(o));
    if (search.expand && pairs >= kWorth && smooth(box, other, o, error)) {
      found.far.push_back({o, error});
      continue;
    }
    if (!found.near.empty() && found.near.back().last == q.first) found.near.back().last = q.last;
    else found.near.push_back({q.first, q.last});
  }
}

template class Boxes<float>;
template class Boxes<double>;

}  // namespace otcore
