/* Commands about the screen, who may see it, and what is pointed at on it. */
#ifndef MONITOR_SCREEN_H
#define MONITOR_SCREEN_H

#include "monitor/internal.h"

int cmd_screendump(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err);
int cmd_mouse_move(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err);
int cmd_mouse_button(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err);
int cmd_mouse_set(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err);
int cmd_set_password(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err);
int cmd_expire_password(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err);
/* `change vnc WHAT [password]` */
int cmd_change_vnc(struct cmd_ctx *ctx, const char *what, const char *password, struct error *err);

#endif
