/* What an image is, as JSON: `cowimg info --output=json`.  Thread: the image's loop. */
#include "block/info/info.h"

#include "block/driver.h"
#include "block/graph.h"
#include "block/qcow2/bitmap.h"
#include "block/qcow2/qcow2.h"

static json_t *bitmaps_json(struct image *img)
{
	AUTO_FREE struct qcow2_bitmap *list = NULL;
	u32 n = qcow2_bitmaps_list(img, &list);
	json_t *all = n ? json_array() : NULL;

	for (u32 i = 0; i < n; i++) {
		json_t *o = json_object(), *flags = json_array();
		json_t *name = json_string(list[i].name);

		if (list[i].in_use)
			json_array_append_new(flags, json_string("in-use"));
		if (list[i].automatic)
			json_array_append_new(flags, json_string("auto"));
		json_object_set_new(o, "flags", flags);
		/* A name of other bytes than UTF-8 has no form in JSON. */
		json_object_set_new(o, "name", name ? name : json_string("?"));
		json_object_set_new(o, "granularity",
				    json_integer((json_int_t)list[i].granularity_bytes));
		json_array_append_new(all, o);
	}
	return all;
}

static json_t *qcow2_json(struct image *img, const struct qcow2_info *q)
{
	json_t *data = json_object(), *bitmaps = bitmaps_json(img);
	json_t *encrypt = info_encrypt_json(img);

	json_object_set_new(data, "compat", json_string(q->version == 2 ? "0.10" : "1.1"));
	json_object_set_new(data, "compression-type",
			    json_string(q->compression_type ? "zstd" : "zlib"));
	if (q->version >= 3)
		json_object_set_new(data, "lazy-refcounts", json_boolean(q->lazy_refcounts));
	if (bitmaps)
		json_object_set_new(data, "bitmaps", bitmaps);
	json_object_set_new(data, "refcount-bits", json_integer(q->refcount_bits));
	if (q->data_file) {
		json_object_set_new(data, "data-file", json_string(q->data_file));
		json_object_set_new(data, "data-file-raw", json_boolean(q->data_file_raw));
	}
	if (encrypt)
		json_object_set_new(data, "encrypt", encrypt);
	if (q->version >= 3) {
		json_object_set_new(data, "corrupt", json_boolean(q->corrupt));
		json_object_set_new(data, "extended-l2", json_boolean(q->extended_l2));
	}
	return json_pack("{s:s, s:o}", "type", "qcow2", "data", data);
}

json_t *info_json(struct image *img)
{
	json_t *o = json_object(), *snapshots = info_snapshots_json(img);
	struct qcow2_info q = {0};
	u64 disk_used;

	if (img->backing_format)
		json_object_set_new(o, "backing-filename-format", json_string(img->backing_format));
	if (snapshots)
		json_object_set_new(o, "snapshots", snapshots);
	json_object_set_new(o, "virtual-size", json_integer((json_int_t)img->bytes));
	json_object_set_new(o, "filename", json_string(img->name));
	if (img->driver == &qcow2_driver) {
		qcow2_get_info(img, &q);
		json_object_set_new(o, "cluster-size", json_integer(q.cluster_bytes));
	}
	json_object_set_new(o, "format", json_string(img->driver->name));
	if (info_disk_bytes(img, &disk_used))
		json_object_set_new(o, "actual-size", json_integer((json_int_t)disk_used));
	if (img->driver == &qcow2_driver)
		json_object_set_new(o, "format-specific", qcow2_json(img, &q));
	else if (img->driver == &luks_driver)
		json_object_set_new(o, "format-specific", info_luks_json(img));
	if (img->backing_name) {
		AUTO_FREE char *path = image_resolve_name(image_host_name(img), img->backing_name);

		json_object_set_new(o, "full-backing-filename", json_string(path));
		json_object_set_new(o, "backing-filename", json_string(img->backing_name));
	}
	if (info_is_encrypted(img))
		json_object_set_new(o, "encrypted", json_true());
	json_object_set_new(o, "dirty-flag", json_boolean(q.dirty));
	return o;
}
