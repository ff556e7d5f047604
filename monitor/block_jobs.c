/* Commands about disks in use: external and internal snapshots of single disks.
 * Thread: main. */
#include "monitor/block_jobs.h"

#include <errno.h>

static bool flag(const struct cmd_args *a, char letter)
{
	return a->flags & 1u << (letter - 'a');
}

int cmd_snapshot_blkdev(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err)
{
	struct vm_snapshot_blkdev s = {.device = a->text[0],
				       .file = a->text[1],
				       .format = a->text[2],
				       .reuse = flag(a, 'n')};

	/* In the reference the file may be left out for a feature that never came. */
	if (!s.file)
		return err_set(err, -EINVAL, "Parameter 'snapshot-file' is missing");
	return vm_snapshot_blkdev(ctx->vm, &s, ctx->out, err);
}

int cmd_snapshot_blkdev_all(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err)
{
	return vm_snapshot_blkdev_all(ctx->vm, a->text[0], false, ctx->out, err);
}

int cmd_snapshot_blkdev_internal(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err)
{
	return vm_snapshot_blkdev_internal(ctx->vm, a->text[0], a->text[1], err);
}

int cmd_snapshot_delete_blkdev_internal(struct cmd_ctx *ctx, const struct cmd_args *a,
					struct error *err)
{
	return vm_snapshot_delete_blkdev_internal(ctx->vm, a->text[0], a->text[1], a->text[2], err);
}
