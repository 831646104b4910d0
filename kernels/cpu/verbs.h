// The verbs of one instruction set; isa.cpp gathers them in a table, dispatch.cpp picks the table.
#pragma once
#include "side.h"

namespace otcore {
namespace OTCORE_ISA {

void sweep(const Pair<float>& pair, long tile0, long tile1, double* rows, float* cols);
void sweep(const Pair<double>& pair, long tile0, long tile1, double* rows, double* cols);

void apply(const Pair<float>& pair, long tile0, long tile1, const float* v, int width, double* rows, double* out);
void apply(const Pair<double>& pair, long tile0, long tile1, const double* v, int width, double* rows, double* out);

void grad(const Pair<float>& pair, long tile0, long tile1, const float* v, double* rows, double* out);
void grad(const Pair<double>& pair, long tile0, long tile1, const double* v, double* rows, double* out);

void softmin(const Pair<double>& pair, const double* points, long count, double* out);

void reduce(const float* parts, long count, long stride, long n, double unit, double* sums);
void reduce(const double* parts, long count, long stride, long n, double unit, double* sums);

void radial(const Radial<float>& q, Block rows, Block columns, double* sums, double* force);
void radial(const Radial<double>& q, Block rows, Block columns, double* sums, double* force);

void scale(const double* points, long tiles, int d, double factor, const double* frame, float* u, double* exact, double* half,
           double* radius);
void scale(const double* points, long tiles, int d, double factor, const double* frame, double* u, double* exact, double* half,
           double* radius);

void log2_array(const double* in, long n, double* out);
void dots(const double* const* history, int count, const double* w, const double* z, long n, double* dots);
void combine(const double* const* history, int count, const double* gamma, long n, double* z);

}  // namespace OTCORE_ISA
}  // namespace otcore
