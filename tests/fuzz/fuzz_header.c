/* Fuzz target: a file of any content, opened as qcow2 and as whatever it looks like.
 * Opened, it is described and mapped; nothing of it is believed twice. */
#include "tests/fuzz/rig.h"

#include "block/driver.h"
#include "block/qcow2/bitmap.h"
#include "block/qcow2/qcow2.h"
#include "block/qcow2/snapshot.h"

struct file {
	struct mem_disk given, disk;
	u32 how;
};

static void look(struct fiber *f, struct image *img)
{
	const struct qcow2_snapshot *list;
	struct qcow2_bitmap *bitmaps = NULL;
	struct map_extent extent;
	char row[QCOW2_SNAPSHOT_ROW];
	u64 goff = 0;

	for (u32 i = 0; i < 32 && goff < img->bytes; i++, goff += extent.bytes)
		if (image_map(f, img, goff, img->bytes - goff, &extent) < 0)
			break;
	if (strcmp(img->driver->name, "qcow2"))
		return;
	for (u32 i = 0, n = qcow2_snapshots(img, &list); i < n; i++)
		qcow2_snapshot_row(&list[i], list[i].id, row);
	qcow2_bitmaps_list(img, &bitmaps);
	free(bitmaps);
}

static void open_as(struct fiber *f, struct file *file, const char *format)
{
	struct open_policy policy = {
		.writable = file->how & 1, .check_only = file->how & 2, .l2_cache_bytes = 65536};
	struct check_request check = {.fix_errors = file->how & 1, .fix_leaks = file->how & 1};
	struct error err = {0};
	struct image *img;
	int ret;

	rig_copy(&file->disk, &file->given, 4 * MiB);
	ret = image_open_over(f, &img, format, mem_image_new(fiber_loop(f), &file->disk), &policy,
			      &err);
	if (ret < 0) {
		if (!err.text[0])
			abort();
		return;
	}
	if (!policy.check_only)
		look(f, img);
	else if (img->driver->check)
		(void)img->driver->check(f, img, &check, &err);
	image_close(f, img);
}

static void run(struct fiber *f, void *arg)
{
	struct file *file = arg;
	const struct image_driver *driver;

	for (file->how = 0; file->how < 4; file->how++)
		open_as(f, file, "qcow2");
	file->how = 0;
	driver = image_driver_probe(file->given.data, file->given.bytes);
	if (driver && strcmp(driver->name, "qcow2"))
		open_as(f, file, driver->name);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t bytes)
{
	struct file file = {.given = {.data = (u8 *)data, .bytes = bytes}};

	if (bytes < 16)
		return 0;
	rig_run(run, &file);
	mem_disk_fini(&file.disk);
	return 0;
}
