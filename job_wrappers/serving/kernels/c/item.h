/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A chunk of one sequence's tokens: their keys against some queries, the weights that follow, their values. */
#ifndef ITEM_H
#define ITEM_H

#include <math.h>

#include "lanes.h"

#define CHUNK 64 /* tokens between two looks at the maximum */
#define FEW 4	 /* below this many rows, turning keys around costs more than it saves */

#ifdef __AVX512F__
#define WIDE 4 /* vectors of four rows that stay in registers */
#else
#define WIDE 1
#endif

/* Queries that read one kv head. */
struct head {
	const float *queries; /* [rows][key size], times scale * log2(e) */
	float *result;	      /* [rows][value size], not yet divided by the sums */
	float *sums, *tops;   /* [rows] */
	const int64_t *ends;  /* [rows]: each sees tokens before this one */
	int64_t rows, key_size, value_size;
};

/* Addresses by token. `next`: what is wanted after this chunk, of any place. Blocks are too short, and lie too far from
 * each other, for the processor to foresee it. */
struct chunk {
	const void *const *keys, *const *values, *const *next_keys, *const *next_values;
	int64_t key_offset, value_offset; /* from those addresses, in numbers */
	int64_t begin, tokens;		  /* of keys there are addresses for whole vectors */
};

/* c[r][...] += a[r][k] * b[k][...] for some rows and columns, both known when this is compiled. */
INLINE void tile(float *c, int64_t c_row, const float *a, int64_t a_row, const void *const *b, int64_t b_column,
		 const void *const *next, int64_t column, int64_t depth, const int rows, const int wide, const int bf16)
{
	floats total[rows][wide];

	for (int r = 0; r < rows; r++)
		UNROLL for (int w = 0; w < wide; w++) total[r][w] = load(c, r * c_row + column + w * LANES, 0);
	for (int64_t k = 0; k < depth; k++) {
		UNROLL for (int w = 0; w < wide; w++)
		{
			floats x = load(b[k], b_column + column + w * LANES, bf16);

			if (next)
				fetch(next[k], column + w * LANES, bf16);
			UNROLL for (int r = 0; r < rows; r++) total[r][w] += a[r * a_row + k] * x;
		}
	}
	for (int r = 0; r < rows; r++)
		UNROLL for (int w = 0; w < wide; w++) store(c + r * c_row + column + w * LANES, total[r][w]);
}

INLINE void multiply_rows(float *c, int64_t columns, int64_t c_row, const float *a, int64_t a_row, const void *const *b,
			  int64_t b_column, const void *const *next, int64_t depth, const int rows, const int bf16)
{
	int64_t column = 0;

	for (; column + WIDE * LANES <= columns; column += WIDE * LANES)
		tile(c, c_row, a, a_row, b, b_column, next, column, depth, rows, WIDE, bf16);
	for (; column < columns; column += LANES)
		tile(c, c_row, a, a_row, b, b_column, next, column, depth, rows, 1, bf16);
}

INLINE void multiply(float *c, int64_t columns, int64_t c_row, const float *a, int64_t a_row, const void *const *b,
		     int64_t b_column, const void *const *next, int64_t depth, int64_t rows, const int bf16)
{
	for (; rows >= 4; rows -= 4, c += 4 * c_row, a += 4 * a_row)
		multiply_rows(c, columns, c_row, a, a_row, b, b_column, NULL, depth, 4, bf16);
	if (rows >= 2) {
		multiply_rows(c, columns, c_row, a, a_row, b, b_column, next, depth, 2, bf16);
		rows -= 2, c += 2 * c_row, a += 2 * a_row;
	}
	if (rows)
		multiply_rows(c, columns, c_row, a, a_row, b, b_column, next, depth, 1, bf16);
}

/* Few rows: keys are read once, as they lie. */
INLINE void score_by_dots(const struct head *head, const struct chunk *chunk, float *scores, int64_t first,
			  const int rows, const int bf16)
{
	const float *queries = head->queries + first * head->key_size;

	for (int64_t t = 0; t < chunk->tokens; t += LANES) {
		floats total[rows][LANES];

		UNROLL for (int i = 0; i < LANES; i++)
		{
			floats sum[2] = {};

			for (int64_t d = 0; d < head->key_size; d += LANES) {
				floats key = load(chunk->keys[t + i], chunk->key_offset + d, bf16);

				fetch(chunk->next_keys[t + i], d, bf16);
				for (int r = 0; r < rows; r++)
					sum[r] += load(queries, r * head->key_size + d, 0) * key;
			}
			for (int r = 0; r < rows; r++)
				total[r][i] = sum[r];
		}
		for (int r = 0; r < rows; r++)
			store(scores + (first + r) * CHUNK + t, sums(total[r]));
	}
}

/* Many rows: keys are turned around first, [number][token], so that no sum runs across lanes. */
INLINE void score_turned(const struct head *head, const struct chunk *chunk, float *scores, float *turned,
			 const int bf16)
{
	const void *rows[head->key_size];

	for (int64_t t = 0; t < chunk->tokens; t += LANES) {
		for (int64_t d = 0; d < head->key_size; d += LANES) {
			floats m[LANES];

			UNROLL for (int i = 0; i < LANES; i++)
			{
				m[i] = load(chunk->keys[t + i], chunk->key_offset + d, bf16);
				fetch(chunk->next_keys[t + i], d, bf16);
				if (d < head->value_size)
					fetch(chunk->next_values[t + i], d, bf16);
			}
			transpose(m);
			UNROLL for (int i = 0; i < LANES; i++) store(turned + (d + i) * CHUNK + t, m[i]);
		}
	}
	for (int64_t d = 0; d < head->key_size; d++)
		rows[d] = turned + d * CHUNK;
	memset(scores, 0, head->rows * CHUNK * sizeof(float));
	multiply(scores, (chunk->tokens + LANES - 1) / LANES * LANES, CHUNK, head->queries, head->key_size, rows, 0, NULL,
		 head->key_size, head->rows, 0);
}

/* Scores of one row become weights; what was added up so far is scaled to the new maximum. */
INLINE void weigh(const struct head *head, float *scores, int64_t row, int64_t visible, int64_t tokens)
{
	float *result = head->result + row * head->value_size, top = head->tops[row], shrink;
	const ints lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
	floats best = spread(top), sum = {};

	for (int64_t t = 0; t < visible; t += LANES) {
		floats x = choose(lane < (int32_t)(visible - t), load(scores, t, 0), spread(-INFINITY));

		best = choose(x > best, x, best);
	}
	top = largest(best);
	for (int64_t t = 0; t < tokens; t += LANES) {
		floats x = exp2_not_above_one(load(scores, t, 0) - top);

		x = choose(lane < (int32_t)(visible - t), x, spread(0.0f));
		sum += x;
		store(scores + t, x);
	}
	shrink = exp2f(head->tops[row] - top);
	head->tops[row] = top;
	head->sums[row] *= shrink;
	UNROLL for (int i = 0; i < LANES; i++) head->sums[row] += sum[i];
	if (shrink != 1.0f)
		for (int64_t v = 0; v < head->value_size; v += LANES)
			store(result + v, load(result, v, 0) * shrink);
}

/* `turned`: room for [key size][CHUNK]. */
INLINE void attend_chunk(const struct head *head, const struct chunk *chunk, float *turned, const int bf16)
{
	float scores[head->rows * CHUNK];
	int64_t row = 0;

	if (head->rows >= FEW) {
		score_turned(head, chunk, scores, turned, bf16);
	} else {
		for (; row + 2 <= head->rows; row += 2)
			score_by_dots(head, chunk, scores, row, 2, bf16);
		if (row < head->rows)
			score_by_dots(head, chunk, scores, row, 1, bf16);
	}
	for (row = 0; row < head->rows; row++) {
		int64_t visible = head->ends[row] - chunk->begin;

		visible = visible < chunk->tokens ? visible : chunk->tokens;
		if (visible > 0)
			weigh(head, scores + row * CHUNK, row, visible, chunk->tokens);
		else
			memset(scores + row * CHUNK, 0, CHUNK * sizeof(float));
	}
	multiply(head->result, head->value_size, head->value_size, scores, CHUNK, chunk->values, chunk->value_offset,
		 chunk->next_values, chunk->tokens, head->rows, bf16);
}

#endif
