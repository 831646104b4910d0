// Clouds of points as the solver keeps them (ordered in tiles, centred, in double) and as the kernels read
// them (scaled to one temperature).
#pragma once
#include <memory>
#include <vector>

#include "aligned.h"
#include "side.h"

namespace otcore {

// A node of the tree of median splits: tiles [first, last). Nodes stand in preorder: the left half follows its node.
struct Node {
  long first, last;
  long right;  // the right half's place; 0 for a single tile
};

constexpr long kFewest = 4;  // points that are not ordered any further

// How many of n points, in order, a split leaves in the first half: whole tiles where there are several.
inline long halves(long n) { return n > kTile ? (n / kTile + 1) / 2 * kTile : (n + 1) / 2; }

constexpr long kManyPoints = 8192;  // whose order is worth several threads, and keeping

// An order of points in which neighbours stand together, by median splits.
template <class T>
std::vector<long> kd_order(const T* x, long n, int d, int threads);

struct Cloud {
  long n = 0;
  long tiles = 0;
  int d = 0;
  std::vector<long> order;      // order[i]: the caller's index of the point in place i
  std::vector<double> centre;   // [d] the weighted mean, or the given origin
  Aligned<double> points;       // [tiles][d][kTile] less the centre, in order; padding repeats a point
  std::vector<double> lo, hi;   // [d][tiles] bounding boxes
  std::vector<Node> tree;       // of ordered clouds
  std::vector<double> node_lo, node_hi;  // [nodes][d]
  std::vector<double> weights;  // [n] in order
  double mass = 0;
  double heaviest = 1; // the largest weight (1 where all are zero): kernels see weights in this unit
  double extent = 0;   // the largest distance from the centre

  // `a` null: 1 / n each, unrounded. `origin`: the centre to take instead of the mean.
  template <class T>
  Cloud(const T* x, const T* a, long n, int d, bool sort, const double* origin = nullptr);

  // Coordinate k of the point in place i.
  double at(long i, int k) const { return points[(i / kTile * d + k) * kTile + i % kTile]; }

  // The same points about their own centre.
  Cloud centred() const;

  // in the caller's order -> in place order, and back
  template <class T>
  std::vector<double> place(const T* values) const;
  void unplace(const double* values, double* out) const;

 private:
  template <class T>
  void gather(const T* x, const T* a);
  void take_mean();
  void subtract_centre();
  void plant();
  long grow_tree(long first, long last);
};

// One side of a term at one temperature.
template <class T>
class Scaled {
 public:
  explicit Scaled(const Cloud& cloud) : cloud_(&cloud) {}
  // k: log2(e) / eps. Frames are the tiles' own when `framed`. Free when nothing changed, or when `twin`, of the same
  // cloud, was scaled so.
  void scale(double k, int p, bool framed, const Scaled* twin = nullptr);
  // The potential in place order, less `linear` (null: nothing) and `constant`. `skip_massless` keeps points without
  // weight out of sums altogether, where their logits would otherwise set the scale.
  void potential(const double* f, const double* linear, double constant = 0, bool skip_massless = false);
  // The same for the tiles [first, last).
  void potential(const double* f, const double* linear, double constant, bool skip_massless, long first, long last);
  const Side<T>& side() const { return side_; }
  bool framed() const { return framed_; }

 private:
  const Cloud* cloud_;
  double k_ = -1;  // no scale yet
  bool framed_ = false;
  Aligned<T> u_, weight_, flat_;
  Aligned<double> exact_, half_, h_;
  std::vector<double> frame_, lo_, hi_, radius_, top_, low_;
  std::unique_ptr<bool[]> unit_;
  Side<T> side_{};
};

}  // namespace otcore
