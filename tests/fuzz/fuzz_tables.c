/* Fuzz target: L1, L2 and refcount tables, snapshots, bitmaps of a qcow2 image.  One of
 * a few good images is patched (rig.h), then used in all the ways that the rest of the
 * input says, checked, repaired, and used again. */
#include "tests/fuzz/rig.h"

#include "block/driver.h"
#include "block/qcow2/bitmap.h"
#include "block/qcow2/qcow2.h"
#include "block/qcow2/snapshot.h"

#define SHAPES	   8
#define DISK_LIMIT (3 * MiB) /* wild writes find a full disk */
#define CHUNK	   (20 * 1024)

struct rig {
	struct mem_disk good[SHAPES];
	struct mem_disk disk;
	struct input in;
	u32 shape;
	u8 buf[CHUNK];
};

static const struct qcow2_create_options shapes[SHAPES] = {
	{.bytes = 128 * KiB, .cluster_bytes = 512},
	{.bytes = 256 * KiB, .cluster_bytes = 1024, .version = 2},
	{.bytes = 512 * KiB, .cluster_bytes = 4096, .refcount_bits = 64},
	{.bytes = 512 * KiB, .cluster_bytes = 4096, .refcount_bits = 1},
	{.bytes = 1 * MiB, .cluster_bytes = 16384, .extended_l2 = true},
	{.bytes = 256 * KiB, .cluster_bytes = 1024, .lazy_refcounts = true},
	{.bytes = 512 * KiB, .cluster_bytes = 4096, .compression_type = 1},
	{.bytes = 128 * KiB, .cluster_bytes = 512, .backing_file = "b", .refcount_bits = 8},
};

/* --- good images ------------------------------------------------------------------------- */

static void must(int ret)
{
	if (ret < 0)
		abort();
}

static void pack(struct fiber *f, struct rig *r, struct image *img, u64 goff)
{
	u32 cluster = shapes[r->shape].cluster_bytes;
	struct iovec iov = {r->buf, cluster};

	(void)qcow2_write_compressed(f, img, align_down(goff, cluster), &iov, 1);
}

static void fill(struct fiber *f, struct rig *r, struct image *img)
{
	const struct qcow2_create_options *s = &shapes[r->shape];
	const struct qcow2_bitmap bitmap = {.name = "b0", .automatic = true};
	struct qcow2_new_snapshot snapshot = {.name = "s0", .vm_clock_ns = 5};
	struct error err = {0};

	memset(r->buf, 0x5a, sizeof(r->buf));
	for (u64 i = 0; i < 8; i++)
		must(image_pwrite(f, img, i * (s->bytes / 8), r->buf, 1536 * (i + 1)));
	for (u64 i = 0; i < 4; i++)
		pack(f, r, img, (2 * i + 1) * (s->bytes / 8) - s->cluster_bytes);
	must(image_zero(f, img, s->bytes / 2, 2ull * s->cluster_bytes, 0));
	if (s->refcount_bits != 1)
		must(qcow2_snapshot_create(f, img, &snapshot));
	if (s->version != 2)
		must(qcow2_bitmap_add(f, img, &bitmap, &err));
	must(image_pwrite(f, img, s->bytes / 3 & ~511ull, r->buf, 4096));
}

static void make(struct fiber *f, void *arg)
{
	const struct open_policy policy = {.writable = true};
	struct rig *r = arg;
	struct mem_disk *d = &r->good[r->shape];
	struct error err = {0};
	struct image *img = mem_image_new(fiber_loop(f), d);

	must(qcow2_create(f, img, &shapes[r->shape], &err));
	must(image_open_over(f, &img, "qcow2", img, &policy, &err));
	fill(f, r, img);
	must(image_close(f, img));
}

/* --- using a patched one ------------------------------------------------------------------ */

static void map(struct fiber *f, struct image *img)
{
	struct map_extent extent;
	u64 goff = 0;

	for (u32 i = 0; i < 64 && goff < img->bytes; i++, goff += extent.bytes)
		if (image_map(f, img, goff, img->bytes - goff, &extent) < 0)
			return;
}

static void snapshots(struct fiber *f, struct image *img, u32 what)
{
	struct qcow2_new_snapshot snapshot = {.name = "s1"};
	const struct qcow2_snapshot *list;
	char row[QCOW2_SNAPSHOT_ROW];
	struct error err = {0};
	u32 n = qcow2_snapshots(img, &list);

	for (u32 i = 0; i < n; i++)
		qcow2_snapshot_row(&list[i], list[i].id, row);
	if (what % 4 == 0)
		(void)qcow2_snapshot_create(f, img, &snapshot);
	else if (n && what % 4 == 1)
		(void)qcow2_snapshot_apply(f, img, what / 4 % n, &err);
	else if (n)
		(void)qcow2_snapshot_delete(f, img, what / 4 % n, &err);
}

static void bitmaps(struct fiber *f, struct image *img, u32 what)
{
	const struct qcow2_bitmap fresh = {.name = "b1", .granularity_bytes = 512};
	struct qcow2_bitmap *list = NULL;
	AUTO_FREE char *name = NULL;
	struct error err = {0};
	u32 n = qcow2_bitmaps_list(img, &list);

	name = xstrdup(n ? list[what % n].name : "b0");
	free(list);
	switch (what / 8 % 6) {
	case 0: (void)qcow2_bitmap_add(f, img, &fresh, &err); break;
	case 1: (void)qcow2_bitmap_remove(f, img, name, &err); break;
	case 2: (void)qcow2_bitmap_clear(f, img, name, &err); break;
	case 3: (void)qcow2_bitmap_enable(f, img, name, what & 1, &err); break;
	case 4: (void)qcow2_bitmap_merge(f, img, "b1", img, name, &err); break;
	default: (void)qcow2_bitmaps_measure(img, 65536);
	}
}

static void request(struct fiber *f, struct rig *r, struct image *img)
{
	u32 what = input_u8(&r->in);
	u64 most = MIN(img->bytes, 8 * MiB) / 512;
	u64 goff = most ? input_u16(&r->in) % most * 512 : 0;
	u64 bytes = MIN((input_u8(&r->in) % 40 + 1) * 512ull, img->bytes - goff);
	struct error err = {0};

	switch (what % 12) {
	case 0: map(f, img); break;
	case 1: snapshots(f, img, what / 12); break;
	case 2: bitmaps(f, img, (u32)bytes / 512 + what / 12); break;
	case 3: pack(f, r, img, goff); break;
	case 4: (void)image_zero(f, img, goff, bytes, what & 16 ? ZERO_MAY_UNMAP : 0); break;
	case 5: (void)image_discard(f, img, goff, bytes); break;
	case 6: (void)image_flush(f, img); break;
	case 7: (void)image_resize(f, img, goff, &err); break;
	case 8: (void)qcow2_set_backing(f, img, what & 64 ? "c" : NULL, NULL, &err); break;
	case 9: (void)image_pread(f, img, goff, r->buf, bytes); break;
	default: (void)image_pwrite(f, img, goff, r->buf, bytes);
	}
}

static int open_disk(struct fiber *f, struct rig *r, struct image **img, bool writable, bool check)
{
	const struct open_policy policy = {
		.writable = writable, .check_only = check, .l2_cache_bytes = 65536};
	struct error err = {0};
	int ret = image_open_over(f, img, "qcow2", mem_image_new(fiber_loop(f), &r->disk), &policy,
				  &err);

	if (ret < 0 && !err.text[0])
		abort();
	return ret;
}

static void check(struct fiber *f, struct rig *r, bool fix)
{
	struct check_request req = {.fix_leaks = fix, .fix_errors = fix};
	struct error err = {0};
	struct image *img;

	if (open_disk(f, r, &img, fix, true) < 0)
		return;
	(void)img->driver->check(f, img, &req, &err);
	image_close(f, img);
}

static void use(struct fiber *f, struct rig *r, u32 requests)
{
	struct image *img;

	if (open_disk(f, r, &img, true, false) < 0)
		return;
	for (; requests; requests--)
		request(f, r, img);
	image_close(f, img);
}

static void run(struct fiber *f, void *arg)
{
	struct rig *r = arg;
	u32 how = input_u8(&r->in);

	if (how & 1)
		check(f, r, false);
	if (how & 2)
		check(f, r, true);
	use(f, r, how / 4 % 16);
	if (how & 64)
		check(f, r, true);
	if (how & 128)
		use(f, r, 4);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t bytes)
{
	static struct rig rig; /* images are made once */

	rig.in = (struct input){data, bytes};
	rig.shape = input_u8(&rig.in) % SHAPES;
	if (!rig.good[rig.shape].bytes)
		rig_run(make, &rig);
	rig_copy(&rig.disk, &rig.good[rig.shape], DISK_LIMIT);
	rig_patch(&rig.disk, &rig.in);
	rig_run(run, &rig);
	return 0;
}
