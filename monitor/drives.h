/* Commands about drives and their images. */
#ifndef MONITOR_DRIVES_H
#define MONITOR_DRIVES_H

#include "monitor/internal.h"
#include "vmm/control_block.h"
#include "vmm/control_drives.h"

/* medium.c */
int cmd_block_resize(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err);
int cmd_block_set_io_throttle(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err);
int cmd_change(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err);
int cmd_eject(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err);

/* unlock.c */
int cmd_block_passwd(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err);
/* For those of one drive, if there are; always 0. */
int ask_passphrase(struct cmd_ctx *ctx, const char *device);
/* For that of an image for snapshot_blkdev; always 0. */
int ask_overlay(struct cmd_ctx *ctx, const struct vm_snapshot_blkdev *s);
int cmd_cont(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err);

#endif
