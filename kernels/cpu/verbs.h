// The verbs of one instruction set; isa.cpp gathers them in a table, dispatch.cpp picks the table.
#pragma once
#include "side.h"

namespace otcore {
namespace OTCORE_ISA {

void sweep(const Pair<float>& pair, long tile0, long tile1, double* rows, float* cols, bool* touched);
void sweep(const Pair<double>& pair, long tile0, long tile1, double* rows, double* cols, bool* touched);

void apply(const Pair<float>& pair, long tile0, long tile1, const float* v, int width, double* rows, double* out);
void apply(const Pair<double>& pair, long tile0, long tile1, const double* v, int width, double* rows, double* out);

void grad(const Pair<float>& pair, long tile0, long tile1, const float* v, double* rows, double* out);
void grad(const Pair<double>& pair, long tile0, long tile1, const double* v, double* rows, double* out);

void softmin(const Pair<double>& pair, const double* points, long count, double* out);

void reduce(const float* parts, const bool* touched, long count, long stride, long tiles, double unit, double* sums);
void reduce(const double* parts, const bool* touched, long count, long stride, long tiles, double unit, double* sums);

void radial(const Radial<float>& q, Block rows, Block columns, double* sums, double* force);
void radial(const Radial<double>& q, Block rows, Block columns, double* sums, double* force);

void scale(const double* points, long tiles, int d, double factor, const double* frame, float* u, double* exact, double* half,
           double* radius);
void scale(const double* points, long tiles, int d, double factor, const double* frame, double* u, double* exact, double* half,
           double* radius);

void fit(const Boxed<float>& q, long box);
void fit(const Boxed<double>& q, long box);

void collect(const Boxed<float>& q, long box, Sums sums, const double* values, int width, float* nodes);
void collect(const Boxed<double>& q, long box, Sums sums, const double* values, int width, double* nodes);

void translate(const Boxed<float>& x, long to, const Boxed<float>& y, const long* from, long count, Sums sums, int width,
               const float* nodes, float* local);
void translate(const Boxed<double>& x, long to, const Boxed<double>& y, const long* from, long count, Sums sums, int width,
               const double* nodes, double* local);

void evaluate(const Boxed<float>& q, long box, Sums sums, int width, const float* local, double* rows, double* out);
void evaluate(const Boxed<double>& q, long box, Sums sums, int width, const double* local, double* rows, double* out);

void product(const TileProduct<float>& q);
void product(const TileProduct<double>& q);

void transpose(const Transposition<float>& q);
void transpose(const Transposition<double>& q);

bool slice(const Line<float>& q, const SliceScratch<float>& scratch, double* cost);
bool slice(const Line<double>& q, const SliceScratch<double>& scratch, double* cost);

void log2_array(const double* in, long n, double* out);
void dots(const double* const* history, int count, const double* w, const double* z, long n, double* dots);
void combine(const double* const* history, int count, const double* gamma, long n, double* z);

}  // namespace OTCORE_ISA
}  // namespace otcore
