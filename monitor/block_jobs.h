/* Commands about disks in use (block_jobs.c), for the table. */
#ifndef MONITOR_BLOCK_JOBS_H
#define MONITOR_BLOCK_JOBS_H

#include "monitor/internal.h"

int cmd_snapshot_blkdev(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err);
int cmd_snapshot_blkdev_all(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err);
int cmd_snapshot_blkdev_internal(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err);
int cmd_snapshot_delete_blkdev_internal(struct cmd_ctx *ctx, const struct cmd_args *a,
					struct error *err);

#endif
