/* Amending: power cuts and failing requests at every moment of it. */
#include "tests/unit/backends.h"

#include "base/log.h"
#include "block/amend.h"
#include "block/filter.h"
#include "block/qcow2/qcow2.h"
#include "block/qcow2/snapshot.h"
#include "tests/lib/cuts.h"
#include "tests/lib/mem_image.h"

#include <errno.h>

#define DISK_BYTES (1 * MiB)
#define FILL	   (700 * KiB)

struct rig {
	struct mem_disk disk, start, backing;
	struct record_log log;
	struct fault_rule rule;
	struct image *img;
	bool has_backing;
	u8 *guest;	/* what it reads */
	u32 version[2]; /* before, after */
	u32 refcount_bits[2];
};

static int open_rig(struct fiber *f, struct rig *r, struct mem_disk *disk, bool writable,
		    bool record, bool faults)
{
	struct open_policy policy = {.writable = writable}, readonly = {0};
	struct image *below = mem_image_new(fiber_loop(f), disk);
	struct error err = {0};
	int ret;

	if (record)
		assert_int_equal(filter_record_new(&below, below, &r->log), 0);
	if (faults)
		assert_int_equal(filter_fault_new(&below, below, &r->rule), 0);
	ret = image_open_over(f, &r->img, "qcow2", below, &policy, &err);
	if (ret < 0) {
		if (!faults)
			print_message("%s\n", err.text);
		return ret;
	}
	if (r->has_backing)
		assert_int_equal(image_open_over(f, &r->img->backing, "raw",
						 mem_image_new(fiber_loop(f), &r->backing),
						 &readonly, &err),
				 0);
	return 0;
}

/* Data, zero clusters with and without a place, and a snapshot of them. */
static void fill(struct fiber *f, struct rig *r)
{
	struct qcow2_new_snapshot s = {.name = "one", .icount = QCOW2_NO_ICOUNT};
	AUTO_FREE u8 *buf = xalloc(FILL);

	memset(buf, 0x31, FILL);
	assert_int_equal(open_rig(f, r, &r->disk, true, false, false), 0);
	assert_int_equal(image_pwrite(f, r->img, 10000, buf, FILL), 0);
	assert_int_equal(image_zero(f, r->img, 64 * KiB, 128 * KiB, 0), 0);
	assert_int_equal(image_zero(f, r->img, 800 * KiB, 100 * KiB, ZERO_MAY_UNMAP), 0);
	assert_int_equal(qcow2_snapshot_create(f, r->img, &s), 0);
	assert_int_equal(image_zero(f, r->img, 256 * KiB, 64 * KiB, 0), 0);
	assert_int_equal(image_pwrite(f, r->img, 900 * KiB, buf, 5000), 0);
	r->guest = xalloc(DISK_BYTES);
	assert_int_equal(image_pread(f, r->img, 0, r->guest, DISK_BYTES), 0);
	assert_int_equal(image_close(f, r->img), 0);
}

static struct rig *rig_new(struct fiber *f, u32 cluster_bytes, bool has_backing)
{
	struct qcow2_create_options opt = {.bytes = DISK_BYTES,
					   .cluster_bytes = cluster_bytes,
					   .backing_file = has_backing ? "backing" : NULL,
					   .backing_format = has_backing ? "raw" : NULL};
	struct rig *r = xnew(struct rig);
	struct image *file = mem_image_new(fiber_loop(f), &r->disk);
	struct error err = {0};

	assert_int_equal(qcow2_create(f, file, &opt, &err), 0);
	assert_int_equal(image_close(f, file), 0);
	r->has_backing = has_backing;
	if (has_backing) {
		r->backing.bytes = r->backing.room = DISK_BYTES;
		r->backing.data = xalloc(DISK_BYTES);
		memset(r->backing.data, 0xbb, DISK_BYTES);
	}
	fill(f, r);
	return r;
}

static void rig_free(struct rig *r)
{
	record_log_fini(&r->log);
	mem_disk_fini(&r->disk);
	mem_disk_fini(&r->start);
	mem_disk_fini(&r->backing);
	free(r->guest);
	free(r);
}

static int amend(struct fiber *f, struct rig *r, const char *options)
{
	struct amend_request req = {0};
	struct error err = {0};
	struct opts o;
	int ret;

	assert_int_equal(opts_parse(&o, options, NULL, &err), 0);
	req.options = &o;
	ret = r->img->driver->amend(f, r->img, &req, &err);
	opts_fini(&o);
	return ret;
}

/* --- what must hold ------------------------------------------------------------------ */

static void judge(struct fiber *f, struct mem_disk *disk, size_t events, void *arg)
{
	AUTO_FREE u8 *guest = xalloc(DISK_BYTES);
	struct check_request req = {0};
	struct qcow2_info info;
	struct error err = {0};
	struct rig *r = arg;

	if (open_rig(f, r, disk, false, false, false) < 0)
		fail_msg("after event %zu: not to be opened", events);
	qcow2_get_info(r->img, &info);
	if (info.version != r->version[0] && info.version != r->version[1])
		fail_msg("after event %zu: version %u", events, info.version);
	if (info.refcount_bits != r->refcount_bits[0] && info.refcount_bits != r->refcount_bits[1])
		fail_msg("after event %zu: %u refcount bits", events, info.refcount_bits);
	assert_int_equal(image_pread(f, r->img, 0, guest, DISK_BYTES), 0);
	if (memcmp(guest, r->guest, DISK_BYTES) != 0)
		fail_msg("after event %zu: the guest reads something else", events);
	assert_int_equal(r->img->driver->check(f, r->img, &req, &err), 0);
	if (req.result.corruptions || req.result.check_errors)
		fail_msg("after event %zu: %llu corruptions", events,
			 (unsigned long long)req.result.corruptions);
	assert_int_equal(image_close(f, r->img), 0);
}

static void cut_amend(struct fiber *f, struct rig *r, const char *options, u32 version, u32 bits)
{
	struct cuts cuts = {.start = &r->start,
			    .log = &r->log,
			    .samples = 2,
			    .seed = bits,
			    .judge = judge,
			    .arg = r};
	u32 v[2] = {r->version[1], version}, b[2] = {r->refcount_bits[1], bits};

	mem_disk_fini(&r->start);
	mem_disk_copy(&r->start, &r->disk);
	assert_int_equal(open_rig(f, r, &r->disk, true, true, false), 0);
	assert_int_equal(amend(f, r, options), 0);
	assert_int_equal(image_close(f, r->img), 0);
	memcpy(r->version, v, sizeof(v));
	memcpy(r->refcount_bits, b, sizeof(b));
	cuts_run(f, &cuts);
	record_log_fini(&r->log);
	r->log = (struct record_log){0};
}

static void cuts_of_all(struct fiber *f, void *arg)
{
	static const u32 sizes[] = {4096, 65536};

	for (unsigned i = 0; i < 2 * ARRAY_LEN(sizes); i++) {
		struct rig *r = rig_new(f, sizes[i / 2], i % 2);

		r->version[1] = 3;
		r->refcount_bits[1] = 16;
		cut_amend(f, r, "refcount_bits=64", 3, 64);
		cut_amend(f, r, "refcount_bits=2", 3, 2);
		cut_amend(f, r, "refcount_bits=16", 3, 16);
		cut_amend(f, r, "compat=0.10", 2, 16);
		cut_amend(f, r, "compat=1.1", 3, 16);
		cut_amend(f, r, "size=2M", 3, 16);
		rig_free(r);
	}
}

static void a_power_cut_leaves_the_image_as_it_was_or_as_it_shall_be(void **state)
{
	assert_int_equal(loop_run_fiber(*state, cuts_of_all, NULL), 0);
}

/* --- failing requests ------------------------------------------------------------------ */

static void fail_each(struct fiber *f, void *arg)
{
	static const char *const options[] = {"refcount_bits=32", "compat=0.10"};

	for (unsigned i = 0; i < 2 * 3; i++) {
		for (unsigned nth = 1;; nth++) {
			struct rig *r = rig_new(f, 65536, true);
			int ret, closed = 0;

			r->rule = (struct fault_rule){.error = -EIO, .sticky = nth % 2};
			*(i / 2 == 0   ? &r->rule.reads
			  : i / 2 == 1 ? &r->rule.writes
				       : &r->rule.syncs) = nth;
			ret = open_rig(f, r, &r->disk, true, false, true);
			if (ret == 0) {
				ret = amend(f, r, options[i % 2]);
				closed = image_close(f, r->img);
			}
			r->version[0] = 3;
			r->version[1] = 2 + !(i % 2);
			r->refcount_bits[0] = 16;
			r->refcount_bits[1] = 32;
			judge(f, &r->disk, nth, r);
			rig_free(r);
			if (ret == 0 && closed == 0)
				break;
			assert_true(nth < 300);
		}
	}
}

static void a_failing_request_is_reported_and_harms_nothing(void **state)
{
	assert_int_equal(loop_run_fiber(*state, fail_each, NULL), 0);
}

#define TESTS(X)                                                                                   \
	X(a_power_cut_leaves_the_image_as_it_was_or_as_it_shall_be),                               \
		X(a_failing_request_is_reported_and_harms_nothing)

int main(void)
{
	const struct CMUnitTest tests[] = {TESTS(ON_THREADS)};

	log_set_file("/dev/null", &(struct error){0});
	return cmocka_run_group_tests_name("amending qcow2", tests, NULL, NULL);
}
