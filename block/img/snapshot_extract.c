/* cowimg snapshot -e: the disk of one snapshot as an image of its own.
 *
 * `convert -l` with another name: its engine copies, checks that the target is not
 * the source, and takes a target away that is not complete.  VM state belongs to
 * the machine, not to the disk, and stays behind; that is said. */
#include "block/img/convert.h"
#include "block/img/snapshot.h"

#include "block/driver.h"
#include "block/image.h"
#include "block/qcow2/snapshot.h"

#include <stdio.h>

int snapshot_extract_option(struct img *ctx, struct snapshot_extract *e, int letter)
{
	e->given = true;
	switch (letter) {
	case 'O': e->format = optarg; return IMG_OK;
	case 'p': e->progress = true; return IMG_OK;
	default: return img_add_options(ctx, &e->options, optarg, &e->help);
	}
}

/* How much VM state the snapshot has; an image that cannot be opened, or has no such
 * snapshot, is complained about. */
static int look_up(struct img *ctx, const struct snapshot_extract *e,
		   const struct img_source *source, u64 *vm_state_bytes)
{
	struct img_source how = *source;
	const struct qcow2_snapshot *list;
	struct image *img;
	int at = -1;

	how.metadata_only = how.no_backing = true;
	if (img_open(ctx, e->files[0], &how, &img))
		return IMG_ERROR;
	if (img->driver == &qcow2_driver)
		at = qcow2_snapshot_find(img, e->snapshot, FIND_ID_OR_NAME);
	if (at >= 0) {
		(void)qcow2_snapshots(img, &list);
		*vm_state_bytes = list[at].vm_state_bytes;
	}
	(void)image_close(ctx->f, img);
	if (at < 0)
		return img_error(ctx, "Could not extract snapshot '%s': snapshot not found",
				 e->snapshot);
	return IMG_OK;
}

int snapshot_extract(struct img *ctx, struct snapshot_extract *e, const struct img_source *source)
{
	struct convert c = {.ctx = ctx,
			    .names = e->files,
			    .n_names = 1,
			    .target = e->files[1],
			    .source = *source,
			    .out_format = e->format,
			    .options = e->options,
			    .snapshot = e->snapshot,
			    .sparse_bytes = 4096,
			    .workers = 8,
			    .progress = e->progress};
	u64 vm_state_bytes = 0;
	int code;

	e->options = (struct opts){0};
	code = e->help ? convert_help(&c) : look_up(ctx, e, source, &vm_state_bytes);
	if (code == IMG_OK && !e->help)
		code = convert_run(&c);
	opts_fini(&c.options);
	if (code == IMG_OK && vm_state_bytes)
		img_say(ctx, "Snapshot '%s' has VM state of %llu bytes, which stays behind\n",
			e->snapshot, (unsigned long long)vm_state_bytes);
	return code;
}
