/* cowimg snapshot --verify: is the VM state of snapshots what was written?
 *
 * What is damaged is told on standard error, a line for each place; a line for each
 * snapshot goes to standard output.  Memory: 2 MiB whatever the snapshot holds. */
#include "block/img/progress.h"
#include "block/img/snapshot.h"

#include "block/driver.h"
#include "block/image.h"
#include "block/qcow2/snapshot.h"
#include "block/qcow2/vmstate_verify.h"

#include <errno.h>
#include <stdio.h>

#define MOST_LINES 100u /* about one snapshot */

struct verify {
	struct img *ctx;
	struct image *img;
	struct img_progress progress;
	const char *name;	/* of the snapshot */
	u64 before, bytes, all; /* VM state of those before, of it, of all */
	u64 places, unreadable; /* in it */
};

static void on_damage(void *arg, const char *part, u64 at, u64 bytes, int ret)
{
	struct verify *v = arg;
	char what[80], why[80] = "is damaged";

	v->places++;
	v->unreadable += ret != -EBADMSG;
	if (v->places > MOST_LINES)
		return;
	if (part)
		snprintf(what, sizeof(what), "%s", part);
	else
		snprintf(what, sizeof(what), "memory [0x%llx, 0x%llx)", (unsigned long long)at,
			 (unsigned long long)(at + bytes));
	if (ret != -EBADMSG)
		snprintf(why, sizeof(why), "cannot be read: %s", strerror(-ret));
	fprintf(stderr, "ERROR snapshot '%.*s': %s %s\n", QCOW2_SNAPSHOT_NAME, v->name, what, why);
	if (v->places == MOST_LINES)
		fprintf(stderr, "ERROR snapshot '%.*s': more than this is damaged\n",
			QCOW2_SNAPSHOT_NAME, v->name);
}

static bool on_progress(void *arg, u64 done, u64 total)
{
	struct verify *v = arg;
	u64 part = total ? (u64)((double)done / (double)total * (double)v->bytes) : 0;

	img_progress_set(&v->progress, v->before + MIN(part, v->bytes), v->all);
	return !v->progress.interrupted;
}

static int tell(struct verify *v, u64 checked)
{
	char size[32];

	format_size(size, checked);
	if (!v->places) {
		img_say(v->ctx, "Snapshot '%.*s': VM state is as it was written (%s checked)\n",
			QCOW2_SNAPSHOT_NAME, v->name, size);
		return IMG_OK;
	}
	img_say(v->ctx, "Snapshot '%.*s': VM state is damaged in %llu place%s\n",
		QCOW2_SNAPSHOT_NAME, v->name, (unsigned long long)v->places,
		v->places > 1 ? "s" : "");
	return v->unreadable < v->places ? IMG_CORRUPT : IMG_ERROR;
}

static int verify_one(struct verify *v, u32 index)
{
	const struct qcow2_snapshot *list;
	struct vmstate_verify walk = {.damage = on_damage, .progress = on_progress, .arg = v};
	struct error err = {0};
	int ret;

	(void)qcow2_snapshots(v->img, &list);
	v->name = list[index].name;
	v->bytes = MIN(list[index].vm_state_bytes, (u64)INT64_MAX / 2);
	v->places = v->unreadable = 0;
	if (!v->bytes) {
		img_say(v->ctx, "Snapshot '%.*s': no VM state\n", QCOW2_SNAPSHOT_NAME, v->name);
		return IMG_OK;
	}
	ret = qcow2_snapshot_show(v->ctx->f, v->img, index, &err);
	if (ret == 0)
		ret = qcow2_vmstate_verify(v->ctx->f, v->img, &walk, &err);
	v->before += v->bytes;
	if (ret < 0)
		return img_error(v->ctx, "Could not verify snapshot '%.*s': %s",
				 QCOW2_SNAPSHOT_NAME, v->name,
				 ret == -ECANCELED ? "interrupted" : err.text);
	return tell(v, walk.checked);
}

/* Damage found counts more than a state that could not be judged. */
static int verify_range(struct verify *v, u32 first, u32 end)
{
	const struct qcow2_snapshot *list;
	int code = IMG_OK;

	(void)qcow2_snapshots(v->img, &list);
	for (u32 i = first; i < end; i++)
		if (!add_ok(v->all, MIN(list[i].vm_state_bytes, (u64)INT64_MAX / 2), &v->all))
			v->all = UINT64_MAX;
	for (u32 i = first; i < end && !v->progress.interrupted; i++)
		code = MAX(code, verify_one(v, i));
	return code;
}

int snapshot_verify(struct img *ctx, struct image *img, const char *name, bool progress)
{
	struct verify v = {.ctx = ctx, .img = img};
	bool ours = img->driver == &qcow2_driver;
	const struct qcow2_snapshot *list;
	u32 first = 0, end = ours ? qcow2_snapshots(img, &list) : 0;
	int code;

	if (name) {
		int at = ours ? qcow2_snapshot_find(img, name, FIND_ID_OR_NAME) : -ENOENT;

		if (at < 0)
			return img_error(ctx, "Could not verify snapshot '%s': snapshot not found",
					 name);
		first = (u32)at;
		end = first + 1;
	}
	img_progress_begin(ctx, &v.progress, progress);
	code = verify_range(&v, first, end);
	img_progress_end(&v.progress, code == IMG_OK);
	return code;
}
