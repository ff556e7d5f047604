/* Commands about disks in use (block_jobs.c), for the table. */
#ifndef MONITOR_BLOCK_JOBS_H
#define MONITOR_BLOCK_JOBS_H

#include "monitor/internal.h"

int cmd_snapshot_blkdev(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err);
int cmd_snapshot_blkdev_all(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err);
int cmd_snapshot_blkdev_internal(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err);
int cmd_snapshot_delete_blkdev_internal(struct cmd_ctx *ctx, const struct cmd_args *a,
					struct error *err);
int cmd_snapshot_merge(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err);
int cmd_snapshot_revert(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err);
int cmd_commit(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err);
int cmd_block_commit(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err);
int cmd_block_stream(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err);
int cmd_block_job_cancel(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err);
int cmd_block_job_complete(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err);
int cmd_block_job_pause(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err);
int cmd_block_job_resume(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err);
int cmd_block_job_set_speed(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err);
int cmd_info_block_jobs(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err);

#endif
