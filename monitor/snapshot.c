/* Commands about snapshots of the machine; savevm and delvm are waited for (wait.h).
 * Thread: main. */
#include "monitor/wait.h"

static int start_save(struct vm *vm, const void *arg, struct vm_waiter *w, struct error *err)
{
	return vm_savevm(vm, arg, w, err);
}

int cmd_savevm(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err)
{
	static const struct wait_ops ops = {.start = start_save,
					    .cancel = vm_snapshot_cancel,
					    .forget = vm_forget_waiter,
					    .before = "Error: "};
	struct vm_savevm options = {
		.tag = a->text[0],
		.detach = a->flags & 1u << ('d' - 'a'),
		.overlays = a->flags & 1u << ('x' - 'a'),
		.out = ctx->out,
	};

	return options.detach ? vm_savevm(ctx->vm, &options, NULL, err)
			      : run_waiting(ctx, &ops, &options, err);
}

int cmd_loadvm(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err)
{
	return vm_loadvm(ctx->vm, a->text[0], ctx->out, err);
}

static int start_delete(struct vm *vm, const void *arg, struct vm_waiter *w, struct error *err)
{
	return vm_delvm(vm, arg, w, err);
}

int cmd_delvm(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err)
{
	static const struct wait_ops ops = {.start = start_delete,
					    .cancel = vm_snapshot_cancel,
					    .forget = vm_forget_waiter,
					    .before = "Error: "};

	return run_waiting(ctx, &ops, a->text[0], err);
}

int cmd_snapshot_cancel(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err)
{
	return vm_snapshot_cancel(ctx->vm, err);
}

int cmd_info_snapshots(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err)
{
	return vm_info_snapshots(ctx->vm, ctx->out, err);
}

int cmd_info_snapshot_job(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err)
{
	vm_info_snapshot_job(ctx->vm, ctx->out);
	return 0;
}
