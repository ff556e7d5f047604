/* Power cuts of an image that `cowimg serve` lends to a client over NBD: what the client
 * wrote before a flush that was answered is there.  The client is the reference's;
 * each of its steps writes with a byte of its own and ends in a flush.
 * COWVM_CRASH_ROUNDS=N multiplies seeds and samples (make check-crash). */
#include "tests/crash/tool_rig.h"

#include "base/log.h"

#include <stdio.h>

#define STEPS  6u
#define WRITES 8u
#define SECTOR 512u
#define BYTES  (1 * MiB)

struct serve {
	struct scenario s;
	u8 *view[STEPS + 1];
	size_t ended[STEPS + 1]; /* the flush of the step was answered before */
};

/* --- the client ---------------------------------------------------------------------- */

/* qemu-io's commands for a step, and what it leaves. */
static char *one_step(struct serve *t, u32 k, u64 *seed)
{
	char *text = xstrdup("");

	memcpy(t->view[k], t->view[k - 1], BYTES);
	for (u32 i = 0; i < WRITES; i++) {
		/* A sector at most once in a step: it holds the old or the new. */
		u64 part = BYTES / SECTOR / WRITES, n = next_random(seed) % 100 + 1;
		u64 at = (i * part + next_random(seed) % (part - 100)) * SECTOR;
		bool zero = i == 3 && k > 1;
		AUTO_FREE char *pattern = zero ? xstrdup("-z") : xasprintf("-P %u", k);
		char *more = xasprintf("%s-c 'write %s %llu %llu' ", text, pattern,
				       (unsigned long long)at, (unsigned long long)n * SECTOR);

		memset(t->view[k] + at, zero ? 0 : (int)k, n * SECTOR);
		free(text);
		text = more;
	}
	return text;
}

/* Runs beside the server: the shell waits for its socket. */
static void start_client(struct serve *t, struct rig *r)
{
	AUTO_FREE char *all = xstrdup("");
	AUTO_FREE char *line = NULL;

	for (u32 k = 1; k <= STEPS; k++) {
		AUTO_FREE char *step = one_step(t, k, &r->seed);
		char *more = xasprintf("%s%s-c flush ", all, step);

		free(all);
		all = more;
	}
	line = xasprintf("{ until [ -S %s/sock ]; do sleep 0.05; done; qemu-io -t writeback -f raw "
			 "%s 'nbd+unix:///?socket=%s/sock'; } >%s/client 2>&1 &",
			 r->dir, all, r->dir, r->dir);
	assert_int_equal(system(line), 0);
}

/* --- judging -------------------------------------------------------------------------- */

static bool holds(const struct record_event *e, u8 byte)
{
	for (u64 at = 0; e->kind == RECORD_WRITE && at + SECTOR <= e->bytes; at += SECTOR)
		if (e->data[at] == byte && !memcmp(e->data + at, e->data + at + 1, SECTOR - 1))
			return true;
	return false;
}

/* The client sends a step when the flush of the one before has been answered. */
static void find_ends(struct serve *t, const struct rig *r)
{
	for (u32 k = 1; k <= STEPS; k++) {
		t->ended[k] = r->log.n;
		for (size_t i = 0; k < STEPS && i < r->log.n; i++)
			if (holds(&r->log.events[i], (u8)(k + 1)))
				t->ended[k] = MIN(t->ended[k], r->log.events[i].issued);
		assert_true(t->ended[k] > (k > 1 ? t->ended[k - 1] : 0));
	}
}

static void judge(struct fiber *f, void *arg, size_t events)
{
	struct rig *r = arg;
	struct serve *t = container_of(r->s, struct serve, s);
	u32 k = 0;

	if (!t->ended[1])
		find_ends(t, r);
	while (k < STEPS && t->ended[k + 1] <= events)
		k++;
	rig_read(f, r, "image", NULL);
	rig_expect(r, t->view[k], k < STEPS ? t->view[k + 1] : NULL, "image", events);
}

/* --- the test -------------------------------------------------------------------------- */

static void run_once(void **state, struct serve *t)
{
	struct rig *r = rig_new(&t->s);
	AUTO_FREE char *grep = xasprintf("! grep -i -E 'fail|error' %s/client", r->dir);

	for (u32 i = 0; i <= STEPS; i++)
		t->view[i] = xalloc(BYTES);
	memset(t->view[0], 0, BYTES);
	memset(t->ended, 0, sizeof(t->ended));
	rig_create(r, "", "image");
	rig_load(r);
	start_client(t, r);
	rig_cut_everywhere(r, *state);
	assert_int_equal(system(grep), 0);
	rig_free(r);
	for (u32 i = 0; i <= STEPS; i++)
		free(t->view[i]);
}

static void power_cut_of_a_served_image_loses_nothing_flushed(void **state)
{
	static const u32 sizes[] = {65536, 512, 4096, 2 * MiB};
	const char *text = getenv("COWVM_CRASH_ROUNDS");
	u32 rounds = text && atoi(text) > 0 ? (u32)atoi(text) : 0;
	u32 n = rounds ? MAX(rounds, 2 * (u32)ARRAY_LEN(sizes)) : 1;

	for (u32 i = 0; i < n; i++) {
		u32 size = sizes[i % ARRAY_LEN(sizes)];
		bool lazy = i / ARRAY_LEN(sizes) % 2;
		AUTO_FREE char *name =
			xasprintf("served, clusters of %u%s", size, lazy ? ", lazy refcounts" : "");
		struct serve t = {.s = {.name = name,
					.cluster_bytes = size,
					.lazy = lazy,
					.bytes = BYTES,
					.samples = rounds ? 6 : 2,
					.files = {"image"},
					.commands = {"serve -t writeback -k @sock -f qcow2 @image"},
					.judge = judge,
					.seed = 0xba7c9045f12c7f99ull + i * 7919ull}};

		run_once(state, &t);
	}
}

#define TESTS(X) X(power_cut_of_a_served_image_loses_nothing_flushed)

int main(void)
{
	const struct CMUnitTest tests[] = {TESTS(ON_THREADS)};

	log_set_file("/dev/null", &(struct error){0});
	return cmocka_run_group_tests_name("power cuts and NBD", tests, NULL, NULL);
}
