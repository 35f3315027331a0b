/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What stands between the products of a layer, row by row in fp32. Called through ctypes: see rows.py. */
#include <math.h>

#include "lanes.h"

/* Numbers below which waking threads costs more than it saves. */
#define SMALL_WORK 16384

INLINE float sum_of(floats x)
{
	float result = 0;

	UNROLL for (int i = 0; i < LANES; i++) result += x[i];
	return result;
}

/* y = x / root(mean(x^2) + eps) * weight; width is a multiple of LANES */
void rows_norm(const float *x, int64_t x_row, const float *weight, float eps, float *y, int64_t rows, int64_t width,
	       int threads)
{
#pragma omp parallel for num_threads(threads) schedule(static) if (rows * width > SMALL_WORK)
	for (int64_t r = 0; r < rows; r++) {
		const float *from = x + r * x_row;
		floats squares = {};
		float scale;

		for (int64_t i = 0; i < width; i += LANES) {
			floats part = load(from, i, 0);

			squares += part * part;
		}
		scale = 1.0f / sqrtf(sum_of(squares) / (float)width + eps);
		for (int64_t i = 0; i < width; i += LANES)
			store(y + r * width + i, load(from, i, 0) * scale * load(weight, i, 0));
	}
}

/* y = gate / (1 + exp(-gate)) * up, where a row of x holds gate and up; width, of each, is a multiple of LANES */
void rows_gate(const float *x, float *y, int64_t rows, int64_t width, int threads)
{
	const float log2_e = (float)M_LOG2E;

#pragma omp parallel for num_threads(threads) schedule(static) if (rows * width > SMALL_WORK)
	for (int64_t r = 0; r < rows; r++)
		for (int64_t i = 0; i < width; i += LANES) {
			floats gate = load(x, r * 2 * width + i, 0), up = load(x, r * 2 * width + width + i, 0);
			ints negative = gate < 0.0f;
			floats small = exp2_not_above_one(choose(negative, gate, -gate) * log2_e); /* e^-|gate| */
			floats share = choose(negative, small, spread(1.0f)) / (1.0f + small);

			store(y + r * width + i, gate * share * up);
		}
}
