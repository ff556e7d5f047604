/* Commands for networks. */
#ifndef MONITOR_NET_H
#define MONITOR_NET_H

#include "monitor/internal.h"

int cmd_info_network(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err);
int cmd_info_usernet(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err);
int cmd_hostfwd_add(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err);
int cmd_hostfwd_remove(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err);
int cmd_set_link(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err);
int cmd_netdev_add(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err);
int cmd_netdev_del(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err);

#endif
