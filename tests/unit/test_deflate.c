/* The deflater: what comes back is what went in, through zlib with a window of 4 KiB
 * that gets no more than a few bytes of room at a time; never a byte outside of the
 * room; as small as zlib's own. */
#include "block/qcow2/deflate.h"
#include "tests/lib/mem_image.h"
#include "tests/unit/backends.h"

#include <errno.h>
#include <libdeflate.h>
#include <zlib.h>

#define MOST (2 * MiB + 3)

typedef void fill_fn(u8 *buf, u64 bytes, u64 seed);

static void fill_zeros(u8 *buf, u64 bytes, u64 seed)
{
	memset(buf, 0, bytes);
}

static void fill_noise(u8 *buf, u64 bytes, u64 seed)
{
	for (u64 i = 0; i < bytes; i++)
		buf[i] = (u8)next_random(&seed);
}

/* Words of a small language. */
static void fill_words(u8 *buf, u64 bytes, u64 seed)
{
	for (u64 i = 0; i < bytes;) {
		u64 word = next_random(&seed) % 500, state = word + 1, n = 2 + word % 9;

		for (u64 k = 0; k < n && i < bytes; k++)
			buf[i++] = (u8)('a' + next_random(&state) % 26);
		if (i < bytes)
			buf[i++] = ' ';
	}
}

/* Text, noise and zeros in turn, so that blocks of all kinds come. */
static void fill_mixed(u8 *buf, u64 bytes, u64 seed)
{
	static fill_fn *const fills[] = {fill_words, fill_noise, fill_zeros};

	for (u64 i = 0, part; i < bytes; i += part) {
		part = MIN(bytes - i, 1 + next_random(&seed) % (24 * KiB));
		fills[next_random(&seed) % 3](buf + i, part, seed);
	}
}

/* Noise that comes again from about as far away as the window reaches. */
static void fill_far(u8 *buf, u64 bytes, u64 seed)
{
	u64 period = 4080 + seed * 4;

	fill_noise(buf, MIN(bytes, period), seed);
	for (u64 i = period; i < bytes; i++)
		buf[i] = buf[i - period];
}

/* Bytes whose frequencies are Fibonacci's numbers: codes as long as they get. */
static void fill_skewed(u8 *buf, u64 bytes, u64 seed)
{
	u64 a = 1, b = 1, left = 1;
	u8 symbol = 0;

	for (u64 i = 0; i < bytes; i++) {
		buf[i] = symbol;
		if (--left)
			continue;
		left = b;
		b += a;
		a = left;
		symbol += 37;
	}
	for (u64 i = bytes; i > 1; i--) {
		u64 k = next_random(&seed) % i;
		u8 t = buf[k];

		buf[k] = buf[i - 1];
		buf[i - 1] = t;
	}
}

static fill_fn *const fills[] = {fill_zeros, fill_noise, fill_words,
				 fill_mixed, fill_far,	 fill_skewed};

struct memory {
	struct deflater *d;
	u8 *in, *out, *back;
};

static int setup(void **state)
{
	struct memory *m = xnew(struct memory);

	m->d = deflater_new();
	m->in = xalloc(MOST);
	m->out = xalloc(2 * MOST);
	m->back = xalloc(MOST);
	*state = m;
	return 0;
}

static int teardown(void **state)
{
	struct memory *m = *state;

	deflater_free(m->d);
	free(m->in);
	free(m->out);
	free(m->back);
	free(m);
	return 0;
}

/* By a reader that has a window of 4 KiB and nothing else. */
static void assert_inflates(struct memory *m, u64 n, u64 bytes, u32 step)
{
	z_stream z = {.next_in = m->out, .avail_in = (uInt)n};
	u64 got = 0;
	int ret = Z_OK;

	memset(m->back, 0x55, bytes);
	assert_int_equal(inflateInit2(&z, -12), Z_OK);
	while (ret == Z_OK) {
		u8 none[8];
		u32 room = (u32)MIN((u64)step, bytes - got);

		z.next_out = room ? m->back + got : none;
		z.avail_out = room ? room : 1;
		ret = inflate(&z, Z_NO_FLUSH);
		got = z.total_out;
		assert_true(got <= bytes);
	}
	inflateEnd(&z);
	assert_int_equal(ret, Z_STREAM_END);
	assert_int_equal(got, bytes);
	assert_int_equal(z.avail_in, 0);
	assert_memory_equal(m->in, m->back, bytes);
}

static void assert_round_trip(struct memory *m, u64 bytes)
{
	struct libdeflate_decompressor *fast = libdeflate_alloc_decompressor();
	s64 n = deflater_run(m->d, m->in, bytes, m->out, 2 * bytes + 64);

	assert_true(n > 0);
	assert_inflates(m, (u64)n, bytes, 1000);
	memset(m->back, 0x55, bytes);
	assert_int_equal(libdeflate_deflate_decompress(fast, m->out, (size_t)n, m->back, bytes,
						       NULL),
			 LIBDEFLATE_SUCCESS);
	assert_memory_equal(m->in, m->back, bytes);
	libdeflate_free_decompressor(fast);
}

static void everything_comes_back_through_a_window_of_4_kib(void **state)
{
	struct memory *m = *state;

	for (u64 bytes = 512; bytes <= MOST; bytes *= 4) {
		for (u32 i = 0; i < ARRAY_LEN(fills); i++) {
			fills[i](m->in, bytes, i + 1);
			assert_round_trip(m, bytes);
		}
	}
	fill_mixed(m->in, MOST, 9);
	assert_round_trip(m, MOST);
}

static void lengths_and_distances_of_every_kind_come_back(void **state)
{
	struct memory *m = *state;

	for (u64 seed = 0; seed < 8; seed++) {
		fill_far(m->in, 20000, seed);
		assert_round_trip(m, 20000);
	}
	for (u64 bytes = 9; bytes < 700; bytes++) {
		fill_words(m->in, bytes, bytes);
		assert_round_trip(m, bytes);
		memset(m->in, (int)bytes, bytes);
		assert_round_trip(m, bytes);
	}
}

static void nothing_is_written_outside_of_the_room(void **state)
{
	struct memory *m = *state;

	for (u32 i = 0; i < ARRAY_LEN(fills); i++) {
		s64 n;

		fills[i](m->in, 5000, i + 1);
		n = deflater_run(m->d, m->in, 5000, m->out, 2 * MOST);
		for (u64 room = 0; room < (u64)n + 12; room++) {
			s64 ret;

			memset(m->out + room, 0xa5, 64);
			ret = deflater_run(m->d, m->in, 5000, m->out, room);
			assert_true(ret == n || ret == -ENOSPC);
			assert_true(ret == n ? room >= (u64)n : room < (u64)n + 9);
			for (u32 k = 0; k < 64; k++)
				assert_int_equal(m->out[room + k], 0xa5);
		}
	}
}

static void what_went_before_changes_nothing(void **state)
{
	struct memory *m = *state;
	s64 first, second;

	fill_words(m->in, 64 * KiB, 3);
	first = deflater_run(m->d, m->in, 64 * KiB, m->out, MOST);
	fill_mixed(m->in, MOST, 4);
	assert_true(deflater_run(m->d, m->in, MOST, m->out + MOST, MOST) > 0);
	fill_words(m->in, 64 * KiB, 3);
	second = deflater_run(m->d, m->in, 64 * KiB, m->out + MOST, MOST);
	assert_int_equal(first, second);
	assert_memory_equal(m->out, m->out + MOST, (size_t)first);
}

/* The words are random, so there is little to find but what is there. */
static void it_is_as_small_as_zlib(void **state)
{
	struct memory *m = *state;
	u64 ours = 0, theirs = 0;

	for (u64 seed = 1; seed < 20; seed++) {
		z_stream z = {
			.next_in = m->in, .avail_in = 65536, .next_out = m->out, .avail_out = MOST};

		fill_words(m->in, 65536, seed);
		ours += (u64)deflater_run(m->d, m->in, 65536, m->out, MOST);
		assert_int_equal(deflateInit2(&z, -1, Z_DEFLATED, -12, 9, 0), Z_OK);
		assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
		theirs += z.total_out;
		deflateEnd(&z);
	}
	assert_true(ours * 100 <= theirs * 102);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(everything_comes_back_through_a_window_of_4_kib),
		cmocka_unit_test(lengths_and_distances_of_every_kind_come_back),
		cmocka_unit_test(nothing_is_written_outside_of_the_room),
		cmocka_unit_test(what_went_before_changes_nothing),
		cmocka_unit_test(it_is_as_small_as_zlib),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
