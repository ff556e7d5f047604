/* Split virtqueues: what a driver may do works, what it may not is refused. */
#include "devices/virtio/queue.h"
#include "tests/lib/vring_driver.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define RAM_BYTES  (1 * MiB)
#define HOLE_GPA   (2 * MiB) /* a second region, not next to the first */
#define RING_GPA   0x4000
#define DATA_GPA   0x20000
#define TABLE_GPA  0x18010 /* not aligned to anything much */
#define QUEUE_SIZE 16

struct bed {
	struct mem *mem;
	struct virtq q;
	struct vring_driver d;
	struct virtq_chain c;
	struct iovec iov[QUEUE_SIZE + VIRTQ_SPARE_IOV];
};

static int setup(void **state)
{
	struct bed *b = xnew(struct bed);
	struct mem_place ram = {"ram", 0, RAM_BYTES, MEM_RAM};
	struct mem_place more = {"more", HOLE_GPA, RAM_BYTES, MEM_RAM};
	struct mem_region *r;
	struct error err;

	assert_int_equal(mem_new(&b->mem, NULL, NULL, &err), 0);
	assert_int_equal(mem_add(b->mem, &r, &ram, &err), 0);
	assert_int_equal(mem_add(b->mem, &r, &more, &err), 0);
	b->c.iov = b->iov;
	b->c.room = ARRAY_LEN(b->iov);
	virtq_init(&b->q, b->mem, QUEUE_SIZE);
	vring_init(&b->d, b->mem, RING_GPA, QUEUE_SIZE);
	virtq_set_legacy_page(&b->q, RING_GPA / 4096);
	assert_int_equal(b->q.used, b->d.used);
	*state = b;
	return 0;
}

/* Whatever happened, requests can be given back and the queue stopped. */
static void give_back_all(struct bed *b)
{
	while (b->q.in_flight)
		virtq_push(&b->q, 0, 0);
	virtq_flush(&b->q);
}

static int teardown(void **state)
{
	struct bed *b = *state;

	if (b->q.running) {
		give_back_all(b);
		virtq_stop(&b->q);
	}
	mem_free(b->mem);
	free(b);
	return 0;
}

static const struct vring_buf three[] = {
	{DATA_GPA, 16, 0},
	{DATA_GPA + 512, 1024, VRING_WRITE},
	{DATA_GPA + 64, 1, VRING_WRITE},
};

static void expect_three(struct bed *b)
{
	assert_int_equal(virtq_pop(&b->q, &b->c), 1);
	assert_int_equal(b->c.out.n, 1);
	assert_int_equal(b->c.in.n, 2);
	assert_ptr_equal(b->c.in.iov, b->iov + 1);
	assert_int_equal(b->c.out_bytes, 16);
	assert_int_equal(b->c.in_bytes, 1025);
	for (unsigned i = 0; i < 3; i++) {
		assert_ptr_equal(b->iov[i].iov_base,
				 mem_ptr_rw(b->mem, three[i].addr, three[i].bytes));
		assert_int_equal(b->iov[i].iov_len, three[i].bytes);
	}
}

static void a_chain_is_popped_and_pushed(void **state)
{
	struct bed *b = *state;
	u32 head, written;

	assert_int_equal(virtq_start(&b->q, false, false), 0);
	assert_int_equal(virtq_pop(&b->q, &b->c), 0);
	vring_add(&b->d, 5, three, 3);
	assert_true(virtq_has_more(&b->q));
	expect_three(b);
	assert_int_equal(b->c.head, 5);
	assert_false(virtq_has_more(&b->q));
	virtq_push(&b->q, b->c.head, 1025);
	assert_false(vring_used(&b->d, &head, &written)); /* not flushed yet */
	assert_true(virtq_flush(&b->q));
	assert_true(vring_used(&b->d, &head, &written));
	assert_int_equal(head, 5);
	assert_int_equal(written, 1025);
	assert_false(virtq_flush(&b->q)); /* nothing new */
}

static void a_kept_request_comes_again_after_the_next_start(void **state)
{
	struct bed *b = *state;

	assert_int_equal(virtq_start(&b->q, false, false), 0);
	vring_add(&b->d, 5, three, 3);
	expect_three(b);
	virtq_keep(&b->q, b->c.head);
	assert_int_equal(b->q.in_flight, 0);
	assert_int_equal(virtq_pop(&b->q, &b->c), 0); /* not before */
	virtq_stop(&b->q);
	vring_add(&b->d, 2, three, 3);
	for (unsigned again = 0; again < 2; again++) {
		assert_int_equal(virtq_start(&b->q, false, false), 0);
		assert_true(virtq_has_more(&b->q));
		expect_three(b);
		assert_int_equal(b->c.head, 5);
		virtq_keep(&b->q, 5);
		if (!again) {
			expect_three(b);
			assert_int_equal(b->c.head, 2);
			virtq_push(&b->q, 2, 0);
			virtq_flush(&b->q);
		}
		assert_int_equal(virtq_pop(&b->q, &b->c), 0);
		virtq_stop(&b->q);
	}
	virtq_reset(&b->q); /* the driver's reset: gone */
	virtq_set_legacy_page(&b->q, RING_GPA / 4096);
	vring_init(&b->d, b->mem, RING_GPA, QUEUE_SIZE);
	assert_int_equal(virtq_start(&b->q, false, false), 0);
	assert_int_equal(virtq_pop(&b->q, &b->c), 0);
}

static void neighbours_share_a_vector_but_not_across_directions(void **state)
{
	static const struct vring_buf row[] = {{DATA_GPA, 16, 0},
					       {DATA_GPA + 16, 100, 0},
					       {DATA_GPA + 116, 50, VRING_WRITE},
					       {DATA_GPA + 166, 1, VRING_WRITE}};
	struct bed *b = *state;

	assert_int_equal(virtq_start(&b->q, false, false), 0);
	vring_add(&b->d, 0, row, 4);
	assert_int_equal(virtq_pop(&b->q, &b->c), 1);
	assert_int_equal(b->c.out_bytes, 116);
	assert_int_equal(b->c.in_bytes, 51);
	assert_ptr_equal(b->c.in.iov[0].iov_base, mem_ptr_rw(b->mem, DATA_GPA + 116, 1));
	assert_ptr_equal(b->c.out.iov[0].iov_base, mem_ptr_rw(b->mem, DATA_GPA, 1));
}

static void an_indirect_chain_is_the_same(void **state)
{
	struct bed *b = *state;

	assert_int_equal(virtq_start(&b->q, true, false), 0);
	vring_add_indirect(&b->d, 2, TABLE_GPA, three, 3);
	expect_three(b);
	assert_int_equal(b->c.head, 2);
}

static void indices_wrap_around(void **state)
{
	struct bed *b = *state;
	u32 head, written;

	b->q.last_avail = b->q.used_next = b->d.next_avail = b->d.next_used = 0xfff0;
	vring_put(&b->d, b->d.avail + 2, 0xfff0);
	vring_put(&b->d, b->d.used + 2, 0xfff0);
	assert_int_equal(virtq_start(&b->q, false, false), 0);
	for (unsigned i = 0; i < 200; i++) {
		vring_add(&b->d, (u16)(i % 13), three, 3);
		expect_three(b);
		virtq_push(&b->q, b->c.head, i);
		assert_true(virtq_flush(&b->q));
		assert_true(vring_used(&b->d, &head, &written));
		assert_int_equal(head, i % 13);
		assert_int_equal(written, i);
	}
}

static void no_interrupt_flag_is_honoured(void **state)
{
	struct bed *b = *state;

	assert_int_equal(virtq_start(&b->q, false, false), 0);
	vring_add(&b->d, 0, three, 3);
	expect_three(b);
	vring_put(&b->d, b->d.avail, 1);
	virtq_push(&b->q, 0, 0);
	assert_false(virtq_flush(&b->q));
}

static void event_index_decides_about_interrupts(void **state)
{
	struct bed *b = *state;

	assert_int_equal(virtq_start(&b->q, false, true), 0);
	vring_put(&b->d, b->d.avail, 1); /* the flag means nothing now */
	vring_set_used_event(&b->d, 2);	 /* an interrupt when entry 2 is used */
	for (unsigned i = 0; i < 5; i++) {
		vring_add(&b->d, 0, three, 3);
		expect_three(b);
		virtq_push(&b->q, 0, 0);
		assert_int_equal(virtq_flush(&b->q), i == 2);
	}
	vring_set_used_event(&b->d, 6);
	for (unsigned i = 0; i < 3; i++) { /* entries 5, 6, 7 in one go */
		vring_add(&b->d, 0, three, 3);
		expect_three(b);
		virtq_push(&b->q, 0, 0);
	}
	assert_true(virtq_flush(&b->q));
}

static void quiet_and_listen_tell_the_driver(void **state)
{
	struct bed *b = *state;

	assert_int_equal(virtq_start(&b->q, false, false), 0);
	virtq_quiet(&b->q);
	assert_int_equal(vring_get(&b->d, b->d.used), 1);
	assert_false(virtq_listen(&b->q));
	assert_int_equal(vring_get(&b->d, b->d.used), 0);
	vring_add(&b->d, 0, three, 3);
	assert_true(virtq_listen(&b->q));
}

static void listen_moves_the_avail_event(void **state)
{
	struct bed *b = *state;

	assert_int_equal(virtq_start(&b->q, false, true), 0);
	vring_add(&b->d, 0, three, 3);
	virtq_quiet(&b->q);
	expect_three(b);
	assert_int_equal(vring_avail_event(&b->d), 0);
	assert_false(virtq_listen(&b->q));
	assert_int_equal(vring_avail_event(&b->d), 1);
	assert_int_equal(vring_get(&b->d, b->d.used), 0);
}

static void rings_must_be_sane(void **state)
{
	struct bed *b = *state;

	for (unsigned i = 0; i < 8; i++) {
		struct virtq *q = &b->q;

		virtq_set_legacy_page(q, RING_GPA / 4096);
		q->size = QUEUE_SIZE;
		switch (i) {
		case 0: q->size = 0; break;
		case 1: q->size = 12; break;
		case 2: q->size = QUEUE_SIZE * 2; break;
		case 3: q->desc += 8; break;
		case 4: q->avail += 1; break;
		case 5: q->used += 2; break;
		case 6: q->used = RAM_BYTES - 8; break;
		case 7: q->desc = UINT64_MAX - 15; break;
		}
		assert_int_equal(virtq_start(q, false, false), -EINVAL);
		assert_int_not_equal(strlen(q->error), 0);
		assert_false(q->running);
	}
}

/* Every rule of a chain, broken once. */
struct bad_case {
	const char *what;
	u64 addr;
	u32 bytes, flags_next, second_flags;
};
static const struct bad_case bad_cases[] = {
	{"descriptor of no bytes", DATA_GPA, 0, 0, 0},
	{"readable descriptor after", DATA_GPA, 16, VRING_WRITE | VRING_NEXT | 1 << 16, 0},
	{"descriptor 16 in a table", DATA_GPA, 16, VRING_NEXT | 16 << 16, 0},
	{"chain of more than", DATA_GPA, 16, VRING_NEXT | 0 << 16, 0},
	{"not usable memory", RAM_BYTES - 8, 16, 0, 0},
	{"not usable memory", UINT64_MAX - 3, 16, VRING_WRITE, 0},
	{"not usable memory", HOLE_GPA - 1, 2, 0, 0},
	{"indirect descriptor with", TABLE_GPA, 32, VRING_INDIRECT | VRING_NEXT, 0},
	{"indirect table of 0 bytes", TABLE_GPA, 0, VRING_INDIRECT, 0},
	{"indirect table of 24 bytes", TABLE_GPA, 24, VRING_INDIRECT, 0},
	{"indirect table of 17", TABLE_GPA, 17 * 16, VRING_INDIRECT, 0},
	{"is not in memory", RAM_BYTES - 16, 32, VRING_INDIRECT, 0},
	{"unexpected indirect", TABLE_GPA, 16, VRING_INDIRECT, VRING_INDIRECT},
};

static void every_broken_rule_is_named(void **state)
{
	struct bed *b = *state;

	for (size_t i = 0; i < ARRAY_LEN(bad_cases); i++) {
		const struct bad_case *t = &bad_cases[i];

		b->q.last_avail = b->d.next_avail;
		assert_int_equal(virtq_start(&b->q, true, false), 0);
		vring_set_desc(&b->d, 0, t->addr, t->bytes, t->flags_next);
		vring_set_desc(&b->d, 1, DATA_GPA, 16, 0);
		vring_write_desc(vring_host(&b->d, TABLE_GPA, 16), 0, TABLE_GPA, 16,
				 t->second_flags);
		vring_offer(&b->d, 0);
		assert_int_equal(virtq_pop(&b->q, &b->c), -EINVAL);
		if (!strstr(b->q.error, t->what))
			fail_msg("'%s' expected, got '%s'", t->what, b->q.error);
		assert_int_equal(virtq_pop(&b->q, &b->c), -EINVAL); /* and stays so */
		give_back_all(b);
		virtq_stop(&b->q);
	}
}

static void indirect_needs_its_feature(void **state)
{
	struct bed *b = *state;

	assert_int_equal(virtq_start(&b->q, false, false), 0);
	vring_add_indirect(&b->d, 0, TABLE_GPA, three, 3);
	assert_int_equal(virtq_pop(&b->q, &b->c), -EINVAL);
}

static void available_index_may_not_jump(void **state)
{
	struct bed *b = *state;

	assert_int_equal(virtq_start(&b->q, false, false), 0);
	vring_put(&b->d, b->d.avail + 2, QUEUE_SIZE + 1);
	assert_int_equal(virtq_pop(&b->q, &b->c), -EINVAL);
}

static void a_buffer_may_span_the_whole_ram(void **state)
{
	struct bed *b = *state;
	struct vring_buf all = {0, RAM_BYTES, VRING_WRITE};

	assert_int_equal(virtq_start(&b->q, false, false), 0);
	vring_add(&b->d, 0, &all, 1);
	assert_int_equal(virtq_pop(&b->q, &b->c), 1);
	assert_int_equal(b->c.in_bytes, RAM_BYTES);
}

/* --- random rings -------------------------------------------------------------- */

static u64 rnd(u64 *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

/* A value that is often nearly right. */
static u64 rnd_addr(u64 *seed)
{
	switch (rnd(seed) % 8) {
	case 0: return rnd(seed);
	case 1: return RAM_BYTES - rnd(seed) % 32;
	case 2: return HOLE_GPA + RAM_BYTES - rnd(seed) % 32;
	case 3: return TABLE_GPA + rnd(seed) % 4 * 16;
	case 4: return RING_GPA + rnd(seed) % 4096;
	default: return DATA_GPA + rnd(seed) % 4096;
	}
}

static void scribble_table(struct bed *b, u64 gpa, unsigned n, u64 *seed)
{
	u8 *table = vring_host(&b->d, gpa, 16u * n);

	for (unsigned i = 0; i < n; i++) {
		u32 flags = (u32)(rnd(seed) % 8);
		u32 next = (u32)(rnd(seed) % (rnd(seed) % 16 ? n : n + 3));
		u32 bytes = (u32)(rnd(seed) % 4 ? rnd(seed) % 16 * 16 : rnd(seed));

		if (rnd(seed) % 2)
			flags &= ~(u32)VRING_INDIRECT;
		vring_write_desc(table, i, rnd_addr(seed), bytes, flags | next << 16);
	}
}

static void check_vectors(struct bed *b)
{
	u8 *low = mem_ptr_rw(b->mem, 0, RAM_BYTES), *high = mem_ptr_rw(b->mem, HOLE_GPA, RAM_BYTES);
	u64 total = 0;

	assert_true(b->c.out.n + b->c.in.n >= 1 && b->c.out.n + b->c.in.n <= b->c.room);
	assert_int_equal(!b->c.in.n, !b->c.in_bytes);
	for (unsigned i = 0; i < b->c.out.n + b->c.in.n; i++) {
		u8 *p = b->iov[i].iov_base;
		size_t n = b->iov[i].iov_len;

		assert_true((p >= low && p + n <= low + RAM_BYTES) ||
			    (p >= high && p + n <= high + RAM_BYTES));
		total += n;
	}
	assert_int_equal(total, b->c.out_bytes + b->c.in_bytes);
}

static void random_rings_never_hurt(void **state)
{
	struct bed *b = *state;
	unsigned good = 0, bad = 0;
	u64 seed = 20240601;

	for (unsigned round = 0; round < 20000; round++) {
		int ret = 0;

		b->q.last_avail = (u16)(b->d.next_avail + (rnd(&seed) % 50 == 0));
		assert_int_equal(virtq_start(&b->q, rnd(&seed) % 4, rnd(&seed) % 2), 0);
		scribble_table(b, RING_GPA, QUEUE_SIZE, &seed);
		scribble_table(b, TABLE_GPA, QUEUE_SIZE, &seed);
		for (unsigned i = 0; i < 4; i++)
			vring_offer(&b->d, (u16)(rnd(&seed) % (QUEUE_SIZE + 1)));
		while (b->q.in_flight < QUEUE_SIZE && (ret = virtq_pop(&b->q, &b->c)) > 0) {
			check_vectors(b);
			good++;
		}
		bad += ret < 0;
		give_back_all(b);
		virtq_stop(&b->q);
	}
	assert_true(good > 1000 && bad > 1000); /* the mix is worth something */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_chain_is_popped_and_pushed, setup, teardown),
		cmocka_unit_test_setup_teardown(a_kept_request_comes_again_after_the_next_start,
						setup, teardown),
		cmocka_unit_test_setup_teardown(neighbours_share_a_vector_but_not_across_directions,
						setup, teardown),
		cmocka_unit_test_setup_teardown(an_indirect_chain_is_the_same, setup, teardown),
		cmocka_unit_test_setup_teardown(indices_wrap_around, setup, teardown),
		cmocka_unit_test_setup_teardown(no_interrupt_flag_is_honoured, setup, teardown),
		cmocka_unit_test_setup_teardown(event_index_decides_about_interrupts, setup,
						teardown),
		cmocka_unit_test_setup_teardown(quiet_and_listen_tell_the_driver, setup, teardown),
		cmocka_unit_test_setup_teardown(listen_moves_the_avail_event, setup, teardown),
		cmocka_unit_test_setup_teardown(rings_must_be_sane, setup, teardown),
		cmocka_unit_test_setup_teardown(every_broken_rule_is_named, setup, teardown),
		cmocka_unit_test_setup_teardown(indirect_needs_its_feature, setup, teardown),
		cmocka_unit_test_setup_teardown(available_index_may_not_jump, setup, teardown),
		cmocka_unit_test_setup_teardown(a_buffer_may_span_the_whole_ram, setup, teardown),
		cmocka_unit_test_setup_teardown(random_rings_never_hurt, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
