// Anderson acceleration of a fixed-point map z -> G(z) (Walker & Ni 2011, type II), with a weighted norm.
#pragma once
#include <vector>

namespace otcore {

class Anderson {
 public:
  Anderson(std::vector<double> weights, int window);
  void reset() { count_ = 0, fresh_ = true; }
  // Given z and image = G(z), replaces z by the accelerated next iterate.
  void step(std::vector<double>& z, const std::vector<double>& image, int threads);

 private:
  std::vector<double> weights_;
  int window_;
  int count_ = 0;     // differences held
  int newest_ = 0;    // slot of the newest
  bool fresh_ = true; // no earlier iterate to take a difference with
  std::vector<double> residual_, image_;             // of the last iterate
  std::vector<std::vector<double>> residuals_, images_;  // differences, by slot
  std::vector<double> gram_;                         // [window][window], by slot
};

}  // namespace otcore
