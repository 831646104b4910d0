// What the verb `radial` reads: points with signed weights, and a radial kernel k(|u - v|^2).
#pragma once

namespace otcore {

enum class Kernel {
  gaussian,              // exp(-|u-v|^2 / (2 blur^2))
  laplacian,             // exp(-|u-v| / blur)
  energy,                // -|u-v|
  inverse_multiquadric,  // blur^2 / (blur^2 + |u-v|^2)
};

template <class T>
struct Radial {
  long tiles;        // the first `split` of one cloud, the others of another
  long split;
  int d;             // dimension
  const T* u;        // [tiles][d][kTile]; padding repeats a point
  const T* weight;   // [tiles][kTile], 0 in padding
  Kernel kernel;
  int scales;        // how many blurs are summed over; 1 for energy
  const T* rate;     // [scales] log2(e) / (2 blur^2), log2(e) / blur, -, 1 / blur^2
  const T* slope;    // [scales] 1 / blur^2, 1 / blur, -, 2 / blur^2: h = -slope k (/ |u-v|) (k^2)
  bool grad;         // whether `force` is wanted
  double within[2];  // factors of pairs within the first and within the second cloud; those across have 1
};

// Tiles [first, last).
struct Block {
  long first, last;
};

}  // namespace otcore
