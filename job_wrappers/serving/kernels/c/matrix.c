/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Products of few rows with a weight, y = x W^T + bias in fp32. Called through ctypes: see packed_matrix.py.
 *
 * The weight lies in panels of PANEL outputs, [panel][input][PANEL], so that each is read once, front to back, whatever
 * the rows: memory sets the pace of few rows, multiplication that of many. A row's sums run over inputs in one order,
 * so its result does not depend on its company. */
#include <stdint.h>
#include <string.h>

#define LANES 16
#define WIDE 2
#define PANEL (WIDE * LANES)
/* Rows whose sums stay in registers. */
#ifdef __AVX512F__
#define ROWS 12
#else
#define ROWS 3
#endif
/* Inputs that are summed up before the sum joins the total: rounding errors of short sums are smaller. */
#define STRETCH 128
/* Multiplications below which waking threads costs more than it saves. */
#define SMALL_WORK 32768

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")

/* One register with AVX-512, several elsewhere. */
typedef float floats __attribute__((vector_size(4 * LANES)));

struct matrix {
	float *panels;
	const float *bias; /* padded to whole panels; NULL: none */
	int64_t outputs, inputs;
};

INLINE floats load(const float *numbers, int64_t index)
{
	floats result;

	memcpy(&result, numbers + index, sizeof(result));
	return result;
}

INLINE void tile(const struct matrix *matrix, int64_t panel, const float *x, int64_t x_row, float *y, int64_t y_row,
		 const int rows)
{
	const float *weight = matrix->panels + panel * matrix->inputs * PANEL;
	floats total[rows][WIDE];

	for (int w = 0; w < WIDE; w++)
		for (int r = 0; r < rows; r++)
			total[r][w] = matrix->bias ? load(matrix->bias, panel * PANEL + w * LANES) : (floats){};
	for (int64_t begin = 0; begin < matrix->inputs; begin += STRETCH) {
		int64_t end = begin + STRETCH < matrix->inputs ? begin + STRETCH : matrix->inputs;
		floats sum[rows][WIDE];

		for (int r = 0; r < rows; r++)
			UNROLL for (int w = 0; w < WIDE; w++) sum[r][w] = (floats){};
		for (int64_t i = begin; i < end; i++, weight += PANEL) {
			floats part[WIDE];

			UNROLL for (int w = 0; w < WIDE; w++) part[w] = load(weight, w * LANES);
			UNROLL for (int r = 0; r < rows; r++)
			{
				UNROLL for (int w = 0; w < WIDE; w++) sum[r][w] += x[r * x_row + i] * part[w];
			}
		}
		for (int r = 0; r < rows; r++)
			UNROLL for (int w = 0; w < WIDE; w++) total[r][w] += sum[r][w];
	}
	for (int w = 0; w < WIDE; w++) {
		int64_t first = panel * PANEL + w * LANES, left = matrix->outputs - first;

		for (int r = 0; r < rows && left > 0; r++)
			memcpy(y + r * y_row + first, &total[r][w], (left < LANES ? left : LANES) * sizeof(float));
	}
}

#define TILE(rows)                                                                                                     \
	static void tile_##rows(const struct matrix *matrix, int64_t panel, const float *x, int64_t x_row, float *y,   \
				int64_t y_row)                                                                         \
	{                                                                                                              \
		tile(matrix, panel, x, x_row, y, y_row, rows);                                                         \
	}

typedef void (*tile_of)(const struct matrix *, int64_t, const float *, int64_t, float *, int64_t);

TILE(1)
TILE(2)
TILE(3)
#if ROWS > 3
TILE(4)
TILE(5)
TILE(6)
TILE(7)
TILE(8)
TILE(9)
TILE(10)
TILE(11)
TILE(12)
static const tile_of tiles[ROWS] = {tile_1, tile_2, tile_3, tile_4,  tile_5,  tile_6,
				    tile_7, tile_8, tile_9, tile_10, tile_11, tile_12};
#else
static const tile_of tiles[ROWS] = {tile_1, tile_2, tile_3};
#endif

/* y [rows][outputs], neighbours; x has its own stride. */
void matrix_multiply(const struct matrix *matrix, const float *x, int64_t x_row, int64_t rows, float *y, int threads)
{
	int64_t panels = (matrix->outputs + PANEL - 1) / PANEL, rounds = (rows + ROWS - 1) / ROWS;
	int64_t step = rounds ? (rows + rounds - 1) / rounds : 1; /* shares of equal size: 14 rows are 7 and 7 */

#pragma omp parallel for num_threads(threads) schedule(static) if (rows * matrix->outputs * matrix->inputs > SMALL_WORK)
	for (int64_t panel = 0; panel < panels; panel++)
		for (int64_t row = 0; row < rows; row += step) {
			int64_t now = rows - row < step ? rows - row : step;

			tiles[now - 1](matrix, panel, x + row * x_row, x_row, y + row * matrix->outputs, matrix->outputs);
		}
}

/* Whether the compiler had vectors and fused multiplication to work with; without, other libraries are faster. */
int matrix_suits_processor(void)
{
#if defined(__AVX512F__) || (defined(__AVX2__) && defined(__FMA__)) || defined(__ARM_NEON)
	return 1;
#else
	return 0;
#endif
}

/* weight [outputs][inputs], neighbours, into matrix->panels; what pads the last panel is 0. */
void matrix_pack(const struct matrix *matrix, const float *weight)
{
	int64_t padded = (matrix->outputs + PANEL - 1) / PANEL * PANEL;

	for (int64_t output = 0; output < padded; output++) {
		float *to = matrix->panels + output / PANEL * PANEL * matrix->inputs + output % PANEL;

		for (int64_t i = 0; i < matrix->inputs; i++)
			to[i * PANEL] = output < matrix->outputs ? weight[output * matrix->inputs + i] : 0.0f;
	}
}
