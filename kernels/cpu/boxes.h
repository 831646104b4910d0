// Clouds cut into boxes of neighbouring tiles: which boxes of two clouds are negligible to each other, which are near,
// and which are far enough apart, or smooth enough, for an expansion (expansion.h).
#pragma once
#include <vector>

#include "cloud.h"

namespace otcore {

struct Accuracy;

// One side of a pair, at one temperature.
template <class T>
class Boxes {
 public:
  explicit Boxes(const Cloud& cloud) : cloud_(&cloud) {}

  // Boxes small enough for expansions right to this many bits of a sum, or else single tiles; with no bits, runs of
  // tiles to test at once.
  void cut(double factor, double bits);
  // The share of the points that are in boxes with enough of them for expansions to pay.
  double crowded() const;
  // Potentials of the tiles' tops (largest h), which the tree passes up.
  void take_tops(const double* tile_tops);
  // What the kernels read.
  Boxed<T> view(const Side<T>& side);

  long count() const { return static_cast<long>(first_.size()) - 1; }
  Tiles tiles(long box) const { return {first_[box], first_[box + 1]}; }
  const int* box_of() const { return box_of_.data(); }
  double mass(long box) const { return mass_[box]; }

  // A box that an expansion serves, and the most it may be wrong by for each pair of points of unit weights.
  struct Far {
    long box;
    double error;
  };
  // Tiles of another side that a box needs one by one, and the boxes of it that expansions serve.
  struct Found {
    std::vector<Tiles> near;
    std::vector<Far> far;
  };
  struct Search {
    int p;
    double cutoff;  // boxes whose logits are all below -cutoff are negligible
    bool upper;     // only boxes from the box's own on
    bool expand;
  };
  void find(long box, const Boxes& other, const Search& search, Found& found) const;
  long points(long box) const;

  std::vector<double> need;  // [tiles] how small the sums of the rows were last, as -log2, at least 0

 private:
  bool smooth(long box, const Boxes& other, long o, double& error) const;

  const Cloud* cloud_;
  double factor_ = 0, bits_ = 0;
  const Accuracy* accuracy_ = nullptr;
  const Chebyshev<T>* chebyshev_ = nullptr;
  std::vector<long> first_, node_of_;
  std::vector<int> box_of_, box_of_node_;
  std::vector<char> compact_;  // boxes that are small enough for expansions
  std::vector<double> centre_, slope_, top_, mass_, node_top_, need_;
  Aligned<T> level_;
};

}  // namespace otcore
