/* The codec of saved state: round trips, and input that lies. */
#include "vmm/core/state.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

struct part {
	u16 a;
	bool on;
};
static const struct state_field part_state[] = {
	STATE(struct part, a),
	STATE(struct part, on),
	STATE_END,
};

struct thing {
	void *not_saved;
	u8 byte;
	s16 small;
	u32 word;
	s64 big;
	bool flag;
	u16 array[3];
	struct part part, parts[2];
	u32 late;
};
static const struct state_field thing_state[] = {
	STATE(struct thing, byte),
	STATE(struct thing, small),
	STATE(struct thing, word),
	STATE(struct thing, big),
	STATE(struct thing, flag),
	STATE_ARRAY(struct thing, array),
	STATE_STRUCT(struct thing, part, part_state),
	STATE_STRUCT_ARRAY(struct thing, parts, part_state),
	STATE_OPTIONAL(struct thing, late),
	STATE_END,
};

static const struct thing sample = {
	.byte = 0xa5,
	.small = -2,
	.word = 0x12345678,
	.big = -5000000000,
	.flag = true,
	.array = {1, 2, 0xffff},
	.part = {7, true},
	.parts = {{8, false}, {9, true}},
	.late = 42,
};

static struct state_buf saved(const struct state_field *table)
{
	struct state_buf b = {0};

	state_save(&b, "thing", table, &sample);
	return b;
}

static void every_kind_of_field_comes_back(void **state)
{
	struct state_buf b = saved(thing_state);
	struct thing t = {.not_saved = &t, .word = 1};
	struct error err = {0};

	assert_int_equal(state_load(&b, "thing", thing_state, &t, &err), 0);
	assert_true(state_equal(thing_state, &t, &sample));
	assert_ptr_equal(t.not_saved, &t);
	assert_int_equal(t.big, -5000000000);
	assert_int_equal(b.at, b.bytes);
	state_buf_fini(&b);
}

static void sections_follow_one_another(void **state)
{
	struct state_buf b = saved(thing_state);
	struct thing t;
	struct part p;
	struct error err = {0};

	state_save(&b, "part", part_state, &sample.part);
	assert_int_equal(state_load(&b, "thing", thing_state, &t, &err), 0);
	assert_int_equal(state_load(&b, "part", part_state, &p, &err), 0);
	assert_int_equal(p.a, 7);
	assert_int_equal(state_load(&b, "part", part_state, &p, &err), -EINVAL);
	assert_non_null(strstr(err.text, "cut short"));
	state_buf_fini(&b);
}

static void copies_are_equal_and_differences_are_seen(void **state)
{
	struct thing t = {0};

	state_copy(thing_state, &t, &sample);
	assert_true(state_equal(thing_state, &t, &sample));
	t.parts[1].on = false;
	assert_false(state_equal(thing_state, &t, &sample));
}

static void expect_error(const struct state_field *writer, const struct state_field *reader,
			 const char *text)
{
	struct state_buf b = saved(writer);
	struct thing t;
	struct error err = {0};

	assert_int_equal(state_load(&b, "thing", reader, &t, &err), -EINVAL);
	if (!strstr(err.text, text))
		fail_msg("'%s' does not say '%s'", err.text, text);
	state_buf_fini(&b);
}

static const struct state_field byte_only[] = {STATE(struct thing, byte), STATE_END};
static const struct state_field byte_and_word[] = {STATE(struct thing, byte),
						   STATE(struct thing, word), STATE_END};
static const struct state_field with_late[] = {STATE(struct thing, byte),
					       STATE_OPTIONAL(struct thing, late), STATE_END};

static void a_missing_field_is_named(void **state)
{
	expect_error(byte_only, byte_and_word, "lacks field 'word'");
}

static void an_unknown_field_is_named(void **state)
{
	expect_error(byte_and_word, byte_only, "unknown field 'word'");
}

static void a_field_of_another_width_is_named(void **state)
{
	static const struct state_field wide[] = {
		{.name = "byte", .offset = 0, .size = 4, .count = 1, .kind = STATE_KIND_INT},
		STATE_END};
	static const struct state_field many[] = {
		{.name = "byte", .offset = 0, .size = 1, .count = 2, .kind = STATE_KIND_INT},
		STATE_END};

	expect_error(byte_only, wide, "byte is 1 x 1 bytes, expected 1 x 4");
	expect_error(byte_only, many, "byte is 1 x 1 bytes, expected 2 x 1");
}

static void a_field_of_another_kind_is_named(void **state)
{
	static const struct state_field as_bool[] = {
		{.name = "byte", .offset = 0, .size = 1, .count = 1, .kind = STATE_KIND_BOOL},
		STATE_END};

	expect_error(byte_only, as_bool, "byte is of kind");
}

static void another_section_is_named(void **state)
{
	struct state_buf b = saved(byte_only);
	struct thing t;
	struct error err = {0};

	assert_int_equal(state_load(&b, "other", byte_only, &t, &err), -EINVAL);
	assert_string_equal(err.text, "state of 'thing' found where 'other' was expected");
	state_buf_fini(&b);
}

static void an_absent_optional_field_is_zero(void **state)
{
	struct state_buf b = saved(byte_only);
	struct thing t = {.late = 9};
	struct error err = {0};

	assert_int_equal(state_load(&b, "thing", with_late, &t, &err), 0);
	assert_int_equal(t.late, 0);
	assert_int_equal(t.byte, 0xa5);
	state_buf_fini(&b);
}

/* Of {1, 2, 0xffff} only what a reader may miss is missing. */
static void an_array_that_has_grown_takes_the_shorter_one(void **state)
{
	static const struct state_field grown[] = {STATE_ARRAY_GROWN(struct thing, array, 2),
						   STATE_END};
	struct thing t = {.array = {7, 7, 7}};
	struct state_field was[] = {STATE_ARRAY(struct thing, array), STATE_END};
	struct state_buf b;
	struct error err;

	was[0].count = 2;
	b = saved(was);
	assert_int_equal(state_load(&b, "thing", grown, &t, &err), 0);
	assert_int_equal(t.array[1], 2);
	assert_int_equal(t.array[2], 0);
	state_buf_fini(&b);
	was[0].count = 1;
	expect_error(was, grown, "state of 'thing': array is 1 x 2 bytes, expected 3 x 2");
}

static void a_field_that_comes_twice_is_refused(void **state)
{
	static const struct state_field twice[] = {STATE(struct thing, byte),
						   STATE(struct thing, byte), STATE_END};

	expect_error(twice, byte_only, "field 'byte' comes twice");
}

static void a_bool_must_be_zero_or_one(void **state)
{
	struct state_buf b = {0};
	struct part p = {.a = 0xfefe, .on = true};
	struct error err = {0};
	u8 *at;

	state_save(&b, "part", part_state, &p);
	at = b.data + b.bytes - 1;
	assert_int_equal(*at, 1);
	*at = 2;
	assert_int_equal(state_load(&b, "part", part_state, &p, &err), -EINVAL);
	assert_string_equal(err.text, "state of 'part': on is 2, expected 0 or 1");
	state_buf_fini(&b);
}

static void every_cut_is_noticed(void **state)
{
	struct state_buf b = saved(thing_state);
	struct thing t;

	for (size_t n = 0; n < b.bytes; n++) {
		/* A copy of the exact size, so that ASan sees a read behind it. */
		AUTO_FREE u8 *data = malloc(n ? n : 1);
		struct state_buf cut = {.data = data, .bytes = n};
		struct error err = {0};

		memcpy(data, b.data, n);
		assert_int_equal(state_load(&cut, "thing", thing_state, &t, &err), -EINVAL);
		assert_true(err.text[0] != '\0');
	}
	state_buf_fini(&b);
}

static void garbled_input_never_crashes(void **state)
{
	struct state_buf b = saved(thing_state);
	AUTO_FREE u8 *data = malloc(b.bytes);
	unsigned seed = 1, refused = 0;
	struct thing t;

	for (int round = 0; round < 20000; round++) {
		struct state_buf bad = {.data = data, .bytes = b.bytes};
		struct error err = {0};

		memcpy(data, b.data, b.bytes);
		for (int i = 0; i <= round % 4; i++)
			data[(size_t)rand_r(&seed) % b.bytes] = (u8)rand_r(&seed);
		refused += state_load(&bad, "thing", thing_state, &t, &err) < 0;
	}
	assert_true(refused > 5000); /* the others changed values only */
	state_buf_fini(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_kind_of_field_comes_back),
		cmocka_unit_test(sections_follow_one_another),
		cmocka_unit_test(copies_are_equal_and_differences_are_seen),
		cmocka_unit_test(a_missing_field_is_named),
		cmocka_unit_test(an_unknown_field_is_named),
		cmocka_unit_test(a_field_of_another_width_is_named),
		cmocka_unit_test(a_field_of_another_kind_is_named),
		cmocka_unit_test(another_section_is_named),
		cmocka_unit_test(an_absent_optional_field_is_zero),
		cmocka_unit_test(an_array_that_has_grown_takes_the_shorter_one),
		cmocka_unit_test(a_field_that_comes_twice_is_refused),
		cmocka_unit_test(a_bool_must_be_zero_or_one),
		cmocka_unit_test(every_cut_is_noticed),
		cmocka_unit_test(garbled_input_never_crashes),
	};

	return cmocka_run_group_tests_name("state", tests, NULL, NULL);
}
