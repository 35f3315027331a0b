/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Sixteen floats at a time, in GCC's vector extensions: AVX-512 in one register, other machines in several. */
#ifndef LANES_H
#define LANES_H

#include <stdint.h>
#include <string.h>

#define LANES 16
#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")

typedef float floats __attribute__((vector_size(64)));
typedef int32_t ints __attribute__((vector_size(64)));
typedef uint32_t words __attribute__((vector_size(64)));
typedef uint16_t halves __attribute__((vector_size(32)));

/* Where lane l of "stretches of s lanes of a and of b in turn" comes from; + s for the other halves of a and b. */
#define FROM(s, l) ((l) / (s) % 2 * LANES + (l) / (2 * (s)) * 2 * (s) + (l) % (s))
#define PICK(s, o)                                                                                                     \
	((ints){FROM(s, 0) + (o), FROM(s, 1) + (o), FROM(s, 2) + (o), FROM(s, 3) + (o), FROM(s, 4) + (o),              \
		FROM(s, 5) + (o), FROM(s, 6) + (o), FROM(s, 7) + (o), FROM(s, 8) + (o), FROM(s, 9) + (o),              \
		FROM(s, 10) + (o), FROM(s, 11) + (o), FROM(s, 12) + (o), FROM(s, 13) + (o), FROM(s, 14) + (o),         \
		FROM(s, 15) + (o)})

INLINE floats spread(float x)
{
	return (floats){} + x;
}

/* a where the comparison `mask` held, else b. */
INLINE floats choose(ints mask, floats a, floats b)
{
	return (floats)((mask & (ints)a) | (~mask & (ints)b));
}

/* Number `index` and the fifteen after it; `bf16` is known when this is compiled. */
INLINE floats load(const void *numbers, int64_t index, int bf16)
{
	floats result;

	if (bf16) {
		halves raw;

		memcpy(&raw, (const uint16_t *)numbers + index, sizeof(raw));
		return (floats)(__builtin_convertvector(raw, words) << 16);
	}
	memcpy(&result, (const float *)numbers + index, sizeof(result));
	return result;
}

/* Into the second level: the first is too small to hold what is used a moment later. */
INLINE void fetch(const void *numbers, int64_t index, int bf16)
{
	__builtin_prefetch((const char *)numbers + index * (bf16 ? 2 : 4), 0, 2);
}

INLINE void store(float *numbers, floats x)
{
	memcpy(numbers, &x, sizeof(x));
}

#define EXCHANGE(s)                                                                                                    \
	UNROLL for (int i = 0; i < LANES; i++) if (!(i & (s)))                                                         \
	{                                                                                                              \
		floats a = m[i], b = m[i + (s)];                                                                       \
		m[i] = __builtin_shuffle(a, b, PICK(s, 0));                                                            \
		m[i + (s)] = __builtin_shuffle(a, b, PICK(s, s));                                                      \
	}

INLINE void transpose(floats m[LANES])
{
	EXCHANGE(8)
	EXCHANGE(4)
	EXCHANGE(2)
	EXCHANGE(1)
}

#define FOLD(s)                                                                                                        \
	UNROLL for (int i = 0; i < (s); i++)                                                                           \
		m[i] = __builtin_shuffle(m[i], m[i + (s)], PICK(s, 0)) + __builtin_shuffle(m[i], m[i + (s)], PICK(s, s));

/* Lane i of the result is the sum of m[i]. */
INLINE floats sums(floats m[LANES])
{
	FOLD(8)
	FOLD(4)
	FOLD(2)
	FOLD(1)
	return m[0];
}

INLINE float largest(floats x)
{
	float result = x[0];

	UNROLL for (int i = 1; i < LANES; i++) result = x[i] > result ? x[i] : result;
	return result;
}

/* 2^x for x <= 0, to about 1e-7; NaN stays NaN. */
INLINE floats exp2_not_above_one(floats x)
{
	floats r;
	ints whole;

	x = choose(x < -126.0f, spread(-126.0f), x);
	whole = __builtin_convertvector(x - 0.5f, ints);
	x -= __builtin_convertvector(whole, floats);
	r = spread(1.5252734e-5f); /* ln(2)^k / k!, down from k = 7 */
	r = r * x + 1.5403530e-4f;
	r = r * x + 1.3333558e-3f;
	r = r * x + 9.6181291e-3f;
	r = r * x + 5.5504109e-2f;
	r = r * x + 2.4022651e-1f;
	r = r * x + 6.9314718e-1f;
	r = r * x + 1.0f;
	return r * (floats)((whole + 127) << 23);
}

INLINE uint16_t to_bf16(float x)
{
	uint32_t bits;

	memcpy(&bits, &x, sizeof(bits));
	if (x != x)
		return (uint16_t)(bits >> 16 | 0x40);
	return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

#endif
