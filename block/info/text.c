/* What an image is, for people: the text of `cowimg info` and of the monitor's
 * `info block -v`.  Thread: the image's loop. */
#include "block/info/info.h"

#include "base/opts.h"

#include "block/driver.h"
#include "block/file.h"
#include "block/graph.h"
#include "block/qcow2/bitmap.h"
#include "block/qcow2/qcow2.h"

bool info_disk_bytes(struct image *img, u64 *bytes)
{
	while (img->below)
		img = img->below;
	*bytes = 0;
	if (image_is_null(img))
		return true;
	return img->driver == &file_driver && file_allocated_bytes(img, bytes) == 0;
}

static void print_bitmaps(FILE *out, struct image *img)
{
	AUTO_FREE struct qcow2_bitmap *list = NULL;
	u32 n = qcow2_bitmaps_list(img, &list);

	if (n)
		fputs("    bitmaps:\n", out);
	for (u32 i = 0; i < n; i++) {
		fprintf(out, "        [%u]:\n            flags:\n", i);
		if (list[i].in_use)
			fputs("                [0]: in-use\n", out);
		if (list[i].automatic)
			fprintf(out, "                [%d]: auto\n", list[i].in_use);
		fprintf(out, "            name: %s\n            granularity: %llu\n", list[i].name,
			(unsigned long long)list[i].granularity_bytes);
	}
}

static void print_qcow2(FILE *out, struct image *img, const struct qcow2_info *q)
{
	fprintf(out, "Format specific information:\n    compat: %s\n    compression type: %s\n",
		q->version == 2 ? "0.10" : "1.1", q->compression_type ? "zstd" : "zlib");
	if (q->version >= 3)
		fprintf(out, "    lazy refcounts: %s\n", q->lazy_refcounts ? "true" : "false");
	print_bitmaps(out, img);
	fprintf(out, "    refcount bits: %u\n", q->refcount_bits);
	if (q->data_file)
		fprintf(out, "    data file: %s\n    data file raw: %s\n", q->data_file,
			q->data_file_raw ? "true" : "false");
	info_print_encrypt(out, img);
	if (q->version >= 3)
		fprintf(out, "    corrupt: %s\n    extended l2: %s\n",
			q->corrupt ? "true" : "false", q->extended_l2 ? "true" : "false");
}

void info_print(FILE *out, struct image *img)
{
	struct qcow2_info q = {0};
	bool qcow2 = img->driver == &qcow2_driver;
	char size[32], disk[32] = "unavailable";
	u64 disk_used;

	format_size(size, img->bytes);
	if (info_disk_bytes(img, &disk_used))
		format_size(disk, disk_used);
	if (qcow2)
		qcow2_get_info(img, &q);
	fprintf(out, "image: %s\nfile format: %s\nvirtual size: %s (%llu bytes)\ndisk size: %s\n",
		img->name, img->driver->name, size, (unsigned long long)img->bytes, disk);
	if (info_is_encrypted(img))
		fprintf(out, "encrypted: yes\n");
	if (qcow2)
		fprintf(out, "cluster_size: %u\n", q.cluster_bytes);
	if (q.dirty)
		fprintf(out, "cleanly shut down: no\n");
	if (img->backing_name) {
		AUTO_FREE char *path = image_resolve_name(image_host_name(img), img->backing_name);

		fprintf(out, "backing file: %s", img->backing_name);
		if (strcmp(path, img->backing_name))
			fprintf(out, " (actual path: %s)", path);
		fputc('\n', out);
		if (img->backing_format)
			fprintf(out, "backing file format: %s\n", img->backing_format);
	}
	info_print_snapshots(out, img);
	if (qcow2)
		print_qcow2(out, img, &q);
	else if (img->driver == &luks_driver)
		info_print_luks(out, img);
}
