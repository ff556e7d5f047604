/* Commands for networks.  Thread: main. */
#include "monitor/net.h"

#include <errno.h>
#include <string.h>

int cmd_info_network(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err)
{
	vm_info_network(ctx->vm, ctx->out);
	return 0;
}

int cmd_info_usernet(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err)
{
	vm_info_usernet(ctx->vm, ctx->out);
	return 0;
}

/* One argument is the rule, of two the first names the network. */
int cmd_hostfwd_add(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err)
{
	bool named = a->given[1];

	vm_hostfwd_add(ctx->vm, named ? a->text[0] : NULL, a->text[named], ctx->out);
	return 0;
}

int cmd_hostfwd_remove(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err)
{
	bool named = a->given[1];

	vm_hostfwd_remove(ctx->vm, named ? a->text[0] : NULL, a->text[named], ctx->out);
	return 0;
}

int cmd_set_link(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err)
{
	bool up = !strcmp(a->text[1], "on");

	if (!up && strcmp(a->text[1], "off")) {
		print_to(ctx->out, "Expected 'on' or 'off'\n"
				   "Try \"help set_link\" for more information\n");
		return 0;
	}
	return vm_set_link(ctx->vm, a->text[0], up, err);
}

int cmd_netdev_add(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err)
{
	return vm_netdev_add(ctx->vm, a->text[0], err);
}

int cmd_netdev_del(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err)
{
	return vm_netdev_del(ctx->vm, a->text[0], err);
}
