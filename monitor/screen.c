/* Commands about the screen. */
#include "monitor/internal.h"

int cmd_screendump(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err)
{
	return vm_screendump(ctx->vm, a->text[0], a->given[1] ? a->text[1] : NULL, err);
}
