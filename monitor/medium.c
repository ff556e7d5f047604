/* Commands about media, sizes and limits of drives.  Thread: main. */
#include "monitor/drives.h"
#include "monitor/screen.h"

static bool flag(const struct cmd_args *a, char letter)
{
	return a->flags & 1u << (letter - 'a');
}

int cmd_eject(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err)
{
	return vm_eject(ctx->vm, a->text[0], flag(a, 'f'), err);
}

int cmd_change(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err)
{
	struct vm_change c = {.device = a->text[0],
			      .file = a->text[1],
			      .format = a->text[2],
			      .mode = a->text[3],
			      .force = flag(a, 'f')};
	int ret;

	if (!strcmp(c.device, "vnc"))
		return cmd_change_vnc(ctx, c.file, c.format, err);
	ret = vm_change(ctx->vm, &c, err);
	return ret < 0 ? ret : ask_passphrase(ctx, c.device);
}

int cmd_block_resize(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err)
{
	return vm_block_resize(ctx->vm, a->text[0], a->number[1], err);
}

int cmd_block_set_io_throttle(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err)
{
	struct vm_throttle t = {.bps = {a->number[1], a->number[2], a->number[3]},
				.iops = {a->number[4], a->number[5], a->number[6]}};

	return vm_set_throttle(ctx->vm, a->text[0], &t, err);
}
