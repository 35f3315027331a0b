/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Writing to a paged cache, and attention over it, on a CPU. Called through ctypes: see paged_cpu.py. */
#include <stdbool.h>
#include <stdlib.h>

#include "item.h"

/* Queries of a head that are taken together, so that one reading of the keys serves them. */
#define ROWS 32
/* Contexts are cut here whatever else is in the batch, so that a sequence's result does not depend on its company. */
#define PART 512
/* Multiplications below which waking threads costs more than it saves. */
#define SMALL_WORK 400000
/* Works per thread that are enough to share out evenly. */
#define ENOUGH 4

/* One layer. Strides count numbers, not bytes. */
struct cache {
	const void *keys, *values;
	int64_t key_block, key_head, key_token;
	int64_t value_block, value_head, value_token;
	int64_t kv_heads, key_size, value_size, block_tokens, bf16;
};

/* What all layers of a step share: of each sequence its first row, its tokens and its blocks. */
struct step {
	const int64_t *starts, *lengths, *tables;
	int64_t sequences, table_width;
};

struct call {
	const struct cache *cache;
	const struct step *step;
	const void *queries;
	int64_t query_row, query_head, heads, bf16;
	void *result;
	float scale;
	int32_t threads;
};

/* Some rows (query tokens x query heads of a kv head) of some neighbouring kv heads, over a stretch of a context. */
struct work {
	int64_t sequence, first_head, heads, first_row, rows, begin, end;
	float *partial; /* NULL: the whole context in one go. Else [heads][rows][top, sum, value size] */
};

static inline const void *at(const void *numbers, int64_t index, int64_t bf16)
{
	return (const char *)numbers + index * (bf16 ? 2 : 4);
}

static inline int64_t smaller(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

static inline int64_t group_of(const struct call *call)
{
	return call->heads / call->cache->kv_heads;
}

static void load_queries(const struct call *call, const struct work *work, int64_t kv_head, float *queries)
{
	int64_t size = call->cache->key_size, group = group_of(call);
	float scale = call->scale * (float)M_LOG2E;

	for (int64_t r = 0; r < work->rows; r++) {
		int64_t token = call->step->starts[work->sequence] + (work->first_row + r) / group;
		int64_t head = kv_head * group + (work->first_row + r) % group;
		int64_t from = token * call->query_row + head * call->query_head;

		for (int64_t d = 0; d < size; d += LANES) {
			floats x = call->bf16 ? load(call->queries, from + d, 1) : load(call->queries, from + d, 0);

			store(queries + r * size + d, x * scale);
		}
	}
}

/* Addresses of the chunk's tokens in the work's first head. */
static void point(const struct call *call, const struct work *work, int64_t begin, int64_t tokens, const void **keys,
		  const void **values)
{
	const struct cache *cache = call->cache;
	const int64_t *table = call->step->tables + work->sequence * call->step->table_width;
	int64_t block = begin / cache->block_tokens, offset = begin % cache->block_tokens, i = 0;

	for (; i < tokens; block++, offset = 0) {
		int64_t key = table[block] * cache->key_block + work->first_head * cache->key_head;
		int64_t value = table[block] * cache->value_block + work->first_head * cache->value_head;

		for (; offset < cache->block_tokens && i < tokens; offset++, i++) {
			keys[i] = at(cache->keys, key + offset * cache->key_token, cache->bf16);
			values[i] = at(cache->values, value + offset * cache->value_token, cache->bf16);
		}
	}
	for (; i % LANES; i++)
		keys[i] = keys[i - 1];
}

/* The same of all heads, block by block: in the order in which they lie. What is left over is a repetition. */
static void point_next(const struct call *call, const struct work *work, int64_t begin, int64_t heads,
		       const void **keys, const void **values)
{
	const struct cache *cache = call->cache;
	const int64_t *table = call->step->tables + work->sequence * call->step->table_width;
	int64_t i = 0, room = heads * CHUNK, end = smaller(work->end, begin + CHUNK);

	for (int64_t t = begin - begin % cache->block_tokens; t < end; t += cache->block_tokens) {
		int64_t block = table[t / cache->block_tokens];

		for (int64_t h = work->first_head; h < work->first_head + work->heads; h++) {
			int64_t key = block * cache->key_block + h * cache->key_head;
			int64_t value = block * cache->value_block + h * cache->value_head;

			for (int64_t offset = 0; offset < cache->block_tokens && i < room; offset++, i++) {
				keys[i] = at(cache->keys, key + offset * cache->key_token, cache->bf16);
				values[i] = at(cache->values, value + offset * cache->value_token, cache->bf16);
			}
		}
	}
	for (; i < room; i++)
		keys[i] = keys[i - 1], values[i] = values[i - 1];
}

static void put(const struct call *call, int64_t row, int64_t head, const float *numbers, float factor)
{
	int64_t size = call->cache->value_size, to = (row * call->heads + head) * size;

	for (int64_t v = 0; v < size; v++) {
		if (call->bf16)
			((uint16_t *)call->result)[to + v] = to_bf16(numbers[v] * factor);
		else
			((float *)call->result)[to + v] = numbers[v] * factor;
	}
}

static void finish(const struct call *call, const struct work *work, int64_t index, const struct head *head)
{
	int64_t size = head->value_size, group = group_of(call);

	for (int64_t r = 0; r < work->rows; r++) {
		int64_t row = call->step->starts[work->sequence] + (work->first_row + r) / group;
		int64_t query_head = (work->first_head + index) * group + (work->first_row + r) % group;
		float *partial = work->partial ? work->partial + (index * work->rows + r) * (size + 2) : NULL;

		if (!partial) {
			put(call, row, query_head, head->result + r * size, 1.0f / head->sums[r]);
			continue;
		}
		partial[0] = head->tops[r], partial[1] = head->sums[r];
		memcpy(partial + 2, head->result + r * size, size * sizeof(float));
	}
}

static void attend_work(const struct call *call, const struct work *work, const struct work *next)
{
	const struct cache *cache = call->cache;
	int64_t rows = work->rows, all = work->heads * rows, group = group_of(call), end = 0, ends[rows];
	int64_t length = call->step->lengths[work->sequence], first = call->step->starts[work->sequence];
	int64_t before = length - (call->step->starts[work->sequence + 1] - first);
	float queries[all * cache->key_size], result[all * cache->value_size], sums[all], tops[all];
	float turned[rows < FEW ? 1 : cache->key_size * CHUNK];
	const void *keys[CHUNK], *values[CHUNK], *next_keys[work->heads * CHUNK], *next_values[work->heads * CHUNK];
	struct head heads[work->heads];

	for (int64_t r = 0; r < rows; r++)
		ends[r] = before + (work->first_row + r) / group + 1;
	end = smaller(ends[rows - 1], work->end);
	memset(result, 0, sizeof(result));
	memset(sums, 0, sizeof(sums));
	for (int64_t i = 0; i < all; i++)
		tops[i] = -INFINITY;
	for (int64_t h = 0; h < work->heads; h++) {
		float *of_head = queries + h * rows * cache->key_size;

		load_queries(call, work, work->first_head + h, of_head);
		heads[h] = (struct head){of_head, result + h * rows * cache->value_size, sums + h * rows, tops + h * rows,
					 ends, rows, cache->key_size, cache->value_size};
	}
	for (int64_t begin = work->begin; begin < end; begin += CHUNK) {
		const struct work *coming = begin + CHUNK < end ? work : next;
		struct chunk chunk = {keys, values, next_keys, next_values, 0, 0, begin, smaller(end - begin, CHUNK)};

		point(call, work, begin, chunk.tokens, keys, values);
		point_next(call, coming, coming == work ? begin + CHUNK : next->begin, work->heads, next_keys, next_values);
		for (int64_t h = 0; h < work->heads; h++) {
			chunk.key_offset = h * cache->key_head, chunk.value_offset = h * cache->value_head;
			chunk.next_keys = next_keys + h * CHUNK, chunk.next_values = next_values + h * CHUNK;
			if (cache->bf16)
				attend_chunk(heads + h, &chunk, turned, 1);
			else
				attend_chunk(heads + h, &chunk, turned, 0);
		}
	}
	for (int64_t h = 0; h < work->heads; h++)
		finish(call, work, h, heads + h);
}

/* Partial results of one row of one head, all parts of equal size and one after the other, become one. */
static void merge_row(const struct call *call, const struct work *parts, int64_t count, int64_t h, int64_t r)
{
	int64_t size = call->cache->value_size, group = group_of(call), at = (h * parts->rows + r) * (size + 2);
	float top = -INFINITY, sum = 0, total[size];

	memset(total, 0, sizeof(total));
	for (int64_t i = 0; i < count; i++)
		top = fmaxf(top, parts[i].partial[at]);
	for (int64_t i = 0; i < count; i++) {
		const float *partial = parts[i].partial + at;
		float weight = exp2f(partial[0] - top);

		sum += weight * partial[1];
		for (int64_t v = 0; v < size; v++)
			total[v] += weight * partial[2 + v];
	}
	put(call, call->step->starts[parts->sequence], (parts->first_head + h) * group + parts->first_row + r, total, 1 / sum);
}

static void merge(const struct call *call, const struct work *works, int64_t count)
{
	int64_t parts = 1;

	if (!works->partial || works->begin > 0)
		return;
	while (parts < count && works[parts].begin > 0)
		parts++;
	for (int64_t h = 0; h < works->heads; h++)
		for (int64_t r = 0; r < works->rows; r++)
			merge_row(call, works, parts, h, r);
}

/* Kv heads that one work takes: all, as they lie together, unless there would be too few works. */
static int64_t heads_together(const struct call *call)
{
	int64_t kv_heads = call->cache->kv_heads, enough = ENOUGH * call->threads;

	return call->step->sequences >= enough ? smaller(kv_heads, (ROWS + group_of(call) - 1) / group_of(call)) : 1;
}

struct totals {
	int64_t works, partials, multiplications;
};

/* Fills `works` if there is room. Only contexts of single tokens are cut: prompts have queries enough to share out. */
static struct totals list_works(const struct call *call, struct work *works, float *memory)
{
	int64_t group = group_of(call), kv_heads = call->cache->kv_heads, size = call->cache->value_size;
	int64_t together = heads_together(call);
	struct totals totals = {};

	for (int64_t s = 0; s < call->step->sequences; s++) {
		int64_t queries = call->step->starts[s + 1] - call->step->starts[s], length = call->step->lengths[s];
		int64_t part = queries == 1 && length > PART ? PART : length, heads = queries == 1 ? together : 1;

		totals.multiplications += queries * call->heads * length * (call->cache->key_size + size);
		for (int64_t h = 0; h < kv_heads; h += heads)
			for (int64_t row = 0; row < queries * group; row += ROWS)
				for (int64_t begin = 0; begin < length; begin += part, totals.works++) {
					struct work work = {s, h, smaller(heads, kv_heads - h), row,
							    smaller(ROWS, queries * group - row), begin,
							    smaller(begin + part, length), NULL};

					if (works && part < length)
						work.partial = memory + totals.partials;
					if (works)
						works[totals.works] = work;
					if (part < length)
						totals.partials += work.heads * work.rows * (size + 2);
				}
	}
	return totals;
}

/* 0, or -1 without memory. */
int paged_attend(const struct call *call)
{
	struct totals totals = list_works(call, NULL, NULL);
	struct work *works = malloc((totals.works + 1) * sizeof(*works));
	float *memory = malloc((totals.partials + 1) * sizeof(*memory));
	int problem = works && memory ? 0 : -1;

	if (!problem) {
		list_works(call, works, memory);
#pragma omp parallel num_threads(call->threads) if (totals.multiplications > SMALL_WORK)
		{
#pragma omp for schedule(dynamic, 1)
			for (int64_t i = 0; i < totals.works; i++)
				attend_work(call, works + i, works + (i + 1 < totals.works ? i + 1 : i));
			if (totals.partials) {
#pragma omp for schedule(dynamic, 1)
				for (int64_t i = 0; i < totals.works; i++)
					merge(call, works + i, totals.works - i);
			}
		}
	}
	free(works);
	free(memory);
	return problem;
}

/* Keys and values [rows][kv heads][size], numbers of the cache's own type, to their slots. values NULL: in the keys. */
void paged_write(const struct cache *cache, const void *keys, int64_t key_row, int64_t key_head, const void *values,
		 int64_t value_row, int64_t value_head, const int64_t *slots, int64_t rows)
{
	int64_t bf16 = cache->bf16, width = bf16 ? 2 : 4;

	for (int64_t r = 0; r < rows; r++) {
		int64_t block = slots[r] / cache->block_tokens, offset = slots[r] % cache->block_tokens;

		for (int64_t h = 0; h < cache->kv_heads; h++) {
			int64_t key = block * cache->key_block + h * cache->key_head + offset * cache->key_token;
			int64_t value = block * cache->value_block + h * cache->value_head + offset * cache->value_token;

			memcpy((void *)at(cache->keys, key, bf16), at(keys, r * key_row + h * key_head, bf16),
			       cache->key_size * width);
			if (values)
				memcpy((void *)at(cache->values, value, bf16),
				       at(values, r * value_row + h * value_head, bf16), cache->value_size * width);
		}
	}
}
