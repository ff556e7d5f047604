/* VM state of snapshots is verified: what is right passes, and one bit anywhere in its
 * header, its parts or its memory does not. */
#include "tests/unit/backends.h"

#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/io.h"
#include "base/log.h"
#include "block/qcow2/crypt.h"
#include "block/qcow2/qcow2.h"
#include "block/qcow2/snapshot.h"
#include "block/qcow2/vmstate_format.h"
#include "block/qcow2/vmstate_verify.h"
#include "block/unlock.h"
#include "tests/lib/mem_image.h"

#include <errno.h>
#include <stdio.h>

#define UNITS 40u
#define STATE 70000u
#define FLIPS 400u

struct rig {
	u32 cluster_bytes;
	bool aes;
	struct mem_disk disk;
	u8 *area; /* as it is to be written */
	struct snap_header h;
	u64 seed;
	/* What the last verification said. */
	u32 places;
	u64 memory; /* bytes of it, damaged */
	char part[64];
	u64 checked, steps, stop_after;
};

/* --- making a snapshot with VM state ------------------------------------------------ */

static int passphrase(struct fiber *f, void *arg, const struct unlock_question *q, struct key *out,
		      struct error *err)
{
	return key_set(out, "s3cret", 6);
}

static struct image *open_rig(struct fiber *f, struct rig *r, bool writable)
{
	const struct unlock_policy unlock = {.when = UNLOCK_NOW, .ask = passphrase};
	struct open_policy policy = {.writable = writable, .unlock = &unlock};
	struct image *img, *below = mem_image_new(fiber_loop(f), &r->disk);
	struct error err = {0};

	if (image_open_over(f, &img, "qcow2", below, &policy, &err))
		fail_msg("%s", err.text);
	return img;
}

/* Every third unit is zeros, two in a row now and then. */
static void fill_area(struct rig *r)
{
	const u64 bytes[SNAP_PARTS] = {
		[SNAP_MANIFEST] = 900, [SNAP_STATE] = STATE, [SNAP_WORKING_SET] = 12};

	snap_layout(&r->h, UNITS, bytes);
	r->area = xalloc(align_up(r->h.area_bytes, 2 * MiB));
	for (u32 i = 0; i < UNITS; i++) {
		u8 *unit = r->area + r->h.ram_off + i * SNAP_UNIT;
		bool zero = i % 3 == 0 || i % 7 == 1;

		for (u64 k = 0; !zero && k < SNAP_UNIT; k++)
			unit[k] = (u8)next_random(&r->seed);
		store_le32(r->area + r->h.parts[SNAP_CRCS].off + 4ull * i,
			   zero ? 0 : snap_unit_crc(unit));
	}
	for (u32 i = 0; i < SNAP_PARTS; i++) {
		u8 *part = r->area + r->h.parts[i].off;

		for (u64 k = 0; i != SNAP_CRCS && k < bytes[i]; k++)
			part[k] = (u8)next_random(&r->seed);
		r->h.parts[i].crc = crc32c(0, part, r->h.parts[i].bytes);
	}
	snap_header_encode(&r->h, r->area);
}

/* As savevm does: clusters that are all zeros are holes. */
static void write_area(struct fiber *f, struct rig *r, struct image *img)
{
	u32 step = r->cluster_bytes;

	for (u64 off = 0; off < align_up(r->h.area_bytes, step); off += step) {
		struct iovec iov = {r->area + off, step};

		if (!iov_is_zero(&iov, 1))
			assert_int_equal(qcow2_vmstate_write(f, img, off, &iov, 1), 0);
	}
}

static struct rig *rig_new(struct fiber *f, u32 cluster_bytes, bool aes)
{
	const struct qcow2_crypt_create crypt = {.method = CRYPT_AES};
	const struct qcow2_create_options opt = {
		.bytes = 300 * KiB, .cluster_bytes = cluster_bytes, .crypt = aes ? &crypt : NULL};
	struct rig *r = xnew(struct rig);
	struct image *img, *file = mem_image_new(fiber_loop(f), &r->disk);
	struct qcow2_new_snapshot plain = {.name = "plain"}, vm = {.name = "vm"};
	struct error err = {0};

	r->cluster_bytes = cluster_bytes;
	r->aes = aes;
	r->seed = 31415926 + cluster_bytes;
	assert_int_equal(qcow2_create(f, file, &opt, &err), 0);
	image_close(f, file);
	fill_area(r);
	img = open_rig(f, r, true);
	assert_int_equal(qcow2_snapshot_create(f, img, &plain), 0);
	write_area(f, r, img);
	vm.vm_state_bytes = r->h.area_bytes;
	assert_int_equal(qcow2_snapshot_create(f, img, &vm), 0);
	assert_int_equal(image_close(f, img), 0);
	return r;
}

static void rig_free(struct rig *r)
{
	mem_disk_fini(&r->disk);
	free(r->area);
	free(r);
}

/* --- verifying it ---------------------------------------------------------------------- */

static void on_damage(void *arg, const char *part, u64 at, u64 bytes, int ret)
{
	struct rig *r = arg;

	assert_int_equal(ret, -EBADMSG);
	r->places++;
	snprintf(r->part, sizeof(r->part), "%s", part ? part : "memory");
	r->memory += part ? 0 : bytes;
}

static bool on_progress(void *arg, u64 done, u64 total)
{
	struct rig *r = arg;

	assert_true(done <= total && total == r->h.area_bytes);
	return !r->stop_after || ++r->steps < r->stop_after;
}

static int verify(struct fiber *f, struct rig *r, struct image *img, struct error *err)
{
	struct vmstate_verify v = {.damage = on_damage, .progress = on_progress, .arg = r};
	int ret;

	r->places = 0;
	r->memory = 0;
	assert_int_equal(qcow2_snapshot_show(f, img, 0, err), 0);
	assert_int_equal(qcow2_snapshot_show(f, img, 1, err), 0);
	ret = qcow2_vmstate_verify(f, img, &v, err);
	r->checked = v.checked;
	return ret;
}

/* Where the byte of the area lies in the file: what stands there is sought. */
static u64 place_of(const struct rig *r, u64 off)
{
	u64 start = align_down(off, r->cluster_bytes);
	struct iovec iov = {r->area + start, r->cluster_bytes};

	if (iov_is_zero(&iov, 1))
		return 0; /* a hole */
	for (u64 at = 0; at + r->cluster_bytes <= r->disk.bytes; at += r->cluster_bytes)
		if (!memcmp(r->disk.data + at, r->area + start, r->cluster_bytes))
			return at + (off - start);
	fail_msg("byte %llu is nowhere", (unsigned long long)off);
	return 0;
}

/* A byte of the header, of a part, or of memory. */
static u64 some_byte(struct rig *r)
{
	u32 which = (u32)(next_random(&r->seed) % (SNAP_PARTS + 2));

	if (which == SNAP_PARTS)
		return next_random(&r->seed) % SNAP_HEADER_BYTES;
	if (which > SNAP_PARTS)
		return r->h.ram_off + next_random(&r->seed) % (UNITS * SNAP_UNIT);
	return r->h.parts[which].off + next_random(&r->seed) % r->h.parts[which].bytes;
}

static void flip_many(struct fiber *f, struct rig *r)
{
	struct error err = {0};
	u32 found = 0;

	for (u32 i = 0; i < FLIPS; i++) {
		u64 off = some_byte(r), at = place_of(r, off);
		u8 bit = (u8)(1u << next_random(&r->seed) % 8);
		struct image *img;

		if (!at)
			continue;
		r->disk.data[at] ^= bit;
		img = open_rig(f, r, false);
		if (verify(f, r, img, &err))
			fail_msg("byte %llu: %s", (unsigned long long)off, err.text);
		if (r->places != 1)
			fail_msg("a bit of byte %llu: damage in %u places", (unsigned long long)off,
				 r->places);
		assert_true(!r->memory || r->memory == SNAP_UNIT);
		image_close(f, img);
		r->disk.data[at] ^= bit;
		found++;
	}
	assert_true(found > FLIPS / 2);
}

static void run_flips(struct fiber *f, void *arg)
{
	struct rig *r = rig_new(f, *(u32 *)arg, false);
	struct image *img = open_rig(f, r, false);
	struct error err = {0};

	assert_int_equal(verify(f, r, img, &err), 0);
	assert_int_equal(r->places, 0);
	image_close(f, img);
	flip_many(f, r);
	rig_free(r);
}

static void one_flipped_bit_is_found(void **state)
{
	static const u32 sizes[] = {512, 4096, 65536, 2 * MiB};

	for (u32 i = 0; i < ARRAY_LEN(sizes); i++) {
		u32 size = sizes[i];

		assert_int_equal(loop_run_fiber(*state, run_flips, &size), 0);
	}
}

static void run_encrypted(struct fiber *f, void *arg)
{
	struct rig *r = rig_new(f, 4096, true);
	struct image *img = open_rig(f, r, false);
	struct error err = {0};
	u32 found = 0;

	assert_int_equal(verify(f, r, img, &err), 0);
	assert_int_equal(r->places, 0);
	for (u64 at = 512; at + 512 < r->disk.bytes; at += r->disk.bytes / 200) {
		r->disk.data[at + 256] ^= 1;
		if (qcow2_snapshot_show(f, img, 1, &err) == 0 && verify(f, r, img, &err) == 0)
			found += r->places > 0;
		r->disk.data[at + 256] ^= 1;
	}
	assert_true(found > 100);
	assert_int_equal(verify(f, r, img, &err), 0);
	assert_int_equal(r->places, 0);
	image_close(f, img);
	rig_free(r);
}

static void encrypted_state_is_verified_too(void **state)
{
	assert_int_equal(loop_run_fiber(*state, run_encrypted, NULL), 0);
}

static void run_ends(struct fiber *f, void *arg)
{
	struct rig *r = rig_new(f, 65536, false);
	u64 header = place_of(r, 0);
	struct error err = {0};
	struct image *img = open_rig(f, r, false);

	r->stop_after = 3;
	assert_int_equal(verify(f, r, img, &err), -ECANCELED);
	r->stop_after = 0;
	memset(r->disk.data + header, 'Q', SNAP_HEADER_BYTES);
	assert_int_equal(verify(f, r, img, &err), -ENOTSUP);
	assert_string_equal(err.text, "the VM state is not one of cowvm");
	memcpy(r->disk.data + header, r->area, SNAP_HEADER_BYTES);
	assert_int_equal(verify(f, r, img, &err), 0);
	image_close(f, img);
	rig_free(r);
}

static void it_can_be_stopped_and_knows_its_own(void **state)
{
	assert_int_equal(loop_run_fiber(*state, run_ends, NULL), 0);
}

/* A header that claims 16 TiB of memory: what is not there takes no time. */
static void run_huge(struct fiber *f, void *arg)
{
	static const u64 none[SNAP_PARTS];
	struct rig *r = rig_new(f, 65536, false);
	u64 header = place_of(r, 0);
	struct error err = {0};
	struct image *img;

	snap_layout(&r->h, SNAP_MAX_UNITS, none);
	r->h.parts[SNAP_CRCS].crc = 0x1234;
	snap_header_encode(&r->h, r->disk.data + header);
	img = open_rig(f, r, false);
	assert_int_equal(verify(f, r, img, &err), 0);
	assert_int_equal(r->places, 1);
	assert_string_equal(r->part, "table of checksums");
	image_close(f, img);
	rig_free(r);
}

static void a_header_that_claims_too_much_is_no_trouble(void **state)
{
	assert_int_equal(loop_run_fiber(*state, run_huge, NULL), 0);
}

#define TESTS(X)                                                                                   \
	X(one_flipped_bit_is_found), X(encrypted_state_is_verified_too),                           \
		X(it_can_be_stopped_and_knows_its_own),                                            \
		X(a_header_that_claims_too_much_is_no_trouble)

int main(void)
{
	const struct CMUnitTest tests[] = {TESTS(ON_THREADS)};

	log_set_file("/dev/null", &(struct error){0});
	return cmocka_run_group_tests_name("verifying VM state", tests, NULL, NULL);
}
